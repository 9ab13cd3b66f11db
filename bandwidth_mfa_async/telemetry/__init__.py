"""What a client tells about its calls: frozen events, hooks that receive them, one that logs, one for OpenTelemetry.

Events hold ids, durations and outcomes; never a phone number, a code, a text or a credential.

Every event of one call carries the same `call_id`. `CallStartedEvent` comes when a call is made, `AttemptEvent` once
per attempt, `CallEvent` once per call, after the last attempt; all of them in the task that made the call. The limit
events come when a limiter does something a person would want to know.
"""

from __future__ import annotations

from .._logger import LOGGER_NAME
from ._events import (
    AttemptEvent,
    CallEvent,
    CallStartedEvent,
    Event,
    Hook,
    LimitChangedEvent,
    LimitWaitEvent,
    SendsPausedEvent,
)
from ._log import HookList, LoggingHook
from ._opentelemetry import OpenTelemetryHook

__all__ = [
    "LOGGER_NAME",
    "AttemptEvent",
    "CallEvent",
    "CallStartedEvent",
    "Event",
    "Hook",
    "HookList",
    "LimitChangedEvent",
    "LimitWaitEvent",
    "LoggingHook",
    "OpenTelemetryHook",
    "SendsPausedEvent",
]
