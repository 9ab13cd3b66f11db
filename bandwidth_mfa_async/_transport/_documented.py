"""Sends a request through aiohttp's documented interface; the reference for what `_fast_path` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from ._body import ConnectedForWarmUp, current_body, warmed_connections
from ._reading import PURE_PYTHON_PARSER, ensure_complete, read_body

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp.connector import Connection
    from yarl import URL

    from .._wire import RawResponse
    from ._body import Body, Headers


async def post(  # noqa: PLR0913 - the parts of a request
    session: aiohttp.ClientSession,
    url: URL,
    headers: Headers,
    body: Body,
    response: RawResponse,
    timeout: Any,
    *,
    ssl: SSLContext | bool,
    proxy: URL | None,
    proxy_headers: Headers | None,
) -> None:
    """POST through a session whose response class is `Response`.

    Args:
        session: the session with the pool.
        url: the operation's URL.
        headers: all headers, including the credentials.
        body: the body; marked as begun once there is a connection.
        response: filled in as far as the response arrives.
        timeout: an `aiohttp.ClientTimeout` for the connection.
        ssl: how to verify the server.
        proxy: the proxy's URL without credentials, or None.
        proxy_headers: the proxy's credentials, or None.
    """
    if body.turn is not None and not body.turn.try_reserve():
        await body.turn.reserve()
    token = current_body.set(body)
    try:
        # Plain types: tools that watch the session, such as VCR.py, store and compare what they see.
        async with session.post(
            url,
            data=body.value,
            headers={str(name): str(value) for name, value in headers.items()},
            allow_redirects=False,
            timeout=timeout,
            ssl=ssl,
            proxy=proxy,
            proxy_headers=proxy_headers,
        ) as received:
            await read_body(response, received.status, received.headers, received.content)
            if response.defect == "too large":
                received.close()
    finally:
        current_body.reset(token)


async def connect(  # noqa: PLR0913 - the parts of a destination
    session: aiohttp.ClientSession,
    url: URL,
    opened: list[Connection],
    timeout: Any,
    *,
    ssl: SSLContext | bool,
    proxy: URL | None,
    proxy_headers: Headers | None,
) -> None:
    """Open a connection as `post` does, and write nothing.

    Args:
        session: the session with the pool.
        url: a URL of the host.
        opened: gets the connection; the caller releases it.
        timeout: an `aiohttp.ClientTimeout` for the connection.
        ssl: how to verify the server.
        proxy: the proxy's URL without credentials, or None.
        proxy_headers: the proxy's credentials, or None.
    """
    token = warmed_connections.set(opened)
    try:
        async with session.post(url, timeout=timeout, ssl=ssl, proxy=proxy, proxy_headers=proxy_headers):
            pass
    except ConnectedForWarmUp:
        pass
    finally:
        warmed_connections.reset(token)


class Response(aiohttp.ClientResponse):
    """Closes the connection of a response where aiohttp would reuse one that is out of sync.

    If the body arrived with the head, aiohttp has already released the connection when `start` returns. No other
    request can have taken it by then, and the pool gives out no closed connection.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the status line and the headers."""
        protocol = connection.protocol
        await super().start(connection)
        if protocol is None:
            return self
        if PURE_PYTHON_PARSER:
            try:
                ensure_complete(self.headers, protocol)
            except aiohttp.ClientPayloadError:
                protocol.close()
                raise
        if self.status == 101:
            protocol.close()
        return self
