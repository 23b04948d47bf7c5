"""One way of saying one kind of failure, and the words that change what it means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.wordings import Wordings, wordings

WINDOW = (
    r"(?:hourly|daily|weekly|monthly|annual|\d{1,2}[- ]?(?:hours?|hr|h|days?)|five[- ]hour|session|"
    r"weekly/monthly|plan|subscription|billing[- ]cycle)"
)
"""The windows of plans: longer than a rate limit's minute."""

CAP = r"(?:limits?|quota|cap|allowance|allotment|budget)"
GONE = r"(?:exceeded|exhausted|reached|depleted|used up|hit|consumed|expired|insufficient|over)"
MODEL = r"[\"'`]?[a-z0-9][a-z0-9_.:/@\-]{1,80}[\"'`]?"
REQUEST_STATUSES = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
"""Statuses that were given to a request that arrived: no wording makes them a broken wire."""

MINUTE_WINDOW = wordings(
    r"""
    per[- _]?(?:minute|min|second|sec)\b
    perminute
    persecond
    \b(?:rpm|tpm|qps|rps|tps|qpm|ipm)\b
    /\s?(?:minute|min|second|sec|s)\b
    每分钟
    每秒
    """
)
"""A quota over a minute or less is a throttle, whatever it is called (Gemini quotaId, Groq TPM, Ark RPM)."""

DAY_WINDOW = wordings(
    r"""
    /\s?(?:day|week|month)\b
    byday\b
    \btoday'?s?\b
    per[- _]?(?:day|week|month)\b
    perday
    permonth
    \b(?:rpd|tpd)\b
    \b(?:daily|weekly|monthly)\b
    每日
    每天
    每周
    每月
    """
)
"""A throttle over a day or more is a quota, whatever it is called."""

THIS_MODEL = wordings(
    r"""
    this model'?s
    (?:on|for) (?:this|the selected|the requested) model
    per[- _]?model
    for (?:the )?model\b
    free-models
    """
)
"""Only this model's limit is meant, not the account's."""

OUTPUT_SIDE = wordings(
    r"""
    \boutputs?\b(?! or )
    \bgenerated (?:text|content|response|output)
    \bcompletion\b
    \bresponse was (?:blocked|filtered|flagged|stopped)(?! due to the prompt)
    输出
    \bmodel'?s (?:response|answer)
    """
)
"""The answer, not the prompt, was refused: another model writes another answer."""

INPUT_SIDE = wordings(
    r"""
    \binputs?\b
    \bprompt
    \byour (?:request|message|content)
    输入
    """
)
"""The prompt was refused: it would be so again elsewhere."""

REQUESTED_OVER_LIMIT = re.compile(r"limit:? (\d{1,12}),? (?:used:? \d{1,12},? )?requested:? (\d{1,12})")
"""OpenAI and Groq say both numbers; a request larger than the whole bucket never fits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseRow:
    """One way of saying one kind of failure.

    Attributes:
        kind: what it means.
        label: the rule in words, for the reason.
        wordings: the patterns, any of which says it.
        source: who writes so.
        weak: whether prose may say it too.
        not_statuses: statuses that contradict it.
        falls_back: overrides what the kind says.
        scope: overrides what the kind says.
        soft_window: a named minute window turns it into throttling.
        providers: parts of provider ids that say it; empty for everybody.
    """

    kind: Kind
    label: str
    wordings: Wordings
    source: str
    weak: bool = False
    not_statuses: frozenset[int] = frozenset()
    falls_back: bool | None = None
    scope: Scope | None = None
    soft_window: bool = False
    providers: tuple[str, ...] = ()
