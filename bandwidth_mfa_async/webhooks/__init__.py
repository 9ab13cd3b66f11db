"""Delivery receipts: receivers for aiohttp and ASGI, and a tracker that waits for the receipt of a text.

For a `CodeRequest` with a `callback_url`, the service posts one receipt to this URL. Serve the URL with
`add_receipt_route` (aiohttp) or `receipt_asgi_app` (any ASGI server), and pass it a callback or a `DeliveryTracker`::

    tracker = DeliveryTracker()
    add_receipt_route(app, "/mfa/receipts", tracker)
    ...
    sent = await mfa.generate_messaging_code(request)
    receipt = await tracker.wait(sent.message_id, timeout=30)
    if not receipt.delivered:
        ...

Receipts are documented for texts only, not for voice calls. They are not signed, and MFA documents no way to
authenticate them. The only protections are a URL that cannot be guessed, and `auth` if the sender answers a Basic
challenge. So use a receipt to inform a person, never to sign a person in.
"""

from __future__ import annotations

from ._aiohttp import add_receipt_route, receipt_handler
from ._asgi import ReceiptASGIApp, receipt_asgi_app
from ._errors import OtherEventError, ReceiptTimeoutError, WebhookError
from ._families import ErrorFamily, error_family
from ._receipt import DeliveryReceipt, parse_delivery_receipt
from ._receiver import OnReceipt, ReceiverOptions
from ._tracker import DeliveryTracker

__all__ = [
    "DeliveryReceipt",
    "DeliveryTracker",
    "ErrorFamily",
    "OnReceipt",
    "OtherEventError",
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
