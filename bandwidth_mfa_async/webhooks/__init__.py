"""Delivery receipts: what became of a text after the service took it, received over HTTP and waited for.

A `CodeRequest` with a `callback_url` makes the service post one receipt there. Mount a receiver at that address,
`add_receipt_route` for aiohttp or `receipt_asgi_app` for everything that speaks ASGI, and give it a callback or a
`DeliveryTracker`::

    tracker = DeliveryTracker()
    add_receipt_route(app, "/mfa/receipts", tracker)
    ...
    sent = await mfa.generate_messaging_code(request)
    receipt = await tracker.wait(sent.message_id, timeout=30)
    if not receipt.delivered:
        ...

Receipts exist for texts only; none is documented for voice calls. They are not signed, and MFA has no documented way
to authenticate them: an address that cannot be guessed, and `auth` where the sender answers a Basic challenge, are
what there is. So let a receipt change what a page shows, never who is let in.
"""

from __future__ import annotations

from ._aiohttp import add_receipt_route, receipt_handler
from ._asgi import ReceiptASGIApp, receipt_asgi_app
from ._errors import ReceiptTimeoutError, WebhookError
from ._families import ErrorFamily, error_family
from ._receipt import DeliveryReceipt, parse_delivery_receipt
from ._receiver import OnReceipt, ReceiverOptions
from ._tracker import DeliveryTracker

__all__ = [
    "DeliveryReceipt",
    "DeliveryTracker",
    "ErrorFamily",
    "OnReceipt",
    "ReceiptASGIApp",
    "ReceiptTimeoutError",
    "ReceiverOptions",
    "WebhookError",
    "add_receipt_route",
    "error_family",
    "parse_delivery_receipt",
    "receipt_asgi_app",
    "receipt_handler",
]
