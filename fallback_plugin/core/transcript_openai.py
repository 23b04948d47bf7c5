"""OpenAI chat completions, and the many that speak its shape.

Beyond the reference, the keys that aggregators and reasoning models add are read and sent back to where they came
from: `reasoning_details` (OpenRouter), `reasoning_content` (DeepSeek, Moonshot), `reasoning` (Groq, vLLM) and the
thought signature under `extra_content.google` (Gemini's own compatible endpoint). The retired `function_call` and
role `function` are read as a call and a result without an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fallback_plugin.core.transcript import (
    Change,
    Endpoint,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Role,
    Signature,
    Text,
    ToolCall,
    ToolResult,
    Transcript,
)
from fallback_plugin.core.transcript_json import (
    Tally,
    dump,
    encodable,
    first_of,
    items_of,
    load_object,
    mapping_of,
    note_block,
    notes_of,
    string_of,
)
from fallback_plugin.core.transcript_media import RECORDINGS, split_data_url

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


def read_openai(body: Mapping[str, object], origin: Endpoint) -> Transcript:
    """Reads the messages of a chat completions request.

    Args:
        body: decoded JSON with "messages"; other and unknown keys are passed over.
        origin: the endpoint that the assistants' answers came from.

    Returns:
        The history and the types of what couldn't be carried over.
    """
    tally: Tally = Tally()
    messages = tuple(
        message for item in items_of(body.get("messages")) for message in _read_message(mapping_of(item), origin, tally)
    )
    return Transcript(messages=messages, notes=notes_of(tally))


def _read_message(item: Mapping[str, object], origin: Endpoint, tally: Tally) -> Iterator[Message]:
    role = _ROLES.get(string_of(item.get("role")))
    if role is None:
        tally[Change.DROPPED, "unknown_role"] += 1
        return

    content = tuple(_read_content(item.get("content"), origin, tally))
    if role is Role.TOOL:
        call_id, name = string_of(item.get("tool_call_id")), string_of(item.get("name"))
        yield Message(role=role, result=ToolResult(call_id=call_id, name=name, content=content))
        return

    if role is not Role.ASSISTANT:
        yield Message(role=role, content=content)
        return

    refusal = string_of(item.get("refusal"))
    spoken = (*content, Text(text=refusal)) if refusal else content
    thoughts = tuple(_read_reasoning(item, origin))
    yield Message(role=role, content=thoughts + spoken, tool_calls=tuple(_read_calls(item, origin, tally)))


def _read_content(content: object, origin: Endpoint, tally: Tally) -> Iterator[Part]:
    if isinstance(content, str):
        yield Text(text=content)
        return

    for item in items_of(content):
        part = Text(text=item) if isinstance(item, str) else _read_part(mapping_of(item), origin)
        if part is None:
            note_block(tally, mapping_of(item).get("type"))
        else:
            yield part


def _read_part(item: Mapping[str, object], origin: Endpoint) -> Part | None:
    kind = string_of(item.get("type"))
    if kind in {"text", "input_text", "output_text", "refusal"}:
        text = item.get("refusal" if kind == "refusal" else "text")
        return Text(text=text) if isinstance(text, str) else None

    if kind == "image_url":
        source = item.get("image_url")
        return _read_image(source if isinstance(source, str) else string_of(mapping_of(source).get("url")))

    if kind == "input_audio":
        audio = mapping_of(item.get("input_audio"))
        return File(media_type=f"audio/{string_of(audio.get('format'))}", data=string_of(audio.get("data")))

    if kind == "file":
        return _read_file(mapping_of(item.get("file")), origin)

    return None


def _read_image(url: str) -> Image:
    media_type, data = split_data_url(url) or ("", "")
    return Image(media_type=media_type, data=data) if data else Image(url=url)


def _read_file(source: Mapping[str, object], origin: Endpoint) -> File:
    name = string_of(source.get("filename"))
    media_type, data = split_data_url(string_of(source.get("file_data"))) or ("", "")
    return File(name=name, media_type=media_type, data=data, file_id=string_of(source.get("file_id")), origin=origin)


def _read_reasoning(item: Mapping[str, object], origin: Endpoint) -> Iterator[Reasoning]:
    details = [mapping_of(entry) for entry in items_of(item.get("reasoning_details"))]
    for entry in details:
        text = string_of(first_of(entry, "text", "summary"))
        yield Reasoning(origin=origin, text=text, form="reasoning_details", wire=dump(dict(entry)))

    # Aggregators repeat the readable part of the details under a second key.
    for form in () if details else ("reasoning_content", "reasoning"):
        if text := string_of(item.get(form)):
            yield Reasoning(origin=origin, text=text, form=form)


def _read_calls(item: Mapping[str, object], origin: Endpoint, tally: Tally) -> Iterator[ToolCall]:
    for entry in items_of(item.get("tool_calls")):
        call = mapping_of(entry)
        if "function" not in call:
            note_block(tally, call.get("type"))
            continue

        google = mapping_of(mapping_of(call.get("extra_content")).get("google"))
        value = string_of(google.get("thought_signature"))
        signature = Signature(value=value, origin=origin) if value else None
        yield _read_function(string_of(call.get("id")), mapping_of(call.get("function")), signature)

    if retired := mapping_of(item.get("function_call")):
        yield _read_function("", retired, None)


def _read_function(call_id: str, function: Mapping[str, object], signature: Signature | None) -> ToolCall:
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else dump(dict(mapping_of(arguments)))
    return ToolCall(id=call_id, name=string_of(function.get("name")), arguments=text, signature=signature)


def write_openai(messages: tuple[Message, ...]) -> dict[str, object]:
    """Writes a history that was made sendable to an OpenAI-shaped endpoint.

    Returns:
        {"messages": […]}, to be spread into a request.
    """
    return {"messages": [_write_message(message) for message in messages]}


def _write_message(message: Message) -> dict[str, object]:
    if message.result is not None:
        return {"role": "tool", "tool_call_id": message.result.call_id, "content": message.result.text}

    if message.role is Role.ASSISTANT:
        return _write_assistant(message)

    if message.role is Role.SYSTEM:
        return {"role": "system", "content": message.text}

    if len(message.content) == 1 and isinstance(message.content[0], Text):
        return {"role": "user", "content": message.text}

    return {"role": "user", "content": [_write_part(part) for part in message.content]}


def _write_assistant(message: Message) -> dict[str, object]:
    written: dict[str, object] = {"role": "assistant", "content": message.text or None}
    thoughts = [part for part in message.content if isinstance(part, Reasoning)]
    if details := [load_object(part.wire) for part in thoughts if part.form == "reasoning_details"]:
        written["reasoning_details"] = details

    # The details hold the readable text too, and a second copy could contradict them.
    for form in () if details else ("reasoning_content", "reasoning"):
        if text := "\n".join(part.text for part in thoughts if part.form == form):
            written[form] = text

    if message.tool_calls:
        written["tool_calls"] = [_write_call(call) for call in message.tool_calls]

    return written


def _write_call(call: ToolCall) -> dict[str, object]:
    written: dict[str, object] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    if call.signature:
        written["extra_content"] = {"google": {"thought_signature": call.signature.value}}

    return written


def _write_part(part: Part) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}

    if isinstance(part, Image):
        url = part.url or f"data:{part.media_type};base64,{part.data}"
        return {"type": "image_url", "image_url": {"url": url}}

    if isinstance(part, Reasoning):
        raise TypeError("reasoning stands beside the content of an assistant, not in it")

    if part.data and part.media_type in RECORDINGS:
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": RECORDINGS[part.media_type]}}

    if part.file_id:
        return {"type": "file", "file": {"file_id": part.file_id}}

    name = encodable(part.name) or "file.pdf"
    return {"type": "file", "file": {"filename": name, "file_data": f"data:{part.media_type};base64,{part.data}"}}
