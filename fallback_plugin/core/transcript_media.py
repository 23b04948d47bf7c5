"""Pictures and files: what each family takes, and words in their place where it doesn't."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace

from fallback_plugin.core.transcript import Endpoint, Family, File, Image, Part, Role, Text
from fallback_plugin.core.transcript_json import encodable

Media = Image | File

PDF = "application/pdf"
PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
"""Picture formats that OpenAI and Anthropic document."""
RECORDINGS = {"audio/wav": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}
"""Recordings that OpenAI takes, and its word for them."""

_SPEAKERS = {
    Family.OPENAI: {Role.USER},
    Family.ANTHROPIC: {Role.USER, Role.TOOL},
    Family.GEMINI: {Role.USER, Role.ASSISTANT},
}
"""Who may show something, in a message or in a tool's result."""

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_ADDRESS = re.compile("https?://[^\\s\ud800-\udfff]+")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+\-]+/[a-z0-9.+\-]+")
_FILE_ID = re.compile(r"[\x21-\x7e]+")
_DATA_URL = re.compile(r"data:([^;,]*)[^,]*;base64,(.*)", re.DOTALL)


def split_data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 data of a data URL, None for any other address."""
    found = _DATA_URL.fullmatch(url)
    return (found[1], found[2]) if found else None


def is_data(media: Media) -> bool:
    """Whether a medium brings its bytes along."""
    return bool(media.data) and _BASE64.fullmatch(media.data) is not None


def fit(media: Media, role: Role, target: Endpoint) -> Part:
    """A medium as the target takes it: with the one source that counts there, else in words.

    Args:
        media: the picture or file.
        role: the speaker; TOOL for the content of a tool's result.
        target: where the history goes.
    """
    bare = replace(media, data="", url="", file_id="")
    if role not in _SPEAKERS[target.family] or (role is Role.ASSISTANT and isinstance(media, File)):
        return in_words(media)

    if is_data(media) and _takes_data(media, target.family):
        return replace(bare, data=media.data)

    if _takes_upload(media, target):
        return replace(bare, file_id=media.file_id)

    if _ADDRESS.fullmatch(media.url) and _takes_address(media, target.family):
        return replace(bare, url=media.url)

    return in_words(media)


def _takes_data(media: Media, family: Family) -> bool:
    if family is Family.GEMINI:
        return _says_what_it_is(media)

    if isinstance(media, Image):
        return media.media_type in PICTURES

    if family is Family.OPENAI:
        return media.media_type == PDF or media.media_type in RECORDINGS

    return media.media_type == PDF or (media.media_type == "text/plain" and bool(plain_text(media).strip()))


def _takes_upload(media: Media, target: Endpoint) -> bool:
    if media.origin != target or not _FILE_ID.fullmatch(media.file_id):
        return False

    if target.family is Family.GEMINI:
        return _says_what_it_is(media)

    return target.family is Family.ANTHROPIC or isinstance(media, File)


def _takes_address(media: Media, family: Family) -> bool:
    if family is Family.GEMINI:
        return _says_what_it_is(media)

    return isinstance(media, Image) or (family is Family.ANTHROPIC and media.media_type == PDF)


def _says_what_it_is(media: Media) -> bool:
    """Gemini takes anything whose type is told."""
    if isinstance(media, Image) and not media.media_type.startswith("image/"):
        return False

    return _MEDIA_TYPE.fullmatch(media.media_type) is not None


def plain_text(media: Media) -> str:
    """The words of a medium that is text, empty where it is anything else."""
    if not media.media_type.startswith("text/") or not is_data(media):
        return ""

    try:
        return base64.b64decode(media.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def in_words(media: Media) -> Part:
    """What stands in for a medium that the target doesn't take: its text if it is one, else that it is missing."""
    name = encodable(media.name).strip() if isinstance(media, File) else ""
    if words := plain_text(media).strip():
        return Text(text=f"{name}\n{words}" if name else words)

    kind = "image" if isinstance(media, Image) else "file"
    form = media.media_type if _MEDIA_TYPE.fullmatch(media.media_type) else ""
    return Text(text=f"[{' '.join(word for word in (kind, name, form) if word)}: can't be shown here]")
