"""An HTTP server in a thread, for tests in which the event loop is blocked while the server acts."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


def http_response(status: int, document: dict[str, Any]) -> bytes:
    """Return a response with a JSON body."""
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


class ServerConnection:
    """A connection of the server. Only its own thread uses the socket: an SSL object is not safe for two.

    Args:
        wake: wakes that thread with a command.
    """

    def __init__(self, wake: socket.socket) -> None:
        self._wake = wake
        self.unsolicited = b""

    def write(self, unsolicited: bytes) -> None:
        """Write bytes that no request asked for."""
        self.unsolicited = unsolicited
        self._wake.send(b"w")

    def end(self) -> None:
        """End the connection in this direction."""
        self._wake.send(b"e")

    def close(self) -> None:
        """Close the connection; its thread ends."""
        with suppress(OSError):  # closed already
            self._wake.send(b"c")


class ThreadedServer:
    """Answers each request with `response`; `requests` counts them.

    Args:
        response: the bytes of each response.
        context: for TLS.
    """

    def __init__(self, response: bytes, context: ssl.SSLContext | None = None) -> None:
        self.response = response
        self.requests = 0
        self.connections: list[ServerConnection] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._answer = threading.Event()
        self._answer.set()
        self.written = threading.Semaphore(0)

    @property
    def base_url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/api/v1"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._answer.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()
        for thread in self._threads:
            thread.join()

    def hold(self) -> None:
        """Answer no request until `answer` is called."""
        self._answer.clear()

    def answer(self) -> None:
        """Answer the requests that wait; return once a response is written."""
        self._answer.set()
        assert self.written.acquire(timeout=10)

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, plain: socket.socket) -> None:
        wake, woken = socket.socketpair()
        with plain, wake, woken, suppress(OSError):
            connection = plain if self._context is None else self._context.wrap_socket(plain, server_side=True)
            with connection:
                handle = ServerConnection(wake)
                self.connections.append(handle)
                self._answer_requests(connection, handle, woken)

    def _answer_requests(self, connection: socket.socket, handle: ServerConnection, woken: socket.socket) -> None:
        buffer = b""
        while True:
            if not (isinstance(connection, ssl.SSLSocket) and connection.pending()):
                readable, _, _ = select.select([connection, woken], [], [])
                if woken in readable:
                    command = woken.recv(1)
                    if command == b"c":
                        return
                    if command == b"w":
                        connection.sendall(handle.unsolicited)
                    else:
                        connection.shutdown(socket.SHUT_WR)
                    continue
            chunk = connection.recv(65536)
            if not chunk:
                return
            buffer += chunk
            head, separator, rest = buffer.partition(b"\r\n\r\n")
            if not separator:
                continue
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                continue
            buffer = rest[length:]
            self.requests += 1
            self._answer.wait()
            connection.sendall(self.response)
            self.written.release()
