"""The events that a client emits and the `Hook` protocol that receives them."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from attrs import frozen

from .._concise import ConciseType
from ..errors import Delivery  # noqa: TC001 - lets callers resolve the types of an event at run time


@frozen(kw_only=True)
class CallStartedEvent(metaclass=ConciseType):
    """A call started: its arguments are valid, and it has not waited for anything yet.

    Attributes:
        call_id: random id of the call. A `CallEvent` with the same id always follows.
        operation: name of the client method.
        lane: lane of the call.
        url: URL of the call's requests; contains the account id and no credentials.
    """

    call_id: str
    operation: str
    lane: str
    url: str


@frozen(kw_only=True)
class AttemptEvent(metaclass=ConciseType):
    """An attempt ended.

    Attributes:
        call_id: id of the call.
        operation: name of the client method.
        attempt: number of the attempt in its call; the first is 1.
        elapsed: duration of the attempt in seconds, without the wait for its permit and slot.
        waited: seconds that the attempt waited for its permit and slot.
        delivery: outcome of this attempt alone.
        status: HTTP status; None if there was no response.
        error_type: class name of the error; None on success.
        request_id: the service's request id, if the response contains one.
        retry_in: seconds until the next attempt; None for the last attempt.
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
class CallEvent(metaclass=ConciseType):
    """A call ended.

    Attributes:
        call_id: id of the call; its attempts have the same id.
        operation: name of the client method.
        lane: lane of the call.
        attempts: number of attempts; 0 if none started.
        elapsed: seconds from the call to its outcome.
        delivery: outcome of the call. If any attempt is unknown and none succeeded, the call is unknown.
        status: the last HTTP status; None if there was no response.
        error_type: class name of the error; None on success, ``"CancelledError"`` if the caller cancelled the call.
        request_id: the service's request id, if the response contains one.
        retry_stopped_by: the same as on the error.
        possible_duplicate: the call succeeded after an attempt with an unknown outcome.
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
class LimitWaitEvent(metaclass=ConciseType):
    """A call waited for its permit.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        lane: lane of the call.
        seconds: duration of the wait.
    """

    channel: str
    lane: str
    seconds: float


@frozen(kw_only=True)
class LimitChangedEvent(metaclass=ConciseType):
    """The limiter changed its estimate of the account's rate limit.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        rate: the new estimate in messages (segments) per second.
        cause: ``"refused"`` after a 429, ``"probe"`` after accepted sends above the previous estimate.
    """

    channel: str
    rate: float
    cause: Literal["refused", "probe"]


@frozen(kw_only=True)
class SendsPausedEvent(metaclass=ConciseType):
    """A 429 paused all sends of a channel.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        seconds: seconds until sends resume.
    """

    channel: str
    seconds: float


@frozen(kw_only=True)
class CredentialSwitchedEvent(metaclass=ConciseType):
    """A `CredentialChain` uses its other credentials for an operation from now on.

    Attributes:
        operation: name of the client method.
        previous: ``"basic"`` or ``"oauth2"``, the kind that was used before.
        current: the kind that is used now.
        status: HTTP status that rejected the previous kind; None if no token could be obtained, or if the preferred
            kind works again.
    """

    operation: str
    previous: Literal["basic", "oauth2"]
    current: Literal["basic", "oauth2"]
    status: int | None


@frozen(kw_only=True)
class SignInEvent(metaclass=ConciseType):
    """Something happened in a sign-in flow; contains no id, number, code, subject or visitor.

    Attributes:
        kind: ``started``; ``sent``, a text or voice call; ``refused``, by the guard or a cool-down; ``verified``,
            ``wrong``, ``expired`` and ``used``, the result of a check.
        purpose: what the flow is for.
        region: region of the number, such as ``"US"``; ``"?"`` if it cannot be known, None if no flow was found.
        channel: ``"messaging"`` or ``"voice"`` of a send; None for a check.
        reason: why a send was refused, as `GuardRefusedError.reason`.
        delivery: what is known of a text that was sent.
    """

    kind: Literal["started", "sent", "refused", "verified", "wrong", "expired", "used"]
    purpose: str
    region: str | None
    channel: str | None = None
    reason: str | None = None
    delivery: Delivery | None = None


Event: TypeAlias = (
    CallStartedEvent
    | AttemptEvent
    | CallEvent
    | LimitWaitEvent
    | LimitChangedEvent
    | SendsPausedEvent
    | CredentialSwitchedEvent
    | SignInEvent
)


class Hook(Protocol):
    """Receives every event synchronously in the event loop: return quickly and do not block.

    An exception from a hook is logged and not propagated: telemetry never fails a call.
    """

    def on_event(self, event: Event) -> None:
        """Handle one event. Select event types with ``isinstance`` or ``match``."""
