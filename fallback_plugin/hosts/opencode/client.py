"""HTTP to an OpenCode server. The only module that knows httpx."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource, SSEError

from fallback_plugin.errors import HostRefused, HostUnavailable

USER_NAME = "opencode"
"""The only user name that the server takes (opencode-host.md)."""
CALL_PATIENCE = 5.0
"""Seconds for one call; a server that is starting may accept one and never answer it (opencode-host.md)."""
ABORT_PATIENCE = 10.0
CONNECT_PATIENCE = 3.0
EVENT_PATIENCE = 45.0
"""Seconds of silence on /event, heartbeats included, after which the stream counts as dead."""


class OpenCodeClient:
    """Calls to one server, for one project directory.

    Args:
        url: base URL, such as http://127.0.0.1:4096.
        password: OPENCODE_SERVER_PASSWORD, if the server has one.
        directory: the project directory; the server's own if None.
        transport: another way to reach the server, such as a bridge.

    Attributes:
        calls: calls made so far, the event stream not counted.
        place: where the sessions live that it is about: the directory, or the server.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        directory: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.calls = 0
        self.place = directory or self.url
        self._http = httpx.AsyncClient(
            base_url=self.url,
            auth=httpx.BasicAuth(USER_NAME, password) if password else None,
            headers={"x-opencode-directory": directory} if directory else None,
            timeout=httpx.Timeout(CALL_PATIENCE, connect=CONNECT_PATIENCE),
            transport=transport,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def get(self, path: str, *, parameters: Mapping[str, str | int] | None = None) -> Any:
        """GET a JSON document.

        Raises:
            HostUnavailable: nobody answered in time.
            HostRefused: the server said no, or what it said is not JSON.
        """
        response = await self._request("GET", path, parameters=parameters)
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            message = f"{self.url}{path} answered something that is not JSON"
            raise HostRefused(message, status=response.status_code) from error

    async def post(self, path: str, body: Mapping[str, Any], *, patience: float = CALL_PATIENCE) -> None:
        """POST a JSON body; errors as for `get`."""
        await self._request("POST", path, body=body, patience=patience)

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """PATCH with a JSON body; errors as for `get`."""
        await self._request("PATCH", path, body=body)

    async def delete(self, path: str) -> None:
        """DELETE; what is gone already is fine. Other errors as for `get`."""
        try:
            await self._request("DELETE", path)
        except HostRefused as refusal:
            if refusal.status != 404:
                raise

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str | int] | None = None,
        patience: float = CALL_PATIENCE,
    ) -> httpx.Response:
        self.calls += 1
        try:
            response = await self._http.request(
                method,
                path,
                json=body,
                params=parameters,
                timeout=httpx.Timeout(patience, connect=CONNECT_PATIENCE),
            )
        except httpx.TimeoutException as error:
            message = f"{self.url} did not answer {method} {path} within {patience:g} s"
            raise HostUnavailable(message) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"no server answers at {self.url}: {type(error).__name__}"
            raise HostUnavailable(message) from error

        self._check(response, method, path)
        return response

    def _check(self, response: httpx.Response, method: str, path: str) -> None:
        status = response.status_code
        if response.is_success:
            return

        if status == 401:
            message = f"{self.url} wants a password, or another one: set OPENCODE_SERVER_PASSWORD to the server's"
            raise HostRefused(message, status=status)

        message = f"{self.url} answered {method} {path} with {status}"
        if response.is_server_error:
            raise HostUnavailable(message)

        raise HostRefused(message, status=status)

    @asynccontextmanager
    async def events(self) -> AsyncGenerator[AsyncIterator[str]]:
        """The event stream: an iterator over the data of each event, until the server closes it.

        Raises:
            HostUnavailable: the stream could not be opened, broke, or fell silent.
            HostRefused: the server said no.
        """
        timeout = httpx.Timeout(EVENT_PATIENCE, connect=CONNECT_PATIENCE)
        try:
            async with self._http.stream("GET", "/event", timeout=timeout) as response:
                self._check(response, "GET", "/event")
                yield _data_of(EventSource(response))
        except (httpx.HTTPError, SSEError) as error:
            message = f"the event stream of {self.url} broke: {type(error).__name__}"
            raise HostUnavailable(message) from error


async def _data_of(source: EventSource) -> AsyncIterator[str]:
    async for event in source.aiter_sse():
        # httpx-sse yields an empty event for each blank line after an id.
        if event.data:
            yield event.data


def check_url(url: str) -> str | None:
    """What is wrong with a server URL, in words that repeat no password, or None."""
    authority = url.partition("://")[2].partition("/")[0]
    if "@" in authority:
        return "the server URL must not hold a user or password; set OPENCODE_SERVER_PASSWORD instead"

    return None if _is_server_url(url) else f"{url!r} is no server URL; expected one like http://127.0.0.1:4096"


def _is_server_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        httpx.URL(url)
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        return False
