"""What a Python exception says about a failure, without importing any SDK.

Every agent framework wraps its provider's error in its own and keeps the original as an attribute, a cause or a
context. Statuses, headers and bodies sit under a handful of names. The chain is walked from
the outside in, at most `MAX_DEPTH` links, and the first of each is taken. Attributes of foreign objects may be
properties that raise; such an attribute is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, cast

from fallback_plugin.core.bodies import clip
from fallback_plugin.core.classify import DEFAULT_RULES, classify
from fallback_plugin.core.failure import Facts, Failure
from fallback_plugin.core.policy import ClassifierRules

_T = TypeVar("_T")

MAX_DEPTH = 5
"""Links of an exception's chain that are read (issue B)."""

_PLAIN_NAMES = frozenset(
    {"Exception", "BaseException", "RuntimeError", "ValueError", "ExceptionGroup", "BaseExceptionGroup", "OSError"}
)
_INVENTED_STATUS = frozenset({"APIConnectionError", "APITimeoutError", "Timeout"})
"""litellm gives these a status of 500 or 408 though nothing was answered."""


def read_failure(
    exception: BaseException,
    *,
    now: float,
    now_wall: float,
    provider: str | None = None,
    rules: ClassifierRules = DEFAULT_RULES,
) -> Failure:
    """Classifies an exception that a model call raised.

    Args:
        exception: what was raised; OpenAI, Anthropic, google-genai, boto, litellm, httpx, pydantic-ai,
            LangChain and their likes are understood by shape.
        now: monotonic seconds, the clock of the result's `retry_at`.
        now_wall: epoch seconds, read against absolute retry hints.
        provider: the provider's id if the caller knows it; else what the exception says.
        rules: the user's additions.

    Returns:
        The failure; never raises.
    """
    try:
        facts = facts_of(exception, now_wall=now_wall, provider=provider)
    except Exception:  # noqa: BLE001 - even isinstance runs foreign code; the class name is always there
        facts = Facts(provider=provider, name=type(exception).__name__, observed_at_wall=now_wall)

    return classify(facts, now=now, rules=rules)


def facts_of(exception: BaseException, *, now_wall: float, provider: str | None = None) -> Facts:
    """The facts that an exception and its chain hold.

    Args:
        exception: what was raised.
        now_wall: epoch seconds at which it was.
        provider: the provider's id if known.

    Returns:
        Facts as any other host would report them.
    """
    chain = list(_chain(exception))
    headers = _first(_headers(link) for link in chain) or {}
    delay = _first(_number(_attribute(link, "retry_after")) for link in chain)
    if delay is not None and not any(name.lower().startswith("retry-after") for name in headers):
        headers = {**headers, "retry-after": str(delay)}

    return Facts(
        provider=provider or _first(_text(_attribute(link, "llm_provider")) for link in chain),
        status=_first(_status(link) for link in chain),
        headers=headers,
        body=[body for link in chain for body in _bodies(link)],
        name=_name(chain),
        message=" \n ".join(dict.fromkeys(message for link in chain if (message := _message(link)))) or None,
        observed_at_wall=now_wall,
    )


def _attribute(holder: object, name: str) -> object:
    try:
        return cast("object", getattr(holder, name, None))
    except Exception:  # noqa: BLE001 - a property of a foreign exception may raise anything
        return None


def _chain(exception: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[object] = [exception]
    while waiting and len(seen) < MAX_DEPTH:
        link = waiting.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue

        seen.add(id(link))
        yield link
        waiting.extend(_next(link))


def _next(link: BaseException) -> Iterator[object]:
    yield _attribute(link, "original")
    yield _attribute(link, "original_exception")
    yield _attribute(link, "__cause__")
    if not _attribute(link, "__suppress_context__"):
        yield _attribute(link, "__context__")

    inner = _attribute(link, "exceptions")
    if isinstance(inner, tuple):
        yield from cast("tuple[object, ...]", inner)[:MAX_DEPTH]


def _first(values: Iterator[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)


def _status(link: BaseException) -> int | None:
    if type(link).__name__ in _INVENTED_STATUS:
        return None

    response = _attribute(link, "response")
    named = ((link, "status_code"), (link, "code"), (response, "status_code"), (response, "status"))
    found = (_http(_attribute(holder, name)) for holder, name in (*named, (link, "api_error_status"), (link, "status")))
    return _first(found) or _http(_boto(response, "HTTPStatusCode"))


def _http(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)

    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599 else None


def _headers(link: BaseException) -> dict[str, str] | None:
    response = _attribute(link, "response")
    candidates = (
        _attribute(link, "headers"),
        _attribute(response, "headers"),
        _attribute(link, "litellm_response_headers"),
        _boto(response, "HTTPHeaders"),
    )
    return _first(_plain(candidate) for candidate in candidates)


def _plain(headers: object) -> dict[str, str] | None:
    if not isinstance(headers, Mapping):
        return None

    try:
        pairs = list(cast("Mapping[object, object]", headers).items())[:128]
    except Exception:  # noqa: BLE001 - a foreign mapping may raise anything
        return None

    return {str(name): str(value) for name, value in pairs if isinstance(value, (str, int, float))} or None


def _boto(response: object, name: str) -> object:
    """The response of botocore's ClientError is a plain dict."""
    if not isinstance(response, dict):
        return None

    metadata = cast("dict[str, object]", response).get("ResponseMetadata")
    return cast("dict[str, object]", metadata).get(name) if isinstance(metadata, dict) else None


def _bodies(link: BaseException) -> Iterator[object]:
    response = _attribute(link, "response")
    if isinstance(response, dict):
        yield cast("object", response)

    own = (_attribute(link, name) for name in ("body", "details", "response_json", "error"))
    for value in (*own, _attribute(cast("object", response), "text")):
        if isinstance(value, (dict, list, str, bytes)) and value:
            yield cast("object", value)

    for name in ("code", "type", "status", "provider_error_code", "errno_name"):
        value = _attribute(link, name)
        if isinstance(value, str) and value:
            yield {"code": value}


def _name(chain: list[BaseException]) -> str | None:
    """The outermost class name that says anything."""
    names = [type(link).__name__ for link in chain]
    return next((name for name in names if name not in _PLAIN_NAMES), names[0] if names else None)


def _message(link: BaseException) -> str:
    try:
        return clip(str(link))
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
