"""The wire shapes: documented examples come back as they went in, and what others add is tolerated."""

from __future__ import annotations

import pytest

from fallback_plugin.core.transcript import (
    Change,
    Endpoint,
    Family,
    File,
    Image,
    Message,
    Note,
    Reasoning,
    Role,
    Signature,
    Text,
    ToolCall,
    ToolResult,
)
from fallback_plugin.core.transcript_gemini import write_gemini
from fallback_plugin.core.transcript_repair import sanitise
from fallback_plugin.core.transcript_shapes import export_history, read_history

OPENAI, ANTHROPIC, GEMINI = (Endpoint(family=family) for family in Family)
PNG = "iVBORw0KGgo="
PDF = "JVBERi0="

OPENAI_BODY = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "They want two things.",
            "tool_calls": [
                {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": '{"at": "image"}'}},
                {
                    "id": "call_b",
                    "type": "function",
                    "function": {"name": "look", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "a cat"},
        {"role": "tool", "tool_call_id": "call_b", "content": ""},
        {"role": "user", "content": "And?"},
        {"role": "user", "content": "Well?"},
    ]
}

ANTHROPIC_BODY = {
    "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                    "title": "a.pdf",
                },
                {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain words"}},
                {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two things.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZW5j"},
                {"type": "thinking", "thinking": "", "signature": "c2ln"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "toolu_a", "name": "look", "input": {"at": {"x": [1, 2.5, None]}}},
                {"type": "tool_use", "id": "toolu_b", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_a",
                    "content": [
                        {"type": "text", "text": "a cat"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                },
                {"type": "tool_result", "tool_use_id": "toolu_b", "is_error": True},
                {"type": "text", "text": "And?"},
            ],
        },
    ],
}

GEMINI_BODY = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "What is this?"},
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://bucket/film.mp4"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Two things.", "thought": True},
                {"text": "Let me look.", "thoughtSignature": "c2ln"},
                {"text": "", "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "look", "args": {"at": "image"}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "look", "args": {}, "id": "b"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "look", "response": {"result": {"animal": "cat"}}}},
                {"functionResponse": {"name": "look", "response": {"error": "blind"}, "id": "b"}},
            ],
        },
        {"role": "model", "parts": [{"text": "A cat."}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]},
        {"role": "user", "parts": [{"text": "Thanks."}]},
    ],
}


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [(OPENAI_BODY, OPENAI), (ANTHROPIC_BODY, ANTHROPIC), (GEMINI_BODY, GEMINI)],
    ids=["openai", "anthropic", "gemini"],
)
def test_a_valid_history_comes_back_as_it_went_in(body, endpoint):
    transcript = read_history(body, endpoint)
    assert transcript.notes == ()
    export = export_history(transcript.messages, endpoint)
    assert export.notes == ()
    assert export.body == body


def test_openai_is_read_into_the_shared_words():
    messages = read_history(OPENAI_BODY, OPENAI).messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool", "tool", "user", "user"]
    assert messages[1].content[1:3] == (
        Image(media_type="image/png", data=PNG),
        Image(url="https://example.org/a.png"),
    )
    assert messages[2].content == (
        Reasoning(origin=OPENAI, text="They want two things.", form="reasoning_content"),
        Text(text="Let me look."),
    )
    assert messages[2].tool_calls[1] == ToolCall(
        id="call_b", name="look", signature=Signature(value="c2ln", origin=OPENAI)
    )
    assert messages[3].result == ToolResult(call_id="call_a", content=(Text(text="a cat"),))


def test_anthropic_is_read_into_the_shared_words():
    messages = read_history(ANTHROPIC_BODY, ANTHROPIC).messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert messages[1].content[5] == File(media_type="text/plain", data="cGxhaW4gd29yZHM=", origin=ANTHROPIC)
    assert messages[2].content[1] == Reasoning(origin=ANTHROPIC, encrypted="ZW5j")
    assert messages[4].result == ToolResult(call_id="toolu_b", is_error=True)
    assert messages[5].text == "And?"


def test_gemini_is_read_into_the_shared_words():
    messages = read_history(GEMINI_BODY, GEMINI).messages
    assert [message.role for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
    ]
    assert messages[2].content[0] == Reasoning(origin=GEMINI, text="Two things.")
    assert [call.id for call in messages[2].tool_calls] == ["", "b"]
    assert messages[3].result.text == '{"result": {"animal": "cat"}}'
    assert messages[4].result == ToolResult(call_id="b", name="look", content=(Text(text="blind"),), is_error=True)


def test_string_contents_are_the_short_form_of_one_text():
    body = {"system": "Be brief.", "messages": [{"role": "user", "content": "hi"}]}
    assert read_history(body, ANTHROPIC).messages == (
        Message(role=Role.SYSTEM, content=(Text(text="Be brief."),)),
        Message(role=Role.USER, content=(Text(text="hi"),)),
    )
    answer = {"type": "tool_result", "tool_use_id": "1", "content": "found"}
    (message,) = read_history({"messages": [{"role": "user", "content": [answer]}]}, ANTHROPIC).messages
    assert message.result.text == "found"


def test_gemini_is_read_in_snake_case_too():
    body = {
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"parts": {"text": "a picture"}},
            {"role": "model", "parts": [{"function_call": {"name": "draw"}, "thought_signature": "c2ln"}]},
            {"role": "function", "parts": [{"function_response": {"name": "draw", "response": {"output": "done"}}}]},
            {"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": PNG}}]},
        ],
    }
    transcript = read_history(body, GEMINI)
    assert transcript.notes == ()
    assert [message.role for message in transcript.messages] == ["system", "user", "assistant", "tool", "user"]
    assert transcript.messages[2].tool_calls[0].signature == Signature(value="c2ln", origin=GEMINI)
    assert transcript.messages[3].result.text == "done"
    assert transcript.messages[4].content == (Image(media_type="image/png", data=PNG, origin=GEMINI),)


def test_openai_retired_forms_and_refusals_are_read():
    body = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "run it", "name": "ann"},
            {"role": "assistant", "content": None, "function_call": {"name": "run", "arguments": "{}"}},
            {"role": "function", "name": "run", "content": "ran"},
            {"role": "assistant", "content": None, "refusal": "I can't."},
            {"role": "user", "content": "why?"},
        ]
    }
    sent = export_history(read_history(body, OPENAI).messages, OPENAI).body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert sent[3] == {"role": "tool", "tool_call_id": sent[2]["tool_calls"][0]["id"], "content": "ran"}
    assert sent[4]["content"] == "I can't."


def test_an_aggregator_that_says_its_thoughts_twice_is_read_once():
    details = [{"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": "anthropic-claude-v1"}]
    answer = {"role": "assistant", "content": "b", "reasoning": "hm", "reasoning_details": details}
    body = {"messages": [{"role": "user", "content": "a"}, answer, {"role": "user", "content": "c"}]}
    sent = export_history(read_history(body, OPENAI).messages, OPENAI).body["messages"][1]
    assert sent == {"role": "assistant", "content": "b", "reasoning_details": details}


def test_unknown_keys_are_passed_over_and_unknown_blocks_noted():
    body = {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "id": 7,
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            },
            {"role": "assistant", "content": [{"type": "server_tool_use", "id": "x"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": [{"type": "container_upload"}, {"type": "text", "text": "c"}]},
        ],
    }
    transcript = read_history(body, ANTHROPIC)
    assert [message.text for message in transcript.messages] == ["a", "b", "c"]
    assert transcript.notes == (
        Note(change=Change.DROPPED, what="block:container_upload", count=1),
        Note(change=Change.DROPPED, what="block:server_tool_use", count=1),
    )


@pytest.mark.parametrize("endpoint", [OPENAI, ANTHROPIC, GEMINI], ids=str)
@pytest.mark.parametrize(
    "body", [{}, {"messages": None}, {"messages": "x", "contents": {}}, {"messages": [1, None, []]}]
)
def test_a_body_without_a_history_is_an_empty_one(body, endpoint):
    assert read_history(body, endpoint).messages == ()


@pytest.mark.parametrize("kind", [[], {}, None, 7, True])
def test_a_type_that_is_no_word_is_an_unknown_block(kind):
    media = {"type": "document", "source": {"type": kind, "data": PNG}}
    content = [{"type": kind}, media, {"type": "text", "text": "a"}]
    for endpoint in (OPENAI, ANTHROPIC):
        transcript = read_history({"messages": [{"role": "user", "content": content}]}, endpoint)
        assert [message.text for message in transcript.messages] == ["a"]
        assert sum(note.count for note in transcript.notes) == 2


def test_the_same_history_in_all_three_shapes():
    history = read_history(ANTHROPIC_BODY, ANTHROPIC).messages
    openai = export_history(history, OPENAI).body["messages"]
    gemini = export_history(history, GEMINI).body["contents"]
    assert [message["role"] for message in openai] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert [call["function"]["name"] for call in openai[2]["tool_calls"]] == ["look", "look"]
    assert openai[3]["content"] == "a cat\n[image image/png: can't be shown here]"
    assert [content["role"] for content in gemini] == ["user", "model", "user", "model", "user"]
    assert gemini[2]["parts"][1]["functionResponse"] == {"name": "look", "id": "toolu_b", "response": {"error": ""}}


def test_gemini_writes_without_ids_and_placeholder_where_asked():
    history = (
        Message(role=Role.USER, content=(Text(text="a"),)),
        Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="1", name="run"),)),
        Message(role=Role.TOOL, result=ToolResult(call_id="1", content=(Text(text="ran"),))),
    )
    contents = write_gemini(sanitise(history, GEMINI).messages, unsigned="", call_ids=False)["contents"]
    assert contents[1]["parts"] == [{"functionCall": {"name": "run", "args": {}}}]
    assert contents[2]["parts"] == [{"functionResponse": {"name": "run", "response": {"output": "ran"}}}]
