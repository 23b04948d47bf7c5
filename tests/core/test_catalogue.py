"""The labelled errors: measured, printed, and held to the goals."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fallback_plugin.core.classify import classify
from fallback_plugin.core.failure import Facts

DATA = Path(__file__).parent.parent / "data"
WALL = 1_795_247_821.0


def facts_of(record):
    return Facts(
        provider=record["provider"],
        status=record["http_status"],
        headers=record["headers"] or {},
        body=record["body"],
        name=record["host_error_name"],
        message=record["message"],
        observed_at_wall=WALL,
    )


def records(name):
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


@dataclass
class Figures:
    caught: int = 0
    missed: int = 0
    false_alarms: int = 0
    left_alone: int = 0
    kinds: int = 0
    total: int = 0
    hints: int = 0
    known_hints: int = 0
    wrong: list = field(default_factory=list)

    def take(self, record):
        failure = classify(facts_of(record), now=100.0)
        match record["should_fallback"], failure.should_fallback:
            case True, True:
                self.caught += 1
            case True, False:
                self.missed += 1
            case False, True:
                self.false_alarms += 1
            case _:
                self.left_alone += 1

        self.total += 1
        self.kinds += failure.kind == record["kind"]
        if record["retry_after_s"] is not None:
            self.known_hints += 1
            near = failure.retry_at is not None and abs(failure.retry_at - 100.0 - record["retry_after_s"]) <= 2
            self.hints += near

        if failure.kind != record["kind"] or failure.should_fallback != record["should_fallback"]:
            self.wrong.append((record["id"], record["kind"], failure.kind.value, failure.reason))

    @property
    def recall(self):
        return self.caught / (self.caught + self.missed)

    @property
    def false_positive_rate(self):
        return self.false_alarms / (self.false_alarms + self.left_alone)

    def __str__(self):
        return (
            f"{self.total} errors: recall {self.recall:.3f}, false positives {self.false_positive_rate:.3f},"
            f" kind {self.kinds / self.total:.3f}, hints {self.hints} of {self.known_hints}"
        )


def measure(name):
    figures = Figures()
    for record in records(name):
        figures.take(record)

    return figures


@pytest.mark.parametrize("name", ["provider_errors.jsonl", "regression_errors.jsonl"])
def test_the_goals_are_met(name, capsys):
    figures = measure(name)
    with capsys.disabled():
        print(f"\n{name}: {figures}")

    assert figures.recall >= 0.97, figures.wrong
    assert figures.false_positive_rate <= 0.03, figures.wrong
    assert figures.kinds / figures.total >= 0.95, figures.wrong
    assert figures.hints / figures.known_hints >= 0.95


def test_every_record_of_every_provider_classifies_alike_twice():
    for record in records("provider_errors.jsonl") + records("regression_errors.jsonl"):
        assert classify(facts_of(record), now=5.0) == classify(facts_of(record), now=5.0)


def test_codes_of_a_provider_are_no_crutch():
    """Without the provider's id, as from a host that doesn't say it, nearly everything still holds."""
    figures = Figures()
    for record in records("provider_errors.jsonl"):
        figures.take({**record, "provider": None})

    assert figures.recall >= 0.97, figures.wrong
    assert figures.false_positive_rate <= 0.03, figures.wrong
    assert figures.kinds / figures.total >= 0.95, figures.wrong


@pytest.mark.parametrize("part", ["body", "message", "http_status"])
def test_no_single_part_of_the_evidence_carries_everything(part):
    """Hosts drop parts. What is left must still mostly tell whether to fall back."""
    figures = Figures()
    for record in records("provider_errors.jsonl"):
        rest = {**record, part: None}
        if rest["body"] is not None or rest["message"] is not None:
            figures.take(rest)

    assert figures.recall >= 0.93, figures.wrong
    assert figures.false_positive_rate <= 0.11, figures.wrong
