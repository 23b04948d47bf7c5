"""The real OpenCode in a terminal, as a user has it before them.

with Workspace(opencode_config(provider.base_url, models=["primary"])) as workspace:
    async with OpenCodeTerminal(find_opencode(), workspace) as terminal:
        await terminal.prompt("say hi")
        await terminal.wait_for("hello there")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from fallback_plugin.errors import HostUnavailable
from fallback_plugin.testing.opencode_workspace import Workspace
from fallback_plugin.testing.terminal import Terminal

_START_SECONDS = 60.0
_READY = "commands"
"""The last word of the line below the prompt."""


class OpenCodeTerminal(Terminal):
    """The TUI, as an async context manager; entered when it takes input.

    Args:
        binary: the OpenCode binary, see `find_opencode`.
        workspace: where it works, entered already; several may follow each other in one.
        arguments: of the command line, such as `["--continue"]`.
        columns: the terminal's width in characters.
        rows: its height in lines.

    Raises:
        HostUnavailable: on entering, where it ends or does not come up; has the screen.
    """

    def __init__(
        self, binary: Path, workspace: Workspace, *, arguments: Sequence[str] = (), columns: int = 100, rows: int = 30
    ) -> None:
        super().__init__(
            [str(binary), *arguments],
            directory=workspace.project,
            environment=workspace.variables,
            columns=columns,
            rows=rows,
        )

    async def prompt(self, text: str, *, pause: float = 0.0) -> None:
        """Type a prompt and send it.

        Args:
            text: one line.
            pause: seconds between the keys.
        """
        await self.type(text, pause=pause)
        await self.press("enter")

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self.wait_for(_READY, timeout=_START_SECONDS)
        except (TimeoutError, EOFError) as error:
            await self.__aexit__(None, None, None)
            raise HostUnavailable(f"the OpenCode TUI does not come up: {error}") from None
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

        return self
