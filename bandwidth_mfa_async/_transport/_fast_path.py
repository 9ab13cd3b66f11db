"""Sends a request directly on a connection of aiohttp's pool, for half the CPU of the documented interface.

Read `_documented` first: it defines the behaviour, and this module only does the same faster. Some of what it calls in
aiohttp is not documented, so `fast_path_available` checks for it, and `_documented` is used otherwise.
"""

from __future__ import annotations

import asyncio
import re
import types
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from ._reading import PURE_PYTHON_PARSER, ensure_complete, read_body

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from yarl import URL

    from .._wire import RawResponse
    from ._body import Body, Headers


_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")


class _Destination(aiohttp.ClientRequest):
    """The request from which a connector takes the destination; its connection key is computed once."""

    _cached_key: ConnectionKey | None = None

    @property
    def connection_key(self) -> ConnectionKey:
        """Return the key of the pool's connections that can be used."""
        if self._cached_key is None:
            self._cached_key = super().connection_key
        return self._cached_key


class _Route:
    """The constant part of an operation's requests.

    Args:
        url: the operation's URL.
        headers: all headers, including the credentials.
        session: the session with the pool.
        ssl: how to verify the server.
        proxy: the proxy's URL without credentials, or None.
        proxy_headers: the proxy's credentials, or None.
    """

    __slots__ = ("head", "headers", "request", "url")

    def __init__(  # noqa: PLR0913 - what aiohttp takes
        self,
        url: URL,
        headers: Headers,
        session: aiohttp.ClientSession,
        *,
        ssl: SSLContext | bool,
        proxy: URL | None,
        proxy_headers: Headers | None,
    ) -> None:
        self.url = url
        self.headers = headers
        loop = asyncio.get_running_loop()
        # A connector takes only the destination from a request, so one instance serves all of them.
        self.request = _Destination(
            "POST",
            url,
            loop=loop,
            session=session,
            ssl=ssl,
            proxy=proxy,
            # A copy: aiohttp adds a header.
            proxy_headers=None if proxy_headers is None else proxy_headers.copy(),
        )
        lines = [f"{name}: {value}" for name, value in (("Host", self.request.headers["Host"]), *headers.items())]
        if session.connector is not None and session.connector.force_close:
            lines.append("Connection: close")
        if any(_CONTROL_CHARACTER.search(line) for line in lines):
            raise ValueError("a header holds a control character")
        self.head = "\r\n".join((f"POST {url.raw_path_qs} HTTP/1.1", *lines, "Content-Length: ")).encode()


class FastPath:
    """Sends requests on connections of a pool.

    Args:
        ssl: how to verify the server.
        proxy: the proxy's URL without credentials, or None.
        proxy_headers: the proxy's credentials, or None.
    """

    def __init__(self, *, ssl: SSLContext | bool, proxy: URL | None, proxy_headers: Headers | None) -> None:
        self._ssl = ssl
        self._proxy = proxy
        self._proxy_headers = proxy_headers
        self._routes: dict[str, _Route] = {}

    def _route(self, session: aiohttp.ClientSession, operation: str, url: URL, headers: Headers) -> _Route:
        route = self._routes.get(operation)
        if route is None or route.headers is not headers or route.url is not url:
            route = self._routes[operation] = _Route(
                url, headers, session, ssl=self._ssl, proxy=self._proxy, proxy_headers=self._proxy_headers
            )
        return route

    async def post(  # noqa: PLR0913 - the parts of a request
        self,
        session: aiohttp.ClientSession,
        operation: str,
        url: URL,
        headers: Headers,
        body: Body,
        response: RawResponse,
        timeout: Any,
    ) -> None:
        """POST as `aiohttp.ClientSession` does, without the features that a code request does not need.

        Those are redirects, cookies, middlewares, traces, compression and chunked uploads.

        Args:
            session: the session with the pool.
            operation: the client method; its requests differ only in their bodies.
            url: the operation's URL.
            headers: all headers, including the credentials.
            body: the body; marked as begun once there is a connection.
            response: filled in as far as the response arrives.
            timeout: an `aiohttp.ClientTimeout` for the connection.
        """
        route = self._route(session, operation, url, headers)
        connector: Any = session.connector  # a CheckedConnector
        if connector is None:
            raise aiohttp.ClientConnectionError("the session is closed")
        connection: Connection = await connector.take(route.request, [], timeout)
        try:
            body.begin()
        except BaseException:
            connection.release()
            raise
        try:
            protocol = connection.protocol
            transport = None if protocol is None else protocol.transport
            if protocol is None or transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError("the connection was closed before the request was written")
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
            # One write: the transport buffers what the socket does not accept, within the attempt's deadline.
            transport.write(b"%b%d\r\n\r\n%b" % (route.head, len(body.value), body.value))
            while True:
                try:
                    message, stream = await protocol.read()
                except _Unreadable:
                    raise aiohttp.ClientPayloadError("not HTTP") from None
                # 1xx statuses precede the final response; after 101 there is none.
                if not 100 <= message.code < 200 or message.code == 101:
                    break
            if PURE_PYTHON_PARSER:
                ensure_complete(message.headers, protocol)
            await read_body(response, message.code, message.headers, stream)
        except BaseException:
            connection.close()
            raise
        if message.code == 101:
            # The server speaks another protocol from here on.
            connection.close()
            return
        # Returns to the pool only if the response was read to its end and nothing followed it.
        connection.release()


class _Never(Exception):  # noqa: N818 - never raised
    """Stands in for an exception class that this aiohttp does not have."""


def _is_defined_by_aiohttp(function: object) -> bool:
    return isinstance(function, types.FunctionType) and function.__globals__.get("__name__") == "aiohttp.client"


_Unreadable: type[Exception] = _Never
_request: Any = None
try:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.http import HttpProcessingError
except ImportError:
    pass
else:
    _Unreadable = HttpProcessingError
    if (
        {"read_until_eof", "auto_decompress"} <= set(getattr(ResponseHandler.set_response_params, "__kwdefaults__", ()))
        and {"read", "should_close", "transport"} <= set(dir(ResponseHandler))
        and _is_defined_by_aiohttp(aiohttp.ClientSession._request)  # noqa: SLF001 - compared, never called
    ):
        _request = aiohttp.ClientSession._request  # noqa: SLF001


def fast_path_available(session: aiohttp.ClientSession) -> bool:
    """Return whether `FastPath` works with this aiohttp and no other tool needs to see the requests.

    aioresponses and VCR.py replace a method of the session, and OpenTelemetry and Sentry add a trace. Their users
    expect to see these requests as well.
    """
    return aiohttp.ClientSession._request is _request and not session.trace_configs  # noqa: SLF001
