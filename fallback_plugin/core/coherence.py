"""Coherence: may a process go on with what it has cached of a session, or did somebody else write meanwhile.

Theory of operation
===================

What a process builds from a session's record (an agent, a prompt prefix) is dear, so it is kept under a session
*key* (a chat, a channel). Several session *ids* may be active under one key, one after another, and other processes
may write to the same session. A cached entry remembers from which session and which revision it was built. It is
dropped only after a **foreign** write to the **same, live** session; whatever is not known speaks for reuse, because a
needless rebuild throws away the provider's prompt cache.

The rules, first match wins (`RULES`):

    entry                                 current                          verdict   row
    ------------------------------------  -------------------------------  --------  ----------
    none                                  any                              build     H08
    other signature                       any                              build     H08
    being built                           any                              reuse     H06 (wait for it)
    unguarded                             any                              reuse     H06
    its session has ended                 any                              drop      K-H4
    of another session                    any                              reuse     H01
    of this or an unknown session         revision unknown on either side  reuse     H08
    of this or an unknown session         other revision                   drop      H03, H07
    of this or an unknown session         same revision                    reuse     H02

Own writes move the entry's revision along on every path (K-H1, K-H2): each as it is made (`follow_write`), or after the
last one of an operation (`rebaseline`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum


class Verdict(StrEnum):
    """What becomes of a cached entry."""

    REUSE = "reuse"
    DROP = "drop"
    """Somebody else wrote: tear it down, then build."""
    BUILD = "build"
    """There is nothing to go on with; not an invalidation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """From what a cached value was built.

    Attributes:
        signature: the configuration that it was built with.
        session_id: the session; None where it is not known (H07).
        revision: the session's revision as of the last own read or write; None where it is not known.
        guarded: False opts out of the guard (H06).
        pending: the value is still being built (H06).
    """

    signature: str = ""
    session_id: str | None = None
    revision: int | None = None
    guarded: bool = True
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What is asked for, and what the store says of it now.

    Attributes:
        session_id: the session that is active under the key.
        signature: the configuration in force.
        revision: the revision of `session_id`; None where there is no record, or the store could not be read.
        entry_ended: whether the *entry's* session has ended; False where that is not known.
    """

    session_id: str
    signature: str = ""
    revision: int | None = None
    entry_ended: bool = False


def _same_session(entry: Baseline, current: Current) -> bool:
    return entry.session_id in (None, current.session_id)


def _written_by_others(entry: Baseline, current: Current) -> bool:
    return None not in (entry.revision, current.revision) and entry.revision != current.revision


RULES: tuple[tuple[Callable[[Baseline, Current], bool], Verdict], ...] = (
    (lambda entry, current: entry.signature != current.signature, Verdict.BUILD),
    (lambda entry, current: entry.pending, Verdict.REUSE),
    (lambda entry, current: not entry.guarded, Verdict.REUSE),
    (lambda entry, current: current.entry_ended, Verdict.DROP),
    (lambda entry, current: not _same_session(entry, current), Verdict.REUSE),
    (_written_by_others, Verdict.DROP),
)


def decide(entry: Baseline | None, current: Current) -> Verdict:
    """Judge a cached entry by the module's table (H01-H08, K-H4).

    Args:
        entry: what is cached; None for nothing.
        current: what is asked for, read before the cache is locked (H09).
    """
    if entry is None:
        return Verdict.BUILD

    for applies, verdict in RULES:
        if applies(entry, current):
            return verdict

    return Verdict.REUSE


def rebaseline(entry: Baseline, session_id: str, revision: int | None) -> Baseline:
    """The entry after an own write, so that it does not look foreign.

    An entry of another session, unguarded or being built stays as it is (H04, H06), and so does one whose session's
    revision could not be read: that costs one rebuild at worst (H10). One of an unknown session stays of an unknown
    session (H07).

    Args:
        entry: what is cached.
        session_id: the session that was written.
        revision: its revision after the last own write; None where it is not known.
    """
    if entry.pending or not entry.guarded or revision is None:
        return entry

    if entry.session_id not in (None, session_id):
        return entry

    return replace(entry, revision=revision)


def follow_write(entry: Baseline, session_id: str, revision: int) -> Baseline:
    """The entry after one own write whose revision is known.

    Revisions grow by one per write, so a gap means that somebody else wrote in between: then the entry keeps its old
    revision, and the next look at it drops it. A count taken at the end of a turn would have hidden that write.

    Args:
        entry: what is cached.
        session_id: the session that was written.
        revision: the revision that the write gave.
    """
    if entry.revision is not None and revision != entry.revision + 1:
        return entry

    return rebaseline(entry, session_id, revision)
