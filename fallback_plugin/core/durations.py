"""Lengths and moments of time as providers write them, as seconds; None for whatever can't be read."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

MAX_DELAY = 31 * 86400.0
"""No hint keeps a route out for longer (issue B)."""

_UNITS: dict[str, float] = {
    "ms": 0.001,
    "msec": 0.001,
    "msecs": 0.001,
    "millis": 0.001,
    "millisecond": 0.001,
    "milliseconds": 0.001,
    "毫秒": 0.001,
    "s": 1,
    "sec": 1,
    "secs": 1,
    "second": 1,
    "seconds": 1,
    "秒": 1,
    "秒钟": 1,
    "m": 60,
    "min": 60,
    "mins": 60,
    "minute": 60,
    "minutes": 60,
    "分": 60,
    "分钟": 60,
    "h": 3600,
    "hr": 3600,
    "hrs": 3600,
    "hour": 3600,
    "hours": 3600,
    "小时": 3600,
    "个小时": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
    "天": 86400,
    "w": 604800,
    "wk": 604800,
    "week": 604800,
    "weeks": 604800,
    "周": 604800,
}
_UNIT = (
    r"(?:milliseconds?|msecs?|millis|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|wk|w"
    r"|毫秒|秒钟|秒|分钟|分|个小时|小时|天|周)"
)
_AMOUNT = r"\d{1,13}(?:\.\d{1,12})?"
_PART = re.compile(rf"({_AMOUNT})\s{{0,2}}({_UNIT})(?![a-z])")
DURATION = rf"{_AMOUNT}\s{{0,2}}{_UNIT}(?![a-z])(?:[ ,]{{0,2}}(?:and )?{_AMOUNT}\s{{0,2}}{_UNIT}(?![a-z])){{0,4}}"
"""A pattern of squeezed text for "9m38.016s", "10h 7m", "2 hours 33 minutes", "36min"."""

_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d)(?:\.\d{1,9})?\Z")
_ISO = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})[t ]{1,2}(\d{1,2}):(\d\d)(?::(\d\d)(\.\d{1,9})?)?"
    r"\s?(z\b|utc|gmt|[+-]\d\d:?\d\d)?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?:({'|'.join(_MONTHS)})[a-z]{{0,6}}\.? (\d{{1,2}})(?:st|nd|rd|th)?,? (?:(20\d\d),? )?(?:at )?)?"
_HOUR = r"(\d{1,2})(?::(\d\d))?(?::\d\d)? ?([ap]m)?"
_ZONE = r"(?: ?\(([a-z0-9_+\-/]{1,40})\)| (utc|gmt|pst|pdt|pt|est|edt|cst|cet|cest|z)\b)"
WALL_TIME = re.compile(
    rf"(?:resets?|until|again|available|renews?|back|重置)(?: at| on| by| after)?:? {_MONTH}{_HOUR}{_ZONE}"
)
_ZONE_NAMES = {
    "utc": "UTC",
    "gmt": "UTC",
    "z": "UTC",
    "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles",
    "pt": "America/Los_Angeles",
    "est": "America/New_York",
    "edt": "America/New_York",
    "cst": "America/Chicago",
    "cet": "Europe/Berlin",
    "cest": "Europe/Berlin",
}


def seconds(text: str) -> float | None:
    """A length of time with units ("1h44m43s", "10h 7m", "2 hours and 3 minutes"), in seconds."""
    parts = _PART.findall(text[:120].lower())
    if not parts:
        return None

    return sum(float(amount) * _UNITS[unit] for amount, unit in parts)


def plain_number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text[:40])
    except ValueError:
        return None

    return number if math.isfinite(number) else None


def clock_seconds(text: str) -> float | None:
    """A clock of hours, minutes and seconds ("01:30:00"), in seconds."""
    found = _CLOCK.match(text.strip()[:24])
    if found is None:
        return None

    hours, minutes, rest = (int(part) for part in found.groups())
    return hours * 3600.0 + minutes * 60 + rest


def epoch(number: float) -> float | None:
    """Epoch seconds of a number that is one in seconds, milliseconds, micro- or nanoseconds, else None."""
    for scale in (1.0, 1e3, 1e6, 1e9):
        if 1e9 <= number / scale < 1e10:
            return number / scale

    return None


def moment(text: str, *, default_zone: tzinfo = UTC) -> float | None:
    """A written moment (ISO 8601 or HTTP date) as epoch seconds.

    Args:
        text: squeezed or original text that holds the moment.
        default_zone: the zone of a moment that names none.

    Returns:
        Epoch seconds, or None.
    """
    found = _ISO.search(text[:200].lower())
    if found is not None:
        return _iso(found, default_zone)

    if text[3:4] != "," and text[-3:].lower() != "gmt":
        return None

    try:
        return parsedate_to_datetime(text[:64]).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _iso(found: re.Match[str], default_zone: tzinfo) -> float | None:
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=default_zone)
        if zone is not None:
            when = when.replace(tzinfo=UTC) - _offset(zone)

        return when.timestamp() + float(fraction or 0)
    except (ValueError, OverflowError):
        return None


def _offset(zone: str) -> timedelta:
    if zone[0] not in "+-":
        return timedelta()

    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return offset if zone[0] == "+" else -offset


def next_wall_time(found: re.Match[str], *, wall: float) -> float | None:
    """The next moment at which a clock of some zone shows what a `WALL_TIME` match says.

    Args:
        found: a match of `WALL_TIME` ("resets 3pm (Europe/Berlin)", "resets Jan 18, 11:30am (UTC)").
        wall: epoch seconds of now.

    Returns:
        Epoch seconds, or None if the zone is unknown on this machine or the time is none.
    """
    month, day, year, hour, minute, half, named, short = found.groups()
    try:
        zone = ZoneInfo(_zone_name(named or short))
        here = datetime.fromtimestamp(wall, zone)
        when = here.replace(hour=_hour(int(hour), half), minute=int(minute or 0), second=0, microsecond=0)
        if month is None:
            return (when if when > here else when + timedelta(days=1)).timestamp()

        when = when.replace(year=int(year or here.year), month=_MONTHS.index(month) + 1, day=int(day))
        if year is None and (here - when).days > 180:
            when = when.replace(year=when.year + 1)

        return when.timestamp()
    except (ValueError, OverflowError, OSError, KeyError):
        return None


def next_midnight(zone: str, *, wall: float) -> float | None:
    """Epoch seconds of the next midnight in a zone; None if this machine doesn't know the zone."""
    try:
        here = datetime.fromtimestamp(wall, ZoneInfo(zone))
    except (ValueError, OverflowError, OSError, KeyError):
        return None

    start = here.replace(hour=0, minute=0, second=0, microsecond=0)
    return (start + timedelta(days=1)).timestamp()


def _zone_name(name: str) -> str:
    if name in _ZONE_NAMES:
        return _ZONE_NAMES[name]

    return "/".join("_".join(part.capitalize() for part in place.split("_")) for place in name.split("/"))


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        return hour

    if not 1 <= hour <= 12:
        raise ValueError(hour)

    return hour % 12 + (12 if half == "pm" else 0)
