"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at.
        grade: how bad it is.
        text: what was found; no secrets.
        remedy: how to mend it; empty where nothing has to be.
    """

    check: str
    grade: Grade
    text: str
    remedy: str = ""
