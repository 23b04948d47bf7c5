"""A history that any provider accepts.

A turn that moves from one provider to another takes its history with it, and what one provider wrote the next one
often refuses: a thinking block signed by somebody else, a call that nobody answered, two assistants in a row, an
empty block (peers.md, complaint 27). This module holds the words that the three wire shapes share and the two
edits that hosts make while a turn runs; `transcript_repair` makes a history sendable, `transcript_shapes` reads and
writes the wire.

    wire ─ read_history ─► messages ─ sanitise(target) ─► messages ─ write_history ─► wire

A **turn** begins with a user message. A **step** is one answer of a model: its text and the calls it made at once,
followed by their results. Assistants side by side are pieces of one step and are merged. As soon as something stood
between them (a result, an error marker, another role) they are two steps; two steps that both called tools are never
merged, because the model would read calls made one after the other as made at once.

Reasoning, signatures and uploaded files belong to the endpoint that made them and are sent back to that one alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Family(StrEnum):
    """The wire shape that an endpoint speaks, and with it the rules that a history must keep."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a history comes from or goes to.

    Attributes:
        family: the wire shape.
        name: tells endpoints of one family apart that refuse each other's signatures; the family's own one if
            empty. Google AI Studio and Vertex refuse each other's, also behind an aggregator (OpenRouter
            ai-sdk-provider #491), so a gateway's name includes the upstream: "openrouter/google-vertex".
    """

    family: Family
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """An opaque proof that only the endpoint which issued it can check."""

    value: str
    origin: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Words. Gemini signs some of them."""

    text: str
    signature: Signature | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture: as base64 data, as a public address, or as an upload known to its origin alone."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    origin: Endpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A document, a recording, a film: held like an `Image`, with a name."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    origin: Endpoint | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """What a model thought before it spoke.

    Attributes:
        origin: the one endpoint that it is sent back to.
        text: the readable thought, empty where it is withheld.
        signature: proof over the text; Anthropic refuses a thought without one.
        encrypted: a thought that only the origin can read (Anthropic's redacted thinking).
        form: the key that carried it in an OpenAI-shaped message: reasoning, reasoning_content, reasoning_details.
        wire: the entry of reasoning_details as it came, as JSON; aggregators want it back unchanged.
    """

    origin: Endpoint
    text: str = ""
    signature: str = ""
    encrypted: str = ""
    form: str = ""
    wire: str = ""


Part = Text | Image | File | Reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model's wish to run a tool.

    Attributes:
        name: the tool's name.
        id: names the call within the history; empty where the provider gave none (Gemini).
        arguments: JSON text of one object, as the model wrote it.
        signature: Gemini's thought signature of the call.
    """

    name: str
    id: str = ""
    arguments: str = "{}"
    signature: Signature | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool gave back.

    Attributes:
        call_id: the call's id; where it is empty, name and order tell the call.
        name: the tool's name, if the shape carries it.
        content: what came back.
        is_error: whether the tool failed.
    """

    call_id: str = ""
    name: str = ""
    content: tuple[Part, ...] = ()
    is_error: bool = False

    @property
    def text(self) -> str:
        """The words of the result, one part a line."""
        return text_of(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One entry of a history.

    Attributes:
        role: who speaks.
        content: the parts, in order; a tool's output is in `result` instead.
        tool_calls: an assistant's calls, which come after its content in every shape.
        result: a tool's answer to one call.
        error_marker: the content tells people of an error or a stop; it is never sent to a model (W32).
        partial: the answer was cut off; its text is sent, its thinking isn't (W32).
    """

    role: Role
    content: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    result: ToolResult | None = None
    error_marker: bool = False
    partial: bool = False

    @property
    def text(self) -> str:
        """The words of the content, one part a line."""
        return text_of(self.content)


def text_of(content: tuple[Part, ...]) -> str:
    """The words among some parts, one part a line."""
    return "\n".join(part.text for part in content if isinstance(part, Text) and part.text)


class Change(StrEnum):
    """What became of something."""

    DROPPED = "dropped"
    ADDED = "added"
    MOVED = "moved"
    RENAMED = "renamed"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One line of a report: safe to log, because it names types and never content.

    Attributes:
        change: what happened.
        what: the type of the thing: "orphan_result", "foreign_reasoning", "block:server_tool_use", …
        count: how often.
    """

    change: Change
    what: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A history and what had to be changed on the way to it."""

    messages: tuple[Message, ...]
    notes: tuple[Note, ...] = ()


def merge_assistants(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Joins assistants that stand side by side into one (rows A05-A09, A14).

    Contents that are not empty are joined with a newline, calls are concatenated in order. Error markers are left
    alone, and so are two pieces with calls of which the first was cut off: the second is another attempt.

    Args:
        messages: a history; its other messages are not touched.

    Returns:
        The merged history; the one given if there was nothing to merge.
    """
    merged: list[Message] = []
    for message in messages:
        if merged and _is_same_step(merged[-1], message):
            merged[-1] = _join(merged[-1], message)
            continue

        merged.append(message)

    return tuple(merged) if len(merged) < len(messages) else messages


def _is_same_step(first: Message, second: Message) -> bool:
    if first.role is not Role.ASSISTANT or second.role is not Role.ASSISTANT:
        return False

    if first.error_marker or second.error_marker:
        return False

    return not (first.partial and first.tool_calls and second.tool_calls)


def _join(first: Message, second: Message) -> Message:
    return replace(
        first,
        content=_join_content(_without_empty(first.content), _without_empty(second.content)),
        tool_calls=(*first.tool_calls, *second.tool_calls),
        partial=first.partial or second.partial,
    )


def _without_empty(content: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(part for part in content if not (isinstance(part, Text) and not part.text and not part.signature))


def _join_content(first: tuple[Part, ...], second: tuple[Part, ...]) -> tuple[Part, ...]:
    if not first or not second:
        return first or second

    left, right = first[-1], second[0]
    # A signature covers the whole part, so signed words stay a part of their own.
    if isinstance(left, Text) and isinstance(right, Text) and not left.signature and not right.signature:
        return (*first[:-1], Text(text=f"{left.text}\n{right.text}"), *second[1:])

    return first + second


def add_tool_call(messages: tuple[Message, ...], call: ToolCall) -> tuple[Message, ...]:
    """Attaches a call to the current turn's assistant (rows A10-A13).

    A user message is a boundary; tool results are not, so repeated calls gather on one assistant. A turn without an
    assistant gets one with no content.

    Returns:
        The history with the call in it.
    """
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role is Role.USER:
            break

        if message.role is Role.ASSISTANT and not message.error_marker:
            holder = replace(message, tool_calls=(*message.tool_calls, call))
            return (*messages[:index], holder, *messages[index + 1 :])

    return (*messages, Message(role=Role.ASSISTANT, tool_calls=(call,)))
