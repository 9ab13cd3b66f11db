"""`Outcome`: the scripted outcome of one attempt of a `FakeTransport`."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import field, frozen

from .._concise import ConciseType
from ..errors import DeliveryUnknownError, DisconnectedError, NotSentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attrs import Attribute

    from ..errors import RequestError

Operation: TypeAlias = Literal["messaging", "voice", "verify", "token"]
Body: TypeAlias = "bytes | str | dict[str, Any] | list[Any] | None"

_HEADER = re.compile(r"[\x21-\x7e]+: ?[^\r\n]*")
REQUEST_ID: Final = "00000000-0000-4000-8000-000000000001"


def _to_bytes(value: Body) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _to_headers(value: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(text) for name, text in (value or {}).items()}


def _check_headers(_instance: object, _attribute: Attribute[Any], value: dict[str, str]) -> None:
    if not all(_HEADER.fullmatch(f"{name}: {text}") for name, text in value.items()):
        raise ValueError("headers: a name or a value cannot be sent")


def _check_status(_instance: object, _attribute: Attribute[Any], value: int | None) -> None:
    if value is not None and not 200 <= value <= 599:
        raise ValueError("status must be from 200 to 599")


def _check_delay(_instance: object, _attribute: Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError("delay must be a number of seconds, at least 0")


def _check_error(_instance: object, _attribute: Attribute[Any], value: object) -> None:
    if value is None or (isinstance(value, type) and issubclass(value, (NotSentError, DeliveryUnknownError))):
        return
    raise ValueError("error must be NotSentError, DeliveryUnknownError or a class below them")


@frozen(kw_only=True)
class Outcome(metaclass=ConciseType):
    """The outcome of one attempt. Make it with a class method: `accepted`, `answer`, `not_sent` and so on.

    Attributes:
        status: HTTP status of the response; None for no response.
        body: body of the response; None for the documented body of the status.
        headers: headers of the response.
        identifier: `messageId` or `callId` of a success; None for a new one.
        error: error class that the attempt raises instead of returning a response.
        delay: delay in seconds of the client's clock; `math.inf` for a server that never answers.
    """

    status: int | None = field(default=None, validator=_check_status)
    body: bytes | None = field(default=None, converter=_to_bytes, repr=False)
    headers: dict[str, str] = field(factory=dict, converter=_to_headers, validator=_check_headers)
    identifier: str | None = None
    error: type[RequestError] | None = field(default=None, validator=_check_error)
    delay: float = field(default=0.0, validator=_check_delay)

    @property
    def written(self) -> bool:
        """Whether the request is written, so that a person may get a code."""
        return self.error is None or not issubclass(self.error, NotSentError)

    @classmethod
    def accepted(cls, identifier: str | None = None, *, delay: float = 0.0) -> Outcome:
        """Accept a text or a voice call; answer a verify according to `FakeTransport.code`.

        Args:
            identifier: the `messageId` or `callId`; None for a new one.
            delay: seconds of the clock before the response.
        """
        return cls(status=200, identifier=identifier, delay=delay)

    @classmethod
    def verified(cls, valid: bool = True, *, delay: float = 0.0) -> Outcome:  # noqa: FBT001, FBT002 - reads well as `verified(False)`
        """Answer a verify with ``{"valid": ...}``, regardless of the code.

        Args:
            valid: the value to answer.
            delay: seconds of the clock before the response.
        """
        return cls(status=200, body={"valid": valid}, delay=delay)

    @classmethod
    def answer(
        cls, status: int, body: Body = None, *, headers: Mapping[str, object] | None = None, delay: float = 0.0
    ) -> Outcome:
        """Answer with any status, for example ``answer(429, headers={"Retry-After": 2})``.

        Args:
            status: HTTP status, 200 to 599.
            body: bytes, text, or a dict or list to send as JSON; None for the documented body of the status, or an
                empty body if none is documented.
            headers: headers of the response.
            delay: seconds of the clock before the response.
        """
        return cls(status=status, body=body, headers=headers, delay=delay)

    @classmethod
    def not_sent(cls, error: type[NotSentError] = NotSentError, *, delay: float = 0.0) -> Outcome:
        """Fail before the request is written: no code is sent.

        Args:
            error: `NotSentError`, `ConnectTimeoutError` or `TLSError`.
            delay: seconds of the clock before the failure, at most `connect_timeout`.
        """
        return cls(error=error, delay=delay)

    @classmethod
    def unknown(cls, error: type[DeliveryUnknownError] = DisconnectedError, *, delay: float = 0.0) -> Outcome:
        """Fail after the request was written: it is unknown whether a code was sent.

        Args:
            error: `DisconnectedError`, `ReadTimeoutError` (raised without waiting for a timeout) or
                `ResponseDecodeError`.
            delay: seconds of the clock before the failure, at most `attempt_timeout`.
        """
        return cls(error=error, delay=delay)

    @classmethod
    def silence(cls) -> Outcome:
        """Accept the request and never answer: the attempt ends after `attempt_timeout` (30 s by default)."""
        return cls(status=200, delay=math.inf)


# https://dev.bandwidth.com/docs/mfa/errors. The bodies of 401 and 403 come from a gateway; their keys differ.
_DOCUMENTED: Final[dict[int, dict[str, str]]] = {
    400: {"error": "400 Request is malformed or invalid", "requestId": REQUEST_ID},
    401: {"message": "Unauthorized"},
    403: {"Message": "User is not authorized to access this resource with an explicit deny"},
    # The body of a send's 429 is not documented; this is MFA's usual error shape.
    429: {"error": "Too many requests", "requestId": REQUEST_ID},
    500: {"error": "Internal Error", "requestId": REQUEST_ID},
}
_LOCKED_OUT: Final = {
    "error": "This number has exceeded verification attempts, please wait 2 minutes",
    "requestId": REQUEST_ID,
}


def documented_body(status: int, operation: Operation) -> bytes:
    """Return the documented body of an error status; empty if none is documented."""
    if status == 429 and operation == "verify":
        return json.dumps(_LOCKED_OUT).encode()
    known = _DOCUMENTED.get(status)
    return b"" if known is None else json.dumps(known).encode()
