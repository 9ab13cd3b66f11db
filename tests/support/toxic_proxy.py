"""A TCP proxy on loopback that spoils connections on their way, in one direction: a bad network in a hundred lines."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Toxic:
    """What happens to the bytes of a connection in one direction.

    Attributes:
        latency: seconds that each piece is late.
        jitter: up to so many seconds more, drawn for each piece.
        bandwidth: bytes a second; 0 for no bound.
        slow_close: seconds by which the end of the connection is late.
        black_hole: swallow everything after so many bytes, and say nothing; None to swallow nothing.
        reset: reset both sides after so many bytes.
        slices: pass on pieces of so many bytes, each on its own.
        truncate: end the connection, in good form, after so many bytes.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float = 0.0
    slow_close: float = 0.0
    black_hole: int | None = None
    reset: int | None = None
    slices: int = 0
    truncate: int | None = None


class _CutError(Exception):
    """The proxy ends a connection."""


@dataclass
class ToxicProxy:
    """Passes connections on to a port of this machine.

    Attributes:
        target: the port.
        up: what happens to requests.
        down: what happens to answers.
        share: of how many connections; the others pass untouched.
        rng: draws.
    """

    target: int
    up: Toxic = Toxic()
    down: Toxic = Toxic()
    share: float = 1.0
    rng: random.Random = field(default_factory=random.Random)
    port: int = 0
    spoilt: int = 0

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoilt = self.rng.random() < self.share
        self.spoilt += spoilt
        up, down = (self.up, self.down) if spoilt else (Toxic(), Toxic())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            with contextlib.suppress(ConnectionError, _CutError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass_on(reader, far_writer, up, writer))
                    group.create_task(self._pass_on(far_reader, writer, down, far_writer))
        except* (ConnectionError, _CutError):
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, toxic: Toxic, back: asyncio.StreamWriter
    ) -> None:
        passed = 0
        while data := await source.read(toxic.slices or 65_536):
            if toxic.latency or toxic.jitter:
                await asyncio.sleep(toxic.latency + self.rng.uniform(0.0, toxic.jitter))
            for bound, end in ((toxic.black_hole, "swallow"), (toxic.reset, "rst"), (toxic.truncate, "fin")):
                if bound is not None and passed + len(data) > bound:
                    sink.write(data[: max(0, bound - passed)])
                    await sink.drain()
                    if end == "swallow":
                        await source.read()
                        return
                    if end == "rst":
                        _reset(sink)
                        _reset(back)
                    raise _CutError
            passed += len(data)
            if toxic.bandwidth:
                await asyncio.sleep(len(data) / toxic.bandwidth)
            sink.write(data)
            await sink.drain()
        await asyncio.sleep(toxic.slow_close)
        raise _CutError


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
