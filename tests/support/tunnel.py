"""A proxy that makes tunnels, or says why it does not."""

from __future__ import annotations

import asyncio


class Tunnel:
    """Answers CONNECT with a given status and then passes bytes both ways."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.status is None:
            await reader.read()
        elif self.status == 200:
            host, _, port = head.split()[1].decode().partition(":")
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))
            there_writer.close()
        else:
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self.status)
        writer.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
