"""What a scripted provider does with one request: answer, call a tool, or fail in one of the real ways.

A script is a sequence of these steps, one per request, the last one repeated:

    provider.script("primary", Fail(429), Answer("back again"))
    provider.script("fallback", CallTool("bash", {"command": "date"}), Answer("done"))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

JSONObject = Mapping[str, Any]


def _no_headers() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Answer:
    """A normal answer that ends with `finish_reason: stop`."""

    text: str = "hello there"
    _: KW_ONLY
    chunks: int = 3
    """Into how many pieces the text is cut (streaming only)."""
    delay: float = 0.0
    """Seconds of silence before each piece but the first."""
    first_token_after: float = 0.0
    """Seconds of silence before the first piece; the HTTP status goes out at once."""
    reasoning: str = ""
    """Sent as `reasoning_content` before the text."""
    prompt_tokens: int = 10
    """What the usage says of the request; a host may compact the session over it."""


@dataclass(frozen=True, slots=True)
class SlowAnswer:
    """A normal answer, slow enough to act while it is under way: `chunks * delay` seconds."""

    text: str = "one two three four five six seven eight nine ten"
    _: KW_ONLY
    chunks: int = 10
    delay: float = 0.2
    first_token_after: float = 0.0


@dataclass(frozen=True, slots=True)
class EmptyAnswer:
    """An answer without any text that claims to be complete (`finish_reason: stop`)."""


@dataclass(frozen=True, slots=True)
class Fail:
    """An HTTP error instead of an answer."""

    status: int
    body: JSONObject | str | None = None
    """A JSON object, a text (HTML where it starts with `<`), or None for OpenAI's usual error of that status."""
    _: KW_ONLY
    headers: Mapping[str, str] = field(default_factory=_no_headers)
    """More response headers, such as `{"retry-after": "3600"}`."""
    delay: float = 0.0
    """Seconds before the status line."""


@dataclass(frozen=True, slots=True)
class ErrorInStream:
    """Status 200, some text, then an error object as a stream event, and the end."""

    after_text: str = ""
    error: JSONObject = field(
        default_factory=lambda: {
            "message": "The server had an error while processing your request",
            "type": "server_error",
            "code": 500,
        }
    )


@dataclass(frozen=True, slots=True)
class CutStream:
    """Some text, then the connection is gone without an end of the stream."""

    after_text: str = ""
    _: KW_ONLY
    reset: bool = True
    """True sends a TCP reset, False closes the connection in the middle of the body."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Some text, then a proper end of the stream without a finish reason."""

    text: str = "half of an"
    _: KW_ONLY
    done: bool = False
    """Whether the `[DONE]` marker is sent before the end."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing at all until the client goes away or the provider is closed."""

    _: KW_ONLY
    headers: bool = False
    """Whether the status line and headers are sent first."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Some text, then silence until the client goes away or the provider is closed."""

    after_text: str = "let me think"


@dataclass(frozen=True, slots=True)
class CallTool:
    """A tool call; the host runs the tool and asks again, which uses the script's next step."""

    name: str
    arguments: JSONObject = field(default_factory=dict[str, Any])
    _: KW_ONLY
    text: str = ""
    """Said before the call."""
    call_id: str = ""
    """The call's id; made up from the request's number where empty."""
    then: ErrorInStream | CutStream | Truncate | Stall | CallTool | None = None
    """How the same response goes on after the call; None ends it with `finish_reason: tool_calls`."""
    prompt_tokens: int = 10
    """What the usage says of the request, as for `Answer`."""


Step = Answer | SlowAnswer | EmptyAnswer | Fail | ErrorInStream | CutStream | Truncate | Hang | Stall | CallTool


_USUAL_ERRORS: dict[int, tuple[str, str, str]] = {
    400: ("Invalid request", "invalid_request_error", "invalid_request"),
    401: ("Incorrect API key provided", "invalid_request_error", "invalid_api_key"),
    402: ("Insufficient Balance", "unknown_error", "invalid_request_error"),
    403: ("Key limit exceeded (total limit)", "permission_error", "key_limit_exceeded"),
    404: ("The model does not exist or you do not have access to it", "not_found_error", "model_not_found"),
    408: ("Request timed out", "timeout_error", "timeout"),
    429: ("Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request", "server_error", "internal_error"),
    502: ("Bad gateway", "server_error", "bad_gateway"),
    503: ("Service temporarily unavailable", "server_error", "service_unavailable"),
    504: ("Gateway timeout", "server_error", "gateway_timeout"),
    529: ("Overloaded", "overloaded_error", "overloaded"),
}


def usual_error(status: int) -> JSONObject:
    """Give the body that OpenAI-compatible providers send with an HTTP status.

    Args:
        status: an HTTP status of 400 or above.
    """
    message, kind, code = _USUAL_ERRORS.get(status, (f"HTTP {status}", "api_error", str(status)))

    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def bash(command: str, *, then: ErrorInStream | CutStream | Truncate | Stall | CallTool | None = None) -> CallTool:
    """Make a call of the tool that runs a shell command.

    Args:
        command: the command.
        then: what comes of the request after the call, as for `CallTool`.
    """
    return CallTool("bash", {"command": command, "description": "run"}, then=then)


def rate_limited(*, retry_after: float | None = None) -> Fail:
    """Make a 429 of the passing kind.

    Args:
        retry_after: seconds for the Retry-After header, None for no header.
    """
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}

    return Fail(429, headers=headers)


def quota_exhausted() -> Fail:
    """Make the 429 that waiting does not cure (OpenAI's `insufficient_quota`)."""
    message = "You exceeded your current quota, please check your plan and billing details."

    return Fail(429, {"error": {"message": message, "type": "insufficient_quota", "code": "insufficient_quota"}})


def bad_gateway_page() -> Fail:
    """Make the 502 of a proxy in front of the provider: an HTML page instead of JSON."""
    return Fail(502, "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>")


def context_overflow() -> Fail:
    """Make the 400 for a prompt that is longer than the model's context."""
    message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."

    return Fail(
        400,
        {"error": {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}},
    )


def content_policy() -> Fail:
    """Make the 400 of a provider that refuses the content."""
    message = "Your request was rejected as a result of our safety system."

    return Fail(
        400,
        {"error": {"message": message, "type": "invalid_request_error", "code": "content_policy_violation"}},
    )


FAILURES: Mapping[str, Step] = {
    "429": rate_limited(),
    "429 insufficient_quota": quota_exhausted(),
    "429 retry-after a day": rate_limited(retry_after=86400),
    "503 retry-after an hour": Fail(503, headers={"retry-after": "3600"}),
    "500": Fail(500),
    "502 html": bad_gateway_page(),
    "529": Fail(529),
    "error in stream": ErrorInStream(),
    "cut": CutStream(),
    "401": Fail(401),
    "402": Fail(402),
    "403 key limit": Fail(403, {"error": {"message": "Key limit exceeded (total limit)", "code": 403}}),
    "404": Fail(404),
    "empty": EmptyAnswer(),
    "truncated": Truncate(),
}
"""Every way in which a provider fails at once and another one can help (issue A)."""

SILENCES: Mapping[str, Step] = {
    "no byte": Hang(),
    "headers and no byte": Hang(headers=True),
    "silence after the first tokens": Stall(),
}
"""Every way in which it fails by saying nothing more: somebody has to lose patience."""
