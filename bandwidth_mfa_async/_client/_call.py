"""The state of one call, and the events that describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .._frames import clear_locals
from .._models import (
    CodeRequest,
    MessagingCodeResponse,
    VerifyCodeRequest,
    VerifyCodeResponse,
    VoiceCodeResponse,
    secret_values,
)
from ..errors import APIStatusError, Delivery, DeliveryUnknownError, NotSentError, RequestError
from ..telemetry import AttemptEvent, CallEvent, CallStartedEvent

if TYPE_CHECKING:
    from .._auth import Credential
    from .._config import RetryPolicy
    from .._transport import Body
    from .._validation import Lane
    from .._wire import Operation
    from ._observer import AttemptObserver

_Request = TypeVar("_Request", CodeRequest, VerifyCodeRequest)
_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)

NO_DEADLINE = float("inf")


class Call(Generic[_Request, _Response]):
    """The state of one call.

    Args:
        operation: the requested operation.
        request: its values.
        body: the encoded request.
        policy: the retry policy.
        lane: the lane in which the call waits.
        started: when the call began, in the clock's monotonic seconds.
        call_id: the id in events; empty without hooks.
        observer: records the attempts; None for most calls.
    """

    __slots__ = (
        "attempts",
        "body",
        "call_id",
        "credential",
        "deadline",
        "elapsed",
        "error",
        "fallback",
        "header",
        "lane",
        "maybe_delivered",
        "moved",
        "observer",
        "operation",
        "payload",
        "policy",
        "provider_asked",
        "request",
        "request_id",
        "started",
        "token_renewed",
        "waited",
    )

    def __init__(  # noqa: PLR0913 - the facts of a call
        self,
        operation: Operation[_Request, _Response],
        request: _Request,
        body: bytes,
        policy: RetryPolicy,
        lane: Lane,
        started: float,
        call_id: str,
        observer: AttemptObserver | None = None,
    ) -> None:
        self.operation: Operation[_Request, _Response] = operation
        self.request: _Request = request
        self.body = body
        self.policy = policy
        self.lane: Lane = lane
        self.started = started
        self.call_id = call_id
        self.observer = observer
        # A bulk item may queue for hours: its time begins with the first permit.
        self.deadline = NO_DEADLINE if lane == "bulk" else started + policy.timeout
        self.attempts = 0
        # Whether the outcome of an attempt, of this or an earlier call, is unknown. Later attempts do not change that.
        self.maybe_delivered = observer is not None and observer.maybe_delivered
        # Its credential; how another one failed before; whether it moved from a probe to the operation's credential,
        # its token was renewed, and the provider was asked again.
        self.credential: Credential | None = None
        self.fallback: tuple[Credential, RequestError] | None = None
        self.moved = False
        self.token_renewed = False
        self.provider_asked = False
        # The current or last attempt: its credentials, body, error, duration and wait. No payload: it was not made.
        self.header = ""
        self.payload: Body | None = None
        self.error: BaseException | None = None
        self.elapsed = 0.0
        self.waited = 0.0
        # That of the successful response.
        self.request_id: str | None = None

    @property
    def begun(self) -> bool:
        """Whether the last attempt's body may have been written."""
        return self.payload is not None and self.payload.begun

    @property
    def wait_until(self) -> float | None:
        """The deadline, or None without one."""
        return None if self.deadline == NO_DEADLINE else self.deadline

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of this call that must not appear in any text."""
        return (*secret_values(self.request), self.header.partition(" ")[2])

    def may_retry(self) -> bool:
        """Return whether the observer, if there is one, allows another attempt."""
        return self.observer is None or self.observer.may_retry()

    def record_failure(self, error: RequestError) -> None:
        """Record how the last attempt failed."""
        self.error = error
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        if self.observer is not None:
            self.observer.attempt_failed(error)

    def record_interruption(self, error: BaseException) -> bool:
        """Record that an error other than a `RequestError` ended the call; return whether an attempt was in flight."""
        # Otherwise the call was waiting before or after an attempt.
        in_flight = self.error is None and self.payload is not None
        self.error = error
        self.maybe_delivered = self.maybe_delivered or (in_flight and self.begun)
        if self.observer is not None:
            self.observer.interrupted(Delivery.UNKNOWN if self.maybe_delivered else Delivery.NOT_SENT)
        return in_flight

    def finalize_error(self, error: RequestError, elapsed: float) -> RequestError:
        """Complete the data of the call's error; return that error, or one of a class that fits the whole call.

        If any attempt is unknown, the call is unknown: a `NotSentError` then becomes a `DeliveryUnknownError`.
        """
        delivery = Delivery.UNKNOWN if self.maybe_delivered else error.delivery
        if delivery is Delivery.UNKNOWN and isinstance(error, NotSentError):
            error = DeliveryUnknownError(
                f"an earlier attempt may have been sent, and the last one was not: {error.message}",
                retry_stopped_by=error.retry_stopped_by,
            )
        error._update(  # noqa: SLF001 - errors are this package's own
            operation=self.operation.name, attempts=self.attempts, elapsed=elapsed, delivery=delivery
        )
        if self.attempts > 1:
            error.add_note(f"gave up after {self.attempts} attempts in {elapsed:.1f} s")
        return error

    def interrupted_error(self, error: Exception, elapsed: float) -> RequestError:
        """Return the error of a call that may have been delivered and that an unexpected error ended."""
        return DeliveryUnknownError(
            f"an attempt may have been sent, and an error ended the call ({type(error).__name__})",
            self.operation.name,
            attempts=self.attempts,
            elapsed=elapsed,
        )

    def started_event(self, url: str) -> CallStartedEvent:
        """Return the event for the start of the call."""
        return CallStartedEvent(call_id=self.call_id, operation=self.operation.name, lane=self.lane, url=url)

    def attempt_event(self, retry_in: float | None) -> AttemptEvent | None:
        """Return the event for the last attempt; None if it got no permit or token and was not made."""
        if self.payload is None:
            return None
        error = self.error
        return AttemptEvent(
            call_id=self.call_id,
            operation=self.operation.name,
            attempt=self.attempts,
            elapsed=self.elapsed,
            waited=self.waited,
            delivery=self._delivery(error),
            status=_status(error),
            error_type=None if error is None else type(error).__name__,
            request_id=error.request_id if isinstance(error, RequestError) else self.request_id,
            retry_in=retry_in,
        )

    def call_event(self, error: BaseException | None, elapsed: float) -> CallEvent:
        """Return the event for the end of the call."""
        return CallEvent(
            call_id=self.call_id,
            operation=self.operation.name,
            lane=self.lane,
            attempts=self.attempts,
            elapsed=elapsed,
            delivery=Delivery.UNKNOWN if self.maybe_delivered and error is not None else self._delivery(error),
            status=_status(error),
            error_type=None if error is None else type(error).__name__,
            request_id=error.request_id if isinstance(error, RequestError) else self.request_id,
            retry_stopped_by=error.retry_stopped_by if isinstance(error, RequestError) else None,
            possible_duplicate=error is None and self.maybe_delivered and self.operation.sends,
        )

    def _delivery(self, error: BaseException | None) -> Delivery:
        if isinstance(error, RequestError):
            return error.delivery
        if error is None:
            return Delivery.ACCEPTED
        return Delivery.UNKNOWN if self.begun else Delivery.NOT_SENT


def _status(error: BaseException | None) -> int | None:
    if error is None:
        return 200
    return error.status if isinstance(error, APIStatusError) else None


def clear_unless_request_failed(error: Exception) -> None:
    """Clear the frames of an error that is not a failed request: those of a bug may hold values as they are."""
    if not isinstance(error, RequestError):
        clear_locals(error)
