"""The pool's connector, which gives out only connections without unread bytes, and its settings."""

from __future__ import annotations

import select
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from ._reading import PURE_PYTHON_PARSER, has_unread_bytes

if TYPE_CHECKING:
    import asyncio

    import aiohttp
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


# Seconds. Load balancers close idle connections after 60 s or more. A request written to a connection that is being
# closed has an unknown outcome, so close idle ones well before.
KEEPALIVE_TIMEOUT: Final = 10.0
# Seconds: long enough to spare the resolver, short enough to follow a failover.
DNS_CACHE_TTL: Final = 30
# asyncio reads every response into a new buffer of 256 KiB, and TLS into another.
_MAX_READ_BUFFER: Final = 256 * 1024


class CheckedConnector:
    """Wraps a connector, ours or a borrowed session's, and gives out no kept connection with unsolicited bytes.

    aiohttp would take such bytes for the response to the next request (its issue 13656): a late "valid" would accept a
    wrong code. What the event loop knows of a connection is only as recent as its last iteration, which may be long
    ago if the loop was blocked. So the socket itself is asked. Bytes that arrive after this check are still taken for
    the response: nothing in the service's responses identifies the request.
    """

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector
        self._given_out: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection without unread bytes; close those that have some."""
        while True:
            connection = await self._connector.connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not self._is_stale(protocol):
                return connection
            connection.close()

    def _is_stale(self, protocol: ResponseHandler) -> bool:
        if protocol.should_close or (PURE_PYTHON_PARSER and has_unread_bytes(protocol)):
            return True
        # A protocol has a parser from its first request on. A connection that `warm_up` opened has none, but was given
        # out. A new connection is not asked: its socket may hold the session tickets of TLS.
        if getattr(protocol, "_parser", None) is None and protocol not in self._given_out:
            self._given_out.add(protocol)
            return False
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
