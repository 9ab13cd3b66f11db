"""Receiver of delivery receipts as an ASGI 3 application, without a framework.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .._frames import clears_locals
from ._receiver import MAX_BODY, TOO_LARGE, Receiver

if TYPE_CHECKING:
    from typing import Unpack

    from ._receiver import OnReceipt, ReceiverOptions, Reply

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


class ReceiptASGIApp:
    """ASGI application that receives delivery receipts on every path; made by `receipt_asgi_app`."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one connection scope of ASGI."""
        if scope["type"] == "http":
            reply = await self._handle(scope, receive)
            if reply is not None:
                await _respond(reply, send)
        elif scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            msg = f"this application serves http, not {scope['type']}"
            raise ValueError(msg)

    async def _handle(self, scope: _Message, receive: _Receive) -> Reply | None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape"))
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None
        reply = self._receiver.check_head(scope["method"], headers.get("authorization"), length)
        if reply is not None:
            return reply
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                return TOO_LARGE
            more = message.get("more_body", False)
        return await self._receiver.receive(bytes(body))


@clears_locals
def receipt_asgi_app(on_receipt: OnReceipt, **options: Unpack[ReceiverOptions]) -> ReceiptASGIApp:
    """Return an ASGI 3 application that receives delivery receipts on every path.

    In Starlette and FastAPI, use ``app.add_route("/mfa/receipts", receipt_asgi_app(tracker), methods=["POST"])``.
    ``app.mount`` would redirect URLs without a trailing slash, and it is not documented that the sender follows
    redirects. It can also run directly under an ASGI server. Its responses are those of `receipt_handler`.

    Args:
        on_receipt: a `DeliveryTracker`, or a function or coroutine function that takes a `DeliveryReceipt`; called once
            for each message id and type.
        **options: the `ReceiverOptions`: Basic credentials, time and number of callbacks, what is remembered.

    Raises:
        ConfigurationError: an option is invalid.
    """
    return ReceiptASGIApp(Receiver(on_receipt, options))


async def _respond(reply: Reply, send: _Send) -> None:
    body = reply.text.encode()
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if reply.status != 204:
        headers += [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve_lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
