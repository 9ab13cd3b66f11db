"""What tests of sign-ins share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandwidth_mfa_async import CodeTemplate
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.telemetry import SignInEvent

if TYPE_CHECKING:
    from bandwidth_mfa_async.telemetry import Event

NUMBER = "+19195551234"
OTHER = "+19195559876"
VISITOR = "198.51.100.7"
SECRET = "a secret that only tests use"
LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
VOICE = CodeTemplate("+19195554321", "0f0f0f0f-9669-4e07-948d-329f4b722ee2", scope="login")


class WallClock(SystemClock):
    """Real time for waits; a wall clock that moves only when a test advances it."""

    def __init__(self) -> None:
        self.wall = 1_750_000_000.0

    def time(self) -> float:
        return self.wall

    def tick(self, seconds: float) -> None:
        self.wall += seconds


class Events:
    """Keeps the events of sign-ins."""

    def __init__(self) -> None:
        self.seen: list[SignInEvent] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, SignInEvent):
            self.seen.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen]


def wrong(code: str) -> str:
    """Return another code of the same length."""
    return code[:-1] + str((int(code[-1]) + 1) % 10)
