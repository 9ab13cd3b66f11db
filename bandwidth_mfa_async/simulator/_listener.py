"""The listening socket: opens, closes, and refuses connections for a while without losing its port."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web

from bandwidth_mfa_async._clock import sleep_until

from ._errors import SimulatorStateError
from ._tls import make_tls

if TYPE_CHECKING:
    from collections.abc import Collection

    from bandwidth_mfa_async._clock import Clock

    from ._tls import TLS, Certificate

# Seconds that requests in flight have to end at shutdown. Responses that a fault delays are dropped immediately.
_SHUTDOWN_TIMEOUT: Final = 0.1


class Listener:
    """Runs an aiohttp low-level server on one address.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        certificate: the kind of certificate for TLS; None for plain HTTP.
        clock: measures how long connections are refused.
        names: additional host names for the certificate.
    """

    def __init__(
        self, host: str, port: int, certificate: Certificate | None, clock: Clock, names: Collection[str] = ()
    ) -> None:
        self.tls: TLS | None = None
        self._host = host
        self._names = list(names)
        self._port = port
        self._certificate: Certificate | None = certificate
        self._clock = clock
        self._runner: web.ServerRunner | None = None
        self._site: web.SockSite | None = None
        self._address: tuple[str, int] | None = None
        self._bound_socket: socket.socket | None = None
        self._reopen_task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server runs, even if it refuses connections."""
        return self._address is not None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        if self._address is None:
            raise SimulatorStateError("the simulator is not running; use 'async with Simulator() as sim'")
        return self._address

    @property
    def origin(self) -> str:
        """The origin: scheme, host and port. The host is a loopback address if it listens on all addresses.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        shown = f"[{host}]" if ":" in host else host
        return f"{'http' if self._certificate is None else 'https'}://{shown}:{port}"

    async def open(self, server: web.Server) -> None:
        """Start to listen.

        Raises:
            SimulatorStateError: it is already running, or TLS needs the trustme package, which is not installed.
            OSError: the port is in use.
        """
        if self._runner is not None:
            raise SimulatorStateError("the simulator is running already; make another one for a second port")
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        try:
            if self._certificate is not None:
                # It generates keys and writes files, which would block the event loop.
                self.tls = await asyncio.to_thread(make_tls, [self._host, *self._names], self._certificate)
            await self._runner.setup()
            self._bound_socket = _bind(self._host, self._port)
            host, port = self._bound_socket.getsockname()[:2]
            await self._listen()
            self._address = (host, port)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections and sockets; do nothing if it is not running."""
        self._cancel_reopen()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        if self._bound_socket is not None:
            self._bound_socket.close()
            self._bound_socket = None
        self._site = None
        self._address = None

    async def refuse(self, seconds: float | None) -> None:
        """Close all connections and refuse new ones for `seconds`, or until `accept()` if None."""
        host, port = self.address
        self._cancel_reopen()
        if self._site is not None and self._runner is not None and self._runner.server is not None:
            await self._site.stop()
            self._site = None
            for connection in self._runner.server.connections:
                connection.force_close()
            # Bound but not listening: the kernel refuses connections, and no other program can use the port.
            self._bound_socket = _bind(host, port)
        if seconds is not None:
            self._reopen_task = asyncio.create_task(self._reopen(self._clock.monotonic() + seconds))

    async def accept(self) -> None:
        """Accept connections again; do nothing if it already accepts them."""
        _ = self.address
        self._cancel_reopen()
        await self._listen()

    async def _reopen(self, when: float) -> None:
        await sleep_until(self._clock, when)
        self._reopen_task = None
        await self._listen()

    def _cancel_reopen(self) -> None:
        if self._reopen_task is not None:
            self._reopen_task.cancel()
            self._reopen_task = None

    async def _listen(self) -> None:
        bound, self._bound_socket = self._bound_socket, None
        if bound is None or self._runner is None:
            return
        try:
            context = None if self.tls is None else self.tls.server
            self._site = web.SockSite(self._runner, bound, ssl_context=context, backlog=1024)
            await self._site.start()
        except BaseException:
            bound.close()
            raise


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound but not listening, so that the port is reserved and known."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
