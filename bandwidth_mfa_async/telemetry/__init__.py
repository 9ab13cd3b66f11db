"""Events of a client, the `Hook` protocol that receives them, and hooks for logging and OpenTelemetry.

Events contain ids, durations and outcomes; never a phone number, a code, a text or a credential.

All events of one call have the same `call_id`. A call emits a `CallStartedEvent` when it starts, an `AttemptEvent`
after each attempt and a `CallEvent` when it ends, all of them in the caller's task. Rate limiters emit
`LimitWaitEvent`, `LimitChangedEvent` and `SendsPausedEvent`, a `CredentialChain` a `CredentialSwitchedEvent`, and
`SignIns` a `SignInEvent` for each step of a flow.
"""

from __future__ import annotations

from .._logger import LOGGER_NAME
from ._events import (
    AttemptEvent,
    CallEvent,
    CallStartedEvent,
    CredentialSwitchedEvent,
    Event,
    Hook,
    LimitChangedEvent,
    LimitWaitEvent,
    SendsPausedEvent,
    SignInEvent,
)
from ._log import HookList, LoggingHook
from ._opentelemetry import OpenTelemetryHook

__all__ = [
    "LOGGER_NAME",
    "AttemptEvent",
    "CallEvent",
    "CallStartedEvent",
    "CredentialSwitchedEvent",
    "Event",
    "Hook",
    "HookList",
    "LimitChangedEvent",
    "LimitWaitEvent",
    "LoggingHook",
    "OpenTelemetryHook",
    "SendsPausedEvent",
    "SignInEvent",
]
