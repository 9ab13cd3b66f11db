"""The cheapest HTTP servers that answer a code request, in a separate process: nginx, or a few lines of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import shutil
import socket
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b'{"messageId": "1589228074636lm4k2je7j7jklbn2"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

# Keep connections for the whole run: by default nginx closes one after a thousand requests.
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; default_type application/json;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{body}'; }} }}
}}
"""


class Answers(asyncio.Protocol):
    """Answers each request when its body is complete; requests of one connection do not overlap."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(rest) >= length:
            self.buffer = rest[length:]
            self.transport.write(ANSWER)  # type: ignore[attr-defined]


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, int]]:
    """Run nginx if it is installed, else `Answers`; yield the server's name and port."""
    if shutil.which("nginx") is None:
        server = processes.start([sys.executable, "-m", "benchmarks._server"], stdout=processes.PIPE, text=True)
        assert server.stdout is not None
        name, port = "a bare asyncio server", int(server.stdout.readline())
    else:
        folder = tempfile.mkdtemp(prefix="nginx-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        configuration = pathlib.Path(folder) / "nginx.conf"
        configuration.write_text(NGINX.format(folder=folder, port=port, body=BODY.decode()))
        server = processes.start(["nginx", "-p", folder, "-c", str(configuration)], stderr=processes.DEVNULL)
        name = "nginx"
    try:
        _wait_for(port)
        yield name, port
    finally:
        processes.end(server)
        if name == "nginx":
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
