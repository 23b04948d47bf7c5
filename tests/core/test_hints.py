"""When to come back: every place in which a provider may say it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.classify import classify
from fallback_plugin.core.durations import epoch, moment, seconds
from fallback_plugin.core.failure import Facts

WALL = 1_795_247_821.0  # 2026-11-21T07:57:01Z
DAY = 86400.0


def delay(message=None, *, headers=None, body=None, status=429, provider=None, next_=None):
    facts = Facts(
        provider=provider, status=status, headers=headers or {}, body=body, message=message,
        host_retry_at_wall=next_, observed_at_wall=WALL,
    )  # fmt: skip
    at = classify(facts, now=1000.0).retry_at
    return None if at is None else at - 1000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "20"}, 20),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "274579000"}, 274579),
        ({"Retry-After": "Sat, 21 Nov 2026 08:57:01 GMT"}, 3600),
        ({"retry-after": "2m30s"}, 150),
        ({"retry-after": "1795247881"}, 60),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360),
        ({"x-ratelimit-reset-tokens": "17ms", "x-ratelimit-remaining-tokens": "149"}, None),
        ({"x-ratelimit-reset": "1795247881000", "x-ratelimit-remaining": "0"}, 60),
        ({"x-ratelimit-reset": "30"}, 30),
        (
            {"anthropic-ratelimit-tokens-reset": "2026-11-21T08:07:01Z", "anthropic-ratelimit-tokens-remaining": "0"},
            600,
        ),
        ({"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": "1795251421"}, 3600),
        ({"anthropic-ratelimit-unified-status": "allowed", "anthropic-ratelimit-unified-reset": "1795251421"}, None),
        (
            {
                "x-codex-primary-used-percent": "100",
                "x-codex-primary-reset-after-seconds": "471285",
                "x-codex-primary-reset-at": "1773860656",
                "x-codex-secondary-used-percent": "80",
                "x-codex-secondary-reset-after-seconds": "999999",
            },
            471285,
        ),
        ({"retry-after": "10", "x-ratelimit-reset": "3600", "x-ratelimit-remaining": "0"}, 10),
    ],
)
def test_headers(headers, expected):
    assert delay(headers=headers) == pytest.approx(expected) if expected is not None else delay(headers=headers) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33.5s"}]}}, 33.5),
        ({"error": {"resets_in_seconds": 13872, "resets_at": 1777936568}}, 13872),
        ({"error": {"resets_at": 1795251421}}, 3600),
        ({"error": {"reset_at": "2026-11-21T08:57:01Z"}}, 3600),
        ({"error": {"resetAt": 1795251421000}}, 3600),
        ({"error": {"reset_time": "20m0s"}}, 1200),
        ({"error": {"retry_after_ms": 1500}}, 1.5),
        ({"error": {"metadata": {"quotaResetDelay": "9m38.016s"}}}, 578.016),
        ({"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1795247851000"}}}}, 30),
        ({"ResponseMetadata": {"HTTPHeaders": {"retry-after": "5"}}}, 5),
        ({"estimated_time": 49.2}, 49.2),
        ({"error": {"resets_at": 1}}, None),
        ({"error": {"retry_after": -3}}, None),
        ({"error": {"retry_after": float("inf")}}, None),
    ],
)
def test_bodies(body, expected):
    found = delay(body=body)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please try again in 9m38.016s.", 578.016),
        ("quota exceeded [retrying in 10h 7m attempt #1]", 36420),
        ("Free usage exceeded\nretrying in 20h28m - attempt #1", 73680),
        ("Your quota will reset after 1h44m43s.", 6283),
        ("(reset after 20h 41m 59s)", 74519),
        ("5-hour usage limit reached. Resets in 36min.", 2160),
        ("Please retry after 2 seconds.", 2),
        ("Please wait 587 hours 33 minutes before trying again.", 587 * 3600 + 33 * 60),
        ("try again in 3 days 21 hours 4 minutes", 3 * DAY + 21 * 3600 + 240),
        ("Please retry in 33.9s.", 33.9),
        ("try again in about an hour", None),
        ("try again in an hour", 3600),
        ("retry-after: 30", 30),
        ("delayMs=1806000", 1806),
        ('retryDelay is "45.837906927s"', 45.837906927),
        ("usage limit reached|1795251421", 3600),
        ("usage limit reached|1753077600", None),
        ("请在 60 秒后重试", 60),
        ("You will regain access on 2026-11-21 at 08:57 UTC.", None),
        ("Your limit will reset at 2026-11-21 08:57:01 UTC", 3600),
        ("You've hit your limit · resets 10am (Europe/Berlin)", 3779),
        ("limit reached ∙ resets Nov 22, 9am (UTC)", DAY + 3779),
        ("limit reached ∙ resets 3pm", None),
        ("limit reached, resets 3pm (Middle/Earth)", None),
        ("limit reached, resets 25pm (UTC)", None),
        ("processed in 30 seconds", None),
    ],
)
def test_text(text, expected):
    found = delay(text)
    assert found == (None if expected is None else pytest.approx(expected))


def test_zai_writes_beijing_time():
    text = "Usage limit reached for 5 hour. Your limit will reset at 2026-11-21 16:57:01"
    assert delay(text, provider="zai-coding-plan") == 3600


def test_nobody_waits_longer_than_31_days_or_less_than_nothing():
    assert delay(headers={"retry-after": "99999999"}) == 31 * DAY
    assert delay("Resets in 90 days") == 31 * DAY


def test_the_hosts_next_is_the_providers_word():
    assert delay("Weekly usage limit reached", next_=WALL + DAY) == DAY
    assert delay("Rate limit reached", next_=WALL + 12) == 12
    assert delay("Rate limit reached", next_=WALL - 100) is None


def test_the_longer_of_two_clocks_wins():
    assert delay("Resets in 3 hours", headers={"retry-after": "60"}) == 10800
    assert delay("Please retry in 5s", headers={"retry-after": "60"}) == 60


def test_gauges_count_for_limits_only():
    headers = {"x-ratelimit-reset-requests": "60s", "x-ratelimit-remaining-requests": "0"}
    assert delay(headers=headers, status=500) is None
    assert delay(headers={**headers, "retry-after": "7"}, status=500) == 7


def test_a_documented_daily_reset_is_assumed_only_when_nothing_was_said():
    body = {"error": {"message": "Quota exceeded", "details": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}}
    assert delay(body=body, provider="google") == 179  # midnight in Los Angeles
    assert delay("Please retry in 20s", body=body, provider="google") == 20
    assert delay(body=body, provider="acme") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1h44m43s", 6283), ("10h 7m", 36420), ("250ms", 0.25), ("2 hours and 3 minutes", 7380), ("1 week", 604800)],
)
def test_lengths(text, expected):
    assert seconds(text) == pytest.approx(expected)


def test_moments():
    assert moment("2026-11-21T07:57:01.500Z") == WALL + 0.5
    assert moment("2026-11-21T08:57:01+01:00") == WALL
    assert moment("2026-02-31T00:00:00Z") is None
    assert moment("later") is None


@given(st.floats(min_value=1e9, max_value=4e9))
def test_an_epoch_is_known_in_any_unit(at):
    for scale in (1.0, 1e3, 1e6):
        assert math.isclose(epoch(at * scale), at, rel_tol=1e-9)


@given(st.text(max_size=60))
def test_readers_never_raise(text):
    for reader in (seconds, moment):
        found = reader(text)
        assert found is None or math.isfinite(found)
