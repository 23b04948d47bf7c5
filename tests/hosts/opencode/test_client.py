"""HTTP to OpenCode: what every answer, and every lack of one, becomes."""

from __future__ import annotations

import base64
import json
import socket
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from fallback_plugin.errors import HostRefused, HostUnavailable
from fallback_plugin.hosts.opencode import client as client_module
from fallback_plugin.hosts.opencode.client import OpenCodeClient, check_url

URL = "http://opencode.test"


@asynccontextmanager
async def opened(handler=None, url=URL, **options):
    transport = httpx.MockTransport(handler) if handler else None
    client = OpenCodeClient(url, transport=transport, **options)
    try:
        yield client
    finally:
        await client.close()


def always(*arguments, **options):
    return lambda request: httpx.Response(*arguments, **options)


@asynccontextmanager
async def raw_server(serve):
    """A socket server whose answers need not be HTTP."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def handle(stream):
            async with stream:
                await serve(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            yield f"http://127.0.0.1:{port}"
            tasks.cancel_scope.cancel()


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_json_answer_is_given_decoded():
    async with opened(always(200, json={"a": [1]})) as client:
        assert await client.get("/config") == {"a": [1]}
        assert client.calls == 1


async def test_what_is_asked_is_what_the_server_gets():
    seen = []

    def handle(request):
        seen.append(request)
        return httpx.Response(204)

    async with opened(handle, password="geheim", directory="/my project") as client:
        await client.post("/session/ses_1/abort", {"a": 1})
        await client.delete("/session/ses_1/message/m1")
        await client.post("/x", {})

    post, delete, _ = seen
    token = base64.b64encode(b"opencode:geheim").decode()
    assert (post.method, post.url.path, json.loads(post.content)) == ("POST", "/session/ses_1/abort", {"a": 1})
    assert post.headers["authorization"] == f"Basic {token}"
    assert post.headers["x-opencode-directory"] == "/my project"
    assert (delete.method, delete.content) == ("DELETE", b"")


async def test_without_password_and_directory_no_header_says_one():
    seen = []

    def handle(request):
        seen.append(request.headers)
        return httpx.Response(200, json=[], headers={})

    async with opened(handle, password=None) as client:
        await client.get("/session/ses_1/message", parameters={"limit": 50})

    assert "authorization" not in seen[0]
    assert "x-opencode-directory" not in seen[0]


async def test_proxies_of_the_environment_are_not_asked(monkeypatch, loopback, reply):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with opened(url=loopback.url) as client:
        assert await client.get("/session/status") == {}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, HostRefused, "OPENCODE_SERVER_PASSWORD"),
        (400, HostRefused, "with 400"),
        (403, HostRefused, "with 403"),
        (404, HostRefused, "with 404"),
        (409, HostRefused, "with 409"),
        (302, HostRefused, "with 302"),
        (500, HostUnavailable, "with 500"),
        (502, HostUnavailable, "with 502"),
        (503, HostUnavailable, "with 503"),
    ],
)
@pytest.mark.parametrize("method", ["get", "post"])
async def test_a_refusal_and_a_broken_server_are_told_apart(status, error, words, method):
    async with opened(always(status, text="a secret prompt")) as client:
        with pytest.raises(error, match=words) as caught:
            await (client.get("/config") if method == "get" else client.post("/config", {"text": "my prompt"}))

    assert "prompt" not in str(caught.value)
    assert "\n" not in str(caught.value)
    if error is HostRefused:
        assert caught.value.status == status


async def test_the_deletion_of_what_is_gone_is_fine_and_of_a_busy_session_is_not():
    async with opened(always(404)) as client:
        await client.delete("/session/s/message/m")

    async with opened(always(409)) as client:
        with pytest.raises(HostRefused) as caught:
            await client.delete("/session/s/message/m")

    assert caught.value.status == 409


@pytest.mark.parametrize(
    "response",
    [
        {"html": "<!doctype html>"},
        {"text": ""},
        {"content": b"\xff\xfe\x00"},
        {"text": "{"},
        {"text": "[" * 200_000 + "]" * 200_000},
    ],
    ids=["html", "empty", "binary", "cut", "deep"],
)
async def test_what_is_no_json_is_a_refusal(response):
    async with opened(always(200, **response)) as client:
        with pytest.raises(HostRefused, match="not JSON"):
            await client.get("/doc")


async def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with opened(url=url) as client:
        with pytest.raises(HostUnavailable, match="no server answers at"):
            await client.get("/doc")


async def test_a_server_that_accepts_and_never_answers():
    async def swallow(stream):
        await anyio.sleep_forever()

    async with raw_server(swallow) as url, opened(url=url) as client:
        with pytest.raises(HostUnavailable, match=r"did not answer POST /x within 0\.2 s"):
            await client.post("/x", {}, patience=0.2)


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    ],
    ids=["closed", "not http", "cut body"],
)
async def test_a_broken_answer_is_a_server_that_is_not_there(bytes_sent):
    async def serve(stream):
        await stream.receive()
        if bytes_sent:
            await stream.send(bytes_sent)

    async with raw_server(serve) as url, opened(url=url) as client:
        with pytest.raises(HostUnavailable, match="no server answers at"):
            await client.get("/doc")


# On trio httpx leaves its own generators open after such an answer, and says so.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_answer_that_cannot_be_unpacked():
    async with opened(always(200, headers={"content-encoding": "gzip"}, content=b"xx")) as client:
        with pytest.raises(HostUnavailable, match="DecodingError"):
            await client.get("/doc")


@pytest.mark.parametrize("session_id", ["a b", "ä", "x\x00y", "x\ny"])
async def test_an_odd_id_in_a_path_is_at_worst_an_unavailable_host(session_id):
    async with opened(always(200, json={})) as client:
        try:
            await client.post(f"/session/{session_id}/abort", {})
        except HostUnavailable as error:
            assert "InvalidURL" in str(error)  # noqa: PT017 - either outcome is right


# ── the event stream ─────────────────────────────────────────────────────────────────────────────────────────────


def streaming(*chunks, error=None, content_type="text/event-stream"):
    async def body():
        for chunk in chunks:
            yield chunk
        if error is not None:
            raise error

    return lambda request: httpx.Response(200, headers={"content-type": content_type}, content=body())


async def read(handler):
    async with opened(handler) as client, client.events() as events:
        return [data async for data in events]


async def collect(client, found):
    """Read a stream that breaks; what came before is kept."""
    async with client.events() as events:
        async for data in events:
            found.append(data)


async def test_events_come_one_by_one_and_an_ended_stream_just_ends():
    assert await read(streaming(b"data: one\n\ndata: two\n\n", b"da", b"ta: three\n\n")) == ["one", "two", "three"]


async def test_empty_events_comments_and_ids_are_passed_over():
    chunks = b": comment\n\nid: 7\n\nid: 8\ndata: one\n\n\n\nevent: x\n\ndata:\n\nretry: 5\n\ndata: two\n\n"

    assert await read(streaming(chunks)) == ["one", "two"]


async def test_an_event_of_several_lines_is_joined():
    assert await read(streaming(b'data: {"a":\ndata: 1}\n\n')) == ['{"a":\n1}']


async def test_any_line_end_and_a_cut_inside_of_a_character_are_read():
    text = "dätä → ☃"
    raw = f"data: {text}\r\n\r\ndata: b\r\r".encode()

    assert await read(streaming(*[raw[i : i + 1] for i in range(len(raw))])) == [text, "b"]


async def test_an_unfinished_event_at_the_end_is_not_given():
    assert await read(streaming(b"data: one\n\ndata: tw")) == ["one"]


async def test_a_huge_event_passes_in_linear_time():
    size = 4 * 1024 * 1024
    chunk = b"x" * 65_536
    found = await read(streaming(b"data: ", *[chunk] * (size // len(chunk)), b"\n\n"))

    assert [len(data) for data in found] == [size]


async def test_a_broken_stream_is_an_unavailable_host_and_what_came_before_was_given():
    found = []
    async with opened(streaming(b"data: one\n\n", error=httpx.ReadError("gone"))) as client:
        with pytest.raises(HostUnavailable, match=r"event stream of http://opencode[.]test broke: ReadError"):
            await collect(client, found)

    assert found == ["one"]


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (always(401), HostRefused),
        (always(404), HostRefused),
        (always(503), HostUnavailable),
        (streaming(b"<html>", content_type="text/html"), HostUnavailable),
        (always(200, html="<!doctype html>"), HostUnavailable),
    ],
    ids=["401", "404", "503", "html stream", "html"],
)
async def test_what_is_no_event_stream(handler, error):
    with pytest.raises(error):
        await read(handler)


async def test_the_stream_is_not_counted_as_a_call():
    async with opened(streaming(b"data: one\n\n")) as client:
        async with client.events() as events:
            assert [data async for data in events] == ["one"]

        assert client.calls == 0


async def test_a_stream_that_falls_silent_counts_as_dead(monkeypatch):
    monkeypatch.setattr(client_module, "EVENT_PATIENCE", 0.2)

    async def serve(stream):
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: one\n\n")
        await anyio.sleep_forever()

    found = []
    async with raw_server(serve) as url, opened(url=url) as client:
        with pytest.raises(HostUnavailable, match="ReadTimeout"):
            await collect(client, found)

    assert found == ["one"]


async def test_a_connection_cut_in_the_middle_of_an_event():
    async def serve(stream):
        await stream.receive()
        await stream.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"b\r\ndata: one\n\n\r\n4\r\ndata"
        )

    found = []
    async with raw_server(serve) as url, opened(url=url) as client:
        with pytest.raises(HostUnavailable, match="broke"):
            await collect(client, found)

    assert found == ["one"]


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:4096", "https://host.example", "http://[::1]:4096/", "http://localhost:80/base", "HTTP://h"],
)
def test_a_server_url_is_right(url):
    assert check_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        *["", "4096", "localhost:4096", "ftp://host", "http://", "http:///x", "http://[::1", "http://h:port"],
        *["http://h:99999", "http://h:0", "http://\x00h", "http://a..b", f"http://{'a' * 80}.b"],
    ],
)
def test_what_is_no_server_url_is_said_in_one_line(url):
    wrong = check_url(url)

    assert wrong == f"{url!r} is no server URL; expected one like http://127.0.0.1:4096"
    assert "\n" not in wrong


@pytest.mark.parametrize(
    "url", ["http://opencode:geheim@127.0.0.1:4096", "http://geheim@h", "http://o:geheim@h:port", "ftp://o:geheim@h"]
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url):
    wrong = check_url(url)

    assert "OPENCODE_SERVER_PASSWORD" in wrong
    assert "geheim" not in wrong
