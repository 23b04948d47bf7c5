"""Gemini generateContent: contents of parts, roles user and model, calls often without an id.

Gemini 3 wants the first call of each step signed. A call that somebody else made, or an older Gemini, carries no
signature that would pass; for that case the documentation names a placeholder ("Thought signatures", FAQ), which
`write_gemini` puts there and `read_gemini` takes off again.
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
from fallback_plugin.core.transcript_media import Media

UNSIGNED = "skip_thought_signature_validator"
"""What the documentation names for calls that Gemini didn't make itself."""


def read_gemini(body: Mapping[str, object], origin: Endpoint) -> Transcript:
    """Reads the system instruction and the contents of a generateContent request.

    Args:
        body: decoded JSON with "systemInstruction" and "contents", in camelCase or snake_case; other and unknown keys
            are passed over.
        origin: the endpoint that the model's answers came from.

    Returns:
        The history and the types of what couldn't be carried over. A content with function responses becomes one
        message for each, then one for the rest.
    """
    tally: Tally = Tally()
    messages: list[Message] = []
    instruction = first_of(body, "systemInstruction", "system_instruction")
    if system := tuple(_read_parts(_parts_of(instruction), origin, tally)):
        messages.append(Message(role=Role.SYSTEM, content=system))

    for item in items_of(body.get("contents")):
        messages.extend(_read_content(mapping_of(item), origin, tally))

    return Transcript(messages=tuple(messages), notes=notes_of(tally))


def _parts_of(content: object) -> list[Mapping[str, object]]:
    if isinstance(content, str):
        return [{"text": content}]

    parts = mapping_of(content).get("parts")
    single = mapping_of(parts)
    return [single] if single else [mapping_of(item) for item in items_of(parts)]


def _read_content(item: Mapping[str, object], origin: Endpoint, tally: Tally) -> Iterator[Message]:
    role, parts = string_of(item.get("role")), _parts_of(item)
    if role == "model":
        calls = tuple(_read_call(part, origin) for part in parts if _call_of(part) is not None)
        rest = [part for part in parts if _call_of(part) is None]
        yield Message(role=Role.ASSISTANT, content=tuple(_read_parts(rest, origin, tally)), tool_calls=calls)
    elif role in {"", "user", "function", "tool"}:
        yield from _read_user(parts, origin, tally)
    elif role == "system":
        yield Message(role=Role.SYSTEM, content=tuple(_read_parts(parts, origin, tally)))
    else:
        tally[Change.DROPPED, "unknown_role"] += 1


def _read_user(parts: list[Mapping[str, object]], origin: Endpoint, tally: Tally) -> Iterator[Message]:
    results = [part for part in parts if _response_of(part) is not None]
    for part in results:
        yield Message(role=Role.TOOL, result=_read_result(mapping_of(_response_of(part))))

    content = tuple(_read_parts([part for part in parts if _response_of(part) is None], origin, tally))
    if content or not results:
        yield Message(role=Role.USER, content=content)


def _call_of(part: Mapping[str, object]) -> object:
    return first_of(part, "functionCall", "function_call")


def _response_of(part: Mapping[str, object]) -> object:
    return first_of(part, "functionResponse", "function_response")


def _read_call(part: Mapping[str, object], origin: Endpoint) -> ToolCall:
    call = mapping_of(_call_of(part))
    return ToolCall(
        id=string_of(call.get("id")),
        name=string_of(call.get("name")),
        arguments=dump(dict(mapping_of(call.get("args")))),
        signature=_read_signature(part, origin),
    )


def _read_signature(part: Mapping[str, object], origin: Endpoint) -> Signature | None:
    value = string_of(first_of(part, "thoughtSignature", "thought_signature"))
    return Signature(value=value, origin=origin) if value and value != UNSIGNED else None


def _read_result(response: Mapping[str, object]) -> ToolResult:
    value = mapping_of(response.get("response"))
    said = next(iter(value.values())) if len(value) == 1 else None
    key = next(iter(value)) if isinstance(said, str) else ""
    text = said if isinstance(said, str) and key in {"output", "error"} else dump(dict(value))
    content = (Text(text=text),)
    call_id, name = string_of(response.get("id")), string_of(response.get("name"))
    return ToolResult(call_id=call_id, name=name, content=content, is_error=key == "error")


def _read_parts(parts: list[Mapping[str, object]], origin: Endpoint, tally: Tally) -> Iterator[Part]:
    for item in parts:
        part = _read_part(item, origin)
        if part is None:
            note_block(tally, next((key for key in item if key not in {"thought", "thoughtSignature"}), None))
        else:
            yield part


def _read_part(item: Mapping[str, object], origin: Endpoint) -> Part | None:
    text, signature = item.get("text"), _read_signature(item, origin)
    if isinstance(text, str):
        if item.get("thought") is True:
            return Reasoning(origin=origin, text=text, signature=signature.value if signature else "")

        return Text(text=text, signature=signature)

    for name, snake in (("inlineData", "inline_data"), ("fileData", "file_data")):
        if (source := first_of(item, name, snake)) is not None:
            return _read_media(mapping_of(source), origin)

    return None


def _read_media(source: Mapping[str, object], origin: Endpoint) -> Media:
    media_type = string_of(first_of(source, "mimeType", "mime_type"))
    data, uri = string_of(source.get("data")), string_of(first_of(source, "fileUri", "file_uri"))
    if media_type.startswith("image/"):
        return Image(media_type=media_type, data=data, file_id=uri, origin=origin)

    name = string_of(first_of(source, "displayName", "display_name"))
    return File(media_type=media_type, data=data, file_id=uri, origin=origin, name=name)


def write_gemini(
    messages: tuple[Message, ...], *, unsigned: str = UNSIGNED, call_ids: bool = True
) -> dict[str, object]:
    """Writes a history that was made sendable to a Gemini-shaped endpoint.

    Args:
        messages: the history.
        unsigned: the signature for the first call of a step that has none; empty for none, which models before
            Gemini 3 accept.
        call_ids: whether ids are written where there are any; some gateways refuse the key.

    Returns:
        {"systemInstruction": {…}, "contents": […]}, to be spread into a request; no instruction where there is none.
    """
    system: list[object] = []
    contents: list[dict[str, object]] = []
    answering = False
    for message in messages:
        if message.role is Role.SYSTEM:
            system.extend(_write_part(part) for part in message.content)
            continue

        role = "model" if message.role is Role.ASSISTANT else "user"
        parts = _write_parts(message, unsigned, call_ids=call_ids)
        if answering and message.result is not None:
            contents[-1]["parts"] = [*items_of(contents[-1]["parts"]), *parts]
        else:
            contents.append({"role": role, "parts": parts})

        answering = message.result is not None

    return {"systemInstruction": {"parts": system}, "contents": contents} if system else {"contents": contents}


def _write_parts(message: Message, unsigned: str, *, call_ids: bool) -> list[dict[str, object]]:
    if message.result is not None:
        return [_write_result(message.result, call_ids=call_ids)]

    parts = [_write_part(part) for part in message.content]
    for number, call in enumerate(message.tool_calls):
        function: dict[str, object] = {"name": call.name, "args": load_object(call.arguments) or {}}
        if call.id and call_ids:
            function["id"] = call.id

        signature = call.signature.value if call.signature else "" if number else unsigned
        parts.append(_signed({"functionCall": function}, signature))

    return parts


def _write_result(result: ToolResult, *, call_ids: bool) -> dict[str, object]:
    text = encodable(result.text)
    response = {"error": text} if result.is_error else load_object(text)
    function: dict[str, object] = {"name": result.name, "response": {"output": text} if response is None else response}
    if result.call_id and call_ids:
        function["id"] = result.call_id

    return {"functionResponse": function}


def _write_part(part: Part) -> dict[str, object]:
    if isinstance(part, Text):
        return _signed({"text": part.text}, part.signature.value if part.signature else "")

    if isinstance(part, Reasoning):
        return _signed({"text": part.text, "thought": True}, part.signature)

    if part.data:
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}

    return {"fileData": {"mimeType": part.media_type, "fileUri": part.file_id or part.url}}


def _signed(part: dict[str, object], signature: str) -> dict[str, object]:
    return part | {"thoughtSignature": signature} if signature else part
