"""Reading what a failure says: tolerant of any shape, bounded in any size."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.core.bodies import MAX_CHARS, clip, lax_fields, read_text, squeeze
from fallback_plugin.core.evidence import excerpt, gather, spell
from fallback_plugin.core.failure import Facts
from fallback_plugin.core.statuses import status_in_text


def read(body=None, **more):
    return gather(Facts(body=body, **more))


def test_codes_come_innermost_last():
    inner = json.dumps({"error": {"code": "1113", "message": "empty"}})
    evidence = read({"error": {"code": "provider_response_error", "message": f"Error from provider: {inner}"}})
    assert evidence.codes == ("provider_response_error", "1113")
    assert "empty" in evidence.text


def test_five_layers_are_unwrapped_and_no_more():
    def wrapped(layers):
        body = json.dumps({"code": "the_heart"})
        for _ in range(layers - 1):
            body = json.dumps({"message": body})

        return read(body).codes

    assert wrapped(5) == ("the_heart",)
    assert wrapped(7) == ()


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "found"}},
        [{"error": {"code": "found"}}],
        '{"error": {"code": "found"}}',
        b'{"error": {"code": "found"}}',
        json.dumps(json.dumps({"error": {"code": "found"}})),
        "API Error: 429 {'error': {'code': 'found', 'message': None}}",
        'data: {"error": {"code": "found"}}\n\n',
        '{"error": {"code": "found", "message": "cut of',
        {"outer": {"deep": [{"error": {"type": "found"}}]}},
    ],
)
def test_a_code_is_found_in_any_wrapping(body):
    assert "found" in read(body).codes


def test_prompts_and_generations_are_never_read():
    hidden = {"message": "quota exceeded", "code": "insufficient_quota"}
    body = dict.fromkeys(("messages", "prompt", "input", "requestBodyValues", "failed_generation", "choices"), hidden)
    evidence = read(body)
    assert evidence.text == ""
    assert evidence.codes == ()


def test_headers_of_the_response_come_before_those_in_the_body():
    body = {"headers": {"Retry-After": "5", "X-Other": "1"}}
    evidence = read(body, headers={"retry-after": "9"})
    assert evidence.headers == {"retry-after": "9", "x-other": "1"}


@pytest.mark.parametrize(
    ("outer", "body", "status"),
    [
        (429, {"status": 500, "code": "400"}, 429),
        (500, {"error": {"code": "429"}}, 429),
        (502, {"error": {"code": 400}}, 400),
        (400, {"error": {"statusCode": 402}}, 402),
        (200, {"error": {"code": 503}}, 503),
        (None, {"status_code": 429}, 429),
        (None, "request failed with status code 502", 502),
        (500, "API error (status 403 Forbidden)", 403),
        (None, {"code": 1113}, None),
        (None, {"port": 443, "line": 401}, None),
    ],
)
def test_the_status_that_tells_most(outer, body, status):
    assert read(body, status=outer).status == status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("HTTP 500", 500),
        ("HTTP/2 429", 429),
        ("status code 502", 502),
        ("code=504", 504),
        ("[503] the queue is full", 503),
        ("429 too many", 429),
        ("error: 401 unauthorized", 401),
        ("gateway timeout", 504),
        ("see line 401", None),
        ("see line 401, column 3", None),
        ("limit 500 requests per minute", None),
        ("I processed 500 rows", None),
        ("404 items found", None),
        ("error 5003", None),
        ("code 500,000 was read", None),
    ],
)
def test_statuses_in_text(text, status):
    assert status_in_text(squeeze(text)) == status


def test_a_page_is_reduced_to_its_title():
    page = "<!DOCTYPE html><html><head><title>x | 524: A timeout occurred</title></head><script>quota</script></html>"
    values, words = read_text(page)
    assert values == []
    assert words == "x | 524: A timeout occurred"


def test_lax_fields_need_an_object():
    assert lax_fields('{\'code\': \'x\', "n": 4.5, "cut": "of') == {"code": "x", "n": 4.5, "cut": "of"}
    assert lax_fields("'code': 'x'") == {}


def test_codes_are_spelt_as_words():
    assert spell("FreeUsageLimitError") == "free usage limit error"
    assert spell("rate_limit-exceeded") == "rate limit exceeded"


def test_clipping_is_by_characters_of_any_encoding():
    assert len(clip("ä" * 99_999)) == MAX_CHARS
    assert len(clip(b"\xff" * 99_999)) == MAX_CHARS


def test_a_long_text_keeps_the_telling_parts():
    text = "a " * 3000 + "insufficient balance in your account " + "b " * 3000 + "the end"
    short = excerpt(text)
    assert len(short) < 2000
    assert "insufficient balance" in short
    assert short.endswith("the end")


def test_an_object_of_many_fields_still_shows_its_error():
    body = {f"field{number}": number for number in range(3000)} | {"error": "quota exceeded"}
    assert "quota exceeded" in read(body).text


@pytest.mark.parametrize("sign", ["{", "[", '{"a":', "<", '"', "\\", "' : '", "(", "1", "retry in ", "limit: 1, "])
def test_work_does_not_grow_with_the_body(sign):
    """A megabyte costs what 16 KiB cost; the factor and the 10 ms are for a busy machine."""

    def cost(size):
        body = sign * (size // len(sign))
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            read(body)
            best = min(best, time.perf_counter() - start)

        return best

    assert cost(1024 * 1024) < 10 * cost(MAX_CHARS) + 0.01


@given(st.text(max_size=200))
def test_any_text_is_read(text):
    values, words = read_text(text)
    assert isinstance(values, list)
    assert len(words) <= max(len(text), 600)
