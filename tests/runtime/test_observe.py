"""What people and machines read of each notice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.actions import Announce, NoticeType, RouteFailure
from fallback_plugin.core.classify import classify
from fallback_plugin.core.failure import Facts, Failure, Kind, Scope
from fallback_plugin.runtime.observe import as_record, describe, format_wait, toast_for

NOW = 1000.0
SES = "ses_1"
QUOTA = Failure(kind=Kind.QUOTA_EXHAUSTED, scope=Scope.PROVIDER, should_fallback=True, reason="status 402")
LIMIT = Failure(kind=Kind.RATE_LIMIT, scope=Scope.MODEL, should_fallback=True, retry_at=NOW + 7200, reason="status 429")
REFUSED = Failure(kind=Kind.SERVER_ERROR, scope=Scope.MODEL, should_fallback=True, reason="answered 400")


def announce(notice, **fields):
    return Announce(session_id=SES, notice=notice, **fields)


SENTENCES = [
    (
        announce(NoticeType.FAILURE, route="one/a", next_route="two/b", failure=QUOTA),
        "one/a failed: quota exhausted; going on with two/b",
    ),
    (
        announce(NoticeType.FAILURE, route="one/a", failure=LIMIT, detail="no fallback models configured"),
        "one/a failed: rate limit, back in 2 h; no fallback models configured",
    ),
    (announce(NoticeType.FAILURE, failure=QUOTA), "a model failed: quota exhausted; left to the host"),
    (announce(NoticeType.FAILURE, route="one/a"), "one/a failed: no reason known; left to the host"),
    (
        announce(NoticeType.HOP, route="one/a", next_route="two/b", failure=LIMIT),
        "one/a → two/b (rate limit, back in 2 h)",
    ),
    (
        announce(
            NoticeType.EXHAUSTED,
            route="two/b",
            failure=QUOTA,
            failures=(RouteFailure(route="one/a", failure=LIMIT), RouteFailure(route="two/b", failure=QUOTA)),
            returns_at=NOW + 90,
            detail="No available fallback models",
        ),
        "every model has failed: one/a: rate limit, back in 2 h; two/b: quota exhausted. Earliest back in 90 s",
    ),
    (
        announce(
            NoticeType.EXHAUSTED,
            failures=(RouteFailure(route="one/a", failure=QUOTA),),
            detail="maxAttemptsReached",
        ),
        "every model has failed (max_fallback_attempts): one/a: quota exhausted",
    ),
    (announce(NoticeType.RECOVERED, route="two/b", detail="answered"), "two/b answered"),
    (announce(NoticeType.RECOVERED, route="one/a", detail="is back"), "one/a is back"),
    (
        announce(NoticeType.REFUSED, route="two/b", failure=REFUSED, detail="tries: 3"),
        "the host did not start two/b (tries: 3): answered 400",
    ),
    (
        announce(NoticeType.REFUSED, route="two/b", detail="tries: 1"),
        "the host did not start two/b (tries: 1): no reason given",
    ),
    (
        announce(NoticeType.SKIPPED, route="one/a", next_route="two/b", failure=LIMIT),
        "one/a is out (rate limit, back in 2 h); asking two/b",
    ),
    (announce(NoticeType.STOPPED), "the turn was stopped; nothing is carried on"),
]


@pytest.mark.parametrize(("notice", "sentence"), SENTENCES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_notice_is_one_sentence(notice, sentence):
    assert describe(notice, NOW) == sentence


def test_every_type_of_notice_has_a_sentence():
    assert {notice.notice for notice, _ in SENTENCES} == set(NoticeType)
    assert all(describe(announce(kind, route="one/a"), NOW) for kind in NoticeType)


@pytest.mark.parametrize("notice", [notice for notice, _ in SENTENCES], ids=lambda notice: notice.notice.value)
def test_each_notice_is_one_json_object_that_says_the_same(notice):
    record = json.loads(json.dumps(as_record(notice, NOW)))

    assert record["notice"] == notice.notice.value
    assert record["session"] == SES
    assert record["text"] == describe(notice, NOW)
    assert record["route"] == notice.route
    assert record["next_route"] == notice.next_route
    assert ("failure" in record) == (notice.failure is not None)
    assert ("failures" in record) == bool(notice.failures)
    assert ("returns_in_s" in record) == (notice.returns_at is not None)
    assert record.get("detail", "") == notice.detail


def test_times_in_a_record_are_seconds_from_now():
    notice = announce(
        NoticeType.EXHAUSTED,
        failure=LIMIT,
        failures=(RouteFailure(route="one/a", failure=LIMIT), RouteFailure(route="two/b", failure=QUOTA)),
        returns_at=NOW + 12.3456,
    )
    record = as_record(notice, NOW)

    assert record["returns_in_s"] == 12.346
    assert record["failure"] == {
        "kind": "rate_limit",
        "scope": "model",
        "retry_after_s": 7200.0,
        "reason": "status 429",
    }
    assert [(failed["route"], failed["retry_after_s"]) for failed in record["failures"]] == [
        ("one/a", 7200.0),
        ("two/b", None),
    ]


def test_a_time_that_has_passed_is_now_not_negative():
    notice = announce(NoticeType.EXHAUSTED, failure=LIMIT, returns_at=NOW + 5)
    record = as_record(notice, NOW + 10_000)

    assert record["returns_in_s"] == 0.0
    assert record["failure"]["retry_after_s"] == 0.0
    assert "back in 0 s" in describe(notice, NOW + 10_000)
    assert describe(announce(NoticeType.FAILURE, route="a/b", failure=LIMIT), NOW + 10_000).startswith(
        "a/b failed: rate limit;"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (1.2, "1 s"),
        (40, "40 s"),
        (90, "90 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (120, "2 min"),
        (720, "12 min"),
        (3569, "59 min"),
        (3570, "1 h"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (86_400, "24 h"),
        (172_740, "47 h 59 min"),
        (172_770, "2 d"),
        (172_800, "2 d"),
        (187_200, "2 d 4 h"),
        (7 * 86_400, "7 d"),
    ],
)
def test_waits_are_said_as_people_say_them(seconds, text):
    assert format_wait(seconds) == text


@given(st.floats(0, 1e9))
def test_a_wait_is_never_said_wrong_by_more_than_its_last_unit(seconds):
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    words = format_wait(seconds).split()
    said = sum(int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))

    smallest = 3600 if "d" in words else 60 if seconds >= 120 else 1
    assert abs(said - seconds) <= smallest


SECRETS = ["sk-proj-ABCDEF1234567890abcdef", "Bearer eyJhbGciOi.secret", "my private prompt about Bob"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["message", "body", "headers"])
def test_what_a_provider_echoes_reaches_neither_people_nor_machines(secret, place):
    facts = {
        "message": Facts(status=401, message=f"Incorrect API key provided: {secret}"),
        "body": Facts(status=429, body={"error": {"message": f"limit for {secret}", "code": "rate_limit_exceeded"}}),
        "headers": Facts(status=500, headers={"x-request": secret, "retry-after": "60"}, message="oops"),
    }[place]
    failure = classify(facts, now=NOW)
    for kind in NoticeType:
        notice = announce(
            kind,
            route="one/a",
            next_route="two/b",
            failure=failure,
            failures=(RouteFailure(route="one/a", failure=failure),),
        )
        said = json.dumps(as_record(notice, NOW)) + describe(notice, NOW) + toast_for(notice, NOW).message
        assert secret not in said


def test_the_toast_of_a_hop_warns_and_the_toast_of_an_exhausted_chain_is_an_error():
    hop = announce(NoticeType.HOP, route="one/a", next_route="two/b", failure=QUOTA)
    end = announce(NoticeType.EXHAUSTED, failures=(RouteFailure(route="one/a", failure=QUOTA),))

    assert (toast_for(hop, NOW).title, toast_for(hop, NOW).variant) == ("Model fallback", "warning")
    assert (toast_for(end, NOW).title, toast_for(end, NOW).variant) == ("All models failed", "error")
    assert toast_for(hop, NOW).message == "one/a → two/b (quota exhausted)"
