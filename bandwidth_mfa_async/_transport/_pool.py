"""The pool's connector, which gives out only connections without unread bytes, and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ._reading import PURE_PYTHON_PARSER, has_unread_bytes

if TYPE_CHECKING:
    import aiohttp
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
    """Wraps a connector, ours or a borrowed session's, and gives out no connection with unsolicited bytes.

    aiohttp would take such bytes for the response to the next request (its issue 13656). Bytes that arrive after this
    check are still taken for it: nothing in the service's responses identifies the request.
    """

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Return a connection without unread bytes; close those that have some."""
        while True:
            connection = await self._connector.connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not (protocol.should_close or (PURE_PYTHON_PARSER and has_unread_bytes(protocol))):
                return connection
            connection.close()


def raise_mmap_threshold() -> None:
    """Make glibc allocate buffers as large as asyncio's from its heap instead of with `mmap`.

    Mapping each buffer costs three system calls and one or two page faults per response, a third of a call's CPU.
    glibc raises its threshold once a program has freed one block of that size, so allocate and free one. Other
    allocators are not affected.
    """
    bytes(2 * _MAX_READ_BUFFER)
