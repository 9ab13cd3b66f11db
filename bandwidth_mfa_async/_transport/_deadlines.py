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

    __slots__ = ("_cancelled", "_cancelling_before", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._cancelling_before = task.cancelling()
        self._cancelled = False

    def cancel(self) -> None:
        """End it now."""
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def timed_out(self) -> bool:
        """Tell, once, when it has ended, whether a cancellation that has come is this one alone."""
        # Both may come in one round of the loop, and then whoever cancelled the call is obeyed.
        return self._cancelled and self._task.uncancel() <= self._cancelling_before


class DeadlineGroup:
    """The attempts under way, by how long they may take.

    What `asyncio.timeout` does around each, for a fraction of what that costs: the time of attempts that may take
    equally long is up in the order in which they began, so only the first of them needs a timer.
    """

    def __init__(self) -> None:
        self._buckets: dict[float, TimeoutBucket] = {}
        # Not the caller's: a timer that goes on from attempt to attempt would keep what the first of them held.
        self._context = contextvars.Context()

    def bucket(self, seconds: float) -> TimeoutBucket:
        """Return the bucket of attempts that may take so many seconds."""
        bucket = self._buckets.get(seconds)
        if bucket is None:
            bucket = self._buckets[seconds] = TimeoutBucket(self._buckets, seconds, self._context)
        return bucket

    def cancel(self) -> None:
        """End all of them now."""
        for bucket in tuple(self._buckets.values()):
            bucket.cancel()


class TimeoutBucket:
    """Attempts that may take equally long, in the order in which their time is up.

    Args:
        buckets: where this one stands while it has an attempt.
        seconds: how long each may take.
        context: in which its timer runs.
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
            del self._buckets[self._seconds]
        return attempt.timed_out()

    def cancel(self) -> None:
        """End all of them now."""
        for attempt in self._until:
            attempt.cancel()

    def _cancel_expired(self, now: float) -> None:
        self._timer = None
        # The timers of uvloop run up to a millisecond early: what this one was set for has come, whatever the time is.
        now = max(now, self._loop.time())
        for attempt, until in self._until.items():
            if until > now:
                self._set_timer(until)
                return
            attempt.cancel()

    def _set_timer(self, until: float) -> None:
        self._timer = self._loop.call_at(until, self._cancel_expired, until, context=self._context)
