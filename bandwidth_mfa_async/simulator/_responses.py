"""The response bodies of the service and its gateway, with their sources."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

# Bandwidth's MFA pages show this content type on every response.
CONTENT_TYPE: Final = "application/json; charset=utf-8"

# https://dev.bandwidth.com/docs/mfa/errors (2021-02 to today)
UNAUTHORIZED: Final = b'{"message":"Unauthorized"}'
FORBIDDEN: Final = b'{"Message":"User is not authorized to access this resource with an explicit deny"}'
LOCKED_TEXT: Final = "This number has exceeded verification attempts, please wait 2 minutes"
INTERNAL_TEXT: Final = "Internal Error"
# multi-factor-auth.yml v3.1.0: the example of a 403, and Amazon API Gateway's text for an unknown path or method.
NO_ROUTE: Final = b'{"message":"Missing Authentication Token"}'
# multi-factor-auth.yml v3.1.0: the example of a 400.
MALFORMED_TEXT: Final = "400 Request is malformed or invalid"
# https://dev.bandwidth.com/docs/messaging/rateLimits (2023-03-02): the Messaging API's own 429.
QUEUE_FULL_TEXT: Final = (
    "The SMS queue for your account is full and cannot accept more messages right now. Your allowed rate is {rate} "
    "messages per minute. The capacity of this queue is {capacity} messages ({minutes} minutes). Reduce your message "
    "sending rate, or contact support to increase your allowed rate."
)
# https://dev.bandwidth.com/docs/voice/errors: the Voice API's own 429.
CALL_RATE_TEXT: Final = "Account call creation rate limit exceeded"

# Amazon API Gateway's and load balancer's usual texts; Bandwidth documents none of these statuses for MFA.
_GATEWAY_TEXTS: Final[Mapping[int, str]] = {
    404: "Not Found",
    413: "Request Too Long",
    502: "Internal server error",
    503: "Service Unavailable",
    504: "Endpoint request timed out",
}


@frozen
class SimulatedResponse:
    """A response; `reason` says why the request was rejected, and `message_id` which message it sent, if it did."""

    status: int
    body: bytes
    reason: str = ""
    headers: Mapping[str, str] = field(factory=dict[str, str])
    to: str | None = None
    message_id: str | None = None


def rejection(
    status: int, text: str, request_id: str, *, to: str | None = None, retry_after: int | None = None
) -> SimulatedResponse:
    """Return a response in MFA's error format, ``{"error": ..., "requestId": ...}``."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return SimulatedResponse(status, encode({"error": text, "requestId": request_id}), text, headers, to)


def documented(status: int, operation: str, request_id: str) -> bytes:
    """Return the body for a status: the one that Bandwidth documents, otherwise the gateway's usual one.

    Not known: MFA's body of a 429 on a send. It has the format of MFA's other errors and the Messaging API's text here.
    """
    if status == 401:
        return UNAUTHORIZED
    if status == 403:
        return FORBIDDEN
    text = {400: MALFORMED_TEXT, 500: INTERNAL_TEXT}.get(status)
    if status == 429:
        text = {"verify": LOCKED_TEXT, "voice": CALL_RATE_TEXT}.get(operation)
        text = text or QUEUE_FULL_TEXT.format(rate=60, capacity=900, minutes=15)
    if text is not None:
        return encode({"error": text, "requestId": request_id})
    return encode({"message": _GATEWAY_TEXTS.get(status) or phrase(status)})


def phrase(status: int) -> str:
    """Return the reason phrase of a status, or "Unknown" if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def encode(value: Any) -> bytes:
    """Return compact JSON in ASCII, which can represent lone surrogates."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")
