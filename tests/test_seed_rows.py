"""SEED_ROWS.md: every row of the seeds is there once, with tests that exist, or with a reason."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = TESTS / "SEED_ROWS.md"
LINE = re.compile(r"\| (?P<row>[A-Z][\w-]*) \| (?P<tests>.*?) \| (?P<remark>.*?) \|")
NAMED = re.compile(r"`([\w/.]+\.py)::(\w+)`")
FAMILIES = {
    "A{:02}": 26,
    "K-A{}": 8,
    "W{:02}": 35,
    "K-W{}": 13,
    "H{:02}": 13,
    "K-H{}": 10,
    "O{:02}": 26,
    "S{}": 22,
    "K{:02}": 33,
    "X{:02}": 17,
}
ROWS = [form.format(number) for form, count in FAMILIES.items() for number in range(1, count + 1)]


def lines():
    """(row, names of tests, remark) of each line of the table."""
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| Row")]
    found = [LINE.fullmatch(line) for line in rows]
    assert all(found), [line for line, match in zip(rows, found, strict=True) if not match]
    return [(match["row"], NAMED.findall(match["tests"]), match["remark"].strip()) for match in found]


@cache
def collected(path):
    """What pytest collects at the top of a file: functions, classes, and names given to a class."""
    names = set()
    for node in ast.parse((TESTS / path).read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.update({node.name} if node.name.startswith(("test_", "Test")) else ())
        elif isinstance(node, ast.Assign):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            names.update(name for name in targets if name.startswith("Test"))

    return names


def test_every_row_is_there_once_and_in_order():
    assert [row for row, _, _ in lines()] == ROWS


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_tests_that_exist_or_a_reason(row):
    [(tests, remark)] = [(tests, remark) for name, tests, remark in lines() if name == row]

    assert tests or len(remark.split()) >= 3, "neither a test nor a reason"
    for path, name in tests:
        assert (TESTS / path).is_file(), path
        assert name in collected(path), f"{path}::{name} is not collected"

    assert len(tests) == len(set(tests))


def test_a_test_that_carries_a_rows_id_is_in_its_line():
    named = {(row, name) for row, tests, _ in lines() for _, name in tests}
    missing = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in collected(path.relative_to(TESTS).as_posix()):
            missing += [(row, name) for row in rows_in(name) if (row, name) not in named]

    assert missing == []


def rows_in(name):
    """The rows that a test's name carries: test_k_w1_a_stub…, test_o21_cooldown…, test_…_a15_a16."""
    marks = re.findall(r"(?<=_)(k_[awh]\d+|kh\d+|[awhoksx]\d+)(?=_|$)", name)
    for mark in marks:
        lettered = re.fullmatch(r"k_?([awh])(\d+)", mark)
        row = f"K-{lettered[1].upper()}{lettered[2]}" if lettered else mark[0].upper() + mark[1:]
        if row in ROWS:
            yield row


def test_names_carry_rows():
    assert list(rows_in("test_k_w1_a_stub")) == ["K-W1"]
    assert list(rows_in("test_twenty_savers_a15_a16")) == ["A15", "A16"]
    assert list(rows_in("test_kh5_users")) == ["K-H5"]
    assert list(rows_in("test_what_a_400_is")) == []


def test_the_check_can_fail():
    assert "test_that_is_not_there" not in collected("test_seed_rows.py")
    assert "test_names_carry_rows" in collected("test_seed_rows.py")
    assert LINE.fullmatch("| A01 | reason |") is None
