"""Calls and their results: every call answered once, right behind its assistant, under an id of its own.

A result goes to the latest call of its id that has no answer yet, so a history in which a provider counted its ids
anew pairs as it was lived. Where there are no ids, tool name and order tell. A result that comes late (a user spoke
while the tool ran) moves up to its call; one that answers nothing is dropped, as is a second answer, unless the
first one only said that the call was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from fallback_plugin.core.transcript import Change, Message, Role, Text, ToolCall, ToolResult
from fallback_plugin.core.transcript_json import Tally
from fallback_plugin.core.transcript_rules import FamilyRules, tool_name

INTERRUPTED = "The tool call was interrupted before a result came back. It may or may not have taken effect."
"""Stands in for the result that never came; says nothing about success, because nobody knows (K22)."""


@dataclass(slots=True, kw_only=True)
class _Slot:
    step: int
    call: ToolCall
    answer: ToolResult | None = None


@dataclass(slots=True, kw_only=True)
class _Calls:
    """The calls seen so far, by id; those without one under the empty id."""

    by_id: dict[str, list[_Slot]] = field(default_factory=dict[str, list[_Slot]])
    by_step: dict[int, list[_Slot]] = field(default_factory=dict[int, list[_Slot]])

    def add(self, step: int, calls: tuple[ToolCall, ...]) -> None:
        slots = [_Slot(step=step, call=call) for call in calls]
        self.by_step[step] = slots
        for slot in slots:
            self.by_id.setdefault(slot.call.id, []).append(slot)

    def candidates(self, result: ToolResult) -> list[_Slot]:
        if result.call_id in self.by_id and result.call_id:
            return self.by_id[result.call_id]

        nameless = self.by_id.get("", [])
        if not result.call_id and not result.name:
            return nameless

        return [slot for slot in nameless if slot.call.name == result.name]


def pair_results(messages: Sequence[Message], rules: FamilyRules, tally: Tally) -> tuple[Message, ...]:
    """Puts every result behind its call and an answer behind every call.

    Args:
        messages: a history whose assistants are merged.
        rules: what the target wants of ids and names.
        tally: grows by what was dropped, added, moved and renamed.

    Returns:
        The history, in which each assistant with calls is followed by exactly their results, in the calls' order.
    """
    calls = _match(messages, tally)
    return tuple(_arrange(messages, calls, rules, tally))


def _match(messages: Sequence[Message], tally: Tally) -> _Calls:
    calls = _Calls()
    last_other = -1
    for index, message in enumerate(messages):
        if message.role is not Role.TOOL:
            last_other = index
            calls.add(index, message.tool_calls)
            continue

        if message.result is None:
            continue

        candidates = calls.candidates(message.result)
        slot = _open_slot(candidates)
        if slot is None:
            tally[Change.DROPPED, "duplicate_result" if candidates else "orphan_result"] += 1
            continue

        slot.answer = message.result
        if last_other > slot.step:
            tally[Change.MOVED, "late_result"] += 1

    return calls


def _open_slot(candidates: list[_Slot]) -> _Slot | None:
    found: _Slot | None = None
    for slot in reversed(candidates):
        if found is not None and slot.step != found.step:
            break

        if slot.answer is None:
            found = slot

    if found is not None:
        return found

    return next((slot for slot in reversed(candidates) if slot.answer and slot.answer.text == INTERRUPTED), None)


def _arrange(messages: Sequence[Message], calls: _Calls, rules: FamilyRules, tally: Tally) -> Iterator[Message]:
    names = _Names(rules=rules, tally=tally)
    for index, message in enumerate(messages):
        if message.role is Role.TOOL:
            continue

        slots = calls.by_step[index]
        renamed = tuple(names.accept(slot.call) for slot in slots)
        yield replace(message, tool_calls=renamed) if renamed != message.tool_calls else message
        for call, slot in zip(renamed, slots, strict=True):
            if slot.answer is None:
                tally[Change.ADDED, "interrupted_result"] += 1

            answer = slot.answer or ToolResult(content=(Text(text=INTERRUPTED),), is_error=True)
            yield Message(role=Role.TOOL, result=replace(answer, call_id=call.id, name=call.name))


@dataclass(slots=True, kw_only=True)
class _Names:
    """Gives out ids and names; an id depends on what came before alone, so that it stays as the history grows."""

    rules: FamilyRules
    tally: Tally
    taken: set[str] = field(default_factory=set[str])
    count: int = 0

    def accept(self, call: ToolCall) -> ToolCall:
        self.count += 1
        name = tool_name(call.name, self.rules)
        if name != call.name:
            self.tally[Change.RENAMED, "tool_name"] += 1

        call_id = self._call_id(call.id)
        if call_id != call.id:
            self.tally[Change.RENAMED, "call_id"] += 1

        return replace(call, id=call_id, name=name)

    def _call_id(self, call_id: str) -> str:
        if not call_id and not self.rules.call_id_required:
            return ""

        accepted = call_id
        number = self.count
        # Nine letters and digits: the one form that Mistral accepts behind OpenAI's shape.
        while accepted in self.taken or not self.rules.call_id.fullmatch(accepted):
            accepted = f"call{number:05d}"
            number += 1

        self.taken.add(accepted)
        return accepted
