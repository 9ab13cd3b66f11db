"""What a client tells about its calls: frozen events, the hooks that receive them, and a hook that logs. No I/O.

Events hold ids, durations and outcomes; never a phone number, a code, a text or a credential.

Every event of one call carries the same `call_id`. `AttemptEvent` comes once per attempt, `CallEvent` once per call,
after the last attempt; the limit events come when a limiter does something a person would want to know.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from attrs import frozen

from .errors import ConfigurationError, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable

LOGGER_NAME: Final = "bandwidth_mfa_async"

_logger = logging.getLogger(LOGGER_NAME)
_logger.addHandler(logging.NullHandler())


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
class GateClosedEvent:
    """A 429 stopped all sends of this channel for a while.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        seconds: until sends go on.
    """

    channel: str
    seconds: float


Event: TypeAlias = AttemptEvent | CallEvent | LimitWaitEvent | LimitChangedEvent | GateClosedEvent


class Hook(Protocol):
    """Receives every event, in the event loop, synchronously: be quick, and do not block.

    An exception from a hook is logged and goes no further: telemetry never fails a call.
    """

    def on_event(self, event: Event) -> None:
        """Take one event; pick the kinds you want with ``isinstance`` or ``match``."""


class LoggingHook:
    """Writes events to the ``bandwidth_mfa_async`` logger.

    A call that succeeded is INFO, one that was refused WARNING, one whose delivery is unknown ERROR; attempts that
    are tried again are INFO, other attempts DEBUG, limit waits DEBUG, limit changes and closed gates INFO. Each
    record carries the event as ``record.mfa_event``.

    Args:
        logger: another logger to write to.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = _logger if logger is None else logger

    def on_event(self, event: Event) -> None:
        """Write one record."""
        level, text = _describe(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", text, extra={"mfa_event": event})


_CALL_LEVELS: Final = {
    Delivery.ACCEPTED: logging.INFO,
    Delivery.REJECTED: logging.WARNING,
    Delivery.NOT_SENT: logging.WARNING,
    Delivery.UNKNOWN: logging.ERROR,
}


def _describe(event: Event) -> tuple[int, str]:
    match event:
        case CallEvent():
            level = _CALL_LEVELS[event.delivery] if event.error_type else logging.INFO
            text = (
                f"{event.operation} {event.delivery} after {event.attempts} attempts in {event.elapsed:.3f} s"
                f"{_because(event.error_type, event.status)}"
            )
            if event.retry_stopped_by:
                text += f", retries stopped by {event.retry_stopped_by}"
            if event.possible_duplicate:
                level, text = max(level, logging.WARNING), f"{text}, possible duplicate"
            return level, f"{text} [call {event.call_id}]"
        case AttemptEvent():
            level = logging.DEBUG if event.retry_in is None else logging.INFO
            text = (
                f"{event.operation} attempt {event.attempt}: {event.delivery} in {event.elapsed:.3f} s"
                f"{_because(event.error_type, event.status)}"
            )
            if event.retry_in is not None:
                text += f", again in {event.retry_in:.3f} s"
            return level, f"{text} [call {event.call_id}]"
        case LimitWaitEvent():
            return logging.DEBUG, f"{event.channel} permit after {event.seconds:.3f} s in the {event.lane} lane"
        case LimitChangedEvent():
            return logging.INFO, f"{event.channel} rate is now {event.rate:.3g}/s ({event.cause})"
        case GateClosedEvent():
            return logging.INFO, f"{event.channel} sends stopped for {event.seconds:.3f} s after a 429"


def _because(error_type: str | None, status: int | None) -> str:
    if error_type is None:
        return ""
    return f" ({error_type}{f' {status}' if status else ''})"


class HookList:
    """Hands each event to every hook and keeps their exceptions from the call.

    Args:
        hooks: in the order in which they are called.

    Raises:
        ConfigurationError: one of them has no `on_event`.
    """

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(getattr(hook, "on_event", None)):
                raise ConfigurationError("hooks: each must have an on_event(event) method")

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def emit(self, event: Event) -> None:
        """Tell all hooks."""
        for hook in self._hooks:
            try:
                hook.on_event(event)
            except Exception as error:  # noqa: BLE001 - a broken hook must not fail a send
                # The exception's text and traceback may quote anything, so only its type is logged.
                _logger.warning("hook %s raised %s", type(hook).__name__, type(error).__name__)
