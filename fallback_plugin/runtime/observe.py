"""What people and machines are told: one sentence and one JSON object for each notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fallback_plugin.core.actions import Announce, NoticeType, RouteFailure
from fallback_plugin.core.failure import Failure
from fallback_plugin.runtime.host import Toast

Observer = Callable[[Announce, float], None]
"""Called with each notice and the time (monotonic seconds) at which it was made."""


def format_wait(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"

    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"

    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"

    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def describe(notice: Announce, now: float) -> str:
    """The notice as one human sentence, without secrets or prompt text."""
    return _SENTENCES[notice.notice](notice, now)


def _failed(notice: Announce, now: float) -> str:
    what = _explain(notice.failure, now)
    if notice.next_route is not None:
        return f"{notice.route} failed: {what}; going on with {notice.next_route}"

    return f"{notice.route or 'a model'} failed: {what}; {notice.detail or 'left to the host'}"


def _hopped(notice: Announce, now: float) -> str:
    detail = f"; {notice.detail}" if notice.detail else ""
    return f"{notice.route} → {notice.next_route} ({_explain(notice.failure, now)}){detail}"


def _exhausted(notice: Announce, now: float) -> str:
    tried = "; ".join(_route_failure(failure, now) for failure in notice.failures)
    back = "" if notice.returns_at is None else f". Earliest back in {format_wait(notice.returns_at - now)}"
    limit = " (max_fallback_attempts)" if notice.detail == "maxAttemptsReached" else ""
    return f"every model has failed{limit}: {tried}{back}"


def _recovered(notice: Announce, now: float) -> str:
    return f"{notice.route} {notice.detail}"


def _refused(notice: Announce, now: float) -> str:
    reason = notice.failure.reason if notice.failure else "no reason given"
    return f"the host did not start {notice.route} ({notice.detail}): {reason}"


def _skipped(notice: Announce, now: float) -> str:
    return f"{notice.route} is out ({_explain(notice.failure, now)}); asking {notice.next_route}"


def _stopped(notice: Announce, now: float) -> str:
    return "the turn was stopped; nothing is carried on"


_SENTENCES: dict[NoticeType, Callable[[Announce, float], str]] = {
    NoticeType.FAILURE: _failed,
    NoticeType.HOP: _hopped,
    NoticeType.EXHAUSTED: _exhausted,
    NoticeType.RECOVERED: _recovered,
    NoticeType.REFUSED: _refused,
    NoticeType.SKIPPED: _skipped,
    NoticeType.STOPPED: _stopped,
}


def _route_failure(failed: RouteFailure, now: float) -> str:
    return f"{failed.route}: {_explain(failed.failure, now)}"


def _explain(failure: Failure | None, now: float) -> str:
    if failure is None:
        return "no reason known"

    what = failure.kind.value.replace("_", " ")
    if failure.retry_at is None or failure.retry_at <= now:
        return what

    return f"{what}, back in {format_wait(failure.retry_at - now)}"


def as_record(notice: Announce, now: float) -> dict[str, Any]:
    """The notice as a JSON object; durations in seconds from now."""
    record: dict[str, Any] = {
        "notice": notice.notice.value,
        "session": notice.session_id,
        "route": notice.route,
        "next_route": notice.next_route,
        "text": describe(notice, now),
    }
    if notice.failure is not None:
        record["failure"] = _failure_record(notice.failure, now)
    if notice.failures:
        record["failures"] = [
            {"route": failed.route, **_failure_record(failed.failure, now)} for failed in notice.failures
        ]
    if notice.returns_at is not None:
        record["returns_in_s"] = round(max(0.0, notice.returns_at - now), 3)
    if notice.detail:
        record["detail"] = notice.detail

    return record


def _failure_record(failure: Failure, now: float) -> dict[str, Any]:
    retry_after = None if failure.retry_at is None else round(max(0.0, failure.retry_at - now), 3)
    return {
        "kind": failure.kind.value,
        "scope": failure.scope.value,
        "retry_after_s": retry_after,
        "reason": failure.reason,
    }


def toast_for(notice: Announce, now: float) -> Toast:
    """The notice on the user's screen: old model, reason, new model."""
    if notice.notice is NoticeType.EXHAUSTED:
        return Toast(title="All models failed", message=describe(notice, now), variant="error")

    variant = "success" if notice.notice is NoticeType.RECOVERED else "warning"
    return Toast(title="Model fallback", message=describe(notice, now), variant=variant)
