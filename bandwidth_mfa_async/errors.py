"""Everything that can go wrong, and what is known about the message when it does. No I/O.

::

    MFAError
    ├─ ConfigurationError                    a constructor argument or the environment is wrong
    ├─ InvalidRequestError (ValueError)      a request's field breaks a rule; nothing was sent
    ├─ ClientStateError (RuntimeError)       closed, used in another event loop, or in a forked process
    ├─ JournalError                          a bulk run's journal cannot be read or written; says what to do
    ├─ LedgerError                           the workers' ledger cannot be used, or belongs to something else
    └─ RequestError                          a call did not succeed; `.delivery` says what that means
       ├─ NotSentError (ConnectionError)     the request never left this process
       │  ├─ ConnectTimeoutError (TimeoutError)
       │  └─ TLSError
       ├─ DeliveryUnknownError               written, and no trustworthy answer
       │  ├─ ReadTimeoutError (TimeoutError)
       │  ├─ DisconnectedError (ConnectionError)
       │  └─ ResponseDecodeError
       ├─ DeadlineExceededError (TimeoutError)   the whole call's time ran out between attempts
       └─ APIStatusError                     the service (or a gateway before it) answered no
          ├─ BadRequestError                 400
          ├─ AuthenticationError             401
          ├─ PermissionDeniedError           403
          ├─ NotFoundError                   404
          ├─ RateLimitError                  429, or our own limiter (`.local`)
          │  └─ VerificationLockedError      429 on a verify: too many wrong codes for that number
          └─ ServerError                     5xx

Every error can be pickled and rebuilt as ``type(error)(*error.args)``; none holds a phone number, a code, a body
or a credential.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final, Literal, TypeAlias

StopReason: TypeAlias = Literal["attempts", "budget", "deadline", "retry_after", "closed"]
"""Why a call that could have been tried again was not."""


class Delivery(enum.StrEnum):
    """What is known about the message (or the check) after a call."""

    ACCEPTED = "accepted"
    """The service took it and named it."""
    REJECTED = "rejected"
    """The service answered no; nothing was sent."""
    NOT_SENT = "not_sent"
    """The request never left: nothing was sent."""
    UNKNOWN = "unknown"
    """The request was written and no trustworthy answer came: it may have been sent."""
    INVALID = "invalid"
    """An item of a bulk run that breaks a rule: nothing was sent. Calls raise `InvalidRequestError` instead."""
    SKIPPED = "skipped"
    """An item of a bulk run that was done before, by its journal: nothing was sent now."""

    def __repr__(self) -> str:
        return f"Delivery.{self.name}"


class MFAError(Exception):
    """Base of every error this library raises on purpose."""


class ConfigurationError(MFAError):
    """A setting is wrong or missing; raised before any I/O, and says what to change."""


class InvalidRequestError(MFAError, ValueError):
    """A request's field breaks a rule; raised when the request is made, and nothing was sent.

    Attributes:
        field: the field's Python name.
        rule: what it must be. The offending value is never part of the error.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


class ClientStateError(MFAError, RuntimeError):
    """The client cannot be used here: it is closed, bound to another event loop, or was made before a fork."""


class JournalError(MFAError):
    """A bulk run's journal cannot be read or written, or belongs to something else; nothing is sent without it."""


class LedgerError(MFAError):
    """The workers' ledger cannot be used, or a job in it is not this one; nothing is sent without it."""


_FIELDS: Final = (
    "message",
    "operation",
    "delivery",
    "attempts",
    "elapsed",
    "request_id",
    "retry_after",
    "retry_stopped_by",
)


class RequestError(MFAError):
    """A call did not succeed.

    Attributes:
        message: what happened, in one lower-case line.
        operation: the client method, such as ``"generate_messaging_code"``.
        delivery: what is known about the message; the worst attempt of the call decides.
        attempts: how many times the request was tried.
        elapsed: seconds from the call to this error.
        request_id: the service's ``requestId``, when it gave one.
        retry_after: seconds the service asked to wait, when it did.
        retry_stopped_by: why a failure that may be retried was not tried again: ``"attempts"``, ``"budget"``,
            ``"deadline"``, ``"retry_after"`` (asked to wait too long) or ``"closed"``; None when a failure of its
            kind is never retried.
    """

    _default_delivery: ClassVar[Delivery] = Delivery.UNKNOWN
    _extra_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(  # noqa: PLR0913 - every datum is an argument, so that args rebuild the error
        self,
        message: str = "the request failed",
        operation: str | None = None,
        delivery: Delivery | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        request_id: str | None = None,
        retry_after: float | None = None,
        retry_stopped_by: StopReason | None = None,
        *extra: object,
    ) -> None:
        # A task queue that speaks JSON gives the word back, not the member.
        delivery = self._default_delivery if delivery is None else Delivery(delivery)
        values = (message, operation, delivery, attempts, elapsed, request_id, retry_after, retry_stopped_by, *extra)
        # OSError, an ancestor of some subclasses, would read a pair of arguments as errno and text.
        Exception.__init__(self, *values)
        self.message = message
        self.operation = operation
        self.delivery = delivery
        self.attempts = attempts
        self.elapsed = elapsed
        self.request_id: str | None = request_id
        self.retry_after: float | None = retry_after
        self.retry_stopped_by: StopReason | None = retry_stopped_by

    def __str__(self) -> str:
        where = f"{self.operation}: " if self.operation else ""
        details = [f"delivery {self.delivery.value}"]
        if self.request_id:
            details.append(f"request id {self.request_id}")
        if self.retry_after is not None:
            details.append(f"retry after {self.retry_after:.3g} s")
        return f"{where}{self.message} ({', '.join(details)})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, attempts={self.attempts})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__ or None

    def _update(self, **changes: Any) -> None:
        """Replace data of this error, keeping `args` able to rebuild it."""
        names = (*_FIELDS, *self._extra_fields)
        values = {name: changes.get(name, getattr(self, name)) for name in names}
        for name, value in values.items():
            setattr(self, name, value)
        self.args: tuple[Any, ...] = tuple(values.values())


class NotSentError(RequestError, ConnectionError):
    """The request never left this process: DNS, a refused connection, the pool; sending again is safe."""

    _default_delivery = Delivery.NOT_SENT


class ConnectTimeoutError(NotSentError, TimeoutError):
    """No connection was made in time."""


class TLSError(NotSentError):
    """The TLS handshake failed or the certificate is not to be trusted; never retried."""


class DeliveryUnknownError(RequestError):
    """The request was written and no trustworthy answer came: the person may or may not get a code."""


class ReadTimeoutError(DeliveryUnknownError, TimeoutError):
    """The answer did not come, or not whole, in time."""


class DisconnectedError(DeliveryUnknownError, ConnectionError):
    """The connection was cut after the request was written."""


class ResponseDecodeError(DeliveryUnknownError):
    """The answer says success but cannot be read as one, or is not HTTP."""


class DeadlineExceededError(RequestError, TimeoutError):
    """The call's `timeout` ran out while it waited for a permit, a slot, a token or a connection."""

    _default_delivery = Delivery.NOT_SENT


class APIStatusError(RequestError):
    """The service, or a gateway in front of it, answered with a status that is not success.

    Attributes:
        status: the HTTP status.
        error_text: the service's own words, scrubbed of numbers and secrets; None when it gave none.
    """

    _default_delivery = Delivery.REJECTED
    _extra_fields: ClassVar[tuple[str, ...]] = ("status", "error_text")

    def __init__(  # noqa: PLR0913 - every datum is an argument, so that args rebuild the error
        self,
        message: str = "the service answered no",
        operation: str | None = None,
        delivery: Delivery | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        request_id: str | None = None,
        retry_after: float | None = None,
        retry_stopped_by: StopReason | None = None,
        status: int = 0,
        error_text: str | None = None,
        *extra: object,
    ) -> None:
        super().__init__(
            message,
            operation,
            delivery,
            attempts,
            elapsed,
            request_id,
            retry_after,
            retry_stopped_by,
            status,
            error_text,
            *extra,
        )
        self.status = status
        self.error_text = error_text


class BadRequestError(APIStatusError):
    """400: a value was refused by the service."""


class AuthenticationError(APIStatusError):
    """401: no credentials reached the service, or it does not know them."""


class PermissionDeniedError(APIStatusError):
    """403: wrong credentials, or a user without the right to use MFA."""


class NotFoundError(APIStatusError):
    """404: no such path; usually a wrong base URL or account id."""


class RateLimitError(APIStatusError):
    """429: too many requests, or our own limiter says the wait would outlast the call.

    Attributes:
        local: True when this library refused the call before sending it.
    """

    _extra_fields: ClassVar[tuple[str, ...]] = ("status", "error_text", "local")

    def __init__(  # noqa: PLR0913 - every datum is an argument, so that args rebuild the error
        self,
        message: str = "too many requests",
        operation: str | None = None,
        delivery: Delivery | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        request_id: str | None = None,
        retry_after: float | None = None,
        retry_stopped_by: StopReason | None = None,
        status: int = 429,
        error_text: str | None = None,
        local: bool = False,  # noqa: FBT001, FBT002 - positional, so that args rebuild the error
    ) -> None:
        super().__init__(
            message,
            operation,
            delivery,
            attempts,
            elapsed,
            request_id,
            retry_after,
            retry_stopped_by,
            status,
            error_text,
            local,
        )
        self.local = local


class VerificationLockedError(RateLimitError):
    """429 on a verify: too many wrong codes for this number; `retry_after` says how long, when the service did.

    Not a rate: other numbers can still be verified. https://dev.bandwidth.com/docs/mfa/errors
    """


class ServerError(APIStatusError):
    """5xx: the service or a gateway failed; `delivery` says whether the service itself answered."""
