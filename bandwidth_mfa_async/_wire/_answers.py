"""Translates responses of the service into values and errors: statuses, headers and JSON bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import define, field, fields

from .._redaction import hide_secrets, is_id, scrub
from .._retry_after import parse_retry_after, parse_wait_hint
from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    Delivery,
    DisconnectedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ReadTimeoutError,
    ResponseDecodeError,
    ServerError,
    VerificationLockedError,
)
from ._json import STRUCTURE_HOOKS, json_name, parse_json, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..errors import RequestError
    from ._operations import Operation, Request, Response

    Secrets: TypeAlias = Callable[[], Iterable[str]]


BodyDefect: TypeAlias = Literal["timeout", "disconnected", "too large", "encoded"]
"""Why a response's body is incomplete or unreadable."""


@define
class RawResponse:
    """An HTTP response that is not interpreted yet.

    Attributes:
        status: the HTTP status; 0 if none arrived.
        headers: case-insensitive.
        body: as much of it as arrived.
        defect: why the body is incomplete or unreadable, or None.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    defect: BodyDefect | None = None


def decipher(
    operation: Operation[Request, Response], response: RawResponse, *, now: float = 0.0, secrets: Secrets = tuple
) -> Response:
    """Return the parsed response of a success, or raise the error that a response stands for.

    Args:
        operation: the operation that was requested.
        response: the response.
        now: wall time in seconds, for a `Retry-After` date in a response without `Date`.
        secrets: returns the values to remove from an error's text; called only for an error.

    Raises:
        APIStatusError: the status is 3xx, 4xx or 5xx.
        DeliveryUnknownError: a 2xx is incomplete, late, or not the documented document; or no request ends with this
            status.
    """
    if 200 <= response.status < 300:
        return _success(operation, response, secrets)
    raise status_error(operation, response, now, secrets)


def header_request_id(response: RawResponse, secrets: Secrets = tuple) -> str | None:
    """Return the request id of a response's header; None if it has none.

    Args:
        response: the response.
        secrets: returns the values that must not be in the id; called only if there is one.
    """
    # AWS gateways add this header. No source shows it on MFA, whose documented id is in the bodies of errors.
    value = response.headers.get(_REQUEST_ID_HEADER)
    return None if value is None else _checked_request_id(value, secrets)


def _success(operation: Operation[Request, Response], response: RawResponse, secrets: Secrets) -> Response:
    if response.defect == "timeout":
        raise ReadTimeoutError(
            f"the response began with status {response.status} and did not end in time",
            operation.name,
            request_id=header_request_id(response, secrets),
        )
    if response.defect == "disconnected":
        raise DisconnectedError(
            f"the connection was lost in the middle of a {response.status} response",
            operation.name,
            request_id=header_request_id(response, secrets),
        )
    document = None if response.defect else parse_json(response.body)
    try:
        parsed: Response = STRUCTURE_HOOKS[operation.response](document, operation.response)
    except Exception:  # noqa: BLE001 - cattrs raises KeyError, TypeError and its own errors for one and the same fact
        response_name, document = json_name(fields(operation.response)[0].name), None  # crash reporters show variables
    else:
        return parsed
    why = f"is {response.defect}" if response.defect else f"has no {response_name}"
    raise ResponseDecodeError(
        f"the response has status {response.status} but {why}",
        operation.name,
        request_id=header_request_id(response, secrets),
    )


# The first matching row decides. https://dev.bandwidth.com/docs/mfa/errors documents 400, 401, 403, 429 and 500.
_ERROR_CLASSES: Final[tuple[tuple[range, type[APIStatusError]], ...]] = (
    (range(400, 401), BadRequestError),
    (range(401, 402), AuthenticationError),
    (range(403, 404), PermissionDeniedError),
    (range(404, 405), NotFoundError),
    (range(429, 430), RateLimitError),
    (range(500, 600), ServerError),
    (range(300, 1000), APIStatusError),
)

_MESSAGES: Final = {
    400: "the service rejected a value",
    401: "the service received no valid credentials",
    403: "wrong credentials, or this user may not use MFA",
    404: "no such path; check base_url and account_id",
    408: "the service or a gateway waited too long for the request",
    413: "the request is too large for the service",
    429: "too many requests",
    500: "the service failed",
    502: "a gateway received no valid response from the service",
    503: "the service is unavailable",
    504: "a gateway received no response from the service in time",
}

# Rejections at the protocol level: the request was not processed.
_NOT_PROCESSED: Final = frozenset({501, 505, 511})
# Sent by a gateway, which does not know what the service behind it did.
_GATEWAY: Final = frozenset({502, 504})


def _delivery(status: int, *, from_service: bool) -> Delivery:
    """Return what an unsuccessful status proves; `from_service`: the body is the service's own error."""
    if status in _NOT_PROCESSED:
        return Delivery.REJECTED
    if status in _GATEWAY or status == 303:  # 303: the request was accepted and the result is elsewhere
        return Delivery.UNKNOWN
    if status == 408 or status >= 500:
        # "Any 4xx or 5xx is not billed" is documented for the service's own responses, not for a proxy's page.
        return Delivery.REJECTED if from_service else Delivery.UNKNOWN
    return Delivery.REJECTED


def status_error(
    operation: Operation[Request, Response], response: RawResponse, now: float, secrets: Secrets
) -> RequestError:
    """Return the error for a status other than 2xx; arguments as for `decipher`."""
    status = response.status
    if status < 300 or status >= 600:
        return ResponseDecodeError(
            f"the response has status {status}, which does not end a request",
            operation.name,
            request_id=header_request_id(response, secrets),
        )
    document = {} if response.defect else parse_object(response.body)
    text = _error_text(document, secrets)
    # The body's key is documented ("from AWS").
    request_id = _checked_request_id(document.get("requestId"), secrets) or header_request_id(response, secrets)
    retry_after = parse_retry_after(response.headers, now)
    message = f"{_MESSAGES.get(status, 'the service rejected the request')} ({status})"
    if 300 <= status < 400:
        message = f"redirected ({status}); redirects are not followed, so check base_url"
    if text:
        message = f"{message}: {text}"
    if text == "Missing Authentication Token":
        # The gateway's text for an unknown path, whatever the credentials.
        message += "; check that base_url ends in /api/v1"
    cls = next(cls for statuses, cls in _ERROR_CLASSES if status in statuses)
    if status == 429 and not operation.sends:
        cls = VerificationLockedError
        message = f"this number is locked after too many wrong codes (429){f': {text}' if text else ''}"
        retry_after = parse_wait_hint(text) if retry_after is None else retry_after
    return cls(
        message,
        operation.name,
        _delivery(status, from_service=isinstance(document.get("error"), str)),
        1,
        0.0,
        request_id,
        retry_after,
        None,
        status,
        text,
    )


def _error_text(document: dict[str, Any], secrets: Secrets) -> str | None:
    # error: 400, 429, 500; message: 401; Message: 403 in the prose; result: until 2021; description: messaging's 429.
    for key in ("error", "message", "Message", "result", "description"):
        value = document.get(key)
        if isinstance(value, str) and value:
            return scrub(value, secrets())
    return None


_REQUEST_ID_HEADER: Final = "x-amzn-requestid"


def _checked_request_id(value: object, secrets: Secrets) -> str | None:
    return value if is_id(value) and hide_secrets(value, secrets()) == value else None
