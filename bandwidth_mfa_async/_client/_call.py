"""One call's running account: what it was asked, what its attempts came to, and the events that tell of it. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .._models import CodeRequest, MessagingCodeResponse, VerifyCodeRequest, VerifyCodeResponse, VoiceCodeResponse
from ..errors import APIStatusError, Delivery, DeliveryUnknownError, NotSentError, RequestError
from ..telemetry import AttemptEvent, CallEvent, CallStartedEvent

if TYPE_CHECKING:
    from .._config import RetryPolicy
    from .._transport import Body
    from .._validation import Lane
    from .._wire import Operation
    from ._observer import AttemptObserver

_Request = TypeVar("_Request", CodeRequest, VerifyCodeRequest)
_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)

NO_DEADLINE = float("inf")


class Call(Generic[_Request, _Response]):
    """One call.

    Args:
        operation: what is asked.
        request: with which values.
        body: the same as it goes over the wire.
        policy: how often and how long.
        lane: where it waits.
        started: when it was made, in the clock's seconds.
        call_id: its id in events; empty where nobody listens.
        observer: who keeps a record of its attempts, if anybody does.
    """

    __slots__ = (
        "attempts",
        "body",
        "call_id",
        "deadline",
        "elapsed",
        "error",
        "header",
        "lane",
        "maybe_delivered",
        "observer",
        "operation",
        "payload",
        "policy",
        "request",
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
        # A bulk item may queue for hours; its time begins with its first permit.
        self.deadline = NO_DEADLINE if lane == "bulk" else started + policy.timeout
        self.attempts = 0
        # Whether an attempt's outcome is unknown: it stays so, whatever the later ones say.
        self.maybe_delivered = False
        # Whether a bearer token was renewed for this call.
        self.token_renewed = False
        # The attempt under way or the last one: its credentials, its body, how it ended, how long it took and waited.
        self.header = ""
        self.payload: Body | None = None
        self.error: BaseException | None = None
        self.elapsed = 0.0
        self.waited = 0.0

    @property
    def begun(self) -> bool:
        """Whether the last attempt's body was written, in part at least."""
        return self.payload is not None and self.payload.begun

    @property
    def wait_until(self) -> float | None:
        """The deadline as those take it who wait without one when it is None."""
        return None if self.deadline == NO_DEADLINE else self.deadline

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of this call that must not be shown."""
        request: CodeRequest | VerifyCodeRequest = self.request
        other = request.code if isinstance(request, VerifyCodeRequest) else request.from_
        # Numbers may be quoted without their plus sign.
        return (request.to, other, request.to[1:], other.lstrip("+"), self.header.partition(" ")[2])

    def record_failure(self, error: RequestError) -> None:
        """Note how the last attempt ended."""
        self.error = error
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        if self.observer is not None:
            self.observer.attempt_failed(error)

    def record_cancellation(self, error: BaseException) -> bool:
        """Note that the call was cancelled; return whether an attempt was under way."""
        # Cancelled in an attempt, or in a wait before or after one?
        in_flight = self.error is None and self.payload is not None
        self.error = error
        if self.observer is not None:
            written = self.maybe_delivered or (in_flight and self.begun)
            self.observer.cancelled(Delivery.UNKNOWN if written else Delivery.NOT_SENT)
        return in_flight

    def finalize_error(self, error: RequestError, elapsed: float) -> RequestError:
        """Write this call's account on the error it ends with; return that error, or the one that fits better.

        An error whose class says that nothing was sent does not fit a call with an earlier attempt that may have been.
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

    def started_event(self, url: str) -> CallStartedEvent:
        """Describe the call before anything was done for it."""
        return CallStartedEvent(call_id=self.call_id, operation=self.operation.name, lane=self.lane, url=url)

    def attempt_event(self, retry_in: float | None) -> AttemptEvent | None:
        """Describe the last attempt; None when it got no permit or token and so was not made."""
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
            request_id=error.request_id if isinstance(error, RequestError) else None,
            retry_in=retry_in,
        )

    def call_event(self, error: BaseException | None, elapsed: float) -> CallEvent:
        """Describe the whole call."""
        return CallEvent(
            call_id=self.call_id,
            operation=self.operation.name,
            lane=self.lane,
            attempts=self.attempts,
            elapsed=elapsed,
            delivery=Delivery.UNKNOWN if self.maybe_delivered and error is not None else self._delivery(error),
            status=_status(error),
            error_type=None if error is None else type(error).__name__,
            request_id=error.request_id if isinstance(error, RequestError) else None,
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
