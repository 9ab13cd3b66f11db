"""One request and its answer over aiohttp: on a connection of its pool, or through its session."""

from __future__ import annotations

import re
import types
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp
from multidict import CIMultiDict

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from ssl import SSLContext

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from multidict import CIMultiDictProxy
    from yarl import URL

    from .._wire import Answer

Headers: TypeAlias = CIMultiDict[str]
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read; the largest documented one has about 400."""

_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")


class Body:
    """A request's body that knows whether it was begun: whether the attempt was handed a connection.

    Before, whatever is raised, the service cannot have acted; from then on it may have. Exception types prove
    nothing: the same ones are raised before and after.

    Args:
        value: its bytes.
        guard: called at the last moment before it is begun; what it raises keeps it from being written.
    """

    __slots__ = ("begun", "guard", "value")

    def __init__(self, value: bytes, guard: Callable[[], None] | None = None) -> None:
        self.value: bytes = value
        self.guard: Callable[[], None] | None = guard
        self.begun: bool = False

    def begin(self) -> None:
        """Mark it as begun, unless its guard objects."""
        if self.guard is not None:
            self.guard()
        self.begun = True


class _Destination(aiohttp.ClientRequest):
    """What a connector asks where to connect to; its answer is always the same, so it is made once."""

    _made: ConnectionKey | None = None

    @property
    def connection_key(self) -> ConnectionKey:
        """Name the pool's connections that will do."""
        if self._made is None:
            self._made = super().connection_key
        return self._made


class Route:
    """Where requests of one kind go, with the part of them that is always the same.

    Args:
        url: of the operation.
        headers: all of them, the credentials included.
        session: whose connections are used.
        loop: the session's.
        ssl: how to verify the server.
        proxy: through which, or None.
    """

    __slots__ = ("head", "headers", "proxy", "request", "ssl", "url")

    def __init__(  # noqa: PLR0913 - the facts of a route
        self,
        url: URL,
        headers: Headers,
        session: aiohttp.ClientSession,
        loop: asyncio.AbstractEventLoop,
        *,
        ssl: SSLContext | bool,
        proxy: URL | None,
    ) -> None:
        self.url = url
        self.headers = headers
        self.ssl = ssl
        self.proxy = proxy
        # A connector asks a request only where to connect to, so one serves them all.
        self.request = _Destination("POST", url, loop=loop, session=session, ssl=ssl, proxy=proxy)
        lines = [f"{name}: {value}" for name, value in (("Host", self.request.headers["Host"]), *headers.items())]
        if session.connector is not None and session.connector.force_close:
            lines.append("Connection: close")
        if any(_CONTROL_CHARACTER.search(line) for line in lines):
            raise ValueError("a header holds a control character")
        self.head = "\r\n".join((f"POST {url.raw_path_qs} HTTP/1.1", *lines, "Content-Length: ")).encode()


async def exchange(session: aiohttp.ClientSession, route: Route, body: Body, answer: Answer, timeout: Any) -> None:
    """POST on a connection of the pool, as `aiohttp.ClientSession` does, without what a code request does not need.

    No redirects, cookies, middlewares, traces, compression or uploads in pieces; half the CPU. What it calls is not
    all documented, so `direct` says whether it is there.

    Args:
        session: with the pool.
        route: where to.
        body: marked as begun once there is a connection.
        answer: filled in as far as it comes.
        timeout: an `aiohttp.ClientTimeout`, for the connection.
    """
    connector = session.connector
    if connector is None:
        raise aiohttp.ClientConnectionError("the session is closed")
    connection = await connector.connect(route.request, [], timeout)
    try:
        body.begin()
    except BaseException:
        connection.release()
        raise
    try:
        protocol = connection.protocol
        transport = None if protocol is None else protocol.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection was closed before the request was written")
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        # One write: what is larger than the system's buffer stays in the transport's, and the attempt's time covers it.
        transport.write(b"%b%d\r\n\r\n%b" % (route.head, len(body.value), body.value))
        while True:
            try:
                message, stream = await protocol.read()
            except _Unreadable:
                raise aiohttp.ClientPayloadError("not HTTP") from None
            # 100 Continue and its like announce the answer; after 101 there is none to come.
            if not 100 <= message.code < 200 or message.code == 101:
                break
        if lenient:
            _see_that_it_is_whole(message.headers, protocol)
        await _read(answer, message.code, message.headers, stream)
    except BaseException:
        connection.close()
        raise
    if message.code == 101:
        # What the server says from here on is another protocol's.
        connection.close()
        return
    # Goes back to the pool only when the answer was read to its end and nothing came after it.
    connection.release()


async def post(session: aiohttp.ClientSession, route: Route, body: Body, answer: Answer, timeout: Any) -> None:
    """Do the same through aiohttp's documented interface, on a session whose answers are of the class `Response`."""
    async with session.post(
        route.url,
        data=_Payload(body),
        headers=route.headers,
        allow_redirects=False,
        timeout=timeout,
        ssl=route.ssl,
        proxy=route.proxy,
    ) as response:
        await _read(answer, response.status, response.headers, response.content)
        if answer.flaw == "too large":
            response.close()


async def _read(answer: Answer, status: int, headers: Mapping[str, str], stream: aiohttp.StreamReader) -> None:
    """Read a body as far as it may go, and say why it is not whole or not readable."""
    answer.status, answer.headers = status, headers
    content = bytearray()
    try:
        while not stream.at_eof():
            content += await stream.readany()
            if len(content) > MAX_ANSWER:
                answer.flaw = "too large"
                return
    finally:
        answer.body = bytes(content)
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        answer.flaw = "encoded"


class Response(aiohttp.ClientResponse):
    """An answer whose connection is closed where aiohttp would keep one that is out of step.

    aiohttp has given the connection back when `start` returns, if the body came with the head. Nobody else can have
    taken it by then, and the pool gives out none that is closed.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head."""
        protocol = connection.protocol
        await super().start(connection)
        if protocol is None:
            return self
        if lenient:
            try:
                _see_that_it_is_whole(self.headers, protocol)
            except aiohttp.ClientPayloadError:
                protocol.close()
                raise
        if self.status == 101:
            protocol.close()
        return self


def left_over(protocol: ResponseHandler) -> bool:
    """Tell whether aiohttp's parser in Python holds the beginning of a line or a head that nobody asked for.

    Only for a connection between two requests, or with an answer whose head was read. The parser in C refuses what
    begins no answer, and closes the connection.
    """
    parser = getattr(protocol, "_parser", None)
    return bool(getattr(parser, "_tail", None) or getattr(parser, "_lines", None))


def _see_that_it_is_whole(headers: CIMultiDictProxy[str], protocol: ResponseHandler) -> None:
    """Refuse an answer that aiohttp's parser in Python takes and the one in C does not.

    Where it ends is doubtful, so what it says may belong to something else.

    Raises:
        aiohttp.ClientPayloadError: it has two lengths, or bytes came after its end.
    """
    if len(headers.getall("Content-Length", ())) > 1 or left_over(protocol):
        raise aiohttp.ClientPayloadError("not HTTP")


class _Payload(aiohttp.payload.BytesPayload):
    """Marks a body as begun when aiohttp begins to write it.

    That is after the connector has handed over a connection, and until then the headers are held back as well.
    """

    def __init__(self, body: Body) -> None:
        super().__init__(body.value)
        self._body = body

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._body.begin()
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._body.begin()
        await super().write_with_length(writer, content_length)


class _Never(Exception):  # noqa: N818 - never raised
    """Stands for an exception that this aiohttp does not have."""


def _is_aiohttps_own(function: object) -> bool:
    return isinstance(function, types.FunctionType) and function.__globals__.get("__name__") == "aiohttp.client"


lenient: bool = False
"""Whether aiohttp reads answers with its parser in Python, as it does where it has no C extensions."""
_Unreadable: type[Exception] = _Never
_request: Any = None
try:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.http import HttpProcessingError, HttpResponseParser
except ImportError:
    pass
else:
    _Unreadable = HttpProcessingError
    lenient = HttpResponseParser.__module__ == "aiohttp.http_parser"
    if (
        {"read_until_eof", "auto_decompress"} <= set(getattr(ResponseHandler.set_response_params, "__kwdefaults__", ()))
        and {"read", "should_close", "transport"} <= set(dir(ResponseHandler))
        and _is_aiohttps_own(aiohttp.ClientSession._request)  # noqa: SLF001 - compared, never called
    ):
        _request = aiohttp.ClientSession._request  # noqa: SLF001


def direct(session: aiohttp.ClientSession) -> bool:
    """Tell whether `exchange` may be used, or only `post`.

    Not where aiohttp lacks what it calls, and not where somebody watches or mocks the session's requests (aioresponses
    and VCR.py replace a method, OpenTelemetry and Sentry add a trace): they are to see ours as well.
    """
    return aiohttp.ClientSession._request is _request and not session.trace_configs  # noqa: SLF001
