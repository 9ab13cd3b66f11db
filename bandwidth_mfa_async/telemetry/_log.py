"""`LoggingHook`, which writes events to a logger, and `HookList`, which calls all hooks of a client."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

from .._logger import LOGGER_NAME
from ..errors import ConfigurationError, Delivery
from ._events import (
    AttemptEvent,
    CallEvent,
    CallStartedEvent,
    CredentialSwitchedEvent,
    LimitChangedEvent,
    LimitWaitEvent,
    SendsPausedEvent,
    SignInEvent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._events import Event, Hook


_logger = logging.getLogger(LOGGER_NAME)
_logger.addHandler(logging.NullHandler())


class LoggingHook:
    """Writes events to the ``bandwidth_mfa_async`` logger.

    Levels:

    - ERROR: a call whose delivery is unknown;
    - WARNING: a call that was rejected or not sent, or that may be a duplicate;
    - INFO: a successful call, an attempt that is followed by another one, a rate change, a pause of all sends, what
      happens in a sign-in;
    - DEBUG: any other attempt, a wait for a permit.

    Each record has the event as ``record.mfa_event``. Records of calls and attempts also have ``record.mfa_call_id``,
    which is the attribute ``bandwidth_mfa.call_id`` on the spans of `OpenTelemetryHook`.

    Args:
        logger: the logger to write to instead.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = _logger if logger is None else logger

    def on_event(self, event: Event) -> None:
        """Write one record; skip `CallStartedEvent`, because the record at the call's end has more facts."""
        if isinstance(event, CallStartedEvent):
            return
        level, text = (logging.INFO, _describe_sign_in(event)) if isinstance(event, SignInEvent) else _describe(event)
        if self._logger.isEnabledFor(level):
            extra: dict[str, Any] = {"mfa_event": event}
            if isinstance(event, (AttemptEvent, CallEvent)):
                extra["mfa_call_id"] = event.call_id
            self._logger.log(level, "%s", text, extra=extra)


_CALL_LEVELS: Final = {
    Delivery.ACCEPTED: logging.INFO,
    Delivery.REJECTED: logging.WARNING,
    Delivery.NOT_SENT: logging.WARNING,
    Delivery.UNKNOWN: logging.ERROR,
}


def _describe(
    event: AttemptEvent | CallEvent | LimitWaitEvent | LimitChangedEvent | SendsPausedEvent | CredentialSwitchedEvent,
) -> tuple[int, str]:
    match event:
        case CallEvent():
            level = _CALL_LEVELS[event.delivery] if event.error_type else logging.INFO
            text = (
                f"{event.operation} {event.delivery} after {event.attempts} attempts in {event.elapsed:.3f} s"
                f"{_reason(event.error_type, event.status)}"
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
                f"{_reason(event.error_type, event.status)}"
            )
            if event.retry_in is not None:
                text += f", next attempt in {event.retry_in:.3f} s"
            return level, f"{text} [call {event.call_id}]"
        case LimitWaitEvent():
            return logging.DEBUG, f"{event.channel} permit after {event.seconds:.3f} s in the {event.lane} lane"
        case LimitChangedEvent():
            return logging.INFO, f"{event.channel} rate is now {event.rate:.3g}/s ({event.cause})"
        case SendsPausedEvent():
            return logging.INFO, f"{event.channel} sends paused for {event.seconds:.3f} s after a 429"
        case CredentialSwitchedEvent():
            status = f" after a {event.status}" if event.status else ""
            return logging.WARNING, f"{event.operation} uses {event.current} instead of {event.previous}{status}"


def _describe_sign_in(event: SignInEvent) -> str:
    facts = (event.reason, event.delivery, event.channel, event.region and f"region {event.region}")
    known = ", ".join(str(fact) for fact in facts if fact)
    return f"sign-in {event.kind}{f' ({known})' if known else ''} [purpose {event.purpose}]"


def _reason(error_type: str | None, status: int | None) -> str:
    if error_type is None:
        return ""
    return f" ({error_type}{f' {status}' if status else ''})"


class HookList:
    """Calls every hook with each event and catches their exceptions.

    Args:
        hooks: the hooks, in the order in which to call them.

    Raises:
        ConfigurationError: a hook has no `on_event` method, or an async one, which would never run.
    """

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(getattr(hook, "on_event", None)):
                raise ConfigurationError("hooks: each must have an on_event(event) method")
            if inspect.iscoroutinefunction(hook.on_event):
                raise ConfigurationError("hooks: on_event must not be async; start a task in it, or use a queue")

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def emit(self, event: Event) -> None:
        """Call all hooks with an event."""
        for hook in self._hooks:
            try:
                hook.on_event(event)
            except Exception as error:  # noqa: BLE001 - a broken hook must not fail a send
                # Log only the type: the exception's text and traceback may contain secrets.
                _logger.warning("hook %s raised %s", type(hook).__name__, type(error).__name__)
