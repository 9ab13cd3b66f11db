"""The type of the fixture `make_client`, and a hook that records events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.telemetry import AttemptEvent, CallEvent, Event

MakeClient: TypeAlias = Callable[..., MFAClient]
"""Makes clients of the test's fault server, with any of `MFAClient`'s options; they are closed at the test's end."""


class Recorder:
    """A hook that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    @property
    def attempts(self) -> list[AttemptEvent]:
        return [event for event in self.events if isinstance(event, AttemptEvent)]

    @property
    def calls(self) -> list[CallEvent]:
        return [event for event in self.events if isinstance(event, CallEvent)]
