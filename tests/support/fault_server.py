"""A raw HTTP/1.1 server on loopback that does to each request what a script says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from bandwidth_mfa_async import MFAClient
    from bandwidth_mfa_async.simulator import Simulator

OK_BODY = {"messageId": "1589228074636lm4k2je7j7jklbn2"}


@dataclass
class Seen:
    """A request that arrived whole."""

    head: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.body)
        return document


@dataclass
class Act:
    """What to do with one request (or, with `on_accept`, with one connection)."""

    reply: bytes = b""
    on_accept: str = ""  # "fin", "rst": end the connection before anything is read
    read: str = "all"  # "all", "head", "byte" or "nothing": how much of the request is read before acting
    then: str = "keep"  # "keep", "fin", "rst" or "hang": what follows the reply
    delay: float = 0.0
    drip: float = 0.0  # seconds between the reply's bytes
    accepted: bool = False  # the text went out, whatever the client sees
    before: Callable[[FaultServer], None] | None = None


def reply(
    status: int = 200,
    body: object = OK_BODY,
    *,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> bytes:
    """Return an HTTP answer; `length` overrides the declared Content-Length."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(payload) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if not any(line.lower().startswith("content-type") for line in lines):
        lines.append("Content-Type: application/json; charset=utf-8")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + payload


def answer(status: int = 200, body: object = OK_BODY, **options: object) -> Act:
    """An act that answers and keeps the connection."""
    headers = options.pop("headers", None)
    return Act(reply(status, body, headers=headers), accepted=200 <= status < 300, **options)  # type: ignore[arg-type]


@dataclass
class FaultServer:
    """Answers 200 unless the script says otherwise; `seen` holds what it read, `sent` counts texts that went out."""

    ssl: ssl.SSLContext | None = None
    script: list[Act] = field(default_factory=list)
    default: Act = field(default_factory=answer)
    seen: list[Seen] = field(default_factory=list)
    sent: int = 0
    accepted_connections: int = 0
    open_connections: int = 0
    port: int = 0  # one that another server has left, or 0 for a new one

    def __post_init__(self) -> None:
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self.ssl)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def origin(self) -> str:
        return f"{'https' if self.ssl else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/api/v1"

    def play(self, *acts: Act) -> None:
        """Put acts at the end of the script; each serves one request."""
        self.script.extend(acts)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_connections += 1
        self.open_connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            self.open_connections -= 1
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.script and self.script[0].on_accept:
            act = self.script.pop(0)
            _end(writer, act.on_accept)
            return False
        if self.script and self.script[0].read == "nothing":
            act = self.script.pop(0)
        elif self.script and self.script[0].read == "byte":
            await reader.readexactly(1)
            act = self.script.pop(0)
        else:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            act = self.script.pop(0) if self.script else self.default
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            headers = {name.lower(): value for name, value in headers.items()}
            if act.read == "all":
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen.append(Seen(head, headers, body))
        self.sent += act.accepted
        if act.before is not None:
            act.before(self)
        if act.delay:
            await asyncio.sleep(act.delay)
        await self._write(writer, act)
        if act.then == "hang":
            await reader.read()  # until the client gives up
            return False
        if act.then in {"fin", "rst"}:
            _end(writer, act.then)
        return act.then == "keep"

    @staticmethod
    async def _write(writer: asyncio.StreamWriter, act: Act) -> None:
        if not act.drip:
            writer.write(act.reply)
            await writer.drain()
            return
        for byte in act.reply:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(act.drip)


def _end(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "rst":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


def basic_auth(username: str, password: str) -> str:
    """Return an Authorization header; aiohttp has a function for it from 3.14 on only."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def refused_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def full_backlog(port: int = 0) -> Iterator[int]:
    """Yield a port whose accept queue is full, so that connections to it are neither made nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until a condition holds, which must not need a timer. A thread may need some real time."""
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "the condition does not hold"
        await asyncio.sleep(0)


def taken(client: MFAClient) -> int:
    """Return how many connections of a client's pool are in somebody's hands."""
    session = client._executor.state.transport._session
    connector = None if session is None else session.connector
    return 0 if connector is None else len(connector._acquired)


def kept(client: MFAClient) -> int:
    """Return how many connections of a client's pool wait for their next request, whole."""
    session = client._executor.state.transport._session
    connector = None if session is None else session.connector
    pools = [] if connector is None else connector._conns.values()
    return sum(protocol.is_connected() and not protocol.should_close for pool in pools for protocol, _ in pool)


async def hung_call(server: FaultServer, call: Any) -> asyncio.Task[Any]:
    """Begin a call, and return it once the server has read its request, which it will not answer."""
    server.play(Act(then="hang"))
    seen = len(server.seen)
    task: asyncio.Task[Any] = asyncio.ensure_future(call)
    while len(server.seen) == seen:
        await asyncio.sleep(0)
    return task


def environment(simulator: Simulator) -> dict[str, str]:
    """Return the variables that point a client at a simulator."""
    return simulator.environ()
