"""The three wire shapes behind one door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fallback_plugin.core.transcript import Endpoint, Family, Message, Note, Transcript
from fallback_plugin.core.transcript_anthropic import read_anthropic, write_anthropic
from fallback_plugin.core.transcript_gemini import read_gemini, write_gemini
from fallback_plugin.core.transcript_openai import read_openai, write_openai
from fallback_plugin.core.transcript_repair import sanitise

_Reader = Callable[[Mapping[str, object], Endpoint], Transcript]
_Writer = Callable[[tuple[Message, ...]], dict[str, object]]

_READERS: Mapping[Family, _Reader] = MappingProxyType(
    {Family.OPENAI: read_openai, Family.ANTHROPIC: read_anthropic, Family.GEMINI: read_gemini},
)
_WRITERS: Mapping[Family, _Writer] = MappingProxyType(
    {Family.OPENAI: write_openai, Family.ANTHROPIC: write_anthropic, Family.GEMINI: write_gemini},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A history ready to be sent.

    Attributes:
        body: the keys that hold it in a request of the target's shape.
        notes: what was changed, by type.
    """

    body: dict[str, object]
    notes: tuple[Note, ...]


def read_history(body: Mapping[str, object], origin: Endpoint) -> Transcript:
    """Reads the history out of a request body of the origin's shape.

    Args:
        body: decoded JSON of any shape; what can't be read is noted by type, never raised.
        origin: the endpoint that the answers in it came from.
    """
    return _READERS[origin.family](body, origin)


def export_history(messages: tuple[Message, ...], target: Endpoint, *, prefill: bool = False) -> Export:
    """Makes a history sendable and writes it in the target's shape (A14, X10).

    Args:
        messages: any history.
        target: where it goes.
        prefill: see `sanitise`.
    """
    sendable = sanitise(messages, target, prefill=prefill)
    return Export(body=_WRITERS[target.family](sendable.messages), notes=sendable.notes)
