"""Which store a URL means, and what is said about one that means none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from fallback_plugin.errors import ConfigurationError
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.redis import RedisStore
from fallback_plugin.stores.sqlite import SqliteStore
from fallback_plugin.stores.url import default_url, open_store


def test_memory():
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/x.db", Path("/var/lib/x.db")),
        ("sqlite:////var/lib/x.db", Path("/var/lib/x.db")),
        ("sqlite:///~/x.db", Path.home() / "x.db"),
        ("sqlite:///a%20b%23c.db", Path("/a b#c.db")),
        ("SQLite:///x.db", Path("/x.db")),
        ("/var/lib/x.db", Path("/var/lib/x.db")),
        ("~/x.db", Path.home() / "x.db"),
        ("state/x.db", Path.cwd() / "state" / "x.db"),
    ],
)
def test_sqlite(url, path):
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert Path(store.path.as_posix().replace("//", "/")) == path


@pytest.mark.parametrize(
    ("url", "inner", "prefix"),
    [
        ("redis://host:6379/0", "redis://host:6379/0", "fallback:{main}:"),
        ("rediss://user:word@host/1", "rediss://user:word@host/1", "fallback:{main}:"),
        ("valkey://host", "redis://host", "fallback:{main}:"),
        ("valkeys://host", "rediss://host", "fallback:{main}:"),
        ("redis://host/0?namespace=team&client_name=x", "redis://host/0?client_name=x", "fallback:{team}:"),
    ],
)
def test_redis(url, inner, prefix):
    store = open_store(url)
    assert isinstance(store, RedisStore)
    assert (store._url, store._prefix) == (inner, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "memory://somewhere",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/path",
        "postgres://user:secret@host/db",
        "redis://",
        "redis://user:secret@host:port/0",
        "redis://:secret@host/0?namespace=%7Bx%7D",
        "http://host",
        "~nobody-by-that-name/x.db",
        "a\x00b",
    ],
)
def test_any_other_is_refused_with_the_fix_and_without_its_password(url):
    with pytest.raises(ConfigurationError, match=r"write memory://, sqlite:///|rename it") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_url_that_only_redis_py_finds_wrong_is_refused_too():
    store = open_store("redis://host/0?socket_timeout=secret")
    with pytest.raises(ConfigurationError, match="redis://user:password@host:port/0") as caught:
        await store.open()
    assert "secret" not in str(caught.value)


def test_the_default_is_in_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("FALLBACK_PLUGIN_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert open_store(default_url()).path == tmp_path / "fallback-plugin" / "state.db"

    assert isinstance(open_store(default_url()), SqliteStore)


def test_the_plugins_home_comes_first(monkeypatch, tmp_path):
    home = tmp_path / "a home #1"
    monkeypatch.setenv("FALLBACK_PLUGIN_HOME", str(home))
    assert open_store(default_url()).path == home / "state.db"


async def test_the_default_store_opens(monkeypatch, tmp_path):
    monkeypatch.setenv("FALLBACK_PLUGIN_HOME", str(tmp_path / "home"))
    store = open_store(default_url())
    await store.open()
    assert await store.put("kind", "key", {}) is not None
    await store.close()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_without_redis_py_the_extra_is_named(monkeypatch):
    for name in ("redis", "redis.asyncio"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ConfigurationError, match=r"install fallback-plugin\[redis\]"):
        anyio.run(open_store("redis://127.0.0.1:1/0").open)


def test_on_trio_redis_is_refused():
    with pytest.raises(ConfigurationError, match="asyncio only"):
        anyio.run(open_store("redis://127.0.0.1:1/0").open, backend="trio")


def test_naming_a_store_imports_no_client():
    script = "import sys; from fallback_plugin.stores.url import open_store; open_store('redis://h/0'); print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
