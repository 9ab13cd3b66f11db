"""The frozen events that a client emits, and what a hook must be to receive them. No I/O."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from attrs import frozen

from ..errors import Delivery  # noqa: TC001 - so that the types of an event can be resolved at run time


@frozen(kw_only=True)
class CallStartedEvent:
    """One call was made; it is checked and has not waited for anything yet.

    Attributes:
        call_id: a random id of this call; its `CallEvent`, which always follows, has the same.
        operation: the client method.
        lane: the lane it waits in.
        url: where its requests go; holds the account's id and no credentials.
    """

    call_id: str
    operation: str
    lane: str
    url: str


@frozen(kw_only=True)
class AttemptEvent:
    """One request was tried and ended.

    Attributes:
        call_id: a random id of the call this attempt belongs to.
        operation: the client method.
        attempt: 1 for the first.
        elapsed: seconds this attempt took, from its start (after limits and slots) to its outcome.
        waited: seconds spent waiting for a permit and a slot before it.
        delivery: what is known of the message after this attempt alone.
        status: the HTTP status, when there was one.
        error_type: the error's class name; None on success.
        request_id: the service's request id, when it gave one.
        retry_in: seconds until the next attempt; None when this was the last.
    """

    call_id: str
    operation: str
    attempt: int
    elapsed: float
    waited: float
    delivery: Delivery
    status: int | None
    error_type: str | None
    request_id: str | None
    retry_in: float | None


@frozen(kw_only=True)
class CallEvent:
    """One call ended.

    Attributes:
        call_id: the same as on this call's attempts.
        operation: the client method.
        lane: the lane it waited in.
        attempts: how many requests were tried; 0 when none was.
        elapsed: seconds from call to outcome.
        delivery: the outcome; the worst attempt decides.
        status: the last HTTP status, when there was one.
        error_type: the error's class name; None on success, ``"CancelledError"`` when the caller cancelled.
        request_id: the service's request id, when it gave one.
        retry_stopped_by: as on the error.
        possible_duplicate: the call succeeded after an attempt whose outcome is unknown.
    """

    call_id: str
    operation: str
    lane: str
    attempts: int
    elapsed: float
    delivery: Delivery
    status: int | None
    error_type: str | None
    request_id: str | None
    retry_stopped_by: str | None
    possible_duplicate: bool


@frozen(kw_only=True)
class LimitWaitEvent:
    """A call waited for its permit.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        lane: the lane it waited in.
        seconds: how long.
    """

    channel: str
    lane: str
    seconds: float


@frozen(kw_only=True)
class LimitChangedEvent:
    """The limiter believes in another rate now.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        rate: messages (segments) a second.
        cause: ``"refused"`` after a 429, ``"probe"`` after accepted sends above the old belief.
    """

    channel: str
    rate: float
    cause: Literal["refused", "probe"]


@frozen(kw_only=True)
class SendsPausedEvent:
    """A 429 stopped all sends of this channel for a while.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        seconds: until sends go on.
    """

    channel: str
    seconds: float


Event: TypeAlias = CallStartedEvent | AttemptEvent | CallEvent | LimitWaitEvent | LimitChangedEvent | SendsPausedEvent


class Hook(Protocol):
    """Receives every event, in the event loop, synchronously: be quick, and do not block.

    An exception from a hook is logged and goes no further: telemetry never fails a call.
    """

    def on_event(self, event: Event) -> None:
        """Take one event; pick the kinds you want with ``isinstance`` or ``match``."""
