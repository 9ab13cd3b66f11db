"""Sends a request directly on a connection of aiohttp's pool, for half the CPU of the documented interface.

Read `_documented` first: it defines the behaviour, and this module only does the same faster. Some of what it calls in
aiohttp is not documented. `open_fast_path` tries all of it when a session opens; where anything differs, `_documented`
is used instead.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import types
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from .._wire import RawResponse
from ._body import Headers
from ._compatibility import report_difference
from ._reading import PURE_PYTHON_PARSER, ensure_complete, read_body

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from ssl import SSLContext

    from aiohttp.client_reqrep import ConnectionKey

    from ._body import Body


_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")


@functools.cache
def _destination_class() -> type[aiohttp.ClientRequest]:
    """Return the class of the requests from which a connector takes the destination.

    It is made on first use, so that this module can be imported with any aiohttp.
    """

    class Destination(aiohttp.ClientRequest):
        """A request whose connection key is computed once."""

        _cached_key: ConnectionKey | None = None

        @property
        def connection_key(self) -> ConnectionKey:
            """Return the key of the pool's connections that can be used."""
            if self._cached_key is None:
                self._cached_key = super().connection_key
            return self._cached_key

    return Destination


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
        self.request = _destination_class()(
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

    async def post(  # noqa: C901, PLR0913 - the parts of a request
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
        turn = body.turn
        if turn is not None and not turn.try_reserve():
            # Wait without the connection, which might become stale.
            connection.release()
            await turn.reserve()
            connection = await connector.take(route.request, [], timeout)
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
            if turn is not None:
                turn.written()
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

    def probe(self, session: aiohttp.ClientSession) -> None:
        """Construct and call everything that `post` uses, without a connection.

        Raises:
            Exception: this aiohttp lacks something, or something has another signature or effect.
        """
        for owner, names in (
            (aiohttp.ClientSession, ("_request", "trace_configs")),
            (_Connection, ("protocol", "close", "release")),
            (_ResponseHandler, ("should_close", "is_connected")),
        ):
            for name in names:
                getattr(owner, name)
        route = self._route(session, "probe", _PROBE_URL, _PROBE_HEADERS)
        del self._routes["probe"]
        hash(route.request.connection_key)
        inspect.signature(aiohttp.BaseConnector.connect).bind(None, route.request, [], None)
        protocol = _ResponseHandler(asyncio.get_running_loop())
        _ = protocol.transport, protocol.should_close
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        message, stream = _result(protocol.read())
        response = RawResponse(0, {}, b"")
        _result(read_body(response, message.code, message.headers, stream))
        ensure_complete(message.headers, protocol)
        if (response.status, response.body, response.headers["Content-Length"]) != (200, b"{}", "2"):
            raise ValueError("a response is read in another way")


def open_fast_path(
    session: aiohttp.ClientSession, *, ssl: SSLContext | bool, proxy: URL | None, proxy_headers: Headers | None
) -> FastPath | None:
    """Return the fast path of a session, or None where this aiohttp differs from what it uses.

    Args:
        session: the session with the pool.
        ssl: how to verify the server.
        proxy: the proxy's URL without credentials, or None.
        proxy_headers: the proxy's credentials, or None.
    """
    fast_path = FastPath(ssl=ssl, proxy=proxy, proxy_headers=proxy_headers)
    try:
        fast_path.probe(session)
    except Exception as difference:  # noqa: BLE001 - whatever it raises here, it would raise in every call
        report_difference(
            difference, "the fast path", "requests use its documented interface, which takes about twice the CPU"
        )
        return None
    return fast_path


_PROBE_URL: Final = URL("https://127.0.0.1/")
_PROBE_HEADERS: Final = Headers({"Accept": "application/json"})


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise ValueError("a response that has arrived is waited for")


class _Never(Exception):  # noqa: N818 - never raised
    """Stands in for an exception class that this aiohttp does not have."""


def _is_defined_by_aiohttp(function: object) -> bool:
    return isinstance(function, types.FunctionType) and function.__globals__.get("__name__") == "aiohttp.client"


_Unreadable: type[Exception] = _Never
_ResponseHandler: Any = None
_Connection: Any = None
try:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import HttpProcessingError
except ImportError:
    pass  # the probe finds that they are missing
else:
    _Unreadable, _ResponseHandler, _Connection = HttpProcessingError, ResponseHandler, Connection

_request: Any = getattr(aiohttp.ClientSession, "_request", None)
if not _is_defined_by_aiohttp(_request):
    _request = None


def is_watched(session: aiohttp.ClientSession) -> bool:
    """Return whether another tool needs to see the requests, so that they must go through the session.

    aioresponses and VCR.py replace a method of the session, and OpenTelemetry and Sentry add a trace.
    """
    return aiohttp.ClientSession._request is not _request or bool(session.trace_configs)  # noqa: SLF001
