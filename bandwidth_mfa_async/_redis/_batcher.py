"""Collects operations for a millisecond and runs them in one call, in order."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import secrets
from typing import TYPE_CHECKING, Any, Final

from .._clock import sleep_until
from ..errors import MFAError
from ._owner import LEDGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._clock import Clock, TimerHandle
    from ._owner import Owner

LINGER: Final = 0.001
"""Seconds that the first operation of a batch waits for others."""
MAX_BATCH: Final = 2_000


class Writer:
    """Numbers the batches of one event loop in one process. The scripts ignore a batch that arrives after a later one.

    Two writers with one id would drop each other's batches, so a `Writer` is never made before its first use and never
    crosses a fork.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take a new id, because Redis knows a later batch of the old one that this process did not send."""
        self.id: str = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def next_batch(self) -> int:
        """Return the number of the next batch."""
        return next(self._numbers)


class _Entry:
    """An operation, and the future of its reply if a caller waits for it."""

    __slots__ = ("future", "operation", "timer")

    def __init__(self, operation: Any, future: asyncio.Future[Any] | None) -> None:
        self.operation = operation
        self.future = future
        self.timer: TimerHandle | None = None

    def end(self, error: BaseException, owner: Owner) -> None:
        """End the wait of the caller with an error."""
        future = self.future
        if future is None or future.done() or future.get_loop().is_closed():
            return
        if isinstance(error, MFAError):
            future.set_exception(type(error)(*error.args))  # one instance per caller: each adds its own traceback
        elif isinstance(error, Exception):
            # Not the error itself: it may contain keys.
            text = f"the {owner.name} did not run the operation: {type(error).__name__}"
            future.set_exception(owner.error(text))
        else:
            future.cancel()


class Batcher:
    """Runs operations in batches, one batch at a time, in the order in which they were submitted.

    It belongs to the event loop that is running at its first use.

    Args:
        run: runs a batch and returns one reply per operation.
        clock: the time source.
        on_idle: called when every operation has run.
        owner: what it belongs to; its errors are raised.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Awaitable[Sequence[Any]]],
        clock: Clock,
        on_idle: Callable[[], object] | None = None,
        owner: Owner = LEDGER,
    ) -> None:
        self._owner = owner
        self._run = run
        self._clock = clock
        self._on_idle = on_idle
        # A dict for its order, and because an operation that is withdrawn leaves it in constant time.
        self._pending: dict[_Entry, None] = {}
        self._batch: list[_Entry] = []
        self._timer: TimerHandle | None = None
        self._running = False
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Event | None = None

    def submit(self, operation: Any) -> None:
        """Schedule an operation without waiting for its reply."""
        self._add(_Entry(operation, None))

    def call(self, operation: Any, *, deadline: float | None = None) -> asyncio.Future[Any]:
        """Schedule an operation and return the future of its reply.

        The operation runs even if the future is cancelled.

        Args:
            operation: what `run` receives.
            deadline: when to give up, in the clock's seconds. An operation that is still queued then does not run.

        Returns:
            A future that ends with the owner's error if the operation may not have run.
        """
        entry = _Entry(operation, asyncio.get_running_loop().create_future())
        self._add(entry)
        future = entry.future
        assert future is not None  # noqa: S101 - made above
        if deadline is not None:
            entry.timer = self._clock.call_at(deadline, lambda: self._expire(entry))
            future.add_done_callback(lambda _: None if entry.timer is None else entry.timer.cancel())
        return future

    def _expire(self, entry: _Entry) -> None:
        self._pending.pop(entry, None)
        name = self._owner.name
        text = f"the {name} did not answer in time; its Redis cannot be reached, or is too slow"
        entry.end(self._owner.error(text), self._owner)

    def _add(self, entry: _Entry) -> None:
        self._pending[entry] = None
        self._schedule()

    def _schedule(self) -> None:
        if not self._running and self._timer is None:
            self._timer = self._clock.call_at(self._clock.monotonic() + LINGER, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Not derived from the task: an eager one may end inside `create_task`.
        self._running = True
        loop = asyncio.get_running_loop()
        # The context of the first caller must not live as long as the connection that the batch opens.
        self._task = loop.create_task(self._run_pending(), context=contextvars.Context())
        # Not a `finally` of the coroutine, which does not run if the task is cancelled before it starts.
        self._task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._running = False
        self._task = None
        if self._pending and not task.cancelled():
            self._schedule()
        elif not self._pending and self._on_idle is not None:
            self._on_idle()
        if self._idle is not None:
            self._idle.set()

    async def _run_pending(self) -> None:
        first = True
        while self._pending:
            if not first:
                await sleep_until(self._clock, self._clock.monotonic() + LINGER)
            first = False
            batch = list(itertools.islice(self._pending, MAX_BATCH))
            for entry in batch:
                del self._pending[entry]
            await self._run_batch(batch)

    async def _run_batch(self, batch: list[_Entry]) -> None:
        self._batch = batch
        try:
            replies = list(await self._run([entry.operation for entry in batch]))
            if len(replies) != len(batch):
                text = f"Redis answered {len(replies)} operations of a batch of {len(batch)}; try again"
                raise self._owner.error(text)
        except BaseException as error:
            for entry in batch:
                entry.end(error, self._owner)
            if isinstance(error, Exception):
                return
            # The loop ends. Operations without a waiting caller, such as outcomes, are kept.
            kept = [entry for entry in batch if entry.future is None]
            self._pending = dict.fromkeys((*kept, *self._pending))
            raise
        finally:
            self._batch = []
        for entry, reply in zip(batch, replies, strict=True):
            if entry.future is not None and not entry.future.done():
                entry.future.set_result(reply)

    async def flush(self) -> None:
        """Wait until every operation submitted so far has run."""
        while self._pending or self._running:
            self._schedule()  # the task may have been cancelled
            if self._idle is None:
                self._idle = asyncio.Event()
            self._idle.clear()
            await self._idle.wait()

    def adopt(self, other: Batcher) -> None:
        """Run the operations without a waiting caller that another batcher, whose loop is closed, has not run."""
        left, other._batch, other._pending = [*other._batch, *other._pending], [], {}
        for entry in left:
            if entry.future is None:
                self._add(entry)
