"""The limiters of a client and its views that hold connections to Redis: shared, bounded, and closed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import weakref
from typing import TYPE_CHECKING, Final

from .._tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits.shared._shared_limiter import SharedLimiter

MAX_IDLE: Final = 8
"""Limiters that no view uses and that keep their connections, because the next view may have the same options."""


class _Entry:
    __slots__ = ("limiter", "users")

    def __init__(self, limiter: SharedLimiter) -> None:
        self.limiter = limiter
        self.users = 0


class SharedLimiters:
    """Limiters by their options. Of those without a view, `MAX_IDLE` stay open; the oldest is closed first.

    Args:
        make_error: makes the error of a call that waits at a limiter that is closed.
    """

    def __init__(self, make_error: Callable[[], BaseException]) -> None:
        self._make_error = make_error
        # The oldest first.
        self._entries: dict[tuple[object, ...], _Entry] = {}
        self._closing = TaskSet()

    def get(self, options: tuple[object, ...], make: Callable[[], SharedLimiter], user: object) -> SharedLimiter:
        """Return the limiter for these options.

        Args:
            options: limiters with the same options are one.
            make: makes the limiter.
            user: what all calls with these options refer to; while it exists, the limiter stays open.
        """
        entry = self._entries.pop(options, None) or _Entry(make())
        self._entries[options] = entry
        entry.users += 1
        weakref.finalize(user, _release, entry).atexit = False
        with contextlib.suppress(RuntimeError):  # outside a loop; a limiter that was not used has no connection
            asyncio.get_running_loop()
            self._close_idle()
        return entry.limiter

    def _close_idle(self) -> None:
        idle = [options for options, entry in self._entries.items() if entry.users == 0]
        for options in idle[: max(0, len(idle) - MAX_IDLE)]:
            limiter = self._entries.pop(options).limiter
            limiter.abort(self._make_error)
            self._closing.start(limiter.aclose(), context=contextvars.Context())

    async def aclose(self) -> None:
        """Close all limiters. Each is closed even if another fails."""
        async with contextlib.AsyncExitStack() as closing:
            for entry in self._entries.values():
                closing.push_async_callback(entry.limiter.aclose)
            await self._closing.wait_idle()


def _release(entry: _Entry) -> None:
    entry.users -= 1
