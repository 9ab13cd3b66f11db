"""The errors of this library, and what each one says about the delivery of the message.

::

    MFAError
    ├─ ConfigurationError                    a constructor argument or the environment is wrong
    ├─ InvalidRequestError (ValueError)      a request's field breaks a rule; nothing was sent
    ├─ ClientStateError (RuntimeError)       closed, used in another event loop, or in a forked process
    ├─ JournalError                          a bulk run's journal cannot be read or written; says what to do
    ├─ LedgerError                           the workers' ledger cannot be used, or belongs to something else
    └─ RequestError                          a call did not succeed; `.delivery` says what is known
       ├─ NotSentError (ConnectionError)     the request never left this process
       │  ├─ ConnectTimeoutError (TimeoutError)
       │  └─ TLSError
       ├─ DeliveryUnknownError               written, and no trustworthy response
       │  ├─ ReadTimeoutError (TimeoutError)
       │  ├─ DisconnectedError (ConnectionError)
       │  ├─ ResponseDecodeError
       │  └─ KeyInFlightError                another call with the same idempotency key is in flight
       ├─ DeadlineExceededError (TimeoutError)   the whole call's time ran out between attempts
       ├─ StoreError                         the store of idempotency keys cannot be used; nothing was sent
       ├─ GuardRefusedError                  the guard, or a limit of the sign-in, refused the send; nothing was sent
       └─ APIStatusError                     the service, or a gateway in front of it, rejected the request
          ├─ BadRequestError                 400
          ├─ AuthenticationError             401
          ├─ PermissionDeniedError           403
          ├─ NotFoundError                   404
          ├─ RateLimitError                  429, or our own limiter (`.local`)
          │  └─ VerificationLockedError      429 on a verify: too many wrong codes for that number
          └─ ServerError                     5xx

Every error can be pickled and rebuilt as ``type(error)(*error.args)``. No error contains a phone number, a code, a
body or a credential.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final, Literal, TypeAlias

from ._redaction import printable

StopReason: TypeAlias = Literal["attempts", "budget", "deadline", "retry_after", "closed", "credentials", "not_after"]
"""Why a retryable call was not retried."""


class Delivery(enum.StrEnum):
    """What is known about the message (or the check) after a call."""

    ACCEPTED = "accepted"
    """The service accepted it and returned an id."""
    REJECTED = "rejected"
    """The service rejected it; nothing was sent."""
    NOT_SENT = "not_sent"
    """The request was not written; nothing was sent."""
    UNKNOWN = "unknown"
    """The request was written and no trustworthy response arrived; it may have been sent."""
    INVALID = "invalid"
    """A bulk item that breaks a rule; nothing was sent. Calls raise `InvalidRequestError` instead."""
    SKIPPED = "skipped"
    """A bulk item that an earlier run completed, according to the journal; nothing was sent now."""

    def __repr__(self) -> str:
        return f"Delivery.{self.name}"


class MFAError(Exception):
    """Base class of every error that this library raises deliberately.

    Its text is one printable line: the name of a file or of a job in it cannot write to a terminal or forge a log.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*[printable(arg) if isinstance(arg, str) else arg for arg in args])


class ConfigurationError(MFAError):
    """A setting is wrong or missing. Raised before any I/O; the message says what to change."""


class InvalidRequestError(MFAError, ValueError):
    """A field of a request breaks a rule. Raised when the request is constructed; nothing was sent.

    Attributes:
        field: the field's Python name.
        rule: what the field must be. The error never contains the value.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


class ClientStateError(MFAError, RuntimeError):
    """The client cannot be used here: it is closed, bound to another event loop, or was used before a fork."""


class JournalError(MFAError):
    """A bulk run's journal cannot be read or written, or belongs to another run; nothing is sent without it."""


class LedgerError(MFAError):
    """The workers' ledger cannot be used, or its job of this name is another one; nothing is sent without it."""


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
        delivery: what is known about the message. If any attempt is unknown, the call is unknown.
        attempts: the number of attempts.
        elapsed: seconds from the call to this error.
        request_id: the service's ``requestId``, or None.
        retry_after: seconds that the service asked to wait, or None.
        retry_stopped_by: why a retryable failure was not retried: ``"attempts"``, ``"budget"``, ``"deadline"``,
            ``"retry_after"`` (the service asked to wait too long), ``"closed"``, ``"credentials"`` (the service has
            just rejected all credentials) or ``"not_after"`` (the time in which the code was wanted is over); None if
            failures of this kind are never retried.
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
        # A task queue that uses JSON passes the value, not the member.
        delivery = self._default_delivery if delivery is None else Delivery(delivery)
        values = (message, operation, delivery, attempts, elapsed, request_id, retry_after, retry_stopped_by, *extra)
        # OSError, a base of some subclasses, would take two arguments for errno and text.
        Exception.__init__(self, *values)
        self.message = message
        self.operation = operation
        self.delivery = delivery
        self.attempts = attempts
        self.elapsed = elapsed
        self.request_id: str | None = request_id
        self.retry_after: float | None = retry_after
        self.retry_stopped_by: StopReason | None = retry_stopped_by

    @property
    def retryable(self) -> bool:
        """Whether the same call, with the same idempotency key if it had one, may succeed and cannot repeat a text.

        True if nothing was sent, for a 429, and for a 5xx in which the service itself says so; wait `retry_after`
        first. False if the outcome is unknown, if waiting does not change the outcome, such as of a 400, and once
        `not_after` is over.
        """
        return self.delivery is Delivery.NOT_SENT and self.retry_stopped_by != "not_after"

    def __str__(self) -> str:
        where = f"{self.operation}: " if self.operation else ""
        details = [f"delivery {self.delivery.value}"]
        if self.request_id:
            details.append(f"request id {self.request_id}")
        if self.retry_after is not None:
            seconds = self.retry_after
            details.append(f"retry after {seconds:.3g} s" if seconds < 100 else f"retry after {seconds:.0f} s")
        return f"{where}{self.message} ({', '.join(details)})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, attempts={self.attempts})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__ or None

    def _update(self, **changes: Any) -> None:
        """Replace data of this error and rebuild `args` to match."""
        names = (*_FIELDS, *self._extra_fields)
        values = {name: changes.get(name, getattr(self, name)) for name in names}
        for name, value in values.items():
            setattr(self, name, value)
        self.args: tuple[Any, ...] = tuple(values.values())


class NotSentError(RequestError, ConnectionError):
    """The request was not written: DNS, a refused connection, the pool. Sending again is safe."""

    _default_delivery = Delivery.NOT_SENT


class ConnectTimeoutError(NotSentError, TimeoutError):
    """The connection was not established in time."""


class TLSError(NotSentError):
    """The TLS handshake failed or the certificate is not trusted; never retried."""


class DeliveryUnknownError(RequestError):
    """The request was written and no trustworthy response arrived: the person may or may not get a code.

    If something other than a response or the connection ended the call, `__cause__` is that error.
    """


class ReadTimeoutError(DeliveryUnknownError, TimeoutError):
    """The response did not arrive completely in time."""


class DisconnectedError(DeliveryUnknownError, ConnectionError):
    """The connection was lost after the request was written."""


class ResponseDecodeError(DeliveryUnknownError):
    """The response has a success status but cannot be parsed, or is not HTTP."""


class KeyInFlightError(DeliveryUnknownError):
    """Another call with the same idempotency key is in flight, and its outcome did not arrive within this call's time.

    Call again with the same key after `retry_after` seconds, the rest of the other call's lease: that call can only
    return the outcome or send what was not sent, never send a second text.
    """

    @property
    def retryable(self) -> bool:
        """True: the same call with the same key cannot repeat a text."""
        return True


class StoreError(RequestError):
    """The store of idempotency keys, sign-ins and guards cannot be used, or did not answer in time; nothing was sent.

    Nothing is sent that the store does not hold.
    """

    _default_delivery = Delivery.NOT_SENT


RefusalReason: TypeAlias = Literal[
    "cooldown",
    "number",
    "visitor",
    "region",
    "prefix",
    "premium",
    "invalid",
    "total",
    "unverified",
    "sends",
    "expired",
]
"""Why the guard or a sign-in refused a send.

``sends``: the flow has sent all that it may; ``expired``: there is no such open flow.
"""


class GuardRefusedError(RequestError):
    """The guard, or a limit of the sign-in, refused a send; the service was not asked and nothing was sent.

    Do not show the reason to the browser: it says to an attacker what to change.

    Attributes:
        reason: what refused it; ``sends``: the flow has sent all that it may, ``expired``: there is no such open flow.
        clearable: whether the same request with ``cleared=True`` may be admitted: solve a CAPTCHA first, for example.
    """

    _default_delivery = Delivery.NOT_SENT
    _extra_fields: ClassVar[tuple[str, ...]] = ("reason", "clearable")

    def __init__(  # noqa: PLR0913 - every datum is an argument, so that args rebuild the error
        self,
        message: str = "the guard refused the send",
        operation: str | None = None,
        delivery: Delivery | None = None,
        attempts: int = 0,
        elapsed: float = 0.0,
        request_id: str | None = None,
        retry_after: float | None = None,
        retry_stopped_by: StopReason | None = None,
        reason: RefusalReason = "invalid",
        clearable: bool = False,  # noqa: FBT001, FBT002 - positional, so that args rebuild the error
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
            reason,
            clearable,
        )
        self.reason: RefusalReason = reason
        self.clearable: bool = clearable

    @property
    def retryable(self) -> bool:
        """False: a task queue must not repeat what the guard refused."""
        return False


class DeadlineExceededError(RequestError, TimeoutError):
    """The call's `timeout` expired while it waited for a permit, a slot, a token or a connection."""

    _default_delivery = Delivery.NOT_SENT


class APIStatusError(RequestError):
    """The service, or a gateway in front of it, responded with an unsuccessful status.

    Attributes:
        status: the HTTP status.
        error_text: the service's error text without numbers and secrets, or None.
    """

    _default_delivery = Delivery.REJECTED
    _extra_fields: ClassVar[tuple[str, ...]] = ("status", "error_text")

    def __init__(  # noqa: PLR0913 - every datum is an argument, so that args rebuild the error
        self,
        message: str = "the service rejected the request",
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

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed and cannot repeat a text: see `RequestError.retryable`."""
        if self.delivery is Delivery.REJECTED:
            return self.status == 429 or self.status >= 500
        return super().retryable


class BadRequestError(APIStatusError):
    """400: the service rejected a value."""


class AuthenticationError(APIStatusError):
    """401: the service received no credentials, or does not know them."""


class PermissionDeniedError(APIStatusError):
    """403: wrong credentials, or a user without the right to use MFA."""


class NotFoundError(APIStatusError):
    """404: no such path; usually base_url or account_id is wrong."""


class RateLimitError(APIStatusError):
    """429: too many requests; or the client's limiter refused the call, as its wait would outlast the call.

    Attributes:
        local: True if this library refused the call before sending it.
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
    """429 on a verify: too many wrong codes for this number. `retry_after` is the wait, if the service gives one.

    This is not a rate limit: other numbers can still be verified. https://dev.bandwidth.com/docs/mfa/errors
    """


class ServerError(APIStatusError):
    """5xx: the service or a gateway failed; `delivery` is REJECTED if the service itself responded."""
