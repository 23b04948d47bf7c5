"""Exceptions of Python hosts, read by shape."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.exception_facts import MAX_DEPTH, facts_of, read_failure
from fallback_plugin.core.failure import Failure, Kind

WALL = 1_795_247_821.0


def read(exception, **more):
    return read_failure(exception, now=50.0, now_wall=WALL, **more)


def raised(name, message="x", **attributes):
    return type(name, (Exception,), attributes)(message)


def chained(*links):
    for outer, inner in pairwise(links):
        outer.__cause__ = inner

    return links[0]


def test_openai_shape():
    response = SimpleNamespace(status_code=429, headers={"Retry-After": "12"}, text="")
    body = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
    failure = read(raised("RateLimitError", status_code=429, response=response, body=body, code="rate_limit_exceeded"))
    assert (failure.kind, failure.retry_at, failure.should_fallback) == (Kind.RATE_LIMIT, 62.0, True)


def test_a_quota_behind_a_rate_limit_class():
    failure = read(raised("RateLimitError", status_code=429, code="insufficient_quota"))
    assert failure.kind is Kind.QUOTA_EXHAUSTED


def test_google_shape():
    details = {"error": {"details": [{"retryDelay": "7s"}], "status": "RESOURCE_EXHAUSTED"}}
    failure = read(raised("ClientError", code=429, details=details))
    assert (failure.kind, failure.retry_at) == (Kind.RATE_LIMIT, 57.0)


def test_boto_shape():
    response = {
        "Error": {"Code": "ThrottlingException", "Message": "Too many requests"},
        "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "5"}},
    }
    failure = read(raised("ClientError", response=response))
    assert (failure.kind, failure.retry_at) == (Kind.RATE_LIMIT, 55.0)


def test_litellm_shape():
    error = raised(
        "RateLimitError", status_code=429, litellm_response_headers={"retry-after": "9"}, llm_provider="groq"
    )
    facts = facts_of(error, now_wall=WALL)
    assert facts.provider == "groq"
    assert read(error).retry_at == 59.0


def test_the_status_that_litellm_invents_is_none():
    error = raised("APIConnectionError", "Connection refused", status_code=500)
    assert facts_of(error, now_wall=WALL).status is None
    assert read(error).kind is Kind.NETWORK


def test_retry_after_of_pydantic_ai():
    failure = read(raised("ModelRateLimitError", retry_after=3.5, status_code=429))
    assert failure.retry_at == 53.5


def test_the_header_wins_over_the_attribute():
    failure = read(raised("X", retry_after=3.5, status_code=429, headers={"Retry-After": "8"}))
    assert failure.retry_at == 58.0


@pytest.mark.parametrize(
    ("exception", "kind", "falls_back"),
    [
        (asyncio.CancelledError(), Kind.ABORTED, False),
        (TimeoutError(), Kind.TIMEOUT, True),
        (ConnectionResetError(104, "Connection reset by peer"), Kind.NETWORK, True),
        (ConnectionRefusedError(111, "Connection refused"), Kind.NETWORK, True),
        (ValueError("boom"), Kind.BAD_REQUEST, False),
        (KeyError("name"), Kind.BAD_REQUEST, False),
        (raised("ModelThrottledException"), Kind.RATE_LIMIT, True),
        (raised("ContextWindowExceededError"), Kind.CONTEXT_OVERFLOW, False),
        (raised("OverloadedError"), Kind.OVERLOADED, True),
        (raised("RemoteProtocolError", "peer closed connection"), Kind.NETWORK, True),
        (raised("AuthenticationError", status_code=401), Kind.AUTH, True),
        (raised("NotFoundError", status_code=404), Kind.MODEL_NOT_FOUND, True),
        (raised("BadRequestError", status_code=400), Kind.BAD_REQUEST, False),
    ],
)
def test_classes(exception, kind, falls_back):
    failure = read(exception)
    assert (failure.kind, failure.should_fallback) == (kind, falls_back)


def test_the_chain_is_walked():
    inner = raised("Inner", status_code=503)
    assert read(chained(RuntimeError("a"), RuntimeError("b"), inner)).kind is Kind.OVERLOADED
    assert read(raised("Wrapper", original=inner)).kind is Kind.OVERLOADED
    outer = RuntimeError("a")
    outer.__context__ = inner
    assert read(outer).kind is Kind.OVERLOADED
    assert read(ExceptionGroup("all", [inner])).kind is Kind.OVERLOADED


def test_a_suppressed_context_is_not_meant():
    outer = RuntimeError("a")
    outer.__context__ = raised("Inner", status_code=503)
    outer.__suppress_context__ = True
    assert not read(outer).should_fallback


def test_the_chain_ends_after_five_links():
    near = [RuntimeError(str(number)) for number in range(MAX_DEPTH - 1)]
    assert read(chained(*near, raised("Inner", status_code=503))).should_fallback
    far = [RuntimeError(str(number)) for number in range(MAX_DEPTH)]
    assert not read(chained(*far, raised("Inner", status_code=503))).should_fallback


def test_a_cycle_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert isinstance(read(first), Failure)


def test_hostile_attributes_are_not_there():
    class HostileError(Exception):
        status_code = property(lambda self: 1 / 0)
        response = property(lambda self: 1 / 0)
        original = property(lambda self: 1 / 0)

        def __str__(self):
            raise RuntimeError("no")

    failure = read(HostileError())
    assert not failure.should_fallback
    HostileError.code = 429
    assert read(HostileError()).kind is Kind.RATE_LIMIT


def test_objects_that_lie_about_their_class():
    class Liar:
        @property
        def __class__(self):
            raise RuntimeError("no")

    assert isinstance(read(raised("RateLimitError", body=Liar(), headers=Liar())), Failure)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none()
            | st.integers()
            | st.text(max_size=9)
            | st.floats()
            | st.binary(max_size=9)
            | st.just({"a": 1})
            for name in ("status_code", "code", "headers", "body", "retry_after", "response", "details", "original")
        },
    )
)
def test_any_attributes_are_read(attributes):
    first = read(raised("Odd", **attributes))
    assert first == read(raised("Odd", **attributes))
