"""A session with a hop under way as plain JSON: the intent that outlives the process.

Only what is needed to finish the hop is kept: whose turn, where it stands in its chain, what it has left behind and
where it was going. The user's words stay with the host; of what a message carries, only what a dispatch must repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fallback_plugin.core.actions import RouteFailure
from fallback_plugin.core.events import UserMessage
from fallback_plugin.core.failure import Failure, Kind, Scope
from fallback_plugin.core.record import Attempt, Ending, Hop, Partial, Phase, Session, Subagent, Turn
from fallback_plugin.core.state import FallbackPlan, restore_state, snapshot_state

Json = Mapping[str, Any]


def snapshot_session(session: Session) -> dict[str, Any]:
    """The session's hop as JSON values; `restore_session` gives it back.

    Raises:
        ValueError: no hop is under way.
    """
    turn, hop, state = session.turn, session.hop, session.state
    if turn is None or hop is None or state is None:
        message = "only a session with a hop under way has an intent"
        raise ValueError(message)

    partials = session.attempt.partials if session.attempt else ()
    return {
        "session_id": session.session_id,
        "user": _user_to_json(turn.user),
        "retired": list(turn.retired),
        "visible": turn.visible,
        "failures": [{"route": failed.route, **_failure_to_json(failed.failure)} for failed in turn.failures],
        "state": snapshot_state(state),
        "plan": {
            "failed_model": hop.plan.failed_model,
            "new_model": hop.plan.new_model,
            "new_index": hop.plan.new_index,
            "generation": hop.plan.generation,
        },
        "failure": _failure_to_json(hop.failure),
        "failed_message": hop.user_message_id,
        "partials": [_partial_to_json(partial) for partial in partials],
        "parent_id": session.parent_id,
        "compacting": session.compacting,
        "lineage": list(session.lineage),
        "waiting": session.phase is Phase.WAITING,
        "resumes": hop.resumes,
        "subagents": [_subagent_to_json(known) for known in session.subagents if known.pending],
    }


def restore_session(value: Json) -> Session:
    """The session that the snapshot was taken of, waiting to hear from the host what became of its hop.

    Clocks of the process that wrote it are gone, and with them every cooldown that was counted on them; what the fleet
    knows about health stands elsewhere.

    Raises:
        KeyError, TypeError, ValueError: the value is not a snapshot.
    """
    failure = _failure_from_json(value["failure"])
    plan = FallbackPlan(**value["plan"])
    state = restore_state({**value["state"], "failed_models": {}, "cooling": {}})
    turn = Turn(
        user=UserMessage(**value["user"]),
        retired=tuple(value["retired"]),
        visible=bool(value["visible"]),
        failures=tuple(
            RouteFailure(route=failed["route"], failure=_failure_from_json(failed)) for failed in value["failures"]
        ),
    )
    attempt = Attempt(
        route=plan.failed_model,
        last_activity_at=0.0,
        partials=tuple(_partial_from_json(partial) for partial in value["partials"]),
    )
    waiting = bool(value.get("waiting"))
    hop = Hop(
        plan=plan,
        failure=failure,
        # Whether the abort that halts it was sent is not known.
        ending=Ending.ABORT if waiting else Ending.ENDED,
        user_message_id=value["failed_message"],
        resumes=bool(value.get("resumes")),
    )
    return Session(
        session_id=value["session_id"],
        phase=Phase.WAITING if waiting else Phase.DISPATCHING,
        state=state,
        turn=turn,
        attempt=attempt,
        hop=hop,
        parent_id=value["parent_id"],
        compacting=bool(value.get("compacting")),
        lineage=tuple(value.get("lineage", ())),
        subagents=tuple(_subagent_from_json(known) for known in value.get("subagents", ())),
    )


def _user_to_json(user: UserMessage) -> dict[str, Any]:
    return {
        "message_id": user.message_id,
        "created_wall": user.created_wall,
        "agent": user.agent,
        "route": user.route,
        "carried": dict(user.carried),
        "compaction": user.compaction,
    }


def _subagent_to_json(subagent: Subagent) -> dict[str, Any]:
    return {"child_id": subagent.child_id, "part_id": subagent.part_id}


def _subagent_from_json(value: Json) -> Subagent:
    return Subagent(child_id=str(value["child_id"]), part_id=value["part_id"], failed=True)


def _failure_to_json(failure: Failure) -> dict[str, Any]:
    return {
        "kind": failure.kind.value,
        "scope": failure.scope.value,
        "should_fallback": failure.should_fallback,
        "reason": failure.reason,
    }


def _failure_from_json(value: Json) -> Failure:
    return Failure(
        kind=Kind(value["kind"]),
        scope=Scope(value["scope"]),
        should_fallback=bool(value["should_fallback"]),
        reason=str(value["reason"]),
    )


def _partial_to_json(partial: Partial) -> dict[str, Any]:
    return {
        "message_id": partial.message_id,
        "has_text": partial.has_text,
        "has_finished_tool": partial.has_finished_tool,
        "tail_parts": list(partial.tail_parts),
        "discarded": partial.discarded,
    }


def _partial_from_json(value: Json) -> Partial:
    return Partial(
        message_id=str(value["message_id"]),
        has_text=bool(value["has_text"]),
        has_finished_tool=bool(value["has_finished_tool"]),
        tail_parts=tuple(value["tail_parts"]),
        discarded=bool(value.get("discarded")),
    )
