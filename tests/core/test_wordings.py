"""Finding a pattern by the literal it demands must lose no match."""

import re

import pytest

from fallback_plugin.core.error_codes import CODE_ROWS
from fallback_plugin.core.error_numbers import NUMBER_ROWS, STATUS_ROWS
from fallback_plugin.core.error_phrases import PHRASES
from fallback_plugin.core.wordings import demanded, wordings

PATTERNS = sorted({pattern for row in PHRASES for _, pattern in row.wordings.patterns})


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        (r"insufficient (?:\w{1,9} )?balance", ("insufficient ",)),
        (r"quotas? exceeded", (" exceeded",)),
        (r"(?:server|engine) busy", (" busy",)),
        (r"(?:rate limit|throttle)\b", ("rate limit", "throttle")),
        (r"overload|capacity", ("overload", "capacity")),
        (r"x?y*\d+", ()),
        (r"a\.b\(c\)", ("a.b(c)",)),
        (r"(?<!not )limit", ("limit",)),
        (r"[abc]{3}quota", ("quota",)),
    ],
)
def test_the_demanded_literal(pattern, literals):
    assert demanded(pattern) == literals


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_compiles_demands_a_literal_and_is_bounded(pattern):
    re.compile(pattern)
    assert demanded(pattern)
    bare = re.sub(r"\[[^\]]*\]|\\.", "x", pattern)
    assert not re.search(r"\)[*+]|\}[*+{]", bare), "a repeated group repeats"
    assert not re.search(r"\.[*+]", bare), "an unbounded gap"


def test_continued_lines_are_one_pattern():
    table = wordings(
        r"""
        one (?:two|\
            three)
        four <tail>
        """,
        tail="five",
    )
    assert [pattern for _, pattern in table.patterns] == ["one (?:two|three)", "four five"]
    assert table.found_in("one three")
    assert not table.found_in("one four")


def test_every_row_names_its_source():
    for row in (*CODE_ROWS, *NUMBER_ROWS, *STATUS_ROWS, *PHRASES):
        assert row.source.strip()


def test_no_code_has_two_meanings():
    seen = {}
    for row in CODE_ROWS:
        for code in row.codes.split():
            folded = re.sub(r"[^a-z0-9]", "", code.lower())
            assert seen.setdefault(folded, row.kind) is row.kind, code
