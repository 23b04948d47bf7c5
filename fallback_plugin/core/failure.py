"""What went wrong, in the words that every other module uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Kind(StrEnum):
    """The kinds of failure (design.md, Words)."""

    RATE_LIMIT = "rate_limit"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    NETWORK = "network"
    AUTH = "auth"
    MISSING_API_KEY = "missing_api_key"
    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_OVERFLOW = "context_overflow"
    CONTENT_POLICY = "content_policy"
    BAD_REQUEST = "bad_request"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    ABORTED = "aborted"


class Scope(StrEnum):
    """How far a failure reaches."""

    MODEL = "model"
    PROVIDER = "provider"
    CREDENTIAL = "credential"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a host or provider said about one failure, as it was said.

    Attributes:
        provider: the provider's id as the host names it ("openai", "openrouter", …).
        status: HTTP status.
        headers: response headers; names in any case.
        body: the response body: a decoded JSON value, JSON text, HTML, a bare string.
        name: the host's or SDK's error name ("APIError", "MessageAbortedError", …).
        message: the host's own text of the error. Never an assistant's prose.
        host_retry_at_wall: epoch seconds of the host's next try where the provider has named that time, not the host's
            own backoff; the border to the host knows which.
        observed_at_wall: epoch seconds at which the facts were seen; absolute hints are read against it.
    """

    provider: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    body: object = None
    name: str | None = None
    message: str | None = None
    host_retry_at_wall: float | None = None
    observed_at_wall: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A classified failure.

    Attributes:
        kind: what it is.
        scope: how far it reaches.
        should_fallback: whether another model may help.
        retry_at: monotonic seconds at which the same route may be asked again; None if nobody said.
        reason: the rule that decided, in words, free of secrets and of prompt text.
    """

    kind: Kind
    scope: Scope
    should_fallback: bool
    retry_at: float | None = None
    reason: str = ""
