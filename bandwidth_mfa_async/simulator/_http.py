"""Request handling: routes aiohttp.web requests to the service and applies faults to the responses."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ._messages import RequestRecord
from ._responses import CONTENT_TYPE, NO_ROUTE, SimulatedResponse, encode, phrase
from ._validation import read_recipient

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader
    from aiohttp.web_protocol import RequestHandler

    from bandwidth_mfa_async._clock import Clock

    from ._faults import Fault, Faults
    from ._service import Service

_LOGGER: Final = logging.getLogger("bandwidth_mfa_async.simulator")

BASE_PATH: Final = "/api/v1"
TOKEN_PATH: Final = BASE_PATH + "/oauth2/token"

_ENDPOINT: Final = re.compile(re.escape(BASE_PATH) + r"/accounts/([^/]+)/code/(messaging|voice|verify)")
_JSON: Final = {"Content-Type": CONTENT_TYPE}


def _merge_headers(*groups: Mapping[str, str]) -> dict[str, str]:
    """Merge headers; a later header replaces an earlier one with the same name, ignoring case."""
    merged = {name.lower(): (name, value) for group in groups for name, value in group.items()}
    return dict(merged.values())


def _set_result(future: asyncio.Future[bool], result: bool) -> None:  # noqa: FBT001 - the future's result
    if not future.done():
        future.set_result(result)


class _ClosedConnection(web.Response):
    """A response that is never written; aiohttp treats the client as disconnected."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's signature
        raise ConnectionResetError("closed by the simulator")


class HTTPFront:
    """The handler of aiohttp's low-level server. It has no router and no access log, to keep requests cheap.

    Args:
        service: processes requests.
        faults: selects the faults of responses.
        records: receives a record of each request.
        clock: measures delays.
        max_body: the largest body to read, in bytes. Not known: the service's own; Amazon's gateway has 10 MB.
        fallback: handles all other paths (the inbox page and its JSON API); returns None for an unknown path.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        *,
        service: Service,
        faults: Faults,
        records: deque[RequestRecord],
        clock: Clock,
        max_body: int,
        fallback: Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]],
    ) -> None:
        self._service = service
        self._faults = faults
        self._records = records
        self._clock = clock
        self._max_body = max_body
        self._fallback = fallback
        account_id = service.settings.account_id
        self._paths: dict[str, tuple[str, str]] = {
            f"{BASE_PATH}/accounts/{account_id}/code/{name}": (name, account_id)
            for name in ("messaging", "voice", "verify")
        }
        self._paths[TOKEN_PATH] = ("token", "")
        self.on_request: Callable[[RequestRecord], object] | None = None
        self._delayed: set[asyncio.Future[bool]] = set()

    def make_server(self) -> web.Server:
        """Return a new aiohttp server with this handler; call it in a running event loop."""
        return web.Server(
            self,
            request_factory=self._make_request,
            # Otherwise the handler of a disconnected client would wait for a fault's delay.
            handler_cancellation=True,
            access_log=None,
            logger=_LOGGER,
        )

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
        *parser_error: Any,
    ) -> web.BaseRequest:
        """Make a request object with our limit on its body."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"client_max_size": self._max_body}
        if parser_error:  # the next aiohttp passes the error of a request that it could not parse, or None
            options["pre_handler_error"] = parser_error[0]
        return web.BaseRequest(message, payload, protocol, writer, task, loop, **options)

    def cancel_delays(self) -> None:
        """Drop every response that a fault delays, so that the server stops immediately."""
        for future in self._delayed:
            _set_result(future, False)  # noqa: FBT003 - the result

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request."""
        if "Expect" in request.headers:
            # The low-level server does not send this; without it curl waits before it sends a large body.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        # Nearly all requests match by their raw path, which needs no URL parsing.
        found = self._paths.get(request.raw_path) or self._parse_path(request.path)
        if found is None or request.method != "POST":
            if found is None and (fallback_response := await self._fallback(request)) is not None:
                return fallback_response
            # Amazon API Gateway's response to an unknown path or method, and the spec's example of a 403.
            operation = "unknown" if found is None else found[0]
            return self._respond(request, operation, SimulatedResponse(403, NO_ROUTE, "no such path or method"))
        operation, account_id = found
        fault: Fault | None = None
        try:
            if self._faults:
                to = read_recipient(await request.read()) if self._faults.needs_number(operation) else None
                fault = self._faults.pick(operation, to)
            if fault is not None and not fault.accepted:
                return await self._fault_unprocessed(request, operation, fault)
            body = await request.read()
            response = self._service.handle(operation, account_id, request.headers.get("Authorization"), body)
        except web.HTTPRequestEntityTooLarge:
            response = SimulatedResponse(413, encode({"message": "Request Too Long"}), "body too large")
        if fault is not None:
            return await self._apply_fault(request, operation, response, fault)
        return self._respond(request, operation, response)

    @staticmethod
    def _parse_path(path: str) -> tuple[str, str] | None:
        if path == TOKEN_PATH:
            return "token", ""
        match = _ENDPOINT.fullmatch(path)
        return None if match is None else (match[2], match[1])

    def _respond(self, request: web.BaseRequest, operation: str, response: SimulatedResponse) -> web.Response:
        self._record(request, operation, response.status, response)
        web_response = web.Response(body=response.body, status=response.status, headers=_JSON)
        if response.headers:
            web_response.headers.update(response.headers)
        return web_response

    def _record(
        self,
        request: web.BaseRequest,
        operation: str,
        status: int | None,
        response: SimulatedResponse,
        fault: Fault | None = None,
    ) -> None:
        record = RequestRecord(
            self._clock.time(),
            operation,
            request.method,
            request.path if operation == "unknown" else request.raw_path,
            status,
            response.reason,
            response.to,
            fault,
        )
        self._records.append(record)
        if self.on_request is not None:
            self.on_request(record)

    async def _fault_unprocessed(self, request: web.BaseRequest, operation: str, fault: Fault) -> web.StreamResponse:
        """Apply a fault to a request that is not passed to the service."""
        to = None
        if fault.drop != "before_read":
            to = read_recipient(await request.read())
        response = SimulatedResponse(fault.status or 200, b"", "fault", to=to)
        if fault.body is None and fault.drop not in {"before_read", "after_read"}:
            response = SimulatedResponse(
                response.status, self._service.documented(response.status, operation), "fault", to=to
            )
        return await self._apply_fault(request, operation, response, fault)

    async def _apply_fault(
        self, request: web.BaseRequest, operation: str, response: SimulatedResponse, fault: Fault
    ) -> web.StreamResponse:
        """Send a response as changed by a fault, and record what the sender of a message got."""
        if response.message_id is None:
            return await self._send_changed(request, operation, response, fault)
        # Until it is sent; a sender that disconnects meanwhile gets none either.
        self._service.set_answer(response.message_id, None)
        sent = await self._send_changed(request, operation, response, fault)
        if not isinstance(sent, _ClosedConnection):
            self._service.set_answer(response.message_id, sent.status)
        return sent

    async def _send_changed(
        self, request: web.BaseRequest, operation: str, response: SimulatedResponse, fault: Fault
    ) -> web.StreamResponse:
        status = response.status if fault.status is None else fault.status
        body = response.body
        if fault.body is not None:
            body = fault.body
        elif fault.status is not None and fault.status >= 300 and fault.accepted:
            # The request was processed, but the response reports a failure.
            body = self._service.documented(fault.status, operation)
        headers = _merge_headers(_JSON, response.headers, fault.headers)
        # Record first, so that the record exists once the client has the response.
        self._record(request, operation, None if fault.drop else status, response, fault)
        if fault.delay and not await self._delay(fault.delay):
            return self._close_connection(request)
        if fault.drop in {"before_read", "after_read"}:
            return self._close_connection(request, abort=fault.drop == "before_read")
        if fault.drop == "half_answer" or fault.truncate:
            head = f"HTTP/1.1 {status} {phrase(status)}\r\n".encode()
            headers["Content-Length"] = str(len(body))
            head += b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items()) + b"\r\n"
            response_bytes = head + body
            self._write(
                request, response_bytes[: len(response_bytes) // 2 if fault.drop else len(head) + len(body) // 2]
            )
            return self._close_connection(request)
        if fault.seconds_per_byte:
            return await self._trickle(request, web.StreamResponse(status=status, headers=headers), body, fault)
        return web.Response(body=body, status=status, headers=headers)

    async def _trickle(
        self, request: web.BaseRequest, response: web.StreamResponse, body: bytes, fault: Fault
    ) -> web.StreamResponse:
        response.content_length = len(body)
        await response.prepare(request)
        for index in range(len(body)):
            await response.write(body[index : index + 1])
            if not await self._delay(fault.seconds_per_byte):
                return self._close_connection(request)
        await response.write_eof()
        return response

    async def _delay(self, seconds: float) -> bool:
        """Wait on the clock; return False if the simulator stops meanwhile."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = None
        if not math.isinf(seconds):
            timer = self._clock.call_at(self._clock.monotonic() + seconds, partial(_set_result, future, True))  # noqa: FBT003 - the result
        self._delayed.add(future)
        try:
            return await future
        finally:
            self._delayed.discard(future)
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _write(request: web.BaseRequest, data: bytes) -> None:
        if request.transport is not None:
            request.transport.write(data)

    @staticmethod
    def _close_connection(request: web.BaseRequest, *, abort: bool = False) -> web.StreamResponse:
        if request.transport is not None:
            if abort:
                request.transport.abort()
            else:
                request.transport.close()
        return _ClosedConnection()
