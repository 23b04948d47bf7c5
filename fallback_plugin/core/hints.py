"""When may I try again: retry hints from headers, body fields, error text and the host.

There are two sorts. *Stated* hints answer this very failure ("retry-after: 20", "resets in 36min", a
google.rpc.RetryInfo); of several the longest wins, since every clock that is named has to run out. *Gauges* are
windows reported whatever happened (x-ratelimit-reset-*, x-codex-*): they count only where the window is used
up, and only where nothing was stated. An absolute time beside a relative one of the same object says the same
thing with a second clock, so the relative one is taken. What lies in the past says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, timedelta, timezone, tzinfo

from fallback_plugin.core.bodies import words
from fallback_plugin.core.durations import (
    DURATION,
    MAX_DELAY,
    WALL_TIME,
    clock_seconds,
    epoch,
    moment,
    next_midnight,
    next_wall_time,
    plain_number,
    seconds,
)
from fallback_plugin.core.evidence import Evidence

_RELATIVE_MS = words(
    "retryafterms retryinms resetinms resetafterms delayms retrydelayms waitms waittimems cooldownms msbeforenext"
)
_RELATIVE = words(
    "retryafter retryafterseconds retryaftersecs retryaftersec retryin retryinseconds retrydelay retrydelayseconds"
    " resetsinseconds resetinseconds resetinsec resetafter resetafterseconds resetsin resetin resetseconds"
    " waitseconds waittime waitfor wait retrywait cooldown cooldownseconds secondsuntilreset timeuntilreset"
    " resetdelay quotaresetdelay estimatedtime availablein retryafters timetoreset"
)
_ABSOLUTE = words(
    "resetsat resetat resettime resettimestamp resetsattimestamp quotaresettimestamp quotaresetsat nextresettime"
    " nextretryat retryat availableat unlocksat renewsat cooldownuntil blockeduntil retryaftertimestamp nextreset"
    " nextavailableat resetdate nextresetdate retryuntil limitresetsat"
)
_SHANGHAI = timezone(timedelta(hours=8))
_SHANGHAI_PROVIDERS = ("zai", "z.ai", "z-ai", "zhipu", "bigmodel", "glm")
_LEAD = (
    r"(?:try(?:ing)?(?: it| this| your request)? again|retry(?:ing)?(?: your request| the request| request)?|come back"
    r"|resets?|reset_in|available(?: again)?|refresh(?:es)?|renews?|wait(?:ing)?|cool(?:ing)? ?down|cooldown|restored"
    r"|retry[-_ ]?after|retry[-_ ]?delay|replenish(?:es|ed)?|unlock(?:s|ed)?|delay)"
)
_LINK = (
    r"[\"':=]{0,3}\s?"
    r"(?:(?:in|after|for|is|at least|about|around|approximately|another|up to|time|:|=|~|\()[\"']?\s?){0,4}[\"']?"
)
_DATE = (
    r"(\d{4}[-/]\d{1,2}[-/]\d{1,2}[t ]{1,2}\d{1,2}:\d\d(?::\d\d(?:\.\d{1,9})?)?"
    r"\s?(?:z\b|utc|gmt|[+-]\d\d:?\d\d)?)"
)
_STATED = re.compile(rf"{_LEAD}{_LINK}({DURATION})")
_BARE = re.compile(
    r"retry[-_ ]?(?:after|in|delay)(?:[-_ ]?(?:seconds|secs))?[\"']?\s?[:=]\s?[\"']?"
    r"(\d{1,9}(?:\.\d{1,9})?)(?![\d.]|\s?[a-z])"
)
_MILLISECONDS = re.compile(
    r"(?:delay|wait|retry[-_]?after|retry[-_]?in|reset[-_]?in|reset[-_]?after)[-_]?ms[\"']?\s?[:=]\s?[\"']?(\d{1,12})"
)
_CHINESE = re.compile(rf"({DURATION})\s?(?:后|之后|以后)")
_CHINESE_WAIT = re.compile(rf"(?:请等待|请在|等待|请于)\s?({DURATION})")
_ARTICLE = re.compile(rf"{_LEAD} in an? (minute|hour|day|week)\b")
_PIPED = re.compile(r"(?:limit|quota|reached|exceeded|exhausted)[a-z ]{0,20}\|(\d{10,13})\b")
_MOMENT = re.compile(
    r"(?:reset|again|until|available|retry|after|renew|unlock|access|重置|恢复|刷新|解除)"
    r"[a-z ]{0,16}[:=]?\s?[\"'(\uff08]?" + _DATE
)
_CHINESE_MOMENT = re.compile(r"(\d{4}-\d{1,2}-\d{1,2} \d{1,2}:\d\d:\d\d)\s?(?:后|重置|恢复|刷新|解除|之后)")
_EPOCH_TEXT = re.compile(r"(?:resets?|retry)[-_ ]?(?:at|after)[\"']?\s?[:=]?\s?[\"']?(\d{10}|\d{13})\b")
_TEXT_MARKS = (
    *("retry", "again", "reset", "wait", "delay", "cool", "avail", "|", "refresh", "renew", "unlock", "until"),
    *("restored", "replenish", "access", "后", "重置", "恢复", "等待"),
)
_DAILY_RESETS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    # ai.google.dev/gemini-api/docs/rate-limits: requests per day reset at midnight Pacific time
    ("google", ("google", "gemini", "vertex"), ("perday", "per day"), "America/Los_Angeles"),
    # openrouter.ai/docs/api-reference/limits: free models per day, counted by the UTC day
    ("openrouter", ("openrouter",), ("free-models-per-day",), "UTC"),
)


def retry_delay(
    evidence: Evidence, *, wall: float, host_retry_at_wall: float | None, gauges: bool = False, daily: bool = False
) -> float | None:
    """The seconds after which the same route may be asked again, if anybody said so.

    Args:
        evidence: as gathered from the failure.
        wall: epoch seconds at which the failure was seen.
        host_retry_at_wall: epoch seconds of the host's next try, where that is the provider's word.
        gauges: whether rate-limit windows may be read; only sensible for a limit.
        daily: whether a documented daily reset may be assumed when nothing was said.

    Returns:
        Seconds, 0 to 31 days; None if nobody said.
    """
    stated = [
        *_from_headers(evidence.headers, wall),
        *_from_fields(evidence, wall),
        *_from_text(evidence, wall),
    ]
    if host_retry_at_wall is not None:
        stated.append(host_retry_at_wall - wall)

    usable = [delay for delay in stated if delay >= 0]
    if not usable and gauges:
        usable = [delay for delay in _from_gauges(evidence.headers, wall) if delay >= 0]
    if not usable and daily:
        usable = list(_from_days(evidence, wall))

    return min(max(usable), MAX_DELAY) if usable else None


def _from_headers(headers: Mapping[str, str], wall: float) -> Iterator[float]:
    for name in ("retry-after-ms", "x-ms-retry-after-ms", "x-retry-after-ms"):
        number = plain_number(headers.get(name, ""))
        if number is not None and number >= 0:
            yield number / 1000

    for name in (
        "retry-after",
        "x-retry-after",
        "x-ratelimit-retry-after",
        "x-should-retry-after",
        "retry-after-seconds",
    ):
        delay = _any_delay(headers.get(name, ""), wall)
        if delay is not None:
            yield delay


def _from_fields(evidence: Evidence, wall: float) -> Iterator[float]:
    relative = {holder for name, _, holder in evidence.hints if name in _RELATIVE or name in _RELATIVE_MS}
    for name, value, holder in evidence.hints:
        if name in _RELATIVE_MS:
            number = plain_number(str(value))
            delay = None if number is None else number / 1000
        elif name in _RELATIVE:
            delay = _any_delay(str(value), wall)
        elif name in _ABSOLUTE and holder not in relative:
            delay = _until(str(value), wall, zone=_zone_of(evidence.provider))
        else:
            continue

        if delay is not None:
            yield delay


def _from_text(evidence: Evidence, wall: float) -> Iterator[float]:
    text = evidence.text
    if not any(mark in text for mark in _TEXT_MARKS):
        return

    lengths = (found.group(1) for pattern in (_STATED, _CHINESE, _CHINESE_WAIT) for found in _some(pattern, text))
    yield from _known(seconds(length) for length in lengths)
    yield from _known(seconds(f"1 {found.group(1)}") for found in _some(_ARTICLE, text))
    yield from _known(_any_delay(found.group(1), wall) for found in _some(_BARE, text))
    yield from (int(found.group(1)) / 1000 for found in _some(_MILLISECONDS, text))
    numbers = (found.group(1) for pattern in (_PIPED, _EPOCH_TEXT) for found in _some(pattern, text))
    yield from _known(_until(number, wall) for number in numbers)
    zone = _zone_of(evidence.provider)
    moments = (found.group(1) for pattern in (_MOMENT, _CHINESE_MOMENT) for found in _some(pattern, text))
    yield from _known(_until(written, wall, zone=zone) for written in moments)
    walls = (next_wall_time(found, wall=wall) for found in _some(WALL_TIME, text))
    yield from (at - wall for at in walls if at is not None)


def _some(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for count, found in enumerate(pattern.finditer(text)):
        if count >= 8:
            return

        yield found


def _known(delays: Iterable[float | None]) -> Iterator[float]:
    return (delay for delay in delays if delay is not None)


def _from_gauges(headers: Mapping[str, str], wall: float) -> Iterator[float]:
    for name, value in headers.items():
        if "reset" not in name or not _counts(name, headers):
            continue

        delay = _any_delay(value, wall)
        if delay is not None:
            yield delay


def _counts(name: str, headers: Mapping[str, str]) -> bool:
    """Whether the window of a reset header is used up, or no header says how full it is."""
    stem, _, tail = name.partition("-reset")
    if name.startswith("x-codex-"):
        if not tail.startswith(("-after", "-at")) or (tail == "-at" and f"{stem}-reset-after-seconds" in headers):
            return False

        return (plain_number(headers.get(f"{stem}-used-percent", "100")) or 0) >= 100

    if name.startswith("anthropic-ratelimit-unified"):
        state = headers.get(f"{stem}-status") or headers.get("anthropic-ratelimit-unified-status", "rejected")
        return state == "rejected"

    left = headers.get(f"{stem}-remaining{tail}")
    if left is None:
        return not any("remaining" in other for other in headers)

    return (plain_number(left) or 0) <= 0


def _from_days(evidence: Evidence, wall: float) -> Iterator[float]:
    whole = f"{evidence.words} ; {' '.join(evidence.codes).lower()} ; {evidence.text}"
    for _, providers, marks, zone in _DAILY_RESETS:
        if any(name in evidence.provider for name in providers) and any(mark in whole for mark in marks):
            midnight = next_midnight(zone, wall=wall)
            if midnight is not None:
                yield midnight - wall


def _any_delay(text: str, wall: float) -> float | None:
    """Seconds from a number, a length with units, a clock, an epoch or a date."""
    text = text.strip()
    number = plain_number(text)
    if number is not None:
        at = epoch(number)
        return number if at is None else at - wall

    at = moment(text)
    if at is not None:
        return at - wall

    length = seconds(text)
    return length if length is not None else clock_seconds(text)


def _until(text: str, wall: float, *, zone: tzinfo = UTC) -> float | None:
    number = plain_number(text)
    if number is not None:
        at = epoch(number)
        return None if at is None else at - wall

    at = moment(text, default_zone=zone)
    return seconds(text) if at is None else at - wall


def _zone_of(provider: str) -> tzinfo:
    """z.ai and Zhipu write Beijing time without saying so (docs.z.ai/api-reference/api-code, 1308)."""
    return _SHANGHAI if any(name in provider for name in _SHANGHAI_PROVIDERS) else UTC
