"""One meaning and the provider codes that have it."""

from __future__ import annotations

from dataclasses import dataclass

from fallback_plugin.core.failure import Kind, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRow:
    """One meaning and the codes that have it.

    Attributes:
        kind: what the codes mean.
        codes: the codes, separated by blanks, in their folded form or as providers write them.
        source: where that is documented.
        firm: whether they decide before error text is read.
        falls_back: overrides what the kind says; None leaves it.
        scope: overrides what the kind says; None leaves it.
    """

    kind: Kind
    codes: str
    source: str
    firm: bool = True
    falls_back: bool | None = None
    scope: Scope | None = None
