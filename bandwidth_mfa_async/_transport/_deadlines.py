"""The attempts under way: how long each may take, and how it is cut. One timer for all that may take equally long."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any


class AttemptDeadline:
    """One attempt: it cancels its task when its time is up or the client closes, and knows that it did.

    Args:
        task: the one that makes it.
    """

    __slots__ = ("_before", "_cut", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._before = task.cancelling()
        self._cut = False

    def cut(self) -> None:
        """End it now."""
        if not self._cut:
            self._cut = True
            self._task.cancel()

    def was_cut(self) -> bool:
        """Tell, once, when it has ended, whether a cancellation that has come is this one alone."""
        # Both may come in one round of the loop, and then whoever cancelled the call is obeyed.
        return self._cut and self._task.uncancel() <= self._before


class DeadlineGroup:
    """The attempts under way, by how long they may take.

    What `asyncio.timeout` does around each, for a fraction of what that costs: the time of attempts that may take
    equally long is up in the order in which they began, so only the first of them needs a timer.
    """

    def __init__(self) -> None:
        self._lines: dict[float, TimeoutBucket] = {}
        # Not the caller's: a timer that goes on from attempt to attempt would keep what the first of them held.
        self._context = contextvars.Context()

    def line(self, seconds: float) -> TimeoutBucket:
        """Return the line of attempts that may take so many seconds."""
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = TimeoutBucket(self._lines, seconds, self._context)
        return line

    def cut(self) -> None:
        """End all of them now."""
        for line in tuple(self._lines.values()):
            line.cut()


class TimeoutBucket:
    """Attempts that may take equally long, in the order in which their time is up.

    Args:
        lines: where this one stands while it has an attempt.
        seconds: how long each may take.
        context: in which its timer runs.
    """

    __slots__ = ("_context", "_lines", "_loop", "_seconds", "_timer", "_until")

    def __init__(self, lines: dict[float, TimeoutBucket], seconds: float, context: contextvars.Context) -> None:
        self._lines = lines
        self._seconds = seconds
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._until: dict[AttemptDeadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> AttemptDeadline:
        """Begin one in the current task."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - an attempt is awaited
        attempt = AttemptDeadline(task)
        until = self._until[attempt] = self._loop.time() + self._seconds
        if self._timer is None:
            self._set_timer(until)
        return attempt

    def end(self, attempt: AttemptDeadline) -> bool:
        """Forget one, and tell whether a cancellation that has come is its own alone."""
        del self._until[attempt]
        if not self._until:
            if self._timer is not None:
                self._timer.cancel()
            del self._lines[self._seconds]
        return attempt.was_cut()

    def cut(self) -> None:
        """End all of them now."""
        for attempt in self._until:
            attempt.cut()

    def _cut_late(self, now: float) -> None:
        self._timer = None
        # The timers of uvloop run up to a millisecond early: what this one was set for has come, whatever the time is.
        now = max(now, self._loop.time())
        for attempt, until in self._until.items():
            if until > now:
                self._set_timer(until)
                return
            attempt.cut()

    def _set_timer(self, until: float) -> None:
        self._timer = self._loop.call_at(until, self._cut_late, until, context=self._context)
