"""The pool's connectors: how connections are opened, which ones are given out, and when they are retired."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import select
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from .._connection_age import connection_age
from ._body import ConnectedForWarmUp, current_body, warmed_connections
from ._compatibility import report_difference
from ._reading import PURE_PYTHON_PARSER, has_unread_bytes
from ._tls import DefaultContext

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from .._clock import Clock


# Seconds. Load balancers close idle connections after 60 s or more. A request written to a connection that is being
# closed has an unknown outcome, so close idle ones well before.
KEEPALIVE_TIMEOUT: Final = 10.0
# Seconds: long enough to spare the resolver when many connections open at once, short enough to follow a failover.
DNS_CACHE_TTL: Final = 10
# asyncio reads every response into a new buffer of 256 KiB, and TLS into another.
_MAX_READ_BUFFER: Final = 256 * 1024


# limit=0: the client's slots bound the attempts, so that no request queues inside an attempt's timeout.
_SETTINGS: Final[dict[str, Any]] = {
    "limit": 0,
    "keepalive_timeout": KEEPALIVE_TIMEOUT,
    "ttl_dns_cache": DNS_CACHE_TTL,
}


class Connector(aiohttp.TCPConnector):
    """The pool of a client that has borrowed no session.

    Its connections and timers live longer than the call that makes them, so they do not run in that call's context:
    its values would live as long. Requests without a context of their own are verified with `DefaultContext`.
    """

    def __init__(self) -> None:
        super().__init__(**_SETTINGS)  # pyright: ignore[reportUnknownMemberType]
        self._default_context = DefaultContext()

    def probe(self) -> None:
        """Look for the private parts of aiohttp that this class uses.

        Raises:
            Exception: one is missing, or has another signature.
        """
        _ = self._acquired, self._cleanup_handle, self._ssl
        inspect.signature(super()._cleanup).bind()
        inspect.signature(super()._create_connection).bind(None, [], None)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        opened: list[ResponseHandler] = []

        async def open_connection() -> None:
            """Open the connection."""
            opened.append(await self._open(req, traces, timeout))

        try:
            await asyncio.get_running_loop().create_task(
                open_connection(), name="bandwidth_mfa_async connection", context=contextvars.Context()
            )
        except BaseException:
            # Cancelled in the iteration in which the connection was opened: nothing else would close it.
            for protocol in opened:
                protocol.close()
            raise
        return opened[0]

    async def _open(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> ResponseHandler:
        self._start_cleanup_timer()
        if req.ssl is not True or not req.is_ssl():
            return await super()._create_connection(req, traces, timeout)
        context = await self._default_context.get()
        while True:
            self._ssl = context
            try:
                return await super()._create_connection(req, traces, timeout)
            except aiohttp.ClientConnectorCertificateError:
                context, previous = await self._default_context.get(recheck=True), context
                if context is previous:
                    raise

    def _cleanup(self) -> None:
        super()._cleanup()
        self._start_cleanup_timer()

    def _start_cleanup_timer(self) -> None:
        """Start the timer that closes idle connections, unless it runs or there are no connections.

        Otherwise aiohttp would start it when the next connection is released, in the context of that call.
        """
        if self._cleanup_handle is None and self._acquired:
            loop = asyncio.get_running_loop()
            reference: weakref.ref[Connector] = weakref.ref(self)
            self._cleanup_handle = loop.call_later(KEEPALIVE_TIMEOUT, _clean_up, reference)


def open_connector() -> aiohttp.TCPConnector:
    """Return the pool of a client that has borrowed no session: a `Connector`, or aiohttp's own where it differs."""
    try:
        connector = Connector()
        connector.probe()
    except Exception as difference:  # noqa: BLE001 - whatever it raises here, it would raise for every connection
        report_difference(
            difference, "the connection pool", "a change of the CA certificates on disk takes effect at a restart"
        )
        return aiohttp.TCPConnector(**_SETTINGS)
    return connector


def _clean_up(reference: weakref.ref[Connector]) -> None:
    connector = reference()
    if connector is not None:
        connector._cleanup()  # noqa: SLF001 - its own


class CheckedConnector:
    """Wraps a connector, ours or a borrowed session's, and checks each connection before it is given out.

    A kept connection with unsolicited bytes is closed. aiohttp would take such bytes for the response to the next
    request (its issue 13656): a late "valid" would accept a wrong code. What the event loop knows of a connection is
    only as recent as its last iteration, which may be long ago if the loop was blocked. So the socket itself is asked.
    Bytes that arrive after this check are still taken for the response: nothing in the service's responses identifies
    the request.

    A connection is closed about a minute after it was first given out, so that DNS is asked again: after a failover,
    connections in steady use would otherwise stay with the old address.

    Args:
        connector: the connector to wrap.
        clock: the source of time for the age of connections.
    """

    def __init__(self, connector: aiohttp.BaseConnector, clock: Clock) -> None:
        self._connector = connector
        self._clock = clock
        self._retire_at: dict[ResponseHandler, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection for a request of aiohttp's, and mark the body of that request as begun.

        Raises:
            ConnectedForWarmUp: the connection was asked for without a request; `warmed_connections` has it.
        """
        connection = await self.take(req, traces, timeout)
        warmed = warmed_connections.get()
        if warmed is not None:
            warmed.append(connection)
            raise ConnectedForWarmUp
        body = current_body.get()
        if body is not None:
            try:
                body.begin()
            except BaseException:
                connection.release()
                raise
            if body.turn is not None:
                # aiohttp writes it in this iteration of the loop or, on Python 3.11, in the next one.
                loop = asyncio.get_running_loop()
                written = body.turn.written
                loop.call_soon(lambda: loop.call_soon(written))
        return connection

    async def take(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection that is young and has no unread bytes; close the others."""
        while True:
            connection = await self._connector.connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not self._is_stale(protocol):
                return connection
            connection.close()

    def _is_stale(self, protocol: ResponseHandler) -> bool:
        if protocol.should_close or (PURE_PYTHON_PARSER and has_unread_bytes(protocol)):
            return True
        now = self._clock.monotonic()
        retire_at = self._retire_at.get(protocol)
        if retire_at is None:
            self._retire_at = {known: at for known, at in self._retire_at.items() if known.is_connected()}
            self._retire_at[protocol] = now + connection_age()
            # A protocol has a parser from its first request on; in a borrowed pool that may have been another's. A
            # new connection is not asked: its socket may hold the session tickets of TLS.
            if getattr(protocol, "_parser", None) is None:
                return False
        elif now >= retire_at:
            return True
        return protocol.transport is None or _is_readable(protocol.transport)


def _is_readable(transport: asyncio.BaseTransport) -> bool:
    """Return whether a transport's socket has bytes to read or has ended, without blocking."""
    sock = transport.get_extra_info("socket")
    if sock is None or (descriptor := sock.fileno()) < 0:
        return False
    if sys.platform == "win32":  # no poll
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def raise_mmap_threshold() -> None:
    """Make glibc allocate buffers as large as asyncio's from its heap instead of with `mmap`.

    Mapping each buffer costs three system calls and one or two page faults per response, a third of a call's CPU.
    glibc raises its threshold once a program has freed one block of that size, so allocate and free one. Other
    allocators are not affected.
    """
    bytes(2 * _MAX_READ_BUFFER)
