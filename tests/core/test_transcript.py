"""Histories under repair: rows A05-A14, X10, K22, K-H5, W32 and the traps of peers.md, complaint 27."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

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
    add_tool_call,
    merge_assistants,
)
from fallback_plugin.core.transcript_repair import CONTINUE, CONTINUE_PARTIAL, OPENING, UNANSWERED, sanitise
from fallback_plugin.core.transcript_shapes import export_history, read_history
from fallback_plugin.core.transcript_steps import INTERRUPTED

OPENAI, ANTHROPIC, GEMINI = (Endpoint(family=family) for family in Family)
VERTEX_CLAUDE = Endpoint(family=Family.ANTHROPIC, name="google-vertex")
VERTEX_GEMINI = Endpoint(family=Family.GEMINI, name="google-vertex")
EVERYWHERE = pytest.mark.parametrize("target", [OPENAI, ANTHROPIC, GEMINI], ids=str)
PIXEL = "iVBORw0KGgo="


def said(role, *texts, **fields):
    return Message(role=role, content=tuple(Text(text=text) for text in texts), **fields)


def user(*texts):
    return said(Role.USER, *texts)


def assistant(*texts, calls=(), **fields):
    return said(Role.ASSISTANT, *texts, tool_calls=tuple(calls), **fields)


def call(call_id, name="search", **arguments):
    return ToolCall(id=call_id, name=name, arguments=json.dumps(arguments))


def result(call_id, text="found", name="", **fields):
    answer = ToolResult(call_id=call_id, name=name, content=(Text(text=text),))
    return Message(role=Role.TOOL, result=answer, **fields)


def roles(messages):
    return [message.role.value for message in messages]


def repaired(*messages, target=OPENAI, **options):
    return sanitise(messages, target, **options).messages


def report(*messages, target=OPENAI, **options):
    return {(note.change, note.what): note.count for note in sanitise(messages, target, **options).notes}


# Rows A05-A09: merging.


def test_a05_nothing_to_merge_changes_nothing():
    history = (user("a"), assistant("b"), user("c"), assistant("d"))
    assert merge_assistants(history) is history


def test_a06_text_and_calls_become_one_and_neighbours_stay():
    before, after = user("look it up"), result("1")
    merged = merge_assistants((before, assistant("Let me see"), assistant(calls=[call("1")]), after))
    assert merged == (before, assistant("Let me see", calls=[call("1")]), after)
    assert merged[0] is before
    assert merged[2] is after


@pytest.mark.parametrize("empty", [(), ("",)])
def test_a07_calls_are_concatenated_and_empty_content_adds_nothing(empty):
    (merged,) = merge_assistants((assistant("text", calls=[call("1")]), assistant(*empty, calls=[call("2")])))
    assert merged.text == "text"
    assert [one.id for one in merged.tool_calls] == ["1", "2"]


def test_a08_three_become_one_with_a_newline_between_contents():
    (merged,) = merge_assistants((assistant("a"), assistant("b", calls=[call("1")]), assistant("c")))
    assert merged == assistant("a\nb\nc", calls=[call("1")])


def test_a08_empty_first_content_adds_nothing_either():
    assert merge_assistants((assistant(""), assistant("b"))) == (assistant("b"),)


@pytest.mark.parametrize("history", [(), (assistant("alone"),)])
def test_a09_none_and_one_come_back_as_they_are(history):
    assert merge_assistants(history) is history


def test_merge_keeps_signed_words_a_part_of_their_own():
    signed = Text(text="a", signature=Signature(value="c2ln", origin=GEMINI))
    (merged,) = merge_assistants((Message(role=Role.ASSISTANT, content=(signed,)), assistant("b")))
    assert merged.content == (signed, Text(text="b"))
    assert merged.text == "a\nb"


@pytest.mark.parametrize("cut", [0, 1])
def test_merge_of_a_cut_piece_is_cut(cut):
    pieces = [assistant("a", partial=cut == 0), assistant("b", partial=cut == 1)]
    assert merge_assistants(tuple(pieces)) == (assistant("a\nb", partial=True),)


def test_merge_leaves_error_markers_and_second_attempts_apart():
    marker = assistant("Error: 429", error_marker=True)
    assert merge_assistants((assistant("a"), marker, assistant("b"))) == (assistant("a"), marker, assistant("b"))
    attempts = (assistant(calls=[call("1")], partial=True), assistant(calls=[call("2")]))
    assert merge_assistants(attempts) is attempts


# Rows A10-A13: adding a call.


def test_a10_a_call_joins_the_turns_assistant():
    history = (user("hi"), assistant("thinking aloud"))
    assert add_tool_call(history, call("1")) == (user("hi"), assistant("thinking aloud", calls=[call("1")]))


@pytest.mark.parametrize("history", [(user("hi"),), ()])
def test_a11_a_turn_without_an_assistant_gets_an_empty_one(history):
    added = add_tool_call(history, call("1"))
    assert added == (*history, assistant(calls=[call("1")]))
    assert added[-1].content == ()


def test_a12_a_user_message_is_a_boundary():
    older = assistant("older answer")
    added = add_tool_call((user("a"), older, user("b")), call("1"))
    assert added == (user("a"), older, user("b"), assistant(calls=[call("1")]))
    assert added[1] is older


def test_a13_calls_gather_on_one_assistant_across_a_pending_result():
    history = (user("a"), assistant("b"))
    history = add_tool_call(history, call("1"))
    history = (*history, result("1", "pending"))
    history = add_tool_call(history, call("2"))
    history = add_tool_call(history, call("3"))
    assert roles(history) == ["user", "assistant", "tool"]
    assert [one.id for one in history[1].tool_calls] == ["1", "2", "3"]


def test_a_call_is_never_attached_to_an_error_marker():
    marker = assistant("Error", error_marker=True)
    assert add_tool_call((user("a"), marker), call("1"))[-1] == assistant(calls=[call("1")])


# Row A14 and X10: what a provider gets.


def test_a14_export_merges_split_assistants():
    history = (
        user("weather?"),
        assistant("Let me check"),
        assistant(calls=[call("1")]),
        result("1"),
        assistant("Sunny"),
        user("thanks"),
    )
    messages = export_history(history, OPENAI).body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[1]["content"] == "Let me check"
    assert [one["id"] for one in messages[1]["tool_calls"]] == ["1"]


@EVERYWHERE
def test_x10_an_unanswered_call_is_answered_as_interrupted(target):
    history = repaired(user("a"), assistant(calls=[call("1"), call("2")]), result("2"), user("b"), target=target)
    answers = [message.result for message in history if message.result]
    assert [(answer.call_id, answer.text, answer.is_error) for answer in answers] == [
        ("1", INTERRUPTED, True),
        ("2", "found", False),
    ]


@EVERYWHERE
def test_x10_orphans_and_second_answers_are_dropped(target):
    history = (user("a"), result("9"), assistant(calls=[call("1")]), result("1"), result("1", "again"), result("8"))
    answers = [message.result.text for message in repaired(*history, target=target) if message.result]
    assert answers == ["found"]
    assert report(*history)[Change.DROPPED, "orphan_result"] == 2
    assert report(*history)[Change.DROPPED, "duplicate_result"] == 1


def test_the_real_result_replaces_the_interrupted_one():
    history = (user("a"), assistant(calls=[call("1")]), result("1", INTERRUPTED), result("1", "real"))
    assert [message.result.text for message in repaired(*history) if message.result] == ["real"]


def test_a_late_result_moves_up_to_its_call():
    history = (user("a"), assistant(calls=[call("1")]), user("are you there?"), result("1"))
    assert roles(repaired(*history)) == ["user", "assistant", "tool", "user"]
    assert report(*history) == {(Change.MOVED, "late_result"): 1}


def test_x10_results_follow_the_order_of_their_calls():
    history = (user("a"), assistant(calls=[call("1"), call("2")]), result("2", "second"), result("1", "first"))
    assert [message.result.text for message in repaired(*history) if message.result] == ["first", "second"]


@EVERYWHERE
def test_completed_tool_steps_are_never_merged_into_parallel_calls(target):
    """Mastra #14124."""
    history = (user("a"), assistant(calls=[call("1")]), result("1"), assistant(calls=[call("2")]), result("2"))
    assert roles(repaired(*history, target=target)) == ["user", "assistant", "tool", "assistant", "tool"]


@EVERYWHERE
def test_pieces_of_one_step_stay_one_step(target):
    pieces = (assistant(calls=[call("1")]), assistant("and", calls=[call("2")]), result("1"), result("2"))
    sent = repaired(user("a"), *pieces, target=target)
    assert roles(sent) == ["user", "assistant", "tool", "tool"]
    assert sent[1].text == "and"


@EVERYWHERE
@pytest.mark.parametrize(
    "between",
    [
        result("orphan"),
        assistant("Error: overloaded", error_marker=True),
        user("  "),
        said(Role.SYSTEM, "note"),
        Message(role=Role.TOOL),
    ],
    ids=["orphan", "marker", "blank user", "system", "empty tool"],
)
def test_what_is_dropped_between_two_steps_still_parts_them(target, between):
    history = repaired(user("a"), assistant(calls=[call("1")]), between, assistant(calls=[call("2")]), target=target)
    steps = [[one.id for one in message.tool_calls] for message in history if message.tool_calls]
    assert steps == [["1"], ["2"]]


def test_x10_empty_assistants_and_empty_calls_are_dropped():
    body = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": []},
            {"role": "assistant", "content": "b", "tool_calls": []},
            {"role": "user", "content": "c"},
        ]
    }
    messages = export_history(read_history(body, OPENAI).messages, OPENAI).body["messages"]
    assert messages == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


@EVERYWHERE
def test_w32_error_markers_are_never_sent_and_partial_text_is(target):
    thought = Reasoning(origin=target, text="hm", signature="c2ln", form="reasoning")
    cut = replace(assistant("The answer is", partial=True), content=(thought, Text(text="The answer is")))
    history = (user("a"), cut, assistant("Stopped by user", error_marker=True))
    sent = repaired(*history, target=target)
    assert [message.text for message in sent] == ["a", "The answer is", CONTINUE_PARTIAL]
    assert sent[1].partial
    assert sent[1].content == (Text(text="The answer is"),)


def test_w32_a_result_that_is_a_marker_answers_nothing():
    history = (user("a"), assistant(calls=[call("1")]), result("1", "Cancelled by user", error_marker=True))
    assert repaired(*history)[2].result.text == INTERRUPTED


def test_w32_tools_that_ran_in_a_failed_answer_are_not_forgotten():
    """K22: the marker's words go, the call and its result stay, or a side effect would be repeated."""
    history = (user("a"), assistant("Error", calls=[call("1")], error_marker=True), result("1", "sent the mail"))
    sent = repaired(*history)
    assert roles(sent) == ["user", "assistant", "tool"]
    assert sent[1].text == ""
    assert sent[2].result.text == "sent the mail"


@EVERYWHERE
def test_k22_finished_steps_of_a_cut_turn_stay_and_nothing_is_asked_twice(target):
    history = (user("a"), assistant(calls=[call("1")]), result("1"), assistant("So far", partial=True))
    sent = repaired(*history, target=target)
    assert roles(sent) == ["user", "assistant", "tool", "assistant", "user"]
    assert [message.text for message in sent if message.role is Role.USER] == ["a", CONTINUE_PARTIAL]


def test_kh5_users_in_a_row_are_kept_apart_or_joined_as_the_family_wants():
    history = (user("one"), user("two"), user("three"))
    assert repaired(*history, target=OPENAI) == history
    for target in (ANTHROPIC, GEMINI):
        assert repaired(*history, target=target) == (user("one", "two", "three"),)


def test_first_and_last_word():
    history = (assistant("Welcome"), user("hi"), assistant("Hello"))
    assert [message.text for message in repaired(*history)] == ["Welcome", "hi", "Hello", CONTINUE]
    for target in (ANTHROPIC, GEMINI):
        assert repaired(*history, target=target)[0] == user(OPENING)


def test_prefill_only_where_it_is_wanted_and_possible():
    thought = Reasoning(origin=ANTHROPIC, text="hm", signature="c2ln")
    last = Message(role=Role.ASSISTANT, content=(thought, Text(text="The answer is ")))
    assert repaired(user("a"), last, target=ANTHROPIC, prefill=True)[-1] == assistant("The answer is")
    assert repaired(user("a"), last, target=ANTHROPIC)[-1] == user(CONTINUE)
    assert repaired(user("a"), last, target=OPENAI, prefill=True)[-1] == assistant("The answer is ")
    assert repaired(user("a"), last, target=GEMINI, prefill=True)[-1] == user(CONTINUE)


@EVERYWHERE
def test_an_empty_history_asks_for_something(target):
    assert repaired(target=target) == (user(CONTINUE),)
    assert repaired(assistant("Error", error_marker=True), target=target) == (user(CONTINUE),)


def test_gemini_lets_nobody_speak_in_the_turn_of_a_result():
    sent = repaired(user("a"), assistant(calls=[call("1")]), result("1"), user("stop"), target=GEMINI)
    assert [message.text for message in sent if message.role is not Role.TOOL] == ["a", "", UNANSWERED, "stop"]


def test_system_text_goes_apart_where_the_family_has_a_place_for_it():
    history = (user("a"), said(Role.SYSTEM, "be brief"), assistant("b"), user("c"))
    assert roles(repaired(*history)) == ["user", "system", "assistant", "user"]
    assert roles(repaired(*history, target=ANTHROPIC)) == ["system", "user", "assistant", "user"]


# Ids, names, arguments.


def test_an_id_used_twice_is_told_apart_with_its_result():
    history = (
        user("a"),
        assistant(calls=[call("1", n=1)]),
        result("1", "first"),
        assistant(calls=[call("1", n=2)]),
        result("1", "second"),
    )
    sent = repaired(*history)
    ids = [message.tool_calls[0].id for message in sent if message.tool_calls]
    assert len(set(ids)) == 2
    assert [(message.result.call_id, message.result.text) for message in sent if message.result] == [
        (ids[0], "first"),
        (ids[1], "second"),
    ]


@pytest.mark.parametrize("bad", ["functions.Bash:0", "x" * 41, "", "call|1", "ünïcode"])
def test_ids_that_a_provider_refuses_are_replaced_on_both_sides(bad):
    sent = repaired(user("a"), assistant(calls=[call(bad)]), result(bad))
    assert sent[1].tool_calls[0].id == sent[2].result.call_id == "call00001"
    assert sent[2].result.text == "found"


def test_ids_stay_as_the_history_grows():
    history = (user("a"), assistant(calls=[call("a.b")]), result("a.b"))
    longer = (*history, assistant(calls=[call("call00001"), call("c.d")]), result("call00001"), result("c.d"))
    assert repaired(*longer)[: len(history)] == repaired(*history)
    assert len({one.id for message in repaired(*longer) for one in message.tool_calls}) == 3


def test_results_without_ids_find_their_calls_by_name_and_order():
    calls = [ToolCall(name="read"), ToolCall(name="write"), ToolCall(name="read")]
    results = [result("", "w", name="write"), result("", "r1", name="read"), result("", "r2", name="read")]
    sent = repaired(user("a"), assistant(calls=calls), *results, target=GEMINI)
    assert [message.result.text for message in sent if message.result] == ["r1", "w", "r2"]
    assert {one.id for one in sent[1].tool_calls} == {""}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ('{"path": "/tm', '{"invalid_arguments": "{\\"path\\": \\"/tm"}'),
        ("[1]", '{"invalid_arguments": "[1]"}'),
        ('{"a": NaN}', '{"invalid_arguments": "{\\"a\\": NaN}"}'),
        ("[" * 100_000, None),
        ('{"a": "\\ud83d"}', '{"a": "\ufffd"}'),
    ],
)
def test_arguments_are_always_one_object(given, sent):
    held = ToolCall(id="1", name="run", arguments=given)
    (arguments,) = (
        one.arguments for message in repaired(user("a"), assistant(calls=[held])) for one in message.tool_calls
    )
    assert isinstance(json.loads(arguments), dict)
    assert sent in {None, arguments}


@pytest.mark.parametrize(
    ("name", "openai", "gemini"),
    [("fs.read", "fs_read", "fs.read"), ("1st", "1st", "_1st"), ("", "unknown", "unknown"), ("a b", "a_b", "a_b")],
)
def test_tool_names_are_what_the_family_accepts(name, openai, gemini):
    history = (user("a"), assistant(calls=[call("1", name)]), result("1"))
    assert repaired(*history, target=OPENAI)[1].tool_calls[0].name == openai
    assert repaired(*history, target=GEMINI)[1].tool_calls[0].name == gemini
    assert repaired(*history, target=GEMINI)[2].result.name == gemini


def test_half_a_surrogate_pair_is_replaced():
    sent = repaired(user("cut \ud83d"), assistant("whole \ud83d\ude00"), user("b"))
    assert [message.text for message in sent] == ["cut \ufffd", "whole \U0001f600", "b"]


# Pictures and files.


def test_what_a_target_cannot_show_is_said_in_words():
    picture = Image(media_type="image/tiff", data=PIXEL)
    upload = File(file_id="file-1", origin=OPENAI, name="plan.pdf")
    notes = File(media_type="text/markdown", data="IyBQbGFu", name="plan.md")
    history = Message(role=Role.USER, content=(picture, upload, notes))
    assert repaired(history, target=ANTHROPIC) == (
        user("[image image/tiff: can't be shown here]", "[file plan.pdf: can't be shown here]", "plan.md\n# Plan"),
    )
    assert report(history, target=ANTHROPIC) == {(Change.REPLACED, "file"): 2, (Change.REPLACED, "image"): 1}
    assert replace(upload, origin=OPENAI) in repaired(history, target=OPENAI)[0].content


def test_a_model_shows_pictures_to_gemini_and_nothing_else():
    picture, film = Image(media_type="image/png", data=PIXEL), File(media_type="video/mp4", data=PIXEL)
    shown = Message(role=Role.ASSISTANT, content=(picture, film))
    words = [Text(text="[image image/png: can't be shown here]"), Text(text="[file video/mp4: can't be shown here]")]
    assert repaired(user("a"), shown, user("b"), target=GEMINI)[1].content == (picture, words[1])
    assert repaired(user("a"), shown, user("b"), target=OPENAI)[1].content == tuple(words)


def test_a_picture_from_a_tool_reaches_the_family_that_takes_it():
    answer = ToolResult(call_id="1", content=(Image(media_type="image/png", data=PIXEL),))
    history = (user("a"), assistant(calls=[call("1")]), Message(role=Role.TOOL, result=answer))
    assert repaired(*history, target=ANTHROPIC)[2].result.content == answer.content
    assert repaired(*history, target=OPENAI)[2].result.text == "[image image/png: can't be shown here]"


# Complaint 27 of peers.md: history poison after a switch.


def test_27_a_thought_goes_back_to_its_own_endpoint_alone():
    thought = Reasoning(origin=ANTHROPIC, text="hm", signature="c2ln")
    history = (user("a"), Message(role=Role.ASSISTANT, content=(thought, Text(text="b"))), user("c"))
    assert thought in repaired(*history, target=ANTHROPIC)[1].content
    for target in (OPENAI, GEMINI, VERTEX_CLAUDE):
        assert repaired(*history, target=target)[1].content == (Text(text="b"),)
        assert report(*history, target=target) == {(Change.DROPPED, "foreign_reasoning"): 1}


def test_27_gemini_to_claude_with_tools_on_one_gateway():
    """NoeFabris #70: both models behind Google, so the provider's name alone tells nothing."""
    body = {
        "contents": [
            {"role": "user", "parts": [{"text": "disk space?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "I should run df", "thought": True, "thoughtSignature": "Z2VtaW5p"},
                    {"functionCall": {"name": "bash", "args": {"command": "df"}}, "thoughtSignature": "Z2VtaW5p"},
                ],
            },
            {"role": "user", "parts": [{"functionResponse": {"name": "bash", "response": {"output": "40%"}}}]},
            {"role": "model", "parts": [{"text": "40 %", "thoughtSignature": "Z2VtaW5p"}]},
            {"role": "user", "parts": [{"text": "and memory?"}]},
        ]
    }
    history = read_history(body, VERTEX_GEMINI).messages
    sent = export_history(history, VERTEX_CLAUDE)
    assert "Z2VtaW5p" not in json.dumps(sent.body)
    assert "I should run df" not in json.dumps(sent.body)
    assert sent.body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "disk space?"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "call00001", "name": "bash", "input": {"command": "df"}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call00001", "content": [{"type": "text", "text": "40%"}]}
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "40 %"}]},
        {"role": "user", "content": [{"type": "text", "text": "and memory?"}]},
    ]
    assert export_history(history, VERTEX_GEMINI).body == body


def test_27_openrouter_reasoning_stays_with_its_upstream():
    """OpenRouter ai-sdk-provider #491: google-vertex and google-ai-studio refuse each other's."""
    vertex = Endpoint(family=Family.OPENAI, name="openrouter/google-vertex")
    studio = Endpoint(family=Family.OPENAI, name="openrouter/google-ai-studio")
    details = [{"type": "reasoning.encrypted", "data": "c2ln", "format": "google-gemini-v1", "id": "1", "index": 0}]
    body = {
        "messages": [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_details": details,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "run", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "ok"},
        ]
    }
    history = read_history(body, vertex).messages
    assert export_history(history, vertex).body == body
    without = export_history(history, studio).body["messages"]
    assert "reasoning_details" not in without[1]
    assert without[0] == body["messages"][0]
    assert without[1]["tool_calls"] == body["messages"][1]["tool_calls"]


def test_27_claude_to_gemini_puts_the_documented_placeholder_on_the_first_call():
    history = (user("a"), assistant(calls=[call("1"), call("2")]), result("1"), result("2"))
    parts = export_history(history, GEMINI).body["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
    back = read_history(export_history(history, GEMINI).body, GEMINI).messages
    assert all(one.signature is None for message in back for one in message.tool_calls)


def test_a_thought_that_leads_nowhere_is_dropped_with_its_message():
    thought = Reasoning(origin=ANTHROPIC, text="hm", signature="c2ln")
    lonely = Message(role=Role.ASSISTANT, content=(thought,))
    assert roles(repaired(user("a"), lonely, user("b"), target=ANTHROPIC)) == ["user"]
    trailing = Message(role=Role.ASSISTANT, content=(Text(text="b"), thought))
    assert repaired(user("a"), trailing, user("b"), target=ANTHROPIC)[1].content == (Text(text="b"),)
    with_call = replace(lonely, tool_calls=(call("1"),))
    assert thought in repaired(user("a"), with_call, target=ANTHROPIC)[1].content


def test_an_unsigned_thought_never_goes_to_anthropic():
    thought = Reasoning(origin=ANTHROPIC, text="hm")
    sent = repaired(
        user("a"), Message(role=Role.ASSISTANT, content=(thought, Text(text="b"))), user("c"), target=ANTHROPIC
    )
    assert sent[1].content == (Text(text="b"),)


# The report.


def test_the_report_names_types_and_never_content():
    body = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "secret"}, {"type": "my secret words"}]},
            {"role": "oracle", "content": "secret"},
            {"role": "assistant", "content": [{"type": "server_tool_use", "input": "secret"}]},
        ]
    }
    notes = read_history(body, ANTHROPIC).notes
    assert notes == (
        Note(change=Change.DROPPED, what="block:server_tool_use", count=1),
        Note(change=Change.DROPPED, what="block:unknown", count=1),
        Note(change=Change.DROPPED, what="unknown_role", count=1),
    )


def test_a_valid_history_is_reported_as_unchanged():
    history = (user("a"), assistant("b", calls=[call("1")]), result("1", name="search"), assistant("c"), user("d"))
    assert sanitise(history, OPENAI).notes == ()
    assert sanitise(history, OPENAI).messages == history


def test_messages_are_values():
    with pytest.raises(FrozenInstanceError):
        user("a").role = Role.SYSTEM
