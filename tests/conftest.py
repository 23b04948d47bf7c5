"""What tests of several layers share: event loops in virtual time, and an HTTP server on loopback that plays OpenCode.

Code that waits is tested in virtual time on both event loops:

    @pytest.fixture
    def anyio_backend(virtual_backend):
        return virtual_backend

Sockets take real time; whoever needs them takes `loopback`.
"""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import urlsplit

import pytest

from fallback_plugin.hosts.opencode.attachment import NEEDED_OPERATIONS
from fallback_plugin.testing.virtual_time import VIRTUAL_BACKENDS
from fallback_plugin.testing.virtual_time import virtual_backend as backend_in_virtual_time

WEB_PAGE = "<!doctype html><html><body>OpenCode</body></html>"


@pytest.fixture(params=VIRTUAL_BACKENDS)
def virtual_backend(request):
    """A value for `anyio_backend`: an event loop whose clock starts at 0 and jumps to the next timer."""
    return backend_in_virtual_time(request.param)


@dataclass(frozen=True)
class Reply:
    """One HTTP response."""

    status: int = 200
    body: object = True
    content_type: str = "application/json"
    headers: dict = field(default_factory=dict)

    def data(self):
        body = json.dumps(self.body) if self.content_type == "application/json" else self.body
        return body.encode() if isinstance(body, str) else body


class Loopback(ThreadingHTTPServer):
    """A server in threads of its own that plays OpenCode; a path it was not told of gets the web page, with 200.

    `replies[method, path]` is a `Reply` or a function of the handler. `say` puts an event on every open stream, `cut`
    ends them. `requests` holds (method, path with query, headers, body).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []
        self.streams = []
        self.connected = threading.Semaphore(0)
        self.replies = {
            ("GET", "/doc"): Reply(body=opencode_document()),
            ("GET", "/config"): Reply(body={}),
            ("GET", "/session/status"): Reply(body={}),
            ("GET", "/event"): _stream_events,
            ("POST", "/tui/show-toast"): Reply(),
        }
        self._ids = count(1)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self, method=None):
        return [path for verb, path, *_ in self.requests if method in (None, verb)]

    def event(self, kind, **properties):
        """An event as the host writes it."""
        return {"id": f"evt_{next(self._ids)}", "type": kind, "properties": properties}

    def say(self, kind, **properties):
        self.say_raw(json.dumps(self.event(kind, **properties)))

    def say_raw(self, data):
        for stream in self.streams:
            stream.put(f"data: {data}\n\n".encode())

    def cut(self):
        for stream in self.streams:
            stream.put(None)

    def handle_error(self, request, client_address):
        """Clients that go away are what these tests are about."""

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self.cut()
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers, body))
        default = Reply(body=WEB_PAGE, content_type="text/html")
        reply = self.server.replies.get((self.command, urlsplit(self.path).path), default)
        if callable(reply):
            reply(self)
        else:
            self.send(reply)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server calls

    def send(self, reply):
        data = reply.data()
        self.send_response(reply.status)
        for name, value in {"content-type": reply.content_type, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def _stream_events(handler):
    server = handler.server
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    stream = queue.Queue()
    stream.put(f"data: {json.dumps(server.event('server.connected'))}\n\n".encode())
    server.streams.append(stream)
    server.connected.release()
    try:
        while (data := stream.get()) is not None:
            handler.wfile.write(data)
            handler.wfile.flush()
    finally:
        server.streams.remove(stream)


def opencode_document(without=()):
    """GET /doc of a server that offers what is needed, but for some "METHOD /path"."""
    paths = {"/session": {"get": {}}}
    for path, method in NEEDED_OPERATIONS.items():
        if f"{method.upper()} {path}" not in without:
            paths.setdefault(path, {})[method] = {}

    return {"openapi": "3.1.0", "info": {"title": "opencode"}, "paths": paths}


@pytest.fixture
def loopback():
    """A running `Loopback`."""
    with Loopback() as server:
        yield server


@pytest.fixture
def reply():
    """The class `Reply`."""
    return Reply


@pytest.fixture
def document():
    """The function `opencode_document`."""
    return opencode_document
