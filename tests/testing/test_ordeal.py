"""The ordeal without a server: what its seed decides, how its models behave, how its account counts."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from fallback_plugin.testing.faults import FAILURES, SILENCES, Answer, CallTool, Fail
from fallback_plugin.testing.ordeal import Ordeal, OrdealScript, turn_of
from fallback_plugin.testing.ordeal_account import Account, Outcome, TurnAccount, side_by_side
from fallback_plugin.testing.provider import ProviderRequest

ORDEAL = Ordeal(seed=1, length=2000)


def failed(step):
    return not isinstance(step, Answer) and not (isinstance(step, CallTool) and step.then is None)


def request(*messages):
    return ProviderRequest(number=1, model="first", messages=messages, body={}, step=Answer(), arrived=time.monotonic())


def user(text):
    return {"role": "user", "content": [{"type": "text", "text": text}]}


TOOL = {"role": "tool", "content": "written"}


def test_the_same_seed_is_the_same_ordeal_and_another_is_not():
    def fates(seed):
        return [Ordeal(seed=seed).step(turn, number, 0) for turn in range(1, 100) for number in (1, 2)]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)


def test_three_requests_of_ten_fail_in_every_way():
    steps = [ORDEAL.step(turn, number, 0) for turn in ORDEAL.turns for number in (1, 2, 3)]
    failures = [step for step in steps if failed(step)]

    assert len(failures) / len(steps) == pytest.approx(0.3, abs=0.02)
    drawn = Counter(map(repr, failures))
    assert all(drawn[repr(way)] for way in ORDEAL.failures())
    assert len({repr(step.then) for step in failures if isinstance(step, CallTool)}) == 5


def test_every_known_way_of_failing_is_drawn_with_its_wait_cut():
    ways = ORDEAL.failures()

    assert len(ways) > len(FAILURES) + len(SILENCES)
    for way in (*FAILURES.values(), *SILENCES.values()):
        if isinstance(way, Fail) and way.headers:
            assert Fail(way.status, way.body, headers={"retry-after": "20"}) in ways
        else:
            assert way in ways


def test_a_tool_that_the_transcript_shows_as_run_is_not_called_again():
    calm = Ordeal(failing=0.0)
    turn = next(turn for turn in calm.turns if len(calm.marks(turn)) == 2)
    steps = [calm.step(turn, 1, done) for done in (0, 1, 2)]

    for mark, step in zip(calm.marks(turn), steps[:2], strict=True):
        assert mark in step.arguments["command"]
    assert steps[2] == Answer(f"turn {turn} is done")


def test_a_request_belongs_to_the_turn_that_its_transcript_has_come_to():
    calm = Ordeal(failing=0.0)
    turn = next(turn for turn in calm.turns if len(calm.marks(turn)) == 1)
    script = OrdealScript(calm)

    earlier = (user(calm.prompt(900)), TOOL, TOOL, {"role": "assistant", "content": "turn 900 is done"})
    steps = [
        script(request(*earlier, user(calm.prompt(turn)))),
        script(request(*earlier, user(calm.prompt(turn)), TOOL)),
        script(request(*earlier, user(calm.prompt(turn)), TOOL, user("continue"))),
        script(request(*earlier, user(calm.prompt(turn)), TOOL, user(calm.prompt(turn)))),
    ]

    assert [type(step) for step in steps] == [CallTool, Answer, Answer, CallTool]
    assert script.asked == {turn: ["first"] * 4}


@pytest.mark.parametrize(
    ("text", "turn"),
    [("turn 17: go on", 17), ("a reminder\nturn 17: go on", 17), ("continue", None), ("", None), ("turn x:", None)],
)
def test_a_prompt_names_its_turn(text, turn):
    assert turn_of(text) == turn


def turn_account(turn, outcome, *, alarms=0, seconds=1.0):
    return TurnAccount(turn=turn, outcome=outcome, seconds=seconds, requests=2, alarms=alarms)


def test_an_account_counts_every_ending_once():
    account = Account(
        turns=[
            turn_account(1, Outcome.ANSWERED),
            turn_account(2, Outcome.EXHAUSTED, alarms=1),
            turn_account(3, Outcome.EXHAUSTED, alarms=2),
            turn_account(4, Outcome.FAILED),
            turn_account(5, Outcome.SILENT),
            turn_account(6, Outcome.STUCK, seconds=11.0),
        ],
        doubled=["turn 2: go on"],
        repeated=["1.1", "1.2"],
    )
    lines = account.lines()

    assert [turn.turn for turn in account.lost] == [4, 5, 6]
    assert lines["answered"] == "1"
    assert lines["exhausted, said once"] == "1"
    assert lines["exhausted, not said once"] == "1"
    assert lines["lost"] == "3"
    assert lines["user messages doubled"] == "1"
    assert lines["tools run twice"] == "2"
    assert lines["seconds in all"] == "16"


def test_accounts_stand_side_by_side():
    one = Account(turns=[turn_account(1, Outcome.ANSWERED)])
    two = Account(turns=[turn_account(1, Outcome.STUCK)])

    header, *rows = side_by_side({"nobody": one, "ours": two}).splitlines()

    assert header.split() == ["nobody", "ours"]
    assert next(row for row in rows if row.startswith("lost")).split() == ["lost", "0", "1"]
    assert len({len(row) for row in (header, *rows)}) == 1
