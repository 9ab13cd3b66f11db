"""The connector of the pool, which gives out only connections without unread bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ._reading import PURE_PYTHON_PARSER, has_unread_bytes

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


# Load balancers close idle connections after 60 s or more; a request written to one that is being closed has an
# unknown outcome, so ours are given up well before.
KEEPALIVE_TIMEOUT: Final = 10.0
# Long enough to spare the resolver, short enough to follow a failover.
DNS_CACHE_TTL: Final = 30
# asyncio reads every answer into a fresh buffer of 256 KiB, TLS another.
_MAX_READ_BUFFER: Final = 256 * 1024


class CheckedConnector:
    """A connector, ours or a borrowed session's, that gives out no connection with bytes nobody asked for.

    aiohttp would take them for the answer to the next request (its issue 13656). Bytes that come after this look
    still are; nothing in the service's answers could tell.
    """

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        while True:
            connection = await self._connector.connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not (protocol.should_close or (PURE_PYTHON_PARSER and has_unread_bytes(protocol))):
                return connection
            connection.close()


def raise_mmap_threshold() -> None:
    """Let glibc take buffers as large as asyncio's from its heap, where by default it asks the system for each.

    Those are three system calls and a page fault or two for an answer, a third of a call's CPU. The default ends
    once a program has freed one block that large, so that is all that is done here. Other allocators do not mind.
    """
    bytes(2 * _MAX_READ_BUFFER)
