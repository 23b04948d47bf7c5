"""The classifier: traps of real providers, the user's rules, prose, and never an exception."""

import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallback_plugin.core.classify import classify
from fallback_plugin.core.failure import Facts, Failure, Kind, Scope
from fallback_plugin.core.policy import ClassifierRules, ErrorRule

WALL = 1_795_247_821.0
DAY = 86400.0


def said(message=None, *, status=None, body=None, name=None, provider=None, headers=None, rules=None, **more):
    facts = Facts(
        provider=provider,
        status=status,
        headers=headers or {},
        body=body,
        name=name,
        message=message,
        observed_at_wall=WALL,
        **more,
    )
    return classify(facts, now=0.0, rules=rules or ClassifierRules())


def error(message, *, type_=None, code=None):
    return {"error": {"message": message, "type": type_, "code": code}}


# The traps of the catalogue of provider errors, one test each.


def test_billing_under_400():
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}}
    failure = said(status=400, body=body, provider="anthropic")
    assert (failure.kind, failure.scope, failure.should_fallback) == (Kind.QUOTA_EXHAUSTED, Scope.PROVIDER, True)


def test_billing_under_429():
    assert said(status=429, body=error("x", code="insufficient_quota")).kind is Kind.QUOTA_EXHAUSTED
    assert said(status=429, body=error("x", code="1113"), provider="zai").kind is Kind.QUOTA_EXHAUSTED


def test_billing_under_403():
    text = "Your team has either used all available credits or reached its monthly spending limit."
    assert said(text, status=403, provider="xai").kind is Kind.QUOTA_EXHAUSTED


def test_billing_under_500():
    failure = said(status=500, body=error("insufficient balance (1008)"), provider="minimax")
    assert failure.kind is Kind.QUOTA_EXHAUSTED


def test_throttling_under_402():
    assert said("Too many concurrent requests", status=402).kind is Kind.RATE_LIMIT
    burst = {"type": "server_error", "message": "Upstream request failed: Insufficient account funds"}
    assert said(status=402, body=burst, provider="xiaomi-mimo").kind is Kind.RATE_LIMIT


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("zai", error("x", code="1305")),
        ("google", {"error": {"code": 429, "details": [{"reason": "MODEL_CAPACITY_EXHAUSTED"}]}}),
        ("moonshot", error("x", type_="engine_overloaded_error")),
        ("mistral", {"message": "Service tier capacity exceeded for this model.", "code": "3505"}),
    ],
)
def test_overload_under_429_does_not_blame_the_account(provider, body):
    failure = said(status=429, body=body, provider=provider)
    assert (failure.kind, failure.scope) == (Kind.OVERLOADED, Scope.MODEL)


@pytest.mark.parametrize(
    "text",
    [
        "You've hit your limit · resets 3pm (Europe/Berlin)",
        "You've hit your usage limit. Upgrade to Pro or try again in 3 days 4 hours.",
        "Sorry, you've exceeded your 5 hour session limits.",
        "usage limit exceeded, 5-hour usage limit reached for Token Plan (2056)",
        "you've reached your weekly usage limit, upgrade for higher limits",
        "Free usage exceeded, subscribe to Go",
        "Weekly usage limit reached. Resets in 3 days.",
    ],
)
def test_plan_window_under_429_is_a_quota(text):
    failure = said(text, status=429)
    assert (failure.kind, failure.scope, failure.should_fallback) == (Kind.QUOTA_EXHAUSTED, Scope.PROVIDER, True)


def test_two_clocks_the_code_names_the_longer_one():
    body = error("Please wait 2 minutes before trying again.", code="user_weekly_rate_limited")
    assert said(status=429, body=body, provider="github-copilot").kind is Kind.QUOTA_EXHAUSTED


def test_two_clocks_the_longer_wait_wins():
    body = error("Weekly limit reached. Resets in 3 days.")
    assert said(status=429, body=body, headers={"Retry-After": "60"}).retry_at == 3 * DAY


def test_per_minute_and_per_day_quotas_are_told_apart():
    def google(quota):
        violations = [{"quotaId": f"GenerateRequests{quota}PerProjectPerModel-FreeTier"}]
        message = "You exceeded your current quota, please check your plan and billing details."
        return {"error": {"message": message, "status": "RESOURCE_EXHAUSTED", "details": [{"violations": violations}]}}

    assert said(status=429, body=google("PerMinute"), provider="google").kind is Kind.RATE_LIMIT
    assert said(status=429, body=google("PerDay"), provider="google").kind is Kind.QUOTA_EXHAUSTED
    assert said("Too many tokens per day, please wait", status=429).kind is Kind.QUOTA_EXHAUSTED
    assert said("Rate limit reached on tokens per minute (TPM)", status=429).kind is Kind.RATE_LIMIT


def test_a_request_larger_than_the_bucket_is_futile_to_repeat_but_may_fit_elsewhere():
    text = "Rate limit reached on tokens per minute (TPM): Limit 6000, Requested 12071"
    failure = said(status=429, body=error(text, code="rate_limit_exceeded"))
    assert (failure.kind, failure.should_fallback) == (Kind.CONTEXT_OVERFLOW, True)
    fits = "Rate limit reached on tokens per minute (TPM): Limit 6000, Used 5000, Requested 2000"
    assert said(status=429, body=error(fits, code="rate_limit_exceeded")).kind is Kind.RATE_LIMIT


def test_too_many_tokens_is_not_context():
    assert said("Too many tokens, please wait before trying again.", status=429).kind is Kind.RATE_LIMIT


@pytest.mark.parametrize("status", [400, 413, 500, 502])
def test_overflow_under_any_status_stays(status):
    failure = said("This model's maximum context length is 8192 tokens.", status=status)
    assert (failure.kind, failure.should_fallback) == (Kind.CONTEXT_OVERFLOW, False)


def test_errors_inside_http_200():
    frame = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    assert said(status=200, body=frame).kind is Kind.OVERLOADED
    frame = {"type": "error", "error": {"type": "usage_limit_reached"}, "status_code": 429}
    assert said(status=200, body=frame).kind is Kind.QUOTA_EXHAUSTED
    assert said("Model returned an empty response", status=200).should_fallback


def test_wrapped_json_is_unwrapped():
    body = json.dumps({"error": {"code": "insufficient_quota"}})
    for _ in range(4):
        body = json.dumps({"error": {"message": "Error from provider: " + body}})

    assert said(status=400, body=body).kind is Kind.QUOTA_EXHAUSTED


@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"status": "RESOURCE_EXHAUSTED"}}],
        {"error": "Too many requests for team x"},
        {"error": {"http_code": "429", "message": "x"}},
        '"Too many requests"',
        b'{"error": {"type": "rate_limit_error"}}',
        "Error code: 429 - {'error': {'message': 'x', 'type': 'requests', 'param': None}}",
        '{"error":{"message":"x","code":"rate_limit_exceeded","cut":"of',
    ],
)
def test_odd_bodies_are_read(body):
    assert said(body=body).kind is Kind.RATE_LIMIT


def test_the_gateways_own_empty_account_is_not_the_users():
    raw = json.dumps(error("Your account is suspended due to insufficient balance"))
    body = {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": raw}}}
    failure = said(status=429, body=body, provider="opencode-go")
    assert (failure.kind, failure.scope) == (Kind.QUOTA_EXHAUSTED, Scope.UPSTREAM)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("余额不足或无可用资源包,请充值。", Kind.QUOTA_EXHAUSTED),
        ("该模型当前访问量过大, 请您稍后再试", Kind.OVERLOADED),
        ("请求过于频繁, 请稍后再试", Kind.RATE_LIMIT),
        ("令牌已过期或验证不正确", Kind.AUTH),
    ],
)
def test_chinese_text(text, kind):
    assert said(text, status=500 if kind is not Kind.AUTH else 401).kind is kind


@pytest.mark.parametrize(
    "text",
    [
        "Malformed input request, please reformat your input and try again.",
        "The file type you uploaded is not supported. Please try again with a pdf",
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease and try again",
    ],
)
def test_try_again_in_a_400_is_no_signal(text):
    assert not said(status=400, body=error(text, type_="invalid_request_error")).should_fallback


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": {"type": "not_found_error", "message": "model: claude-9"}}),
        (404, {"error": {"message": "models/x is not found for API version v1beta", "status": "NOT_FOUND"}}),
        (400, {"message": "The provided model identifier is invalid."}),
        (404, {"message": "model 'command-x' not found, make sure the correct model ID was used"}),
        (400, {"detail": "Model voyage-x is not supported. Supported models are ['voyage-3']."}),
        (410, "Gone"),
    ],
)
def test_model_not_found_wordings(status, body):
    failure = said(status=status, body=body)
    assert (failure.kind, failure.should_fallback) == (Kind.MODEL_NOT_FOUND, True)


@pytest.mark.parametrize(
    "text",
    [
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "Function call is missing a thought_signature in functionCall parts",
        "The encrypted content for item rs_1 could not be verified.",
    ],
)
def test_signature_400s_do_not_advance(text):
    failure = said(status=400, body=error(text, type_="invalid_request_error"))
    assert (failure.kind, failure.should_fallback) == (Kind.BAD_REQUEST, False)


def test_output_refused_falls_back_and_input_refused_stays():
    assert said("output new_sensitive (1027)", provider="minimax").should_fallback
    assert not said("input new_sensitive (1026)", provider="minimax").should_fallback


# Text that is no failure, and text that is.


@pytest.mark.parametrize(
    "prose",
    [
        "I processed 500 rows",
        "I've fixed the code: rate limit exceeded is handled now, and 429 Too Many Requests is retried",
        "the model gpt-5 does not exist",
        "see line 401",
        "see line 401, column 3",
        "maximum 401 tokens",
        "limit 500 requests per minute",
        "The API key is required for this endpoint",
        "try again later with shorter prompt",
        "Room 402 is available",
        "The evidence is insufficient to reconcile the final balance.",
        "Here is the summary of the timeout handling",
    ],
)
def test_prose_is_no_failure(prose):
    for failure in (said(prose), said(body=prose)):
        assert not failure.should_fallback
        assert failure.retry_at is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("HTTP 500", Kind.SERVER_ERROR),
        ("request failed with status code 502", Kind.SERVER_ERROR),
        ("code=504", Kind.TIMEOUT),
        ("Streaming response failed: [503] wait", Kind.OVERLOADED),
        ("connect ECONNREFUSED 127.0.0.1:80", Kind.NETWORK),
        ("connect ETIMEDOUT 10.0.0.1:443", Kind.TIMEOUT),
        ("socket hang up", Kind.NETWORK),
        ("TypeError: fetch failed", Kind.NETWORK),
        ("429 Too Many Requests", Kind.RATE_LIMIT),
        ("Insufficient Balance", Kind.QUOTA_EXHAUSTED),
    ],
)
def test_bare_error_text_is_a_failure(text, kind):
    failure = said(text)
    assert (failure.kind, failure.should_fallback) == (kind, True)


@pytest.mark.parametrize(
    ("name", "kind", "falls_back"),
    [
        ("MessageAbortedError", Kind.ABORTED, False),
        ("ContextOverflowError", Kind.CONTEXT_OVERFLOW, False),
        ("ContentFilterError", Kind.CONTENT_POLICY, False),
        ("ProviderAuthError", Kind.AUTH, True),
        ("ProviderModelNotFoundError", Kind.MODEL_NOT_FOUND, True),
        ("MessageOutputLengthError", Kind.TRUNCATED, True),
        ("StructuredOutputError", Kind.BAD_REQUEST, True),
        ("AI_LoadAPIKeyError", Kind.MISSING_API_KEY, True),
        ("UnknownError", Kind.BAD_REQUEST, False),
        ("APIError", Kind.BAD_REQUEST, False),
    ],
)
def test_names_of_the_host(name, kind, falls_back):
    assert (said(name=name).kind, said(name=name).should_fallback) == (kind, falls_back)
    nested = said(body={"name": name, "data": {"message": "x"}})
    assert (nested.kind, nested.should_fallback) == (kind, falls_back)


def test_what_the_host_retries_is_a_failure_even_in_words_nobody_knows():
    assert said("etwas ging schief", name="session.status retry").should_fallback
    assert said(body={"data": {"message": "etwas ging schief", "isRetryable": True}}).should_fallback
    assert not said(body={"data": {"message": "etwas ging schief", "isRetryable": False}}).should_fallback


@pytest.mark.parametrize(
    ("status", "falls_back"),
    [(400, False), (401, True), (402, True), (403, True), (404, True), (408, True), (413, False), (422, False)]
    + [(status, True) for status in (410, 424, 429, 500, 502, 503, 504, 520, 524, 529)],
)
def test_bare_statuses(status, falls_back):
    assert said(status=status).should_fallback is falls_back


def test_scope():
    assert said("exhausted this model's rate limit, weekly quota", status=429).scope is Scope.MODEL
    assert said(status=401).scope is Scope.CREDENTIAL
    assert said(body=error("Key limit exceeded (total limit)"), status=403).scope is Scope.CREDENTIAL
    raw = "x is temporarily rate-limited upstream"
    body = {"error": {"message": "Provider returned error", "metadata": {"raw": raw, "provider_name": "X"}}}
    assert said(status=429, body=body, provider="openrouter").scope is Scope.UPSTREAM
    assert said(status=429, body=body, provider="openai").scope is Scope.MODEL


# The user's additions.


def test_an_added_status_falls_back():
    rules = ClassifierRules(retry_on_errors=ClassifierRules().retry_on_errors | {400})
    failure = said(status=400, body=error("Param Incorrect"), rules=rules)
    assert failure.should_fallback
    assert "400" in failure.reason


@pytest.mark.parametrize("text", ["prompt is too long", "rejected by our safety system"])
def test_an_added_status_leaves_kinds_with_their_own_switch_alone(text):
    rules = ClassifierRules(retry_on_errors=ClassifierRules().retry_on_errors | {400})
    assert not said(text, status=400, rules=rules).should_fallback


def test_a_default_status_left_out_stays_and_says_so():
    rules = ClassifierRules(retry_on_errors=frozenset({500}))
    failure = said("Rate limit reached", status=429, rules=rules)
    assert not failure.should_fallback
    assert "retry_on_errors leaves 429 out" in failure.reason
    assert failure.kind is Kind.RATE_LIMIT


def test_a_pattern_of_the_user_falls_back_and_sees_the_text_as_given():
    pattern = re.compile("Gremlin").search
    rules = ClassifierRules(retryable_patterns=(lambda text: pattern(text) is not None,))
    assert said("A Gremlin sat in the machine", status=400, rules=rules).should_fallback
    assert not said("A gremlin sat in the machine", status=400, rules=rules).should_fallback
    assert not said("Gremlin", name="MessageAbortedError", rules=rules).should_fallback


def test_error_rules_come_first():
    rule = ErrorRule(provider="ACME", status=418, code="Teapot", kind=Kind.OVERLOADED, scope=Scope.PROVIDER)
    rules = ClassifierRules(error_rules=(rule, ErrorRule(status=418, cooldown_seconds=90)))
    mine = said(status=418, body={"code": "TEAPOT"}, provider="acme", rules=rules)
    assert (mine.kind, mine.scope, mine.should_fallback, mine.retry_at) == (
        Kind.OVERLOADED,
        Scope.PROVIDER,
        True,
        None,
    )
    other = said("Retry after 5 seconds", status=418, provider="acme", rules=rules)
    assert (other.retry_at, other.should_fallback) == (90.0, False)
    assert "error rule 2" in other.reason


def test_an_error_rule_may_match_text():
    rules = ClassifierRules(error_rules=(ErrorRule(text=lambda text: "kaputt" in text, kind=Kind.SERVER_ERROR),))
    assert said("alles kaputt", status=400, rules=rules).kind is Kind.SERVER_ERROR
    assert said("alles gut", status=400, rules=rules).kind is Kind.BAD_REQUEST


@pytest.mark.parametrize("seconds", [-5.0, 1e12])
def test_a_cooldown_is_bounded(seconds):
    rules = ClassifierRules(error_rules=(ErrorRule(cooldown_seconds=seconds),))
    assert 0 <= said(status=500, rules=rules).retry_at <= 31 * DAY


def test_switches():
    refused, long = error("x", code="content_policy_violation"), error("x", code="context_length_exceeded")
    assert not said(status=400, body=refused).should_fallback
    assert not said(status=400, body=long).should_fallback
    assert said(status=400, body=refused, rules=ClassifierRules(content_policy_falls_back=True)).should_fallback
    assert said(status=400, body=long, rules=ClassifierRules(overflow_falls_back=True)).should_fallback


# Robustness.


def test_a_reason_never_repeats_the_error():
    secret = "sk-live-0123456789"
    failure = said(f"Incorrect API key provided: {secret}", status=401, body=error(secret, code=secret))
    assert secret not in failure.reason


def test_hostile_objects_do_not_raise():
    class Hostile(dict):
        def items(self):
            raise RuntimeError("no")

    failure = said(status=429, body=Hostile(a=1))
    assert isinstance(failure, Failure)
    assert failure.should_fallback


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(["error", "message", "code", "type", "status", "metadata", "raw", "retry_after", "reset_at"])
ERRORS = st.recursive(
    st.none() | st.integers() | st.text(max_size=30) | st.floats(),
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=JSON | ERRORS | st.binary(max_size=300) | ERRORS.map(json.dumps),
    status=st.none() | st.integers(-5, 1000),
    message=st.none() | st.text(max_size=120),
    name=st.none() | st.text(max_size=20),
    headers=st.dictionaries(st.text(max_size=20) | st.just("retry-after"), st.text(max_size=20), max_size=3),
    next_=st.none() | st.floats(allow_nan=False),
)
def test_anything_classifies_the_same_way_twice_within_bounds(body, status, message, name, headers, next_):
    facts = Facts(
        status=status, body=body, message=message, name=name, headers=headers, host_retry_at_wall=next_,
        observed_at_wall=WALL,
    )  # fmt: skip
    failure = classify(facts, now=7.0)
    assert failure == classify(facts, now=7.0)
    assert failure.retry_at is None or (math.isfinite(failure.retry_at) and 7.0 <= failure.retry_at <= 7.0 + 31 * DAY)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.integers(1, 2000))
def test_long_repetitions_are_no_trouble(piece, times):
    assert isinstance(said(piece * times, status=429), Failure)


def test_only_the_first_16_kib_are_looked_at():
    assert said(body="x" * 20_000 + " insufficient_quota").kind is Kind.BAD_REQUEST
    assert said(body="x " * 5_000 + " insufficient_quota: quota exceeded").kind is Kind.QUOTA_EXHAUSTED
