"""Reloading on real files, on both event loops; the waits are the operating system's."""

import time
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from fallback_plugin.config import watch
from fallback_plugin.config.load import ConfigSource, LoadedConfig
from fallback_plugin.config.watch import POLL_SECONDS, watch_config
from fallback_plugin.errors import ConfigurationError

GOOD = '{"fallback_models": "a/%s"}'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))

    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@pytest.fixture
def project(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    return project


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rename_over(path, text):
    temporary = path.with_name("temporary~")
    temporary.write_text(text)
    temporary.replace(path)


def replace_twice(path, text):
    """As an editor that keeps a backup: the name is gone for a moment."""
    path.rename(path.with_name("backup~"))
    path.write_text(text)


class Outcomes:
    """What a watch told, in order."""

    def __init__(self):
        self._send, self._receive = anyio.create_memory_object_stream(100)

    async def put(self, outcome):
        await self._send.send(outcome)

    async def next(self):
        with anyio.fail_after(15):
            outcome = await self._receive.receive()

        return str(outcome) if isinstance(outcome, ConfigurationError) else outcome.settings.fallback_models

    def close(self):
        self._send.close()
        self._receive.close()

    def none_left(self):
        with pytest.raises(anyio.WouldBlock):
            self._receive.receive_nowait()

        return True


@asynccontextmanager
async def watching(source, current=None):
    outcomes = Outcomes()
    async with anyio.create_task_group() as group:

        async def run():
            await watch_config(source, outcomes.put, outcomes.put, current=current)

        group.start_soon(run)
        yield outcomes
        group.cancel_scope.cancel()

    outcomes.close()


@pytest.mark.parametrize("change", [write, rename_over, replace_twice])
async def test_a_saved_file_is_read_again(project, change):
    path = project / ".opencode/opencode-fallback.json"
    write(path, GOOD % 1)
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ("a/1",)
        change(path, GOOD % 2)
        assert await outcomes.next() == ("a/2",)
        change(path, GOOD % "three")
        assert await outcomes.next() == ("a/three",)
        assert outcomes.none_left()


async def test_a_file_and_its_directory_may_come_later(project, home):
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ()
        write(home / ".config/opencode/opencode-fallback.toml", 'fallback_models = "a/user"')
        assert await outcomes.next() == ("a/user",)
        write(project / ".opencode/opencode-fallback.json", GOOD % "project")
        assert await outcomes.next() == ("a/project",)
        write(project / ".opencode/opencode-fallback.jsonc", GOOD % "first")
        assert await outcomes.next() == ("a/first",)


async def test_what_is_removed_falls_back_to_the_next_file(project, home):
    path = project / ".opencode/opencode-fallback.json"
    write(path, GOOD % "project")
    write(home / ".config/opencode/opencode-fallback.json", GOOD % "user")
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ("a/project",)
        path.unlink()
        path.parent.rmdir()
        assert await outcomes.next() == ("a/user",)
        write(path, GOOD % "again")
        assert await outcomes.next() == ("a/again",)


async def test_a_broken_file_is_told_once_for_each_change_and_a_good_one_ends_it(project):
    path = project / ".opencode/opencode-fallback.json"
    write(path, GOOD % 1)
    source = ConfigSource(directory=project)
    async with watching(source, current=source.load()) as outcomes:
        await anyio.sleep(0.2)
        assert outcomes.none_left()
        rename_over(path, '{"fallback_models": 1')
        assert await outcomes.next() == f'{path}:1:22: expected "," or a closing bracket, found the end of the file'
        rename_over(path, '{"fallback": "a/b"}')
        assert await outcomes.next() == (
            f'{path}:1:2: fallback: unknown key "fallback"; did you mean "fallback_models"?'
        )
        await anyio.sleep(POLL_SECONDS + 0.3)
        assert outcomes.none_left()
        rename_over(path, GOOD % 1)
        assert await outcomes.next() == ("a/1",)


async def test_a_named_file_that_goes_and_comes_back(project):
    path = project / "deep/er/mine.json"
    write(path, GOOD % 1)
    async with watching(ConfigSource(directory=project, config=path)) as outcomes:
        assert await outcomes.next() == ("a/1",)
        path.unlink()
        assert await outcomes.next() == f"{path}: can't be read: No such file or directory"
        write(path, GOOD % 2)
        assert await outcomes.next() == ("a/2",)


async def test_the_target_of_a_link_is_followed(project):
    target = project / "elsewhere/c.json"
    write(target, GOOD % 1)
    link = project / ".opencode/opencode-fallback.json"
    link.parent.mkdir()
    link.symlink_to(target)
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ("a/1",)
        write(target, GOOD % 22)
        assert await outcomes.next() == ("a/22",)


async def test_polling_by_the_watcher_where_its_environment_asks_for_it(project, monkeypatch):
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    path = project / ".opencode/opencode-fallback.json"
    write(path, GOOD % 1)
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ("a/1",)
        write(path, GOOD % 22)
        assert await outcomes.next() == ("a/22",)


async def test_where_nothing_can_be_watched_the_files_are_looked_at(project, monkeypatch):
    # The real watcher refuses a directory that is not there, as it does where it has no more watches.
    monkeypatch.setattr(watch, "_watched_directories", lambda _: frozenset({project / "none"}))
    path = project / ".opencode/opencode-fallback.json"
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ()
        write(path, GOOD % 1)
        assert await outcomes.next() == ("a/1",)


async def test_the_systems_own_events_are_enough(project, monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 60.0)
    path = project / ".opencode/opencode-fallback.json"
    write(path, GOOD % 0)
    async with watching(ConfigSource(directory=project)) as outcomes:
        assert await outcomes.next() == ("a/0",)

        async def keep_writing():
            # The watcher needs a moment to start, and nobody tells when it has.
            for number in range(1, 100):
                await anyio.sleep(0.8)
                rename_over(path, GOOD % number)

        async with anyio.create_task_group() as group:
            group.start_soon(keep_writing)
            assert (await outcomes.next())[0].startswith("a/")
            group.cancel_scope.cancel()


async def test_a_watch_ends_at_once_when_it_is_cancelled(project, monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 10.0)
    async with watching(ConfigSource(directory=project)) as outcomes:
        await outcomes.next()
        await anyio.sleep(0.3)
        began = time.monotonic()

    assert time.monotonic() - began < 2


async def test_a_watch_costs_next_to_nothing(project):
    async with watching(ConfigSource(directory=project)) as outcomes:
        await outcomes.next()
        began = time.process_time()
        await anyio.sleep(1)
        assert time.process_time() - began < 0.2


async def test_what_a_callback_raises_ends_the_watch(project):
    async def fail(_):
        raise OSError("the caller's own")

    with anyio.fail_after(5), pytest.raises(OSError, match="the caller's own"):
        await watch_config(ConfigSource(directory=project), fail, fail)


class Told:
    def __init__(self, source, current=None):
        self.changes, self.errors = [], []
        self.reloader = watch._Reloader(source=source, on_change=self._changed, on_error=self._failed, current=current)

    async def _changed(self, loaded):
        self.changes.append(loaded)

    async def _failed(self, error):
        self.errors.append(error)

    async def look(self):
        await self.reloader.look()
        return len(self.changes), len(self.errors)


async def test_only_what_differs_is_told(project):
    path = project / ".opencode/opencode-fallback.json"
    write(path, '{"timeout_seconds": 9, "agents": {"build": {}}}')
    source = ConfigSource(directory=project)
    told = Told(source, source.load())
    assert await told.look() == (0, 0)

    rename_over(path, '// a comment\n{"agents": {"build": {}}, "timeout_seconds": 9.0}')
    assert await told.look() == (0, 0)

    # Written out, a default overrides the global value: not the same configuration.
    rename_over(path, '{"timeout_seconds": 9, "agents": {"build": {"timeout_seconds": 30}}}')
    assert await told.look() == (1, 0)
    assert await told.look() == (1, 0)

    rename_over(path, "{")
    assert await told.look() == (1, 1)
    assert await told.look() == (1, 1)

    rename_over(path, '{"timeout_seconds": 9, "agents": {"build": {"timeout_seconds": 30}}}')
    assert await told.look() == (2, 1)
    assert told.changes[-1] == LoadedConfig(settings=told.changes[0].settings, path=path)


def test_the_nearest_directories_that_exist_are_watched(project, home):
    paths = (project / ".opencode/a.json", project / "a/b/c.json", home / ".config/opencode/c.json")
    assert watch._watched_directories(paths) == {project, home}
    (project / ".opencode").mkdir()
    assert watch._watched_directories(paths) == {project / ".opencode", project, home}
    assert watch._watched_directories([Path("c.json")]) == {Path.cwd()}
