"""Receiver of delivery receipts for `aiohttp.web`; imports aiohttp when a handler is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._frames import clears_locals
from ._receiver import MAX_BODY, TOO_LARGE, UNREADABLE, Receiver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Unpack

    from aiohttp import web

    from ._receiver import OnReceipt, ReceiverOptions, Reply


@clears_locals
def receipt_handler(
    on_receipt: OnReceipt, **options: Unpack[ReceiverOptions]
) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    """Return an aiohttp handler that receives delivery receipts.

    It answers:

    - 204: the receipt was handled, now or earlier;
    - 400: the body is not a receipt;
    - 401: the credentials are missing or wrong;
    - 405: the method is not POST;
    - 413: the body is larger than 64 KiB;
    - 500: the callback raised an exception or did not end in time, so the sender should retry. Bandwidth retries for
      24 hours in North America and never elsewhere (https://dev.bandwidth.com/docs/mfa/webhooks);
    - 503: too many requests wait for the callback.

    For MFA, neither the sender's reaction to a response nor its timeout is documented. The messaging platform expects
    a 2xx within 10 s, so the callback should return quickly.

    Args:
        on_receipt: a `DeliveryTracker`, or a function or coroutine function that takes a `DeliveryReceipt`. It is
            called once for each message id and type, in the server's event loop.
        **options: the `ReceiverOptions`: Basic credentials, time and number of callbacks, what is remembered.

    Raises:
        ConfigurationError: an option is invalid.
    """
    from aiohttp import web

    receiver = Receiver(on_receipt, options)

    async def handle(request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        reply = receiver.check_head(request.method, request.headers.get("Authorization"), request.content_length)
        if reply is None:
            try:
                body = await _read_body(request)
            except (web.RequestPayloadError, ConnectionError):
                # The body is not valid gzip, or the sender disconnected and cannot read the response.
                reply = UNREADABLE
            else:
                reply = TOO_LARGE if body is None else await receiver.receive(body)
        return _response(reply)

    def _response(reply: Reply) -> web.Response:
        text = reply.text or None
        return web.Response(status=reply.status, text=text, headers=dict(reply.headers))

    return handle


@clears_locals
def add_receipt_route(
    app: web.Application, path: str, on_receipt: OnReceipt, **options: Unpack[ReceiverOptions]
) -> None:
    """Receive delivery receipts on a path of an aiohttp application.

    Args:
        app: the application; it must not be running yet.
        path: for example ``"/mfa/receipts"``. The `callback_url` of a request is the application's public address plus
            this path.
        on_receipt: a `DeliveryTracker`, or a function or coroutine function that takes a `DeliveryReceipt`; called once
            for each message id and type.
        **options: the `ReceiverOptions`: Basic credentials, time and number of callbacks, what is remembered.

    Raises:
        ConfigurationError: an option is invalid.
    """
    app.router.add_post(path, receipt_handler(on_receipt, **options))


async def _read_body(request: web.BaseRequest) -> bytes | None:
    """Return the body, or None if it is larger than `MAX_BODY`; ignore its Content-Length."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)
