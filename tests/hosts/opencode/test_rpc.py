"""JSON-RPC over two pipes in memory: both directions, and whatever a broken peer may say or leave unsaid."""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_plugin.errors import HostUnavailable
from fallback_plugin.hosts.opencode import rpc
from fallback_plugin.hosts.opencode.rpc import Lines, Peer
from fallback_plugin.testing.virtual_time import JumpingEventLoop, settle


@pytest.fixture
def anyio_backend(virtual_backend):
    return virtual_backend


class Wire:
    """A channel whose other end is the test: `say` what is read, look at what was `written`, `close`."""

    def __init__(self):
        self.said = deque()
        self.news = anyio.Event()
        self.written = []
        self.is_stuck = False
        self.error = None

    async def read(self):
        while not self.said:
            self.news = anyio.Event()
            await self.news.wait()

        said = self.said.popleft()
        if isinstance(said, Exception):
            raise said

        return said

    async def write(self, data):
        if self.error is not None:
            raise self.error
        if self.is_stuck:
            await anyio.sleep_forever()

        self.written.append(data)

    def say(self, *messages):
        self.say_bytes(*(line(**message) for message in messages))

    def say_bytes(self, *pieces):
        self.said.extend(pieces)
        self.news.set()

    def close(self):
        self.say_bytes(b"")

    def answers(self):
        return [json.loads(data) for data in self.written]


def line(**message):
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


class Side:
    """A peer with handlers that note what they are called with."""

    def __init__(self, channel):
        self.seen = []
        self.peer = Peer(
            channel,
            notified={"note": self.seen.append, "trip": self._trip},
            answered={"double": self._double, "fail": self._fail, "wait": self._wait, "odd": self._odd},
        )

    async def _double(self, params):
        return {"value": params["value"] * 2}

    async def _fail(self, params):
        raise RuntimeError("the secret of the prompt")

    async def _wait(self, params):
        await anyio.sleep(params["seconds"])
        return {}

    async def _odd(self, params):
        return {"value": object()}

    def _trip(self, params):
        raise KeyError("the secret of the prompt")


@asynccontextmanager
async def running(*sides):
    async with anyio.create_task_group() as tasks:
        for side in sides:
            tasks.start_soon(side.peer.run)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def connected():
    """A side, and the wire to it."""
    wire = Wire()
    side = Side(wire)
    async with running(side):
        yield side, wire


class Crossed:
    """One end of two crossed pipes."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink

    async def read(self):
        return await self.source.receive()

    async def write(self, data):
        await self.sink.send(data)


@pytest.fixture
def pair():
    """Two sides that speak with each other."""
    to_one, from_other = anyio.create_memory_object_stream(1)
    to_other, from_one = anyio.create_memory_object_stream(1)
    yield Side(Crossed(from_other, to_other)), Side(Crossed(from_one, to_one))
    for stream in (to_one, from_other, to_other, from_one):
        stream.close()


# ── two peers ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_either_side_asks_and_tells(pair):
    one, other = pair
    async with running(one, other):
        assert await one.peer.request("double", {"value": 2}, patience=1) == {"value": 4}
        assert await other.peer.request("double", {"value": "é\n\u2028"}, patience=1) == {"value": "é\n\u2028" * 2}
        one.peer.notify("note", {"a": 1})
        other.peer.notify("note", {"b": 2})
        await settle()

    assert other.seen == [{"a": 1}]
    assert one.seen == [{"b": 2}]
    assert not one.peer.counts + other.peer.counts


async def test_requests_cross_and_answers_come_in_any_order(pair):
    one, other = pair
    done = []

    async def ask(side, seconds):
        await side.peer.request("wait", {"seconds": seconds}, patience=10)
        done.append((seconds, anyio.current_time()))

    async with running(one, other):
        async with anyio.create_task_group() as tasks:
            for side, seconds in ((one, 3), (other, 2), (one, 1), (one, 1.5)):
                tasks.start_soon(ask, side, seconds)

    assert [seconds for seconds, _ in done] == [1, 1.5, 2, 3]
    assert all(at == pytest.approx(seconds, abs=0.01) for seconds, at in done)


async def test_a_handler_that_fails_fails_its_caller_alone_and_tells_no_text(pair, caplog):
    one, other = pair
    async with running(one, other):
        with pytest.raises(HostUnavailable, match=r"^fail failed in the host: RuntimeError$"):
            await one.peer.request("fail", {}, patience=1)
        with pytest.raises(HostUnavailable, match="TypeError"):
            await one.peer.request("odd", {}, patience=1)
        assert await one.peer.request("double", {"value": 1}, patience=1) == {"value": 2}

    assert other.peer.counts["failed"] == 2
    assert "secret" not in caplog.text
    assert "fail could not be handled: RuntimeError" in caplog.text


async def test_an_unknown_method_is_refused(pair):
    one, other = pair
    async with running(one, other):
        with pytest.raises(HostUnavailable, match="no method nonsense"):
            await one.peer.request("nonsense", {}, patience=1)
        one.peer.notify("nonsense", {})
        await settle()

    assert other.peer.counts == {"unknown method": 2}


# ── answers that do not come ─────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_that_does_not_come_is_not_waited_for_and_then_passed_over():
    async with connected() as (side, wire):
        with pytest.raises(TimeoutError):
            await side.peer.request("http", {}, patience=2)
        assert anyio.current_time() == pytest.approx(2, abs=0.01)

        wire.say({"id": 1, "result": {}})
        await settle()
        assert side.peer.counts == {"passed over": 1}


@pytest.mark.parametrize("ending", [b"", ConnectionResetError("gone"), OSError(5, "gone")], ids=repr)
async def test_requests_that_wait_end_at_once_when_the_peer_closes(ending):
    wire = Wire()
    side = Side(wire)
    refused = []

    async def ask():
        with pytest.raises(HostUnavailable, match="gone before it answered http"):
            await side.peer.request("http", {}, patience=3600)
        refused.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(side.peer.run)
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.sleep(5)
        wire.say_bytes(ending)

    assert refused == [pytest.approx(5, abs=0.01)] * 3
    with pytest.raises(HostUnavailable, match="could not be sent"):
        await side.peer.request("http", {}, patience=3600)
    side.peer.notify("note", {})
    assert anyio.current_time() < 6


async def test_a_peer_that_takes_nothing_any_more_is_gone_though_it_still_speaks():
    async with connected() as (side, wire):
        wire.error = BrokenPipeError("gone")
        with pytest.raises(HostUnavailable):
            await side.peer.request("http", {}, patience=3600)
        wire.say({"method": "note", "params": {"a": 1}})
        await settle()

    assert side.seen == [{"a": 1}]


async def test_a_request_that_is_given_up_leaves_nothing_behind():
    async with connected() as (side, wire):
        with anyio.move_on_after(1):
            await side.peer.request("http", {}, patience=3600)
        wire.say({"id": 1, "result": {}})
        await settle()
        assert side.peer._waiting == {}


async def test_answers_wait_for_a_peer_that_does_not_read_in_a_bounded_outbox(monkeypatch):
    monkeypatch.setattr(rpc, "OUTBOX", 10)
    async with connected() as (side, wire):
        wire.is_stuck = True
        for number in range(1000):
            side.peer.notify("note", {"number": number})
        await settle()
        assert side.peer.counts["unsent"] == 990

        side.peer.notify("note", {})
        with pytest.raises(HostUnavailable, match="could not be sent"):
            await side.peer.request("http", {}, patience=3600)
        assert anyio.current_time() < 1


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": -1, "message": "no"}},
        {"error": "no"},
        {"error": None},
        {"result": None},
        {"result": [1]},
        {},
    ],
    ids=repr,
)
async def test_an_answer_without_a_result_is_a_failure_of_the_host(answer):
    async with connected() as (side, wire):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: say_later(wire, {"id": 1, **answer}))
            with pytest.raises(HostUnavailable, match=r"^http failed in the host: no"):
                await side.peer.request("http", {}, patience=3600)


async def say_later(wire, message):
    await anyio.sleep(1)
    wire.say(message)


async def test_only_the_first_answer_under_the_very_number_counts():
    async with connected() as (side, wire):

        async def answer():
            await anyio.sleep(1)
            for number in (True, "1", 1.0, None, [1], {}, 2):
                wire.say({"id": number, "result": {"value": "wrong"}})
            wire.say({"id": 1, "result": {"value": 1}}, {"id": 1, "result": {"value": 2}})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            assert await side.peer.request("http", {}, patience=10) == {"value": 1}
        await settle()
        assert side.peer.counts["passed over"] == 8


# ── what can be read, and what can't ─────────────────────────────────────────────────────────────────────────────

NONSENSE = [
    b"nonsense",
    b"{",
    b"\x00\xff\xfe",
    b"\xed\xa0\x80",
    b'"text"',
    b"null",
    b"3",
    b"[]",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 10_000,
    b"{}",
    b'{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","method":3,"params":{}}',
    b'{"jsonrpc":"2.0","method":"note","params":[1]}',
    b'{"jsonrpc":"2.0","method":"note","params":null}',
    b'{"jsonrpc":"2.0","id":{},"method":"double","params":{}}',
    b'{"jsonrpc":"2.0","id":NaN,"method":"double","params":{}}',
    b'{"jsonrpc":"2.0","id":99,"result":{}}',
    b'[{"jsonrpc":"2.0","method":"note","params":{}}]',
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda data: data[:40])
async def test_nonsense_is_counted_and_passed_over(nonsense):
    async with connected() as (side, wire):
        wire.say_bytes(nonsense + b"\n")
        wire.say({"method": "note", "params": {"after": 1}})
        await settle()

    assert side.seen == [{"after": 1}]
    assert side.peer.counts.total() == 1
    assert wire.written == []


async def test_a_notification_that_can_not_be_handled_is_passed_over(caplog):
    async with connected() as (side, wire):
        wire.say({"method": "trip", "params": {}}, {"method": "note", "params": {"after": 1}})
        await settle()

    assert side.seen == [{"after": 1}]
    assert side.peer.counts == {"failed": 1}
    assert caplog.messages == ["trip could not be handled: KeyError"]


async def test_a_request_that_can_not_be_answered_is_refused_by_the_standards_codes():
    async with connected() as (side, wire):
        wire.say(
            {"id": 1, "method": "x" * 1000, "params": {}},
            {"id": "two", "method": "double", "params": [1]},
            {"id": 3, "method": "double"},
            {"id": 4, "method": "note", "params": {}},
            {"id": 5, "method": "double", "params": {"value": 1}},
        )
        await settle()

    errors = {each["id"]: each.get("error", {}).get("code") for each in wire.answers()}
    assert errors == {1: -32601, "two": -32602, 3: -32000, 4: -32601, 5: None}
    assert side.seen == [], "a request is no notification"
    assert all(each["jsonrpc"] == "2.0" for each in wire.answers())
    assert max(map(len, wire.written)) < 200


async def test_a_notification_may_come_without_params():
    async with connected() as (side, wire):
        wire.say({"method": "note"})
        await settle()

    assert side.seen == [{}]


@pytest.mark.parametrize("cut", [1, 7, 100_000])
async def test_a_line_that_is_too_long_is_passed_over_to_its_end(monkeypatch, cut):
    monkeypatch.setattr(rpc, "LINE_BYTES", 1000)
    inner = line(method="note", params={"inner": 1}).strip()
    stream = b"x" * 2000 + inner + b"\n" + line(method="note", params={"after": 1}) + b"y" * 1001 + b"\n" + line(id=1)
    async with connected() as (side, wire):
        wire.say_bytes(*(stream[start : start + cut] for start in range(0, len(stream), cut)))
        await settle()

    assert side.seen == [{"after": 1}]
    assert side.peer.counts == {"too long": 2, "passed over": 1}


def test_what_waits_for_the_end_of_a_line_is_bounded(monkeypatch):
    monkeypatch.setattr(rpc, "LINE_BYTES", 1000)
    lines = Lines()
    for _ in range(1000):
        assert list(lines.feed(b"x" * 900)) == []
        assert len(lines._rest) <= 1000


def in_virtual_time(work):
    async def run():
        return await work()

    return anyio.run(run, backend_options={"loop_factory": JumpingEventLoop})


def seen_of(*pieces):
    """What a side makes of bytes that come in these pieces."""

    async def feed():
        wire = Wire()
        side = Side(wire)
        wire.say_bytes(*pieces)
        wire.close()
        await side.peer.run()
        return side.seen, side.peer.counts

    return in_virtual_time(feed)


@given(st.lists(st.binary(min_size=1), max_size=10))
@settings(max_examples=100)
def test_whatever_bytes_come_nothing_is_raised(pieces):
    seen_of(*pieces)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "jsonrpc": st.just("2.0") | json_values,
                "id": json_values,
                "method": st.sampled_from(["note", "trip", "double", "fail", "odd"]) | json_values,
                "params": json_values,
                "result": json_values,
                "error": json_values,
            },
        ).map(lambda message: json.dumps(message).encode() + b"\n"),
        max_size=5,
    )
)
@settings(max_examples=100)
def test_whatever_is_said_in_json_nothing_is_raised(lines):
    seen_of(*lines)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(), max_size=3), max_size=5), st.data())
@settings(max_examples=100)
def test_however_a_stream_is_cut_up_the_messages_are_the_same(messages, data):
    stream = b"".join(line(method="note", params=params) for params in messages)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=20)))
    bounds = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(bounds) if end > start]

    seen, counts = seen_of(*pieces)
    assert seen == messages
    assert not counts
