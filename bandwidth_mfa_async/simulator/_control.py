"""The JSON control API below the inbox page, for browser tests and other programs."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from ._access import ControlError
from ._errors import InvalidOptionError, SimulatorStateError
from ._faults import Fault
from ._responses import CONTENT_TYPE, encode
from ._server_limiter import AccountLimits

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import TypeAlias

    from bandwidth_mfa_async._clock import Clock

    from ._access import Access
    from ._faults import Faults
    from ._messages import Channel, Inbox, Message, RequestRecord
    from ._receipts import ReceiptSender
    from ._service import Service

    Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

CONTROL_PATH: Final = "/_simulator"
READY_PATH: Final = f"{CONTROL_PATH}/ready"
_HEADERS: Final = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_MAX_WAIT: Final = 60.0
# Separators that people write in phone numbers; the search by a part of a number ignores them.
_SEPARATORS: Final = str.maketrans("", "", " +-.()/")
_CHANNELS: Final[tuple[Channel, ...]] = ("messaging", "voice")


class Control:
    """Handles the requests to all paths that are not the service's own.

    A write with a body must be `application/json`, which a form of another site cannot send.

    Args:
        inbox: the messages that were sent.
        records: the requests that were received.
        service: the service whose limits the API changes.
        faults: the faults that the API changes.
        receipts: posts receipts again.
        clock: measures waits.
        access: refuses the requests of others.
    """

    def __init__(  # noqa: PLR0913 - the parts that it shows
        self,
        *,
        inbox: Inbox,
        records: deque[RequestRecord],
        service: Service,
        faults: Faults,
        receipts: ReceiptSender,
        clock: Clock,
        access: Access,
    ) -> None:
        self._inbox = inbox
        self._records = records
        self._service = service
        self._faults = faults
        self._receipts = receipts
        self._clock = clock
        self._access = access
        self.pages: dict[str, Mapping[str, Handler]] = {}
        """Additional paths, each with its handlers by method. The same checks apply, but any site may link to a path
        that is not below ``/_simulator``."""
        self._routes: dict[str, Mapping[str, Handler]] = {
            READY_PATH: {"GET": self._ready},
            f"{CONTROL_PATH}/messages": {"GET": self._messages, "DELETE": self._clear_messages},
            f"{CONTROL_PATH}/messages/latest": {"GET": self._latest},
            f"{CONTROL_PATH}/requests": {"GET": self._requests, "DELETE": self._clear_requests},
            f"{CONTROL_PATH}/account": {"GET": self._account},
            f"{CONTROL_PATH}/limits": {"GET": self._limits, "PUT": self._put_limits},
            f"{CONTROL_PATH}/faults": {
                "GET": self._show_faults,
                "POST": self._add_faults,
                "DELETE": self._remove_faults,
            },
            f"{CONTROL_PATH}/receipts": {"POST": self._resend_receipt},
            f"{CONTROL_PATH}/openapi.json": {"GET": self._openapi},
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Return the response to a request, or None for an unknown path."""
        handlers = self._routes.get(request.path) or self.pages.get(request.path)
        return None if handlers is None else await self._handle(request, handlers)

    async def _handle(self, request: web.BaseRequest, handlers: Mapping[str, Handler]) -> web.StreamResponse:
        try:
            is_page = not request.path.startswith(CONTROL_PATH)
            if is_page and (logged_in := self._access.log_in(request)) is not None:
                return logged_in
            if request.path != READY_PATH:  # says nothing else, and health checks use any name of the machine
                self._access.check(request, is_linkable=is_page)
            # aiohttp omits the body of the response to a HEAD.
            handler = handlers.get("GET" if request.method == "HEAD" else request.method)
            if handler is None:
                response = _json({"error": "method not allowed"}, 405)
                response.headers["Allow"] = ", ".join(handlers)
                return response
            return await handler(request)
        except ControlError as error:
            return _json({"error": error.message}, error.status)
        except web.HTTPRequestEntityTooLarge:
            return _json({"error": "the body is too large"}, 413)

    async def _ready(self, _request: web.BaseRequest) -> web.Response:
        return _json({"ready": True})

    async def _messages(self, request: web.BaseRequest) -> web.Response:
        """List messages, newest last.

        `to` selects one recipient; `number` selects messages with this part in the sender's or recipient's number.
        `limit` returns only the newest ones; `total` counts the selected messages before it applies, and `all` counts
        all messages.
        """
        to = request.query.get("to")
        part = request.query.get("number", "").translate(_SEPARATORS)
        selected = self._inbox.messages
        if to is not None:
            selected = [message for message in selected if message.to == to]
        if part:
            selected = [message for message in selected if part in message.to or part in message.from_]
        shown = _newest(selected, request)
        return _json({"messages": shown, "total": len(selected), "all": len(self._inbox.messages)})

    async def _latest(self, request: web.BaseRequest) -> web.Response:
        """Return the newest message to `to`; wait up to `wait` seconds for one that is newer than the id `after`.

        An unknown id, such as one of a message that was deleted, is older than all messages.
        """
        to = request.query.get("to")
        if to is None:
            raise ControlError(400, "the parameter to is missing; add the number, for example ?to=%2B19195551234")
        wait = _parse_wait(request.query.get("wait", "0"))
        after = self._inbox.find(request.query.get("after", ""))
        try:
            message = await self._inbox.wait(to, self._clock, wait, after)
        except TimeoutError:
            # A '+' that is not escaped arrives as a space, which is the most common mistake here.
            advice = "; write '+' as %2B" if to.startswith(" ") else ""
            newer = "" if after is None else "newer "
            raise ControlError(404, f"no {newer}message to that number{advice}") from None
        return _json(message.as_json())

    async def _clear_messages(self, _request: web.BaseRequest) -> web.Response:
        self._inbox.clear()
        return web.Response(status=204)

    async def _requests(self, request: web.BaseRequest) -> web.Response:
        """List requests, newest last; with `refused`, only refused ones. `limit` and `total` work as for messages."""
        selected: Sequence[RequestRecord] = self._records
        if "refused" in request.query:
            selected = [record for record in selected if record.refused]
        return _json({"requests": _newest(selected, request), "total": len(selected)})

    async def _clear_requests(self, _request: web.BaseRequest) -> web.Response:
        self._records.clear()
        return web.Response(status=204)

    async def _account(self, _request: web.BaseRequest) -> web.Response:
        """Return the account id; never a credential."""
        return _json({"accountId": self._service.settings.account_id})

    async def _limits(self, _request: web.BaseRequest) -> web.Response:
        limiters = self._service.limiters
        shown = {name: None if (limits := limiters[name].limits) is None else limits.as_json() for name in _CHANNELS}
        return _json(shown)

    async def _put_limits(self, request: web.BaseRequest) -> web.Response:
        """Set limits, as in ``{"messaging": {"rate": 2}, "voice": null}``; a channel that is absent keeps its limit."""
        value = await _read_object(request)
        if not value.keys() <= set(_CHANNELS):
            raise ControlError(400, "limits are for 'messaging' and 'voice'")
        try:
            changes: dict[Channel, AccountLimits | None] = {
                name: _read_limits(value[name]) for name in _CHANNELS if name in value
            }
        except InvalidOptionError as error:
            raise ControlError(400, str(error)) from None
        for name, limits in changes.items():
            self._service.change_limits(name, limits)
        return await self._limits(request)

    async def _show_faults(self, _request: web.BaseRequest) -> web.Response:
        return _json({"faults": [rule.as_json() for rule in self._faults.rules]})

    async def _add_faults(self, request: web.BaseRequest) -> web.Response:
        """Add ``{"script": [fault, ...]}`` or ``{"fault": fault, "share": 0.1}``; `operation` and `to` are optional."""
        value = await _read_object(request)
        try:
            if value.keys() <= {"script", "operation", "to"} and isinstance(value.get("script"), list):
                faults = [Fault.from_json(fault) for fault in value["script"]]
                self._faults.script(*faults, operation=value.get("operation"), to=value.get("to"))
            elif {"fault", "share"} <= value.keys() <= {"fault", "share", "operation", "to"}:
                fault = Fault.from_json(value["fault"])
                self._faults.chance(fault, value["share"], value.get("operation"), value.get("to"))
            else:
                raise ControlError(400, 'send {"script": [fault, ...]} or {"fault": fault, "share": 0.1}')
        except InvalidOptionError as error:
            raise ControlError(400, str(error)) from None
        return await self._show_faults(request)

    async def _remove_faults(self, request: web.BaseRequest) -> web.Response:
        """Remove the faults with the given `id`, a parameter that may be repeated; without it, all faults."""
        ids = request.query.getall("id", None)
        if ids is None:
            self._faults.clear()
        elif not self._faults.remove(*(_parse_whole("id", text) for text in ids)):
            raise ControlError(404, "no fault has that id; a scripted fault is removed when it is applied")
        return web.Response(status=204)

    async def _resend_receipt(self, request: web.BaseRequest) -> web.Response:
        """Post the receipt of ``{"messageId": "..."}`` again, and return the message."""
        value = await _read_object(request)
        message = self._inbox.find(str(value.get("messageId")))
        if message is None:
            raise ControlError(404, "no message has that messageId")
        try:
            self._receipts.resend(message)
        except SimulatorStateError as error:
            raise ControlError(409, str(error)) from None
        return _json(message.as_json(), 202)

    async def _openapi(self, _request: web.BaseRequest) -> web.Response:
        """Return the description of this API, in OpenAPI 3.1."""
        # In a thread, because the first call reads a file.
        body = await asyncio.to_thread(_read_openapi)
        return web.Response(body=body, headers=_HEADERS)


def _newest(selected: Sequence[Message | RequestRecord], request: web.BaseRequest) -> list[dict[str, Any]]:
    """Return the newest `limit` entries, newest last."""
    text = request.query.get("limit")
    skipped = 0 if text is None else max(0, len(selected) - _parse_whole("limit", text))
    return [each.as_json() for each in islice(selected, skipped, None)]


def _parse_whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ControlError(400, f"{name} must be a whole number")
    return int(text)


@cache
def _read_openapi() -> bytes:
    return (resources.files(__name__.rpartition(".")[0]) / "openapi.json").read_bytes()


def _read_limits(value: Any) -> AccountLimits | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidOptionError('a limit is an object such as {"rate": 60, "per": 60}, or null')
    try:
        return AccountLimits(**cast("dict[str, Any]", value))
    except TypeError:
        raise InvalidOptionError("a limit has rate, per, model, queue_seconds, burst, number and retry_after") from None


def _parse_wait(text: str) -> float:
    try:
        wait = float(text)
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= _MAX_WAIT:
        raise ControlError(400, f"wait must be from 0 to {_MAX_WAIT:g} seconds")
    return wait


async def _read_object(request: web.BaseRequest) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise ControlError(415, "the content type must be application/json")
    try:
        value = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise ControlError(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise ControlError(400, "the body must be a JSON object")
    return cast("dict[str, Any]", value)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=encode(value),
        status=status,
        headers=_HEADERS,
    )
