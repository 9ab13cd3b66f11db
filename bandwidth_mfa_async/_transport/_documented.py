"""Sends a request through aiohttp's documented interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from ._reading import PURE_PYTHON_PARSER, ensure_complete, read_body

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp.abc import AbstractStreamWriter
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
) -> None:
    """POST through a session whose responses are of the class `Response`.

    Args:
        session: with the pool.
        url: where to.
        headers: all of them, the credentials included.
        body: marked as begun once there is a connection.
        response: filled in as far as it comes.
        timeout: an `aiohttp.ClientTimeout`, for the connection.
        ssl: how to verify the server.
        proxy: through which, or None.
    """
    async with session.post(
        url,
        data=_Payload(body),
        headers=headers,
        allow_redirects=False,
        timeout=timeout,
        ssl=ssl,
        proxy=proxy,
    ) as received:
        await read_body(response, received.status, received.headers, received.content)
        if response.defect == "too large":
            received.close()


class Response(aiohttp.ClientResponse):
    """An answer whose connection is closed where aiohttp would keep one that is out of step.

    aiohttp has given the connection back when `start` returns, if the body came with the head. Nobody else can have
    taken it by then, and the pool gives out none that is closed.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head."""
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


class _Payload(aiohttp.payload.BytesPayload):
    """Marks a body as begun when aiohttp begins to write it.

    That is after the connector has handed over a connection, and until then the headers are held back as well.
    """

    def __init__(self, body: Body) -> None:
        super().__init__(body.value)
        self._body = body

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._body.begin()
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._body.begin()
        await super().write_with_length(writer, content_length)
