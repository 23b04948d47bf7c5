"""Making a history sendable: `sanitise`.

    clean        each message alone: what its role may hold and the target takes; error markers lose their words
    merge        pieces of one step side by side (A05-A09)
    settle       markers and empty messages go
    pair         every call answered once, right behind it
    arrange      the family's rules on who may follow whom; cut-off answers lose their thinking (W32)
    end          somebody other than the model has the last word, unless a prefill is asked for

A marker or an orphan that is dropped still parts the steps around it, which is why merging comes before dropping.
Cleaning twice changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fallback_plugin.core.transcript import (
    Change,
    Endpoint,
    Family,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Transcript,
    merge_assistants,
)
from fallback_plugin.core.transcript_json import Tally, encodable, notes_of, object_text
from fallback_plugin.core.transcript_media import fit
from fallback_plugin.core.transcript_rules import RULES, FamilyRules, is_sendable, kept_signature
from fallback_plugin.core.transcript_steps import pair_results

CONTINUE = "Continue."
"""Asks for more where the model had the last word."""
CONTINUE_PARTIAL = "Your last message was cut off. Continue where it stopped, without repeating it."
"""The same after an answer that was cut off."""
OPENING = "[The beginning of this conversation is not available.]"
"""Opens a history that would begin with the model."""
UNANSWERED = "[No answer was given.]"
"""Stands between a tool result and the user where both may not share a turn."""


def sanitise(messages: tuple[Message, ...], target: Endpoint, *, prefill: bool = False) -> Transcript:
    """Makes any history one that the target accepts (X10, W32, peers.md 27).

    User text is never lost and the order of what was said stays. The result is for one request, not for the store:
    what it adds (see `CONTINUE`, `OPENING`, `UNANSWERED`, `INTERRUPTED`) was never said.

    Args:
        messages: any history, however broken.
        target: where it goes; reasoning, signatures and uploads of other endpoints stay behind.
        prefill: whether an assistant's text may be the last message, for a model that carries it on.

    Returns:
        The history and a report that names types, never content.
    """
    rules = RULES[target.family]
    tally: Tally = Tally()
    cleaned = tuple(_clean(message, target, tally) for message in messages)
    settled = tuple(_settle(merge_assistants(cleaned), tally))
    arranged = _arrange(pair_results(settled, rules, tally), rules, tally)
    ended = _end(arranged, target, tally, prefill=prefill and rules.may_prefill)
    return Transcript(messages=ended, notes=notes_of(tally))


def _clean(message: Message, target: Endpoint, tally: Tally) -> Message:
    is_assistant, is_tool = message.role is Role.ASSISTANT, message.role is Role.TOOL
    if message.tool_calls and not is_assistant:
        tally[Change.DROPPED, "misplaced_call"] += len(message.tool_calls)

    if message.result and not is_tool:
        tally[Change.DROPPED, "misplaced_result"] += 1

    if message.content and is_tool:
        tally[Change.DROPPED, "misplaced_content"] += 1

    if message.error_marker:
        tally[Change.DROPPED, "error_marker"] += 1

    is_silent = message.error_marker or is_tool
    return replace(
        message,
        content=() if is_silent else tuple(_parts(message.content, message.role, target, tally)),
        tool_calls=tuple(_call(call, target, tally) for call in message.tool_calls) if is_assistant else (),
        result=_result(message.result, target, tally) if is_tool and not message.error_marker else None,
    )


def _parts(content: tuple[Part, ...], role: Role, target: Endpoint, tally: Tally) -> Iterator[Part]:
    for part in content:
        if isinstance(part, Text):
            signature = kept_signature(part.signature, target, of_call=False) if role is Role.ASSISTANT else None
            tally[Change.DROPPED, "foreign_signature"] += part.signature is not signature
            if part.text.strip() or signature:
                yield Text(text=encodable(part.text), signature=signature)

        elif isinstance(part, Reasoning):
            if role is Role.ASSISTANT and is_sendable(part, target):
                yield part
            else:
                tally[Change.DROPPED, "foreign_reasoning" if part.origin != target else "reasoning"] += 1

        else:
            fitted = fit(part, role, target)
            tally[Change.REPLACED, type(part).__name__.lower()] += isinstance(fitted, Text)
            yield fitted


def _call(call: ToolCall, target: Endpoint, tally: Tally) -> ToolCall:
    signature = kept_signature(call.signature, target, of_call=True)
    arguments = object_text(call.arguments)
    tally[Change.DROPPED, "foreign_signature"] += call.signature is not signature
    tally[Change.REPLACED, "arguments"] += arguments != call.arguments
    return replace(call, arguments=arguments, signature=signature)


def _result(result: ToolResult | None, target: Endpoint, tally: Tally) -> ToolResult | None:
    return result and replace(result, content=tuple(_parts(result.content, Role.TOOL, target, tally)))


def _settle(messages: tuple[Message, ...], tally: Tally) -> Iterator[Message]:
    for message in messages:
        whole = _without_trailing_thought(message, tally)
        if _says_something(whole):
            yield replace(whole, error_marker=False)
        elif not message.error_marker:
            tally[Change.DROPPED, f"empty_{message.role}"] += 1


def _without_cut_thought(message: Message, tally: Tally) -> Message:
    return _without_reasoning(message, tally) if message.partial else message


def _without_trailing_thought(message: Message, tally: Tally) -> Message:
    """Anthropic refuses an assistant that ends in thinking, and a thought that led nowhere helps nobody."""
    if message.tool_calls:
        return message

    end = len(message.content)
    while end and isinstance(message.content[end - 1], Reasoning):
        end -= 1

    tally[Change.DROPPED, "reasoning"] += len(message.content) - end
    return replace(message, content=message.content[:end])


def _without_reasoning(message: Message, tally: Tally) -> Message:
    content = tuple(part for part in message.content if not isinstance(part, Reasoning))
    tally[Change.DROPPED, "reasoning"] += len(message.content) - len(content)
    return replace(message, content=content)


def _says_something(message: Message) -> bool:
    if message.tool_calls or message.result:
        return True

    return any(
        not isinstance(part, Text | Reasoning) or (isinstance(part, Text) and part.text.strip())
        for part in message.content
    )


def _arrange(messages: tuple[Message, ...], rules: FamilyRules, tally: Tally) -> tuple[Message, ...]:
    systems: tuple[Message, ...] = ()
    if rules.system_apart:
        systems = tuple(message for message in messages if message.role is Role.SYSTEM)
        messages = tuple(message for message in messages if message.role is not Role.SYSTEM)

    # What was dropped between two assistants may have left them side by side.
    messages = tuple(_without_cut_thought(message, tally) for message in merge_assistants(messages))
    if rules.opens_with_user and messages and messages[0].role is not Role.USER:
        tally[Change.ADDED, "opening"] += 1
        messages = (_say(Role.USER, OPENING), *messages)

    ordered: list[Message] = []
    for message in messages:
        last = ordered[-1] if ordered else None
        if last and message.role is Role.USER is last.role and rules.joins_users:
            ordered[-1] = replace(last, content=last.content + message.content)
            continue

        if last and message.role is Role.USER and last.role is Role.TOOL and rules.results_stand_alone:
            tally[Change.ADDED, "unanswered"] += 1
            ordered.append(_say(Role.ASSISTANT, UNANSWERED))

        ordered.append(message)

    return (*systems, *ordered)


def _end(messages: tuple[Message, ...], target: Endpoint, tally: Tally, *, prefill: bool) -> tuple[Message, ...]:
    last = next((message for message in reversed(messages) if message.role is not Role.SYSTEM), None)
    if last is not None and last.role is not Role.ASSISTANT:
        return messages

    if last is None or not prefill:
        tally[Change.ADDED, "continue"] += 1
        return (*messages, _say(Role.USER, CONTINUE_PARTIAL if last and last.partial else CONTINUE))

    if target.family is not Family.ANTHROPIC:
        return messages

    return (*messages[:-1], _as_prefill(last, tally))


def _as_prefill(message: Message, tally: Tally) -> Message:
    """Anthropic takes a last assistant that doesn't think and doesn't end in blanks."""
    spoken = _without_reasoning(message, tally)
    last = spoken.content[-1]
    if not isinstance(last, Text) or last.text == last.text.rstrip():
        return spoken

    return replace(spoken, content=(*spoken.content[:-1], replace(last, text=last.text.rstrip())))


def _say(role: Role, text: str) -> Message:
    return Message(role=role, content=(Text(text=text),))
