"""Receipts through `aiohttp.web`, which is imported when a handler is made and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._receiver import MAX_BODY, TOO_LARGE, UNREADABLE, Receiver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Unpack

    from aiohttp import web

    from ._receiver import OnReceipt, ReceiverOptions, Reply


def receipt_handler(
    on_receipt: OnReceipt, **options: Unpack[ReceiverOptions]
) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    """Return an aiohttp handler that takes posted receipts.

    It answers 204 to a receipt that was handled, now or before; 400 to a body that is none; 401 without the right
    credentials; 405 to other methods; 413 above 64 KiB; 500 when the callback raised, so that the sender tries again
    (for 24 hours in North America and never elsewhere: https://dev.bandwidth.com/docs/mfa/webhooks).
    What the sender makes of an answer and how long it waits for one is not documented for MFA; the messaging platform
    wants a 2xx within 10 s, so let the callback be quick.

    Args:
        on_receipt: a `DeliveryTracker`, or a function or coroutine function of a `DeliveryReceipt`; called once for
            each message id and type, in the server's event loop.
        **options: see `ReceiverOptions`.

    Raises:
        ConfigurationError: an option cannot work.
    """
    from aiohttp import web

    receiver = Receiver(on_receipt, options)

    async def handle(request: web.BaseRequest) -> web.Response:
        """Answer one receipt."""
        reply = receiver.check_head(request.method, request.headers.get("Authorization"), request.content_length)
        if reply is None:
            try:
                body = await _read_body(request)
            except (web.RequestPayloadError, ConnectionError):
                # Gzip that is none, or a sender that left in the middle and will not see the answer.
                reply = UNREADABLE
            else:
                reply = TOO_LARGE if body is None else await receiver.receive(body)
        return _response(reply)

    def _response(reply: Reply) -> web.Response:
        text = reply.text or None
        return web.Response(status=reply.status, text=text, headers=dict(reply.headers))

    return handle


def add_receipt_route(
    app: web.Application, path: str, on_receipt: OnReceipt, **options: Unpack[ReceiverOptions]
) -> None:
    """Take receipts that are posted to a path of an aiohttp application.

    Args:
        app: the application, before it is started.
        path: such as ``"/mfa/receipts"``; `callback_url` is this application's public address and this path.
        on_receipt: see `receipt_handler`.
        **options: see `ReceiverOptions`.

    Raises:
        ConfigurationError: an option cannot work.
    """
    app.router.add_post(path, receipt_handler(on_receipt, **options))


async def _read_body(request: web.BaseRequest) -> bytes | None:
    """Return the body, or None when it is too large, whatever its Content-Length says."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)
