"""`fallback-plugin install` and `uninstall`: the files that make a host load us."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fallback_plugin.cli.attach import encodable
from fallback_plugin.errors import InstallationError
from fallback_plugin.hosts.opencode.file_changes import Action, FileChange, carry_out
from fallback_plugin.hosts.opencode.installation import (
    Place,
    bridge_command,
    plan_installation,
    plan_removal,
    project_place,
    user_place,
)

EXIT_REFUSED = 2
HOSTS = ("opencode",)

_DONE = {
    Action.CREATE: "created",
    Action.REPLACE: "replaced",
    Action.REMOVE: "removed",
    Action.LEAVE: "left alone",
}
_TO_DO = {
    Action.CREATE: "would create",
    Action.REPLACE: "would replace",
    Action.REMOVE: "would remove",
    Action.LEAVE: "would leave alone",
}

HostName = Annotated[str, typer.Argument(metavar="HOST", help="What to install into: opencode.")]
ForUser = Annotated[bool, typer.Option("--global", help="For all of your projects.")]
Directory = Annotated[Path | None, typer.Option("--directory", help="The project; the current directory if not given.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


def install_command(
    host: HostName, directory: Directory = None, *, for_user: ForUser = False, dry_run: DryRun = False
) -> None:
    """Write the plugin file that OpenCode loads and, if there is none, a configuration."""
    try:
        place = _place(host, directory, for_user=for_user)
        changes = plan_installation(place, bridge_command())
        _carry_out(changes, dry_run=dry_run)
    except InstallationError as error:
        _refuse(error)
    else:
        _say_what_is_next(changes, dry_run=dry_run)


def uninstall_command(
    host: HostName, directory: Directory = None, *, for_user: ForUser = False, dry_run: DryRun = False
) -> None:
    """Remove the plugin file and, unless you have changed it, the configuration that came with it."""
    try:
        _carry_out(plan_removal(_place(host, directory, for_user=for_user)), dry_run=dry_run)
    except InstallationError as error:
        _refuse(error)


def _place(host: str, directory: Path | None, *, for_user: bool) -> Place:
    if host not in HOSTS:
        raise InstallationError(f"no host is known by the name {host!r}; there is: {', '.join(HOSTS)}")

    if for_user and directory is not None:
        raise InstallationError("--global is for all projects, --directory for one: give one of them")

    return user_place() if for_user else project_place(directory or Path())


def _refuse(error: InstallationError) -> None:
    _say(str(error), err=True)
    raise typer.Exit(EXIT_REFUSED) from None


def _carry_out(changes: Sequence[FileChange], *, dry_run: bool) -> None:
    if not dry_run:
        carry_out(changes)

    for change in changes:
        _say(f"{(_TO_DO if dry_run else _DONE)[change.action]} {change.path}: {change.reason}")
        for line in change.difference():
            _say(f"  {line}")


def _say_what_is_next(changes: Sequence[FileChange], *, dry_run: bool) -> None:
    if dry_run or all(change.action is Action.LEAVE for change in changes):
        return

    steps = [f"Put your models into {change.path}." for change in changes[:1] if change.action is Action.CREATE]
    steps += ["OpenCode loads the plugin at its next start.", "`fallback-plugin doctor` checks everything."]
    _say(" ".join(steps))


def _say(text: str, *, err: bool = False) -> None:
    stream = sys.stderr if err else sys.stdout
    # A foreign file's text must not steer the terminal.
    plain = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    typer.echo(encodable(plain, stream.encoding), err=err)
