"""Find the configuration file, read it, and say everything that is wrong with it at once.

One file is in force: `--config`, else the first that exists of

    <project>/.opencode/opencode-fallback      .jsonc  .json  .toml   (then its parents', up to the git top)
    <the platform's user configuration>/fallback-plugin/opencode-fallback      .jsonc  .json  .toml
    ~/.config/opencode/opencode-fallback       .jsonc  .json  .toml      (the TypeScript plugin's place)

else the defaults. Its keys lie over the defaults, and `overrides` over both. JSON may hold comments and
trailing commas whatever its suffix. An empty file is an error, so that a file caught half written does not
drop every chain; `{}` (or a TOML file of comments) says "the defaults".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import platformdirs
from pydantic import ValidationError

from fallback_plugin.config.document import Document, read_text
from fallback_plugin.config.faults import Fault, fault_of, key_path, shown
from fallback_plugin.config.schema import Settings
from fallback_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fallback_plugin.config.positions import KeyPath

MAX_FAULTS_SHOWN = 50
FILE_STEM = "opencode-fallback"
SUFFIXES = (".jsonc", ".json", ".toml")

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A configuration that was read.

    Attributes:
        settings: what holds.
        path: the file in force; None for the defaults alone.
        warnings: what is odd but does no harm, one line each.
    """

    settings: Settings
    path: Path | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """Where the configuration comes from; can be read again when a file changes.

    Attributes:
        directory: the project.
        config: the file named by the user; no other is looked for then.
        overrides: keys as in a file that lie over whatever the file says.
    """

    directory: Path
    config: Path | None = None
    overrides: Mapping[str, object] = field(default_factory=lambda: _NOTHING)

    def candidates(self) -> tuple[Path, ...]:
        """The files that count, the first that exists wins."""
        if self.config is not None:
            return (self.config,)

        return candidate_paths(self.directory)

    def load(self) -> LoadedConfig:
        """Read the file in force.

        Raises:
            ConfigurationError: the file can't be read or used. The text has a line for each fault:
                `file:line:column: key.path: expected …, found …`.
        """
        path = self.config or next(filter(os.path.lexists, self.candidates()), None)
        if path is None:
            settings, warnings = _validate(Document(name="defaults", text=""), {}, self.overrides)
            return LoadedConfig(settings=settings, warnings=warnings)

        is_toml = _is_toml(path)
        text = read_text(path)
        settings, warnings = parse(text, name=str(path), is_toml=is_toml, overrides=self.overrides)
        return LoadedConfig(settings=settings, path=path, warnings=(*warnings, *self._shadowed(path)))

    def _shadowed(self, path: Path) -> Iterable[str]:
        if self.config is None:
            for suffix in SUFFIXES:
                sibling = path.with_suffix(suffix)
                if sibling != path and os.path.lexists(sibling):
                    yield f"{sibling}: not read, because {path.name} beside it comes first"


def candidate_paths(directory: Path) -> tuple[Path, ...]:
    """The files that are looked for, in order, where none is named.

    Args:
        directory: the project.
    """
    return (*project_paths(directory), *user_paths())


def project_paths(directory: Path) -> tuple[Path, ...]:
    """Those of `candidate_paths` that lie in the project.

    Args:
        directory: the project.
    """
    return tuple(file for place in _upward(directory) for file in _files_in(place / ".opencode"))


def _upward(directory: Path) -> tuple[Path, ...]:
    """The directory and its parents up to the top of the git tree, as OpenCode looks for plugins; else it alone."""
    places = (directory, *directory.absolute().parents)
    top = next((number for number, place in enumerate(places) if os.path.lexists(place / ".git")), 0)
    return places[: top + 1]


def user_paths() -> tuple[Path, ...]:
    """Those of `candidate_paths` that hold for all of the user's projects."""
    return (
        *_files_in(platformdirs.user_config_path("fallback-plugin", appauthor=False)),
        *_files_in(Path("~/.config/opencode").expanduser()),
    )


def _files_in(place: Path) -> tuple[Path, ...]:
    return tuple(place / f"{FILE_STEM}{suffix}" for suffix in SUFFIXES)


def parse(
    text: str, *, name: str, is_toml: bool, overrides: Mapping[str, object] = _NOTHING
) -> tuple[Settings, tuple[str, ...]]:
    """Settings and warnings of a configuration text.

    Args:
        text: the file's text.
        name: the file's name in errors.
        is_toml: TOML, else JSON with or without comments.
        overrides: keys that lie over the text's.

    Raises:
        ConfigurationError: see `ConfigSource.load`.
    """
    document = Document(name=name, text=text, is_toml=is_toml)
    value = document.decode()
    if not isinstance(value, dict):
        start = document.places().values.get((), 0)
        raise ConfigurationError(document.say(start, "", f"expected an object, found {shown(value)}"))

    return _validate(document, cast("dict[str, object]", value), overrides)


def _is_toml(path: Path) -> bool:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"{path}: expected a file named .jsonc, .json or .toml")

    return path.suffix.lower() == ".toml"


def _validate(
    document: Document, value: dict[str, object], overrides: Mapping[str, object]
) -> tuple[Settings, tuple[str, ...]]:
    faults = list(_repeated_keys(document)) if document.has_repeated_keys else []
    try:
        settings = Settings.model_validate({**value, **overrides})
    except ValidationError as error:
        faults += [fault_of(each) for each in error.errors(include_url=False)]
    else:
        if not faults:
            own = {key: each for key, each in value.items() if key not in overrides}
            return settings, tuple(islice(_warnings(document, own), MAX_FAULTS_SHOWN))

    raise ConfigurationError(_report(document, faults, overrides))


def _report(document: Document, faults: list[Fault], overrides: Mapping[str, object]) -> str:
    of_override = [fault for fault in faults if fault.path and fault.path[0] in overrides]
    own = [fault for fault in faults if not (fault.path and fault.path[0] in overrides)]
    placed = [(*document.offset(fault.path, at_key=fault.at_key), fault) for fault in own]
    placed.sort(key=lambda each: each[0])
    lines = [f"override: {key_path(fault.path)}: {fault.text}" for fault in of_override]
    lines += [document.say(offset, key_path(path), fault.text) for offset, path, fault in placed[:MAX_FAULTS_SHOWN]]
    if len(placed) > MAX_FAULTS_SHOWN:
        lines.append(f"{document.name}: {len(placed) - MAX_FAULTS_SHOWN} more")

    return "\n".join(lines)


def _repeated_keys(document: Document) -> Iterable[Fault]:
    for path, _ in document.places().repeated:
        yield Fault(path=path, at_key=True)


def _warnings(document: Document, value: dict[str, object]) -> Iterable[str]:
    """Routes that a chain names again (K18): the first stays, the others are left out."""
    agents = cast("dict[str, dict[str, object]]", value.get("agents", {}))
    chains: dict[KeyPath, object] = {("fallback_models",): value.get("fallback_models")}
    chains |= {("agents", name, "fallback_models"): own.get("fallback_models") for name, own in agents.items()}
    for path, chain in chains.items():
        seen: set[object] = set()
        for index, route in enumerate(cast("list[object]", chain) if isinstance(chain, list) else ()):
            if route in seen:
                offset, place = document.offset((*path, index), at_key=False)
                yield document.say(offset, key_path(place), f"{shown(route)} stands in the chain already; left out")

            seen.add(route)
