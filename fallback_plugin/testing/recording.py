"""A terminal session as it was: when a program wrote what, kept in asciinema's file format (cast, version 2)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

_VERSION = 2


def _no_writes() -> list[tuple[float, bytes]]:
    return []


@dataclass(slots=True, kw_only=True)
class Recording:
    """What a program has written to a terminal."""

    columns: int
    rows: int
    writes: list[tuple[float, bytes]] = field(default_factory=_no_writes)
    """Seconds since its start and the bytes, in order."""

    def since(self, start: float) -> Recording:
        """Give the recording as if it had begun later: what was written before shows at once.

        Args:
            start: seconds since the start.
        """
        writes = [(max(0.0, at - start), data) for at, data in self.writes]
        return Recording(columns=self.columns, rows=self.rows, writes=writes)

    def save(self, path: Path, *, title: str = "") -> None:
        """Write it as an asciinema cast.

        Args:
            path: the file, replaced where it exists.
            title: what players show above it.
        """
        header = {"version": _VERSION, "width": self.columns, "height": self.rows} | ({"title": title} if title else {})
        path.write_text("".join(f"{json.dumps(line)}\n" for line in (header, *self._events())), encoding="utf-8")

    def _events(self) -> Iterator[list[Any]]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for at, data in self.writes:
            if text := decoder.decode(data):
                yield [round(at, 3), "o", text]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an asciinema cast.

        Args:
            path: the file.

        Raises:
            ValueError: it is no cast of version 2.
        """
        lines: list[Any] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first = lines[0] if lines else None
        header = cast("dict[str, Any]", first) if isinstance(first, dict) else {}
        if header.get("version") != _VERSION:
            raise ValueError(f"{path} is no asciinema cast of version {_VERSION}")

        writes = [(float(at), str(text).encode()) for at, kind, text in lines[1:] if kind == "o"]
        return cls(columns=header["width"], rows=header["height"], writes=writes)
