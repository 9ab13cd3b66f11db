"""Time limits of the attempts in flight, with one timer for all attempts that have the same timeout."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from .._clock import call_after_reads


class AttemptDeadline:
    """Cancels an attempt's task when its time is up or the client closes, and remembers that it did.

    Args:
        task: the task that makes the attempt.
    """

    __slots__ = ("_cancelled", "_cancelling_before", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._cancelling_before = task.cancelling()
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the attempt now."""
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def timed_out(self) -> bool:
        """Return whether only this deadline cancelled the task. Call it once, when the attempt has ended."""
        # Both can happen in one iteration of the loop. The cancellation of the call then takes precedence.
        return self._cancelled and self._task.uncancel() <= self._cancelling_before


class DeadlineGroup:
    """The attempts in flight, grouped by timeout.

    Does what `asyncio.timeout` around each attempt does, for a fraction of the cost: attempts with the same timeout
    expire in the order in which they began, so only the first of them needs a timer.
    """

    def __init__(self) -> None:
        self._buckets: dict[float, TimeoutBucket] = {}
        # Not the caller's context: the timer outlives the first attempt and would keep that caller's values alive.
        self._context = contextvars.Context()

    def bucket(self, seconds: float) -> TimeoutBucket:
        """Return the bucket of attempts with this timeout."""
        bucket = self._buckets.get(seconds)
        if bucket is None:
            bucket = self._buckets[seconds] = TimeoutBucket(self._buckets, seconds, self._context)
        return bucket

    def cancel(self) -> None:
        """Cancel all attempts now."""
        for bucket in tuple(self._buckets.values()):
            bucket.cancel()


class TimeoutBucket:
    """Attempts with the same timeout, in the order in which they expire.

    Args:
        buckets: the group's buckets; this one removes itself when its last attempt ends.
        seconds: the timeout of each attempt.
        context: the context in which the timer runs.
    """

    __slots__ = ("_buckets", "_context", "_loop", "_seconds", "_timer", "_until")

    def __init__(self, buckets: dict[float, TimeoutBucket], seconds: float, context: contextvars.Context) -> None:
        self._buckets = buckets
        self._seconds = seconds
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._until: dict[AttemptDeadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> AttemptDeadline:
        """Begin an attempt in the current task."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - an attempt is awaited
        attempt = AttemptDeadline(task)
        until = self._until[attempt] = self._loop.time() + self._seconds
        if self._timer is None:
            self._set_timer(until)
        return attempt

    def end(self, attempt: AttemptDeadline) -> bool:
        """Remove an attempt; return whether its deadline, and nothing else, cancelled it."""
        del self._until[attempt]
        if not self._until:
            if self._timer is not None:
                self._timer.cancel()
            del self._buckets[self._seconds]
        return attempt.timed_out()

    def cancel(self) -> None:
        """Cancel all attempts now."""
        for attempt in self._until:
            attempt.cancel()

    def _on_timer(self, now: float) -> None:
        self._timer = None
        # uvloop's timers run up to a millisecond early: count what this one was set for as expired.
        now = max(now, self._loop.time())
        expired: list[AttemptDeadline] = []
        for attempt, until in self._until.items():
            if until > now:
                self._set_timer(until)
                break
            expired.append(attempt)

        def cancel() -> None:
            """Cancel the attempts that have not ended meanwhile."""
            for attempt in expired:
                if attempt in self._until:
                    attempt.cancel()

        call_after_reads(self._loop, cancel, self._context)

    def _set_timer(self, until: float) -> None:
        self._timer = self._loop.call_at(until, self._on_timer, until, context=self._context)
