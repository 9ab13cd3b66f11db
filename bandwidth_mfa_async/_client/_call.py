"""The state of one call, and the events that describe it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Generic, TypeVar

from .._models import (
    CodeRequest,
    MessagingCodeResponse,
    VerifyCodeRequest,
    VerifyCodeResponse,
    VoiceCodeResponse,
    secret_values,
)
from .._transport import Body
from ..errors import (
    APIStatusError,
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    DeliveryUnknownError,
    NotSentError,
    RequestError,
)
from ..telemetry import AttemptEvent, CallEvent, CallStartedEvent

if TYPE_CHECKING:
    from .._auth import Credential
    from .._clock import Clock
    from .._config import RetryPolicy
    from .._validation import Lane
    from .._wire import Operation
    from ..limits._permit import Turn
    from ._observer import AttemptObserver

_Request = TypeVar("_Request", CodeRequest, VerifyCodeRequest)
_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)

NO_DEADLINE = float("inf")


class AttemptState(enum.Enum):
    """What has happened of a call's last attempt."""

    WAITING = enum.auto()
    """It waits for a token, a permit, a slot or its observer, or failed while it waited: nothing of it exists."""
    STARTED = enum.auto()
    """It was handed to the transport; `Call.begun` says whether its body may have been written."""
    ENDED = enum.auto()
    """It was answered or failed, and the hooks do not know yet."""
    REPORTED = enum.auto()
    """The hooks know, and the call pauses before its next attempt or ends."""


# Python 3.11 looks a member up in half a microsecond.
WAITING, STARTED, ENDED, REPORTED = AttemptState


class Call(Generic[_Request, _Response]):
    """The state of one call.

    Args:
        operation: the requested operation.
        request: its values.
        body: the encoded request.
        policy: the retry policy.
        lane: the lane in which the call waits.
        clock: the time source; the call begins now.
        call_id: the id in events; empty without hooks.
        observer: records the attempts; None for most calls.
    """

    __slots__ = (
        "attempt_elapsed",
        "attempt_started",
        "attempt_state",
        "attempt_timeout",
        "attempts",
        "body",
        "call_id",
        "clock",
        "credential",
        "deadline",
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
        clock: Clock,
        call_id: str,
        observer: AttemptObserver | None = None,
    ) -> None:
        self.operation: Operation[_Request, _Response] = operation
        self.request: _Request = request
        self.body = body
        self.policy = policy
        self.lane: Lane = lane
        self.clock = clock
        self.started = started = clock.monotonic()
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
        # The current or last attempt: its state, credentials, body, error, duration and wait.
        self.attempt_state: AttemptState = WAITING
        self.header = ""
        self.payload: Body | None = None
        self.error: BaseException | None = None
        self.attempt_timeout = 0.0
        self.attempt_started = 0.0
        self.attempt_elapsed = 0.0
        self.waited = 0.0
        # That of the successful response.
        self.request_id: str | None = None

    @property
    def begun(self) -> bool:
        """Whether the last attempt's body may have been written."""
        return self.payload is not None and self.payload.begun

    @property
    def elapsed(self) -> float:
        """The seconds since the call began."""
        return self.clock.monotonic() - self.started

    @property
    def time_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - self.clock.monotonic()

    @property
    def wait_until(self) -> float | None:
        """The deadline, or None without one."""
        return None if self.deadline == NO_DEADLINE else self.deadline

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of this call that must not appear in any text."""
        return (*secret_values(self.request), self.header.partition(" ")[2])

    async def before_wait(self) -> None:
        """Let the observer wait for what the attempt needs of it, while the call holds nothing."""
        if self.observer is not None and (before_wait := self.observer.before_wait) is not None:
            await before_wait()

    def may_retry(self) -> bool:
        """Return whether the observer, if there is one, allows another attempt."""
        return self.observer is None or self.observer.may_retry()

    def new_attempt(self) -> None:
        """Forget the last attempt, before the next one waits."""
        self.attempt_state = WAITING
        self.error = self.payload = None

    async def record_intent(self, observer: AttemptObserver) -> None:
        """Have the observer record the coming attempt.

        Raises:
            NotSentError: the observer stops the call.
            Exception: what the observer raises.
        """
        if not await observer.before_attempt():
            text = "the call was stopped before the request was written"
            raise NotSentError(text, attempts=0, retry_stopped_by="closed")
        self.maybe_delivered = self.maybe_delivered or observer.maybe_delivered

    def start(self, turn: Turn | None) -> Body:
        """Count an attempt, and return its body for the transport.

        Args:
            turn: the attempt's turn to write, if a rate is configured.

        Raises:
            DeadlineExceededError: the call's time is over.
        """
        self.attempt_started = self.clock.monotonic()
        time_left = self.deadline - self.attempt_started
        if time_left <= 0:
            raise DeadlineExceededError("the call's time ran out before the request was written")
        self.attempt_timeout = min(self.policy.attempt_timeout, time_left)
        self.attempts += 1
        self.attempt_state = STARTED
        self.payload = Body(self.body, None if self.observer is None else self.observer.check_before_write, turn)
        return self.payload

    def end_attempt(self, error: BaseException | None) -> None:
        """Record how the attempt ended; None if it succeeded."""
        self.error = error
        if self.attempt_state is STARTED:
            self.attempt_state = ENDED
            if self.call_id:  # for the event
                self.attempt_elapsed = self.clock.monotonic() - self.attempt_started

    def fail(self, error: RequestError) -> RequestError:
        """Record how the attempt failed, and return the error that says so.

        A connection that the call's own deadline ended is that of the deadline. uvloop's timers run up to a millisecond
        early, so compare both the limits and the time.
        """
        if isinstance(error, ConnectTimeoutError) and self.attempt_state is STARTED:
            bound = min(self.policy.attempt_timeout, self.policy.connect_timeout)
            if bound >= self.deadline - self.attempt_started or self.time_left <= 0:
                error = DeadlineExceededError("the call's time ran out before a connection was established")
        self.end_attempt(error)
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        if self.observer is not None:
            self.observer.attempt_failed(error)
        return error

    def interrupt(self, error: BaseException) -> None:
        """Record that an error other than a `RequestError` ended the call, perhaps while an attempt was in flight."""
        if self.attempt_state is not WAITING and self.error is None:  # in flight, or accepted
            self.maybe_delivered = self.maybe_delivered or self.begun
            self.end_attempt(error)
        if self.observer is not None:
            self.observer.interrupted(Delivery.UNKNOWN if self.maybe_delivered else Delivery.NOT_SENT)

    def finalize_error(self, error: RequestError) -> RequestError:
        """Complete the data of the call's error; return that error, or one of a class that fits the whole call.

        If any attempt is unknown, the call is unknown: a `NotSentError` then becomes a `DeliveryUnknownError`.
        """
        delivery, elapsed = Delivery.UNKNOWN if self.maybe_delivered else error.delivery, self.elapsed
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

    def interrupted_error(self, error: Exception) -> RequestError:
        """Return the error of a call that may have been delivered and that an unexpected error ended."""
        return DeliveryUnknownError(
            f"an attempt may have been sent, and an error ended the call ({type(error).__name__})",
            self.operation.name,
            attempts=self.attempts,
            elapsed=self.elapsed,
        )

    def started_event(self, url: str) -> CallStartedEvent:
        """Return the event for the start of the call."""
        return CallStartedEvent(call_id=self.call_id, operation=self.operation.name, lane=self.lane, url=url)

    def attempt_event(self, retry_in: float | None) -> AttemptEvent:
        """Return the event for the attempt that has ended."""
        error = self.error
        return AttemptEvent(
            call_id=self.call_id,
            operation=self.operation.name,
            attempt=self.attempts,
            elapsed=self.attempt_elapsed,
            waited=self.waited,
            delivery=self._delivery(error),
            status=_status(error),
            error_type=None if error is None else type(error).__name__,
            request_id=error.request_id if isinstance(error, RequestError) else self.request_id,
            retry_in=retry_in,
        )

    def call_event(self, error: BaseException | None) -> CallEvent:
        """Return the event for the end of the call."""
        return CallEvent(
            call_id=self.call_id,
            operation=self.operation.name,
            lane=self.lane,
            attempts=self.attempts,
            elapsed=self.elapsed,
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
