"""A session of the loopback host: its messages, and how they look to the plugin and to a provider."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio

from fallback_plugin.core.events import (
    AssistantMessage,
    InspectedMessage,
    MessageUpdated,
    PartType,
    PartUpdated,
    SessionInspected,
    SessionStatusChanged,
    UserMessage,
)
from fallback_plugin.core.failure import Facts
from fallback_plugin.testing.chat_client import ToolCall

Tool = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Takes the arguments that the model gave and returns what the model is told."""

_AT_WORK = ("pending", "running")


@dataclass(slots=True, kw_only=True)
class Prompt:
    """A user message."""

    message_id: str
    text: str
    agent: str
    route: str
    created_wall: float
    answered: bool = False
    role: Literal["user"] = "user"


@dataclass(slots=True, kw_only=True)
class TextPart:
    """Text of an answer, as far as it has come."""

    part_id: str
    text: str = ""


@dataclass(slots=True, kw_only=True)
class ToolPart:
    """A tool call of an answer, and its result."""

    part_id: str
    call_id: str
    name: str
    arguments: str
    status: Literal["pending", "running", "completed"] = "pending"
    output: str = ""


@dataclass(slots=True, kw_only=True)
class Answer:
    """An assistant message: one request to a model and what came of it."""

    message_id: str
    parent_id: str
    route: str
    agent: str
    parts: list[TextPart | ToolPart] = field(default_factory=list["TextPart | ToolPart"])
    finish: str | None = None
    completed: bool = False
    error: Facts | None = None
    role: Literal["assistant"] = "assistant"

    @property
    def text(self) -> str:
        """Everything that was said."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def tool_parts(self) -> list[ToolPart]:
        """The tool calls, in order."""
        return [part for part in self.parts if isinstance(part, ToolPart)]

    def write(self, text: str) -> str:
        """Add text; gives the id of the part that it went into."""
        last = self.parts[-1] if self.parts else None
        if not isinstance(last, TextPart):
            last = TextPart(part_id=self._next_part_id())
            self.parts.append(last)

        last.text += text
        return last.part_id

    def call(self, calls: Sequence[ToolCall]) -> None:
        """Add tool calls."""
        for call in calls:
            part = ToolPart(
                part_id=self._next_part_id(), call_id=call.call_id, name=call.name, arguments=call.arguments
            )
            self.parts.append(part)

    def _next_part_id(self) -> str:
        return f"{self.message_id}-part-{len(self.parts) + 1}"


class LoopbackSession:
    """One session's messages and run.

    Attributes:
        messages: the history, oldest first.
        status: what the host last said of the session.
        scope: cancels the run under way; None where there is none.
        begun: set while a run is under way.
        ended: set while none is.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.messages: list[Prompt | Answer] = []
        self.status = SessionStatusChanged(session_id=session_id, status="idle")
        self.scope: anyio.CancelScope | None = None
        self.begun = anyio.Event()
        self.ended = anyio.Event()
        self.ended.set()

    def begin(self, scope: anyio.CancelScope) -> None:
        """A run starts."""
        self.scope = scope
        self.ended = anyio.Event()
        self.begun.set()

    def end(self) -> None:
        """The run is over."""
        self.scope = None
        self.begun = anyio.Event()
        self.ended.set()

    def add_prompt(self, message_id: str, text: str, *, agent: str, route: str) -> Prompt:
        """Append a user message."""
        prompt = Prompt(message_id=message_id, text=text, agent=agent, route=route, created_wall=time.time())
        self.messages.append(prompt)
        return prompt

    def add_answer(self, message_id: str, prompt: Prompt) -> Answer:
        """Append an empty assistant message."""
        answer = Answer(message_id=message_id, parent_id=prompt.message_id, route=prompt.route, agent=prompt.agent)
        self.messages.append(answer)
        return answer

    def prompt(self, message_id: str) -> Prompt | None:
        """The user message of that id."""
        return next((prompt for prompt in self._prompts() if prompt.message_id == message_id), None)

    def unanswered(self) -> Prompt | None:
        """The newest user message, if nobody has begun to answer it."""
        newest = next(reversed(self._prompts()), None)
        return newest if newest is not None and not newest.answered else None

    def open_answer(self) -> Answer | None:
        """The answer that is being written."""
        last = self.messages[-1] if self.messages else None
        return last if isinstance(last, Answer) and not last.completed else None

    def remove(self, message_id: str, part_id: str | None) -> bool:
        """Drop a message, or one part of it; whether it was there."""
        for message in self.messages:
            if message.message_id != message_id or not isinstance(message, Answer):
                continue

            if part_id is None:
                self.messages.remove(message)
                return True

            kept = [part for part in message.parts if part.part_id != part_id]
            found = len(kept) < len(message.parts)
            message.parts = kept
            return found

        return False

    def transcript(self) -> list[dict[str, Any]]:
        """The history as chat messages."""
        messages: list[dict[str, Any]] = []
        for message in self.messages:
            if isinstance(message, Prompt):
                messages.append({"role": "user", "content": message.text})
            else:
                messages += _chat_messages(message)

        return messages

    def updated(self, message: Prompt | Answer) -> MessageUpdated:
        """The event that a message was created or changed."""
        return MessageUpdated(session_id=self.session_id, message=_as_event_value(message))

    def part_updated(self, answer: Answer, part: ToolPart) -> PartUpdated:
        """The event that a tool part changed."""
        return PartUpdated(
            session_id=self.session_id,
            message_id=answer.message_id,
            part_id=part.part_id,
            part_type=PartType.TOOL,
            tool_status=part.status,
        )

    def inspected(self) -> SessionInspected:
        """Status and newest turn."""
        newest = next(reversed(self._prompts()), None)
        if newest is None:
            return SessionInspected(session_id=self.session_id, status=self.status)

        answers = [message for message in self.messages if isinstance(message, Answer)]
        return SessionInspected(
            session_id=self.session_id,
            status=self.status,
            user=_user_message(newest),
            assistants=tuple(_inspected(answer) for answer in answers if answer.parent_id == newest.message_id),
        )

    def _prompts(self) -> list[Prompt]:
        return [message for message in self.messages if isinstance(message, Prompt)]


def _as_event_value(message: Prompt | Answer) -> UserMessage | AssistantMessage:
    return _user_message(message) if isinstance(message, Prompt) else _assistant_message(message)


def _user_message(prompt: Prompt) -> UserMessage:
    return UserMessage(
        message_id=prompt.message_id, created_wall=prompt.created_wall, agent=prompt.agent, route=prompt.route
    )


def _assistant_message(answer: Answer) -> AssistantMessage:
    return AssistantMessage(
        message_id=answer.message_id,
        parent_id=answer.parent_id,
        route=answer.route,
        agent=answer.agent,
        finish=answer.finish,
        completed=answer.completed,
        error=answer.error,
    )


def _inspected(answer: Answer) -> InspectedMessage:
    behind_tools = answer.parts[_index_behind_tools(answer) :]
    return InspectedMessage(
        message=_assistant_message(answer),
        has_text=bool(answer.text),
        has_finished_tool=bool(answer.tool_parts),
        running_tools=frozenset(part.part_id for part in answer.tool_parts if part.status in _AT_WORK),
        tail_parts=tuple(part.part_id for part in behind_tools),
    )


def _index_behind_tools(answer: Answer) -> int:
    indexes = [index for index, part in enumerate(answer.parts) if isinstance(part, ToolPart)]
    return indexes[-1] + 1 if indexes else 0


def _chat_messages(answer: Answer) -> list[dict[str, Any]]:
    """An answer as the next request holds it; one that has said and called nothing is left out."""
    done = [part for part in answer.tool_parts if part.status == "completed"]
    if not done:
        return [{"role": "assistant", "content": answer.text}] if answer.text else []

    calls = [
        {"id": part.call_id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in done
    ]
    results = [{"role": "tool", "tool_call_id": part.call_id, "content": part.output} for part in done]
    return [{"role": "assistant", "content": answer.text or None, "tool_calls": calls}, *results]


async def run_tool(tool: Tool | None, part: ToolPart) -> str:
    """What the model is told of its call; a tool that is missing, or arguments that are none, are said too."""
    if tool is None:
        return f"no tool named {part.name}"

    try:
        arguments = json.loads(part.arguments or "{}")
    except ValueError:
        return "the arguments are not JSON"

    return await tool(arguments)
