"""Where prompts go: the first route that is not out, without moving what the session wants (design.md, rule 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.actions import Announce, NoticeType
from fallback_plugin.core.events import AssistantMessage, MessageUpdated, PromptRouted, UserMessage
from fallback_plugin.core.failure import Kind
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.core.record import RESTING_PHASES, Attempt, Phase, Session, Turn
from fallback_plugin.core.routing import LONG_AGO, Prompt, RouteChoice, Standing, choose_route, on_prompt_routed
from fallback_plugin.core.session import step
from fallback_plugin.core.state import FallbackState, create_state, is_cooling, restore_state, snapshot_state

SES = "ses_1"
PRIMARY, A, B, OTHER = "one/primary", "two/a", "three/b", "four/other"
POLICY = Policy(primary=PRIMARY, chain=(A, B))
FREE, PROVIDER_OUT, OUT = Standing.FREE, Standing.PROVIDER_OUT, Standing.OUT
NOW = 1000.0


def prompt(route=PRIMARY, **fields):
    return Prompt(session_id=SES, route=route, **fields)


def away(original=PRIMARY, current=A):
    state = replace(create_state(original), current_model=current, failed_models={original: NOW})
    return Session(session_id=SES, state=state)


def choose(asked, *out, session=None, policy=POLICY, usual=None, provider_out=()):
    def standing_of(route):
        return OUT if route in out else PROVIDER_OUT if route in provider_out else FREE

    return choose_route(session, asked, policy, standing_of, usual=usual)


def choice(wanted, route=None):
    return RouteChoice(wanted=wanted, route=route or wanted)


TURN = Turn(user=UserMessage(message_id="u1", created_wall=1.0))
SUBAGENT = Session(session_id=SES, parent_id="ses_0")
TABLE = {
    "healthy": (prompt(), (), {}, choice(PRIMARY)),
    "out": (prompt(), (PRIMARY,), {}, choice(PRIMARY, A)),
    "the next is out too": (prompt(), (PRIMARY, A), {}, choice(PRIMARY, B)),
    "named by the host in every prompt": (prompt(named=True), (PRIMARY,), {}, choice(PRIMARY, A)),
    "all are out": (prompt(), (PRIMARY, A, B), {}, choice(PRIMARY)),
    "by the word of another model": (prompt(), (), {"provider_out": (PRIMARY,)}, choice(PRIMARY, A)),
    "its provider is out, and the others": (prompt(), (A, B), {"provider_out": (PRIMARY,)}, choice(PRIMARY)),
    "only a provider's word stands against one": (prompt(), (PRIMARY, A), {"provider_out": (B,)}, choice(PRIMARY, B)),
    "a healthy one before one whose provider is out": (
        prompt(),
        (PRIMARY,),
        {"provider_out": (A,)},
        choice(PRIMARY, B),
    ),
    "picked by hand": (prompt(OTHER, named=True), (OTHER,), {}, choice(OTHER)),
    "not named, so not picked": (prompt(OTHER), (OTHER,), {}, choice(OTHER, A)),
    "the agent's usual": (prompt(OTHER, named=True), (OTHER,), {"usual": OTHER}, choice(OTHER, A)),
    "the session's own": (prompt(OTHER, named=True), (OTHER,), {"session": away(OTHER)}, choice(OTHER, A)),
    "picked while away": (prompt(B, named=True), (PRIMARY, B), {"session": away()}, choice(B)),
    "away, on the last-used model": (prompt(A), (PRIMARY,), {"session": away()}, choice(PRIMARY, A)),
    "away, and the original is back": (prompt(A), (), {"session": away()}, choice(PRIMARY)),
    "away, named, and the original is back": (prompt(A, named=True), (), {"session": away()}, choice(PRIMARY)),
    "away, and the stand-in is out too": (prompt(A), (PRIMARY, A), {"session": away()}, choice(PRIMARY, B)),
    "away, and all are out": (prompt(A), (PRIMARY, A, B), {"session": away()}, choice(PRIMARY)),
    "a resumption": (prompt(A, message_id="u1"), (A,), {"session": away()}, choice(A)),
    "a resumption in an unknown session": (prompt(A, message_id="u1"), (A,), {}, choice(A)),
    "a subagent's first prompt": (prompt(message_id="u1"), (PRIMARY,), {"session": SUBAGENT}, choice(PRIMARY, A)),
    "a subagent's first prompt on its parent's model": (
        prompt(OTHER, message_id="u1", named=True),
        (OTHER,),
        {"session": SUBAGENT},
        choice(OTHER, A),
    ),
    "a subagent's turn, resumed": (
        prompt(A, message_id="u1"),
        (A,),
        {"session": replace(SUBAGENT, turn=TURN)},
        choice(A),
    ),
    "no chain": (prompt(), (PRIMARY,), {"policy": Policy()}, choice(PRIMARY)),
    "switched off": (prompt(), (PRIMARY,), {"policy": replace(POLICY, enabled=False)}, choice(PRIMARY)),
    "the chain begins with the model itself": (
        prompt(),
        (PRIMARY,),
        {"policy": replace(POLICY, chain=(PRIMARY, A))},
        choice(PRIMARY, A),
    ),
}


@pytest.mark.parametrize(("asked", "out", "options", "expected"), TABLE.values(), ids=TABLE)
def test_a_prompt_goes(asked, out, options, expected):
    assert choose(asked, *out, **options) == expected


ROUTES = (PRIMARY, A, B, OTHER)
routes = st.sampled_from(ROUTES)
policies = st.builds(
    Policy,
    primary=st.none() | routes,
    chain=st.lists(routes, unique=True, max_size=4).map(tuple),
    enabled=st.sampled_from([True, True, True, False]),
)
sessions = st.none() | st.builds(
    Session,
    session_id=st.just(SES),
    state=st.none() | st.builds(FallbackState, original_model=routes, current_model=routes),
    turn=st.sampled_from([None, TURN]),
    parent_id=st.sampled_from([None, "ses_0"]),
)
prompts = st.builds(
    Prompt,
    session_id=st.just(SES),
    route=routes,
    named=st.booleans(),
    message_id=st.sampled_from([None, None, "u1"]),
)
standings = st.fixed_dictionaries({route: st.sampled_from(Standing) for route in ROUTES})


def is_picked(asked, session, policy, usual):
    original = session.state.original_model if session and session.state else None
    return asked.named and asked.message_id is None and asked.route not in (policy.primary, usual, original)


def is_resumption(asked, session):
    return asked.message_id is not None and (session is None or session.turn or session.parent_id is None)


@given(sessions, prompts, policies, standings, st.none() | routes)
def test_a_prompt_is_sent_past_a_route_that_is_out_to_one_that_is_not(session, asked, policy, standing, usual):
    chosen = choose_route(session, asked, policy, standing.__getitem__, usual=usual)
    original = session.state.original_model if session and session.state else asked.route

    assert chosen.wanted in (asked.route, original)
    assert chosen.route in (asked.route, original, *policy.chain)
    if is_picked(asked, session, policy, usual) and chosen.wanted == asked.route:
        assert chosen.route == asked.route
    elif not policy.enabled or not policy.chain or is_resumption(asked, session):
        assert chosen == choice(asked.route)
    else:
        best = min(map(list(Standing).index, (standing[route] for route in (chosen.wanted, *policy.chain))))
        assert standing[chosen.route] is list(Standing)[best]
        assert chosen.route == chosen.wanted or standing[chosen.wanted] is not standing[chosen.route]


@given(sessions, prompts, policies, st.none() | routes)
def test_while_nothing_is_out_a_prompt_goes_where_it_wants(session, asked, policy, usual):
    chosen = choose_route(session, asked, policy, lambda route: FREE, usual=usual)

    assert chosen.route == chosen.wanted


# ── what the session keeps of it ─────────────────────────────────────────────────────────────────────────────────

RULES = Rules(default=POLICY)


def routed(wanted=PRIMARY, route=A, returns_at=NOW + 60):
    return PromptRouted(session_id=SES, wanted=wanted, route=route, kind=Kind.QUOTA_EXHAUSTED, returns_at=returns_at)


def user(route, message_id="u2", at=2.0):
    message = UserMessage(message_id=message_id, created_wall=at, route=route, agent="build")
    return MessageUpdated(session_id=SES, message=message)


def answered(route, message_id="m2", parent="u2"):
    message = AssistantMessage(message_id=message_id, parent_id=parent, route=route, finish="stop", completed=True)
    return MessageUpdated(session_id=SES, message=message)


def with_text(session):
    partials = tuple(replace(partial, has_text=True) for partial in session.attempt.partials)
    return replace(session, attempt=replace(session.attempt, partials=partials, first_token=True))


def answer(session, route, message_id="m2", parent="u2"):
    """The session after an answer with text, and what the end of it led to."""
    begun = replace(answered(route, message_id, parent).message, finish=None, completed=False)
    session = step(session, MessageUpdated(session_id=SES, message=begun), NOW, RULES).session
    return step(with_text(session), answered(route, message_id, parent), NOW, RULES)


def notices(taken):
    return [action for action in taken.actions if isinstance(action, Announce)]


def test_the_original_stays_wanted_and_is_not_blamed_anew():
    taken = on_prompt_routed(Session(session_id=SES), routed(), NOW)
    state = taken.session.state

    assert (state.original_model, state.current_model) == (PRIMARY, A)
    assert state.failed_models == {PRIMARY: LONG_AGO}
    assert not is_cooling(state, PRIMARY, NOW, 60.0)
    assert restore_state(snapshot_state(state)) == state


def test_what_was_known_of_the_session_is_kept():
    state = replace(
        create_state(PRIMARY), failed_models={PRIMARY: NOW - 5, B: NOW - 9}, cooling={"three": NOW + 9}, generation=7
    )
    taken = on_prompt_routed(Session(session_id=SES, state=state, past_turns=("u0",)), routed(), NOW)

    assert taken.session.state.failed_models == {PRIMARY: NOW - 5, B: NOW - 9}
    assert taken.session.state.cooling == {"three": NOW + 9}
    assert taken.session.state.generation == 7
    assert taken.session.past_turns == ("u0",)


def test_the_user_is_told_once_and_the_log_each_time():
    first = on_prompt_routed(Session(session_id=SES), routed(), NOW)
    again = on_prompt_routed(first.session, routed(), NOW + 1)
    elsewhere = on_prompt_routed(again.session, routed(route=B), NOW + 2)

    [told], [repeated], [other] = (notices(taken) for taken in (first, again, elsewhere))
    assert (told.notice, told.route, told.next_route, told.toast) == (NoticeType.SKIPPED, PRIMARY, A, True)
    assert (told.failure.kind, told.failure.retry_at) == (Kind.QUOTA_EXHAUSTED, NOW + 60)
    assert repeated.toast is False
    assert other.toast is True


def test_the_prompt_on_the_stand_in_keeps_the_original_wanted():
    session = on_prompt_routed(Session(session_id=SES), routed(), NOW).session
    session = step(session, user(A), NOW, RULES).session
    done = answer(session, A)

    assert done.session.phase is Phase.IDLE
    assert done.session.state.original_model == PRIMARY
    assert notices(done) == [], "the stand-in has answered, nothing is back"
    assert choose(prompt(A), PRIMARY, session=done.session) == choice(PRIMARY, A)


def test_the_original_is_said_to_be_back_when_it_answers_again_and_only_once():
    session = on_prompt_routed(Session(session_id=SES), routed(), NOW).session
    session = answer(step(session, user(A), NOW, RULES).session, A).session
    assert choose(prompt(A), session=session) == choice(PRIMARY)

    session = step(session, user(PRIMARY, "u3", 3.0), NOW, RULES).session
    back = answer(session, PRIMARY, "m3", "u3")
    [notice] = notices(back)
    assert (notice.notice, notice.route, notice.detail, notice.toast) == (
        NoticeType.RECOVERED,
        PRIMARY,
        "is back",
        True,
    )

    session = step(back.session, user(PRIMARY, "u4", 4.0), NOW, RULES).session
    assert notices(answer(session, PRIMARY, "m4", "u4")) == []


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in RESTING_PHASES])
def test_a_prompt_that_is_routed_while_a_turn_runs_leaves_that_turn_alone(phase):
    session = replace(away(B, B), phase=phase, turn=TURN, attempt=Attempt(route=B, last_activity_at=NOW))
    taken = step(session, routed(), NOW, RULES)

    assert taken.session is session
    assert [notice.notice for notice in notices(taken)] == [NoticeType.SKIPPED]


@pytest.mark.parametrize("phase", sorted(RESTING_PHASES))
def test_in_every_phase_at_rest_the_session_is_away_from_then_on(phase):
    taken = step(Session(session_id=SES, phase=phase, turn=TURN), routed(), NOW, RULES)

    assert taken.session.phase is phase
    assert (taken.session.state.original_model, taken.session.state.current_model) == (PRIMARY, A)
