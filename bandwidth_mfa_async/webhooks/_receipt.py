"""`DeliveryReceipt` and its parser.

https://dev.bandwidth.com/docs/mfa/webhooks (Bandwidth/api-docs `site/docs/mfa/webhooks`, 2022 and 2023).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

from attrs import field, frozen

from .._concise import ConciseType
from .._frames import clears_locals
from .._redaction import is_id, scrub
from ._errors import OtherEventError, WebhookError
from ._families import error_family

if TYPE_CHECKING:
    from ._families import ErrorFamily

DELIVERED: Final = "message-delivered"
FAILED: Final = "message-failed"

ReceiptBody: TypeAlias = bytes | str | Mapping[str, Any] | Sequence[Any]

# The messaging platform's types, such as message-received: words, so that a log of the type reveals no number.
_EVENT_TYPE = re.compile(r"(?=.{1,64}\Z)[a-z]+(-[a-z]+)*")
_ERROR_CODE = re.compile(r"[0-9]{1,9}", re.ASCII)
_MAX_TEXT_LENGTH: Final = 500


def _scrubbed_repr(text: str | None) -> str:
    return "None" if text is None else repr(scrub(text))


@frozen(kw_only=True)
class DeliveryReceipt(metaclass=ConciseType):
    """The delivery receipt of one text.

    Attributes:
        message_id: the same id as `MessagingCodeResponse.message_id`.
        delivered: True if the text was handed to the carrier; that does not mean that the person has read it.
        type: ``"message-delivered"`` or ``"message-failed"``.
        time: time of the event; None if it is missing, unreadable or without a UTC offset.
        description: the service's text, at most 500 characters. International failures may say ``No error``.
        platform: ``"NorthAmericaSMS"`` (numbers that begin with +1) or ``"GlobalSMS"``.
        error_code: error code of a failure; None on success, and if it is missing or not a whole number.
    """

    message_id: str
    delivered: bool
    type: str
    time: datetime | None = None
    description: str | None = field(default=None, repr=_scrubbed_repr)
    platform: str | None = field(default=None, repr=_scrubbed_repr)
    error_code: int | None = None

    @property
    def error_family(self) -> ErrorFamily | None:
        """The documented facts about the error code; None if it is not documented."""
        return error_family(self.error_code, self.platform)


@clears_locals
def parse_delivery_receipt(body: ReceiptBody) -> DeliveryReceipt:
    """Parse the body of a posted receipt.

    Accepts the documented single object and an array of one object: if the Dashboard's 2FA callback URL is changed,
    North American receipts arrive in the format of the Messaging API, as an array whose objects have the same keys.
    Ignores unknown keys. The documented examples contain a trailing comma, so they are not JSON and are refused.

    Args:
        body: the raw body or its parsed JSON.

    Raises:
        OtherEventError: it is an event of another type.
        WebhookError: the body is not JSON or not one object, its event type is invalid, or it has no valid message id.
    """
    document = _parse_json(body)
    if _is_array(document):
        if len(document) != 1:
            msg = f"a receipt must be one JSON object or an array of one object; this array contains {len(document)}"
            raise WebhookError(msg)
        document = document[0]
    if not _is_object(document):
        raise WebhookError("a receipt must be a JSON object")
    kind = document.get("type")
    if kind not in (DELIVERED, FAILED):
        if isinstance(kind, str) and _EVENT_TYPE.fullmatch(kind):
            raise OtherEventError(kind)
        raise WebhookError(f"type must be {DELIVERED!r} or {FAILED!r}")
    message = document.get("message")
    message_id = message.get("id") if _is_object(message) else None
    if not is_id(message_id):
        raise WebhookError("message.id must be 1 to 128 printable characters without spaces")
    return DeliveryReceipt(
        message_id=message_id,
        delivered=kind == DELIVERED,
        type=kind,
        time=_parse_time(document.get("time")),
        description=_parse_text(document.get("description")),
        platform=_parse_text(document.get("platform")),
        error_code=_parse_error_code(document.get("errorCode")),
    )


def _is_array(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _parse_json(body: Any) -> Any:
    if isinstance(body, (bytearray, memoryview)):
        body = bytes(cast("bytearray | memoryview[int]", body))
    if not isinstance(body, (bytes, str)):
        return body
    try:
        return json.loads(body.decode() if isinstance(body, bytes) else body)
    except (ValueError, RecursionError):
        pass  # raise outside: the parser's error contains the whole body
    raise WebhookError("the body is not JSON in UTF-8")


def _parse_time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    # The documented format ends in Z; the meaning of a time without an offset is not documented.
    return moment if moment.tzinfo is not None else None


def _parse_text(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    # JSON can contain lone surrogates, which UTF-8 cannot encode.
    return value[:_MAX_TEXT_LENGTH].encode("utf-8", "replace").decode()


def _parse_error_code(value: object) -> int | None:
    if isinstance(value, str) and _ERROR_CODE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
        return value
    return None
