"""Anthropic messages: system apart, tool results inside user messages, thinking with a signature."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from fallback_plugin.core.transcript import (
    Change,
    Endpoint,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Transcript,
)
from fallback_plugin.core.transcript_json import (
    Tally,
    dump,
    encodable,
    items_of,
    load_object,
    mapping_of,
    note_block,
    notes_of,
    string_of,
)
from fallback_plugin.core.transcript_media import PDF, Media, plain_text


def read_anthropic(body: Mapping[str, object], origin: Endpoint) -> Transcript:
    """Reads the system text and the messages of a messages request.

    Args:
        body: decoded JSON with "system" and "messages"; other and unknown keys are passed over.
        origin: the endpoint that the assistants' answers came from.

    Returns:
        The history and the types of what couldn't be carried over. A user message with tool results becomes one
        message for each result, then one for the rest.
    """
    tally: Tally = Tally()
    messages: list[Message] = []
    if system := tuple(_read_parts(_blocks(body.get("system")), origin, tally)):
        messages.append(Message(role=Role.SYSTEM, content=system))

    for item in items_of(body.get("messages")):
        messages.extend(_read_message(mapping_of(item), origin, tally))

    return Transcript(messages=tuple(messages), notes=notes_of(tally))


def _blocks(content: object) -> list[Mapping[str, object]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]

    return [{"type": "text", "text": item} if isinstance(item, str) else mapping_of(item) for item in items_of(content)]


def _read_message(item: Mapping[str, object], origin: Endpoint, tally: Tally) -> Iterator[Message]:
    role, blocks = item.get("role"), _blocks(item.get("content"))
    if role == "assistant":
        calls = tuple(_read_call(block) for block in blocks if block.get("type") == "tool_use")
        rest = [block for block in blocks if block.get("type") != "tool_use"]
        yield Message(role=Role.ASSISTANT, content=tuple(_read_parts(rest, origin, tally)), tool_calls=calls)
    elif role == "user":
        yield from _read_user(blocks, origin, tally)
    elif role == "system":
        yield Message(role=Role.SYSTEM, content=tuple(_read_parts(blocks, origin, tally)))
    else:
        tally[Change.DROPPED, "unknown_role"] += 1


def _read_user(blocks: list[Mapping[str, object]], origin: Endpoint, tally: Tally) -> Iterator[Message]:
    results = [block for block in blocks if block.get("type") == "tool_result"]
    for block in results:
        yield Message(role=Role.TOOL, result=_read_result(block, origin, tally))

    content = tuple(_read_parts([block for block in blocks if block.get("type") != "tool_result"], origin, tally))
    if content or not results:
        yield Message(role=Role.USER, content=content)


def _read_result(block: Mapping[str, object], origin: Endpoint, tally: Tally) -> ToolResult:
    return ToolResult(
        call_id=string_of(block.get("tool_use_id")),
        content=tuple(_read_parts(_blocks(block.get("content")), origin, tally)),
        is_error=block.get("is_error") is True,
    )


def _read_call(block: Mapping[str, object]) -> ToolCall:
    value = block.get("input")
    arguments = value if isinstance(value, str) else dump(dict(mapping_of(value)))
    return ToolCall(id=string_of(block.get("id")), name=string_of(block.get("name")), arguments=arguments)


def _read_parts(blocks: Sequence[Mapping[str, object]], origin: Endpoint, tally: Tally) -> Iterator[Part]:
    for block in blocks:
        part = _read_part(block, origin)
        if part is None:
            note_block(tally, block.get("type"))
        else:
            yield part


def _read_part(block: Mapping[str, object], origin: Endpoint) -> Part | None:
    kind = string_of(block.get("type"))
    if kind == "text":
        text = block.get("text")
        return Text(text=text) if isinstance(text, str) else None

    if kind == "thinking":
        thought, signature = string_of(block.get("thinking")), string_of(block.get("signature"))
        return Reasoning(origin=origin, text=thought, signature=signature)

    if kind == "redacted_thinking":
        return Reasoning(origin=origin, encrypted=string_of(block.get("data")))

    if kind in {"image", "document"}:
        return _read_media(block, origin)

    return None


def _read_media(block: Mapping[str, object], origin: Endpoint) -> Media | None:
    source = mapping_of(block.get("source"))
    media_type, data = string_of(source.get("media_type")), string_of(source.get("data"))
    url, file_id = string_of(source.get("url")), string_of(source.get("file_id"))
    if block.get("type") == "image":
        return Image(media_type=media_type, data=data, url=url, file_id=file_id, origin=origin)

    if string_of(source.get("type")) not in {"base64", "text", "url", "file"}:
        return None

    if source.get("type") == "text":
        data = base64.b64encode(encodable(data).encode()).decode()

    name = string_of(block.get("title"))
    # A document by address is always a PDF.
    media_type = media_type or (PDF if url else "")
    return File(media_type=media_type, data=data, url=url, file_id=file_id, origin=origin, name=name)


def write_anthropic(messages: tuple[Message, ...]) -> dict[str, object]:
    """Writes a history that was made sendable to an Anthropic-shaped endpoint.

    Returns:
        {"system": […], "messages": […]}, to be spread into a request; no "system" where there is none.
    """
    system: list[object] = []
    written: list[dict[str, object]] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            system.extend(_write_part(part) for part in message.content)
            continue

        role = "assistant" if message.role is Role.ASSISTANT else "user"
        if written and written[-1]["role"] == role:
            written[-1]["content"] = [*items_of(written[-1]["content"]), *_write_blocks(message)]
        else:
            written.append({"role": role, "content": _write_blocks(message)})

    return {"system": system, "messages": written} if system else {"messages": written}


def _write_blocks(message: Message) -> list[object]:
    if message.result is not None:
        return [_write_result(message.result)]

    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": load_object(call.arguments) or {}}
        for call in message.tool_calls
    ]
    return [*(_write_part(part) for part in message.content), *calls]


def _write_result(result: ToolResult) -> dict[str, object]:
    written: dict[str, object] = {"type": "tool_result", "tool_use_id": result.call_id}
    if result.content:
        written["content"] = [_write_part(part) for part in result.content]

    if result.is_error:
        written["is_error"] = True

    return written


def _write_part(part: Part) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}

    if isinstance(part, Reasoning):
        if part.signature:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}

        return {"type": "redacted_thinking", "data": part.encrypted}

    if isinstance(part, Image):
        return {"type": "image", "source": _write_source(part)}

    document: dict[str, object] = {"type": "document", "source": _write_source(part)}
    return document | {"title": encodable(part.name)} if part.name.strip() else document


def _write_source(media: Media) -> dict[str, object]:
    if media.file_id:
        return {"type": "file", "file_id": media.file_id}

    if media.url:
        return {"type": "url", "url": media.url}

    if text := plain_text(media):
        return {"type": "text", "media_type": "text/plain", "data": text}

    return {"type": "base64", "media_type": media.media_type, "data": media.data}
