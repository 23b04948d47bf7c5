"""Whatever history goes in, each provider's rules hold for what comes out.

The three validators below are written from the providers' references (chat completions; messages, "Handle tool calls",
"Extended thinking"; generateContent, "Function calling", "Thought signatures") and share no code with the package.
"""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_plugin.core.transcript import (
    Endpoint,
    Family,
    File,
    Image,
    Message,
    Reasoning,
    Role,
    Signature,
    Text,
    ToolCall,
    ToolResult,
    add_tool_call,
    merge_assistants,
)
from fallback_plugin.core.transcript_repair import sanitise
from fallback_plugin.core.transcript_shapes import export_history, read_history
from fallback_plugin.core.transcript_steps import INTERRUPTED

TARGETS = [Endpoint(family=family, name=name) for family in Family for name in ("", "vertex")]
SEARCH = settings(deadline=None, max_examples=60)
PICTURES = {"image/jpeg", "image/png", "image/gif", "image/webp"}
BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


def everywhere(**strategies):
    """Runs a property for each endpoint that a history could go to."""
    targets = pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.family}-{target.name}")
    return lambda test: targets(SEARCH(given(**strategies)(test)))


# The providers' rules.


def strict(text):
    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def is_words(value):
    return isinstance(value, str) and value.strip() != ""


def has_keys(value, needed, allowed=()):
    assert set(needed) <= set(value) <= set(needed) | set(allowed), value


def check_openai(body, *, prefill=False):
    messages = body["messages"]
    has_keys(body, ["messages"])
    assert messages
    pending, ids, last = [], set(), None
    for message in messages:
        role = message["role"]
        if role == "tool":
            has_keys(message, ["role", "tool_call_id", "content"])
            assert isinstance(message["content"], str)
            pending.remove(message["tool_call_id"])
        else:
            assert not pending, "calls must be answered before anybody else speaks"

        if role == "assistant":
            pending = openai_assistant(message, ids)
            assert last != "assistant"
        elif role == "user":
            has_keys(message, ["role", "content"])
            openai_user(message["content"])
        elif role == "system":
            has_keys(message, ["role", "content"])
            assert is_words(message["content"])
        else:
            assert role == "tool"

        last = role

    assert not pending
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    assert spoken[-1] in ({"user", "tool", "assistant"} if prefill else {"user", "tool"})


def openai_assistant(message, ids):
    has_keys(message, ["role", "content"], ["tool_calls", "reasoning", "reasoning_content", "reasoning_details"])
    assert message["content"] is None or is_words(message["content"])
    assert message["content"] or message["tool_calls"]
    pending = []
    for call in message.get("tool_calls", []):
        has_keys(call, ["id", "type", "function"], ["extra_content"])
        has_keys(call["function"], ["name", "arguments"])
        assert call["type"] == "function"
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", call["id"])
        assert call["id"] not in ids
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"])
        assert isinstance(strict(call["function"]["arguments"]), dict)
        ids.add(call["id"])
        pending.append(call["id"])

    assert "tool_calls" not in message or pending
    return pending


def openai_user(content):
    if isinstance(content, str):
        assert is_words(content)
        return

    assert content
    for part in content:
        kind = part["type"]
        has_keys(part, ["type", kind])
        if kind == "text":
            assert is_words(part["text"])
        elif kind == "image_url":
            url = part["image_url"]["url"]
            assert re.match(r"https?://|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*$", url)
        elif kind == "input_audio":
            assert part["input_audio"]["format"] in {"wav", "mp3"}
        else:
            assert kind == "file"
            assert "file_id" in part["file"] or part["file"]["file_data"].startswith("data:application/pdf;base64,")


def check_anthropic(body, *, prefill=False):
    has_keys(body, ["messages"], ["system"])
    for block in body.get("system", [{"type": "text", "text": "x"}]):
        assert block["type"] == "text"
        assert is_words(block["text"])

    messages, pending, ids = body["messages"], [], set()
    assert [message["role"] for message in messages] == [("user", "assistant")[n % 2] for n in range(len(messages))]
    for message in messages:
        has_keys(message, ["role", "content"])
        assert message["content"]
        if message["role"] == "user":
            kinds = [block["type"] for block in message["content"]]
            answers = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
            assert kinds[: len(pending)] == ["tool_result"] * len(pending), "results come first"
            assert sorted(answers) == sorted(pending), "each call has its one result in the next message"
            pending = []
            for block in message["content"]:
                anthropic_user_block(block)
        else:
            pending = anthropic_assistant(message["content"], ids)

    assert not pending
    if messages[-1]["role"] == "assistant":
        assert prefill
        assert not {"thinking", "redacted_thinking"} & {block["type"] for block in messages[-1]["content"]}
        assert messages[-1]["content"][-1]["text"] == messages[-1]["content"][-1]["text"].rstrip()


def anthropic_user_block(block):
    kind = block["type"]
    if kind == "text":
        has_keys(block, ["type", "text"])
        assert is_words(block["text"])
    elif kind == "tool_result":
        has_keys(block, ["type", "tool_use_id"], ["content", "is_error"])
        assert block.get("content") != []
        for inner in block.get("content", []):
            assert inner["type"] != "tool_result"
            anthropic_user_block(inner)
    else:
        has_keys(block, ["type", "source"], ["title"])
        source = block["source"]
        assert kind in {"image", "document"}
        if source["type"] == "base64":
            assert source["media_type"] in (PICTURES if kind == "image" else {"application/pdf"})
            assert re.fullmatch(r"[A-Za-z0-9+/]+=*", source["data"])
        elif source["type"] == "text":
            assert is_words(source["data"])
            assert source["media_type"] == "text/plain"
        elif source["type"] == "url":
            assert re.match(r"https?://\S", source["url"])
        else:
            assert source["type"] == "file"
            assert source["file_id"]


def anthropic_assistant(blocks, ids):
    pending, called = [], False
    assert blocks[-1]["type"] not in {"thinking", "redacted_thinking"}
    for block in blocks:
        kind = block["type"]
        assert kind == "tool_use" or not called, "nothing comes between calls and their results"
        if kind == "text":
            assert is_words(block["text"])
        elif kind == "thinking":
            has_keys(block, ["type", "thinking", "signature"])
            assert block["signature"]
        elif kind == "redacted_thinking":
            has_keys(block, ["type", "data"])
            assert block["data"]
        else:
            has_keys(block, ["type", "id", "name", "input"])
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", block["id"])
            assert block["id"] not in ids
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", block["name"])
            assert isinstance(block["input"], dict)
            called = True
            ids.add(block["id"])
            pending.append(block["id"])

    return pending


def check_gemini(body, *, prefill=False):
    has_keys(body, ["contents"], ["systemInstruction"])
    for part in body.get("systemInstruction", {"parts": [{"text": "x"}]})["parts"]:
        assert is_words(part["text"])

    contents, pending = body["contents"], []
    assert [content["role"] for content in contents] == [("user", "model")[n % 2] for n in range(len(contents))]
    for content in contents:
        has_keys(content, ["role", "parts"])
        assert content["parts"]
        for part in content["parts"]:
            gemini_part(part, content["role"])

        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        answers = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
        assert not answers or len(answers) == len(content["parts"]), "function responses stand alone"
        assert [answer["name"] for answer in answers] == [call["name"] for call in pending]
        assert [answer.get("id") for answer in answers] == [call.get("id") for call in pending]
        signed = [part for part in content["parts"] if "functionCall" in part]
        assert not signed or signed[0]["thoughtSignature"], "the first call of a step is signed"
        pending = calls

    assert not pending
    assert contents[-1]["role"] == "user"


def gemini_part(part, role):
    data = set(part) - {"thought", "thoughtSignature"}
    assert len(data) == 1, "a part holds exactly one thing"
    (kind,) = data
    assert "thoughtSignature" not in part or (role == "model" and BASE64.fullmatch(part["thoughtSignature"]))
    if kind == "text":
        assert is_words(part["text"]) or part.get("thoughtSignature") or (part.get("thought") and part["text"])
    elif kind == "functionCall":
        assert role == "model"
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}", part["functionCall"]["name"])
        assert isinstance(part["functionCall"]["args"], dict)
    elif kind == "functionResponse":
        assert role == "user"
        assert isinstance(part["functionResponse"]["response"], dict)
    elif kind == "inlineData":
        assert re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", part["inlineData"]["mimeType"])
        assert re.fullmatch(r"[A-Za-z0-9+/]+=*", part["inlineData"]["data"])
    else:
        assert kind == "fileData"
        assert re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", part["fileData"]["mimeType"])
        assert part["fileData"]["fileUri"]


CHECKS = {Family.OPENAI: check_openai, Family.ANTHROPIC: check_anthropic, Family.GEMINI: check_gemini}


def check(body, target, **options):
    json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    CHECKS[target.family](body, **options)


# Any history.

origins = st.sampled_from(TARGETS)
words = st.sampled_from(
    ["", " ", "\n", "hello", "two\nlines", " padded ", '{"a": 1}', INTERRUPTED, "\ud83d"]
) | st.text(max_size=8)
ids = st.sampled_from(["1", "2", "call00001", "", "a.b", "x" * 41, "x" * 65]) | st.text(max_size=3)
names = st.sampled_from(["run", "read", "", "fs.read", "1st", "n" * 200, "\u00e4"])


@st.composite
def signatures(draw):
    origin = draw(origins)
    value = draw(st.sampled_from([f"SIG{origin.family}{origin.name}", "", "not base64!", "\ud83d"]))
    return Signature(value=value, origin=origin)


@st.composite
def thoughts(draw):
    origin = draw(origins)
    mark = f"SIG{origin.family}{origin.name}"
    return Reasoning(
        origin=origin,
        text=draw(st.sampled_from(["", "hm", "\ud83d", f"thought {mark} "])),
        signature=draw(st.sampled_from(["", mark, "\n"])),
        encrypted=draw(st.sampled_from(["", mark])),
        form=draw(st.sampled_from(["", "reasoning", "reasoning_content", "reasoning_details"])),
        wire=draw(st.sampled_from(["", "{", '{"type": "reasoning.text"}', f'{{"data": "{mark}"}}'])),
    )


media_fields = {
    "media_type": st.sampled_from(["", "image/png", "image/tiff", "application/pdf", "text/plain", "audio/wav", "a b"]),
    "data": st.sampled_from(["", "iVBORw0KGgo=", "aGVsbG8=", "IA==", "not base64", "/w=="]),
    "url": st.sampled_from(["", "https://example.org/a.png", "file:///etc/passwd", "https://a b", "http://x/\ud83d"]),
    "file_id": st.sampled_from(["", "file-1", "bad id"]),
    "origin": st.none() | origins,
}
texts = st.builds(Text, text=words, signature=st.none() | signatures())
parts = (
    texts
    | texts
    | thoughts()
    | st.builds(Image, **media_fields)
    | st.builds(File, **media_fields, name=st.sampled_from(["", "plan.pdf", "\ud83d"]))
)
contents = st.lists(parts, max_size=3).map(tuple)
arguments = st.sampled_from(
    ["", "{}", '{"a": {"b": [1]}}', "[]", "null", '{"cut', '{"a": NaN}', '{"a": "\\ud83d"}', "\ud83d"]
)
calls = st.builds(ToolCall, id=ids, name=names, arguments=arguments, signature=st.none() | signatures())
results = st.builds(ToolResult, call_id=ids, name=names, content=contents, is_error=st.booleans())
flags = st.sampled_from([False, False, False, True])
junk = st.builds(
    Message,
    role=st.sampled_from(Role),
    content=contents,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    result=st.none() | results,
    error_marker=flags,
    partial=flags,
)
plausible = st.one_of(
    st.builds(Message, role=st.just(Role.USER), content=contents),
    st.builds(Message, role=st.just(Role.ASSISTANT), content=contents, partial=flags),
    st.builds(
        Message,
        role=st.just(Role.ASSISTANT),
        content=contents,
        tool_calls=st.lists(calls, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(Message, role=st.just(Role.TOOL), result=results),
    junk,
)
histories = st.lists(plausible, max_size=10).map(tuple)


@everywhere(history=histories, prefill=st.booleans())
def test_any_history_becomes_valid(target, history, prefill):
    check(export_history(history, target, prefill=prefill).body, target, prefill=prefill)


@everywhere(history=histories, prefill=st.booleans())
def test_sanitising_twice_changes_nothing_more(target, history, prefill):
    once = sanitise(history, target, prefill=prefill)
    twice = sanitise(once.messages, target, prefill=prefill)
    assert twice.messages == once.messages
    assert twice.notes == ()


@everywhere(history=histories)
def test_writing_and_reading_back_is_the_identity(target, history):
    body = export_history(history, target).body
    assert export_history(read_history(body, target).messages, target).body == body


@everywhere(history=histories, origin=origins)
def test_a_body_of_one_shape_becomes_valid_in_any_other(target, history, origin):
    body = export_history(history, origin).body
    check(export_history(read_history(body, origin).messages, target).body, target)


@everywhere(history=histories)
def test_nothing_signed_or_thought_elsewhere_is_sent(target, history):
    sent = json.dumps(export_history(history, target).body)
    found = set(re.findall(r"SIG(?:openai|anthropic|gemini)(?:vertex)?", sent))
    assert found <= {f"SIG{target.family}{target.name}"}


def user_texts(messages):
    return [
        part.text
        for message in messages
        if message.role is Role.USER and not message.error_marker
        for part in message.content
        if isinstance(part, Text)
    ]


def is_subsequence(needles, haystack):
    rest = iter(haystack)
    return all(needle in rest for needle in needles)


@everywhere(history=histories)
def test_no_user_text_is_lost_and_its_order_stays(target, history):
    written = [text.replace("\ud83d", "\ufffd") for text in user_texts(history) if text.strip()]
    assert is_subsequence(written, user_texts(sanitise(history, target).messages))


def numbered(history):
    """The history with every text and call carrying its place."""
    counter = iter(range(10_000))

    def part(one):
        return Text(text=f"<{next(counter)}>", signature=one.signature) if isinstance(one, Text) else one

    return tuple(
        Message(
            role=message.role,
            content=tuple(part(one) for one in message.content),
            tool_calls=tuple(
                ToolCall(id=one.id, name=one.name, arguments=json.dumps({"n": next(counter)}))
                for one in message.tool_calls
            ),
            result=message.result,
            error_marker=message.error_marker,
            partial=message.partial,
        )
        for message in history
    )


def calls_of(messages):
    return [
        json.loads(one.arguments)["n"]
        for message in messages
        if message.role is Role.ASSISTANT
        for one in message.tool_calls
    ]


@everywhere(history=histories.map(numbered))
def test_every_call_is_kept_once_and_in_order(target, history):
    assert calls_of(sanitise(history, target).messages) == calls_of(history)


@everywhere(history=histories.map(numbered))
def test_what_the_model_said_stays_in_order_and_markers_stay_out(target, history):
    def numbers(messages):
        return [
            number
            for message in messages
            if message.role is Role.ASSISTANT and not message.error_marker
            for number in re.findall(r"<\d+>", message.text)
        ]

    assert numbers(sanitise(history, target).messages) == numbers(history)


@everywhere(history=histories.map(numbered))
def test_calls_of_separate_steps_never_become_parallel(target, history):
    run, runs = 0, {}
    for message in history:
        if message.role is not Role.ASSISTANT or message.error_marker:
            run += 1

        runs |= dict.fromkeys(calls_of([message]), run)

    for message in sanitise(history, target).messages:
        assert len({runs[number] for number in calls_of([message])}) <= 1


@SEARCH
@given(history=histories)
def test_merging_keeps_everything_but_the_seams(history):
    merged = merge_assistants(history)
    assert merge_assistants(merged) == merged
    assert [call for message in merged for call in message.tool_calls] == [
        call for message in history for call in message.tool_calls
    ]
    others = [message for message in history if message.role is not Role.ASSISTANT]
    assert [message for message in merged if message.role is not Role.ASSISTANT] == others


@SEARCH
@given(history=histories, added=st.lists(calls, min_size=1, max_size=4))
def test_adding_calls_touches_one_message_at_most(history, added):
    grown = history
    for call in added:
        grown = add_tool_call(grown, call)

    changed = [after for before, after in zip(history, grown, strict=False) if before != after]
    changed += grown[len(history) :]
    assert len(grown) - len(history) in {0, 1}
    assert len(changed) == 1
    assert changed[0].tool_calls[-len(added) :] == tuple(added)


# Any body.

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | words
role_words = st.sampled_from(["user", "assistant", "tool", "system", "model", "developer", "function", "oracle"])
type_words = st.sampled_from(
    re.findall(
        r"\w+",
        "text image_url image file document thinking redacted_thinking tool_use tool_result input_audio refusal web_search",
    ),
)
odd_types = st.sampled_from([[], {}, 0, None])
KEYS = re.findall(
    r"\w+",
    "role type text content parts tool_calls function name arguments id input tool_use_id tool_call_id source data url "
    "media_type functionCall functionResponse function_call args response output error thought thoughtSignature thinking "
    "signature inlineData fileData mimeType fileUri reasoning_details reasoning reasoning_content extra_content google "
    "thought_signature image_url file file_data file_id refusal input_audio format is_error",
)


def objects(children):
    fields = st.dictionaries(st.sampled_from(KEYS), children, max_size=6)
    kinds = st.fixed_dictionaries({}, optional={"role": role_words, "type": type_words | odd_types})
    return st.builds(lambda left, right: left | right, fields, kinds)


values = st.recursive(scalars, lambda children: st.lists(children, max_size=3) | objects(children), max_leaves=14)
bodies = st.fixed_dictionaries(
    {},
    optional={
        key: values | st.lists(values, max_size=5)
        for key in ("messages", "contents", "system", "systemInstruction", "tools")
    },
)


@everywhere(body=bodies, origin=origins)
def test_any_body_is_read_and_becomes_valid(target, body, origin):
    check(export_history(read_history(body, origin).messages, target).body, target)


@SEARCH
@given(body=bodies, origin=origins)
def test_reports_hold_no_content(body, origin):
    for note in read_history(body, origin).notes:
        assert re.fullmatch(r"unknown_role|block:[A-Za-z0-9_.-]{1,48}", note.what)
        assert note.count > 0


def test_the_validators_can_fail():
    text = {"type": "text", "text": "a"}
    use = {"type": "tool_use", "id": "1", "name": "run", "input": {}}
    spoiled = [
        (check_openai, {"messages": []}),
        (check_openai, {"messages": [{"role": "tool", "tool_call_id": "1", "content": ""}]}),
        (check_openai, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        (check_anthropic, {"messages": [{"role": "assistant", "content": [text]}]}),
        (check_anthropic, {"messages": [{"role": "user", "content": [text]}, {"role": "assistant", "content": [use]}]}),
        (check_anthropic, {"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}),
        (check_gemini, {"contents": [{"role": "user", "parts": []}]}),
        (check_gemini, {"contents": [{"role": "user", "parts": [{"text": "a"}]}] * 2}),
        (
            check_gemini,
            {"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "x", "response": {}}}]}]},
        ),
    ]
    for validator, body in spoiled:
        with pytest.raises((AssertionError, ValueError)):
            validator(body)


def test_printable_names_reach_every_family():
    for target in TARGETS:
        name = ToolCall(id="1", name=string.printable)
        history = (Message(role=Role.ASSISTANT, tool_calls=(name,)),)
        check(export_history(history, target).body, target)
