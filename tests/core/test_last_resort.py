"""Where nothing else is left, a route that is out by our own guess is asked; one that is known to be out is not."""

from __future__ import annotations

import pytest

from fallback_plugin.core.actions import Announce, NoticeType
from fallback_plugin.core.events import AssistantMessage, MessageUpdated, SessionStatusChanged, UserMessage
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import Session
from fallback_plugin.core.session import step

PRIMARY, A, B = "one/primary", "two/a", "three/b"
POLICY = Policy(chain=(A, B), cooldown_seconds=60.0)
NOW = 100.0


def fail(outages, guesses, policy=POLICY):
    """The notice of a session whose primary fails while some routes are out."""
    rules = Rules(default=policy, outages=outages, guesses=frozenset(guesses))
    user = UserMessage(message_id="u1", created_wall=1.0, agent="build", route=PRIMARY)
    answer = AssistantMessage(message_id="m1", parent_id="u1", route=PRIMARY, agent="build")
    retrying = SessionStatusChanged(
        session_id="s", status="retry", attempt=1, facts=Facts(message="Rate limit reached")
    )
    session, notices = Session(session_id="s"), []
    for event in (*(MessageUpdated(session_id="s", message=message) for message in (user, answer)), retrying):
        done = step(session, event, NOW, rules)
        session = done.session
        notices += [action for action in done.actions if isinstance(action, Announce)]

    [notice] = notices
    return notice


@pytest.mark.parametrize(
    ("out", "guesses", "asked"),
    [
        ({}, (), A),
        ({A: NOW + 50}, (), B),
        ({A: NOW + 50}, (A,), B),
        ({A: NOW + 50, B: NOW + 50}, (A,), A),
        ({A: NOW + 50, B: NOW + 50}, (B,), B),
        ({A: NOW + 50, B: NOW + 50}, (A, B), A),
        ({A: NOW + 50, B: NOW + 50}, (PRIMARY,), None),
        ({A: NOW + 50, B: NOW + 50}, (), None),
        ({A: NOW + 50, "three": NOW + 50}, (A,), B),
    ],
)
def test_a_guess_does_not_end_a_turn(out, guesses, asked):
    notice = fail(out, guesses)

    assert notice.notice is (NoticeType.FAILURE if asked else NoticeType.EXHAUSTED)
    assert notice.next_route == asked


def test_the_limit_of_attempts_does():
    policy = Policy(chain=(A, B), max_fallback_attempts=0)

    assert fail({A: NOW + 50, B: NOW + 50}, (A, B), policy).notice is NoticeType.EXHAUSTED


def test_whoever_is_told_that_all_is_over_is_told_what_the_fleet_knows():
    notice = fail({A: NOW + 500, B: NOW + 400}, (), Policy(chain=(A, B), cooldown_seconds=1000.0))

    assert notice.returns_at == NOW + 400
