"""The real OpenCode server and a scripted provider, one pair for all tests of a process.

A test takes `scene` (and `provider` to script it) and gets an agent and three models of its own:

    async def test_something(scene, provider):
        provider.script(scene.primary, Fail(429))
        conversation = await scene.conversation()
        await conversation.prompt("say hi")

The agent's chain is scene.primary, scene.second, scene.third; `scene.names` has an agent without a chain and one that
asks before it runs a command. Whoever needs a server with another configuration takes `opencode_binary` and starts one.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from fallback_plugin.core.actions import NoticeType
from fallback_plugin.core.failure import Kind
from fallback_plugin.core.policy import Policy, Rules
from fallback_plugin.hosts.opencode.attachment import Attachment
from fallback_plugin.hosts.opencode.client import OpenCodeClient
from fallback_plugin.testing.opencode import OpenCodeServer, find_opencode, opencode_config
from fallback_plugin.testing.opencode_package import install_package
from fallback_plugin.testing.opencode_plugged import PluggedOpenCode
from fallback_plugin.testing.opencode_scene import Scene, SceneNames, route
from fallback_plugin.testing.provider import FaultyProvider

PACKAGE = Path(__file__).parent / "opencode"
SCENES = 120
INSTALL_SECONDS = 300


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def anyio_backend():
    """What is tested here, another process, knows nothing of our event loop: one is enough."""
    return "asyncio"


@pytest.fixture(scope="session")
def opencode_binary():
    """The pinned OpenCode, installed by npm where it is not there yet."""
    if "FALLBACK_PLUGIN_OPENCODE" not in os.environ:
        missing = anyio.run(partial(install_package, PACKAGE, patience=INSTALL_SECONDS))
        if missing:
            pytest.fail(f"the e2e tests need the pinned OpenCode: {missing}", pytrace=False)

    return find_opencode([PACKAGE / "node_modules"])


@pytest.fixture(scope="session")
def provider():
    """The scripted provider, in a thread of its own so that a busy test can't distort its clock."""
    with FaultyProvider() as running:
        yield running


@pytest.fixture(scope="session")
def bare_opencode(opencode_binary, provider):
    """The shared server without the plugin; its first turn, which takes seconds, is over."""
    names = scenes_of("a")
    with started(OpenCodeServer(opencode_binary, config=settings_of(names, provider)), provider, names[0]) as server:
        yield server, iter(names)


@pytest.fixture(scope="session")
def plugged_opencode(opencode_binary, provider):
    """The shared server that has loaded the plugin."""
    names = scenes_of("p")
    with started(PluggedOpenCode(opencode_binary, config=settings_of(names, provider)), provider, names[0]) as server:
        yield server, iter(names)


@contextmanager
def started(server, provider, names):
    """A server that has answered once.

    It is started in an event loop of its own: one that a fixture of the session kept open would be the loop of every
    test after it, of those in virtual time too.
    """
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server):
        portal.call(warm_up, server, provider, names)
        yield server


def scenes_of(prefix):
    """The names of all scenes that a shared server knows; the provider is one for both servers."""
    return [SceneNames(f"{prefix}{number}") for number in range(1, SCENES + 1)]


def settings_of(scenes, provider):
    """What opencode.json of a shared server holds."""
    return opencode_config(
        provider.base_url,
        agents=[agent for names in scenes for agent in (*names.agents, *names.subagents)],
        models=[model for names in scenes for model in (*names.models, *subagent_models(names))],
    )


def subagent_models(names):
    """The models of a scene's subagents."""
    return (*names.worker_models, names.helper_model, names.deputy_model)


async def warm_up(server, provider, names):
    async with Scene.open(server, provider, names) as scene:
        await scene.warm_up()


@pytest.fixture(scope="session")
def shared_opencode(request):
    """The shared server and its unused scenes: without the plugin, or, for tests that ask so, with it inside."""
    inside = getattr(request, "param", "attach") == "plugin"
    return request.getfixturevalue("plugged_opencode" if inside else "bare_opencode")


@pytest.fixture
def opencode(shared_opencode):
    """The shared server."""
    return shared_opencode[0]


@pytest.fixture
async def scene(shared_opencode, provider):
    """An agent with a chain of models that no other test uses, see `fallback_plugin.testing.opencode_scene`."""
    opencode, unused = shared_opencode
    names = next(unused, None)
    assert names is not None, f"more than {SCENES} scenes on one server: raise SCENES"
    async with Scene.open(opencode, provider, names) as opened:
        yield opened


@pytest.fixture
def launch():
    """Starts a program as `subprocess.Popen` does; it ends with the test at the latest."""
    with ExitStack() as stack:

        def start(command, **options):
            process = stack.enter_context(subprocess.Popen(command, text=True, **options))
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
async def attach(opencode, scene):
    """Put the plugin to work on the shared server with a policy for the scene's agents; gives its notices.

    await attach(timeout_seconds=1.0) starts it and returns when it reads events. Every keyword is a field of `Policy`;
    the chain is the scene's unless one is given, and holds for the scene's agents unless it is to be everybody's.
    """
    async with AsyncExitStack() as stack:

        async def start(*, everybodys=False, **limits):
            if isinstance(opencode, PluggedOpenCode):
                return await plugged(opencode, scene.names, limits, everybodys=everybodys)

            policy = Policy(**{"chain": tuple(route(model) for model in scene.names.models), **limits})
            agents = {agent.name: policy for agent in scene.names.agents}
            workers = {agent.name: replace(policy, chain=agent.fallback_models) for agent in scene.names.subagents}
            rules = Rules(default=policy) if everybodys else Rules(agents={**agents, **workers})
            return await stack.enter_async_context(attached(opencode.url, rules))

        yield start


async def plugged(server, names, limits, *, everybodys):
    """The plugin inside a server, which knows of nobody that is out; gives what it announces."""
    chain = limits.pop("chain", tuple(route(model) for model in names.models))
    seen = len(server.records)
    own = {"fallback_models": list(chain)}
    # Subagents have the chain of the host's configuration, or none.
    chains = own if everybodys else {"agents": {agent.name: own for agent in names.agents if agent.model}}
    await server.configure({**limits, **chains})
    return LoggedNotices(server, seen)


@pytest.fixture(scope="session")
def attached_to():
    """`attached`, for tests with a server of their own."""
    return attached


@asynccontextmanager
async def attached(url, rules):
    """The plugin at work on a server; gives what it announced, and its attachment."""
    client = OpenCodeClient(url)
    notices = Notices()
    attachment = Attachment(client, lambda config: rules, observer=lambda notice, now: notices.append(notice))
    notices.attachment = attachment
    stop, ready = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: attachment.run(stop, on_ready=ready.set))
        with anyio.fail_after(10):
            await ready.wait()

        try:
            yield notices
        finally:
            stop.set()
    await client.close()


class Notices(list):
    """What the plugin announced, in order."""

    attachment = None

    @property
    def calls(self):
        return self.attachment._client.calls

    def of(self, session):
        """The types of a session's notices."""
        return [notice.notice.value for notice in self if notice.session_id == session]

    async def wait_for(self, kind, *, session, timeout=20.0):
        """The first notice of a kind about a session."""
        with anyio.fail_after(timeout):
            while True:
                for notice in self:
                    if notice.notice.value == kind and notice.session_id == session:
                        return notice

                await anyio.sleep(0.02)


class LoggedNotices:
    """What a plugin inside the host announced, as its log has it."""

    def __init__(self, server, since):
        self._server = server
        self._since = since

    def __iter__(self):
        return iter([record for record in self._server.records[self._since :] if "notice" in record])

    @property
    def calls(self):
        """As told last: with a notice, or when the settings came into force."""
        return [record["calls"] for record in self._server.records[self._since :] if "calls" in record][-1]

    def of(self, session):
        return [record["notice"] for record in self if record["session"] == session]

    async def wait_for(self, kind, *, session, timeout=20.0):
        def is_it(record):
            return record.get("notice") == kind and record["session"] == session

        return as_notice(await self._server.wait_for_record(is_it, since=self._since, timeout=timeout))


def as_notice(record):
    """A record with the names that `Announce` has."""
    failed = [
        SimpleNamespace(route=each["route"], failure=SimpleNamespace(kind=Kind(each["kind"])))
        for each in record.get("failures", [])
    ]
    return SimpleNamespace(
        notice=NoticeType(record["notice"]),
        session_id=record["session"],
        route=record["route"],
        next_route=record["next_route"],
        failures=failed,
        detail=record.get("detail", ""),
    )


@pytest.fixture
def proxied(opencode):
    """Opens a proxy in front of the shared server, whose connections a test can cut."""
    return lambda: proxy_to(urlsplit(opencode.url).port)


class Proxy:
    """Passes bytes on; `cut` ends every open connection, as a broken network would."""

    def __init__(self, port):
        self._target = port
        self._scope = anyio.CancelScope()
        self._open = set()
        self.port = 0
        self.accepting = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def cut(self):
        for scope in list(self._open):
            scope.cancel()

    async def _serve(self, client):
        if not self.accepting:
            await client.aclose()
            return

        with anyio.CancelScope() as scope:
            self._open.add(scope)
            try:
                async with client, await anyio.connect_tcp("127.0.0.1", self._target) as server:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_pump, client, server, tasks.cancel_scope)
                        tasks.start_soon(_pump, server, client, tasks.cancel_scope)
            finally:
                self._open.discard(scope)


async def _pump(source, sink, scope):
    try:
        async for data in source:
            await sink.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    scope.cancel()


@asynccontextmanager
async def proxy_to(port):
    """A proxy to a port of loopback, gone afterwards."""
    proxy = Proxy(port)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        proxy.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, proxy._serve)
            yield proxy
            tasks.cancel_scope.cancel()
