"""Group commits: the changes of one iteration of the event loop are written in one transaction, in a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from ...errors import ClientStateError, JournalError
from ._file import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from ._file import JournalFile, JournalRow

LookupResult: TypeAlias = "int | JournalRow | JournalError"
"""Result of adding an item: the id of a new row, the existing row, or the error of a journal that failed."""
OnResult: TypeAlias = "Callable[[_Item, LookupResult], None]"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Number of changes at which a batch is written at once instead of at the end of the event loop's iteration: while no
# write is pending, and while one is.
_FULL_BATCH: Final = (32, 96)


class GroupCommit:
    """Collects changes in batches and writes them, at most two at a time, while the next batch collects changes.

    Args:
        file: the journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self.path: str = file.path
        self._file = file
        self._thread: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = Batch()
        self._callbacks: list[tuple[OnResult[Any], Any]] = []
        self._waiters: list[asyncio.Future[None]] = []
        # Set while the current batch is scheduled for writing at the end of this iteration of the event loop.
        self._scheduled_write: asyncio.Handle | None = None
        # Number of batches submitted to the thread and not finished.
        self._pending_writes = 0
        self._failure: JournalError | None = None
        # Whether the failure was raised to the user.
        self._failure_raised = False

    async def _wait_written(self) -> None:
        while self._is_writing:
            try:
                await self._waiter()
            except JournalError:
                return

    def _waiter(self) -> asyncio.Future[None]:
        """Return a future that completes when the current batch is written."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def _run_in_thread(self, work: Callable[[], _Result]) -> _Result:
        if self._loop is None or self._thread is None:
            raise ClientStateError("this journal is not open")
        return await self._loop.run_in_executor(self._thread, work)

    @property
    def _is_writing(self) -> bool:
        return self._pending_writes > 0 or self._scheduled_write is not None

    def _schedule_write(self) -> None:
        """Write all changes of this event loop iteration in one transaction, or earlier if the batch is full.

        Without the early writes, sending and writing would alternate in a busy run: all items are sent, then all are
        written, and each side waits for the other. So a full batch is submitted at once, also while another one is
        being written. Further changes collect in the next batch, because a slow disk does better with few large writes.
        """
        if self._failure is not None or self._loop is None:
            return
        self._batch.size += 1
        if self._pending_writes < len(_FULL_BATCH) and self._batch.size >= _FULL_BATCH[self._pending_writes]:
            self._write()
        elif not self._pending_writes and self._scheduled_write is None:
            self._scheduled_write = self._loop.call_soon(self._write)

    def _write(self) -> None:
        if self._scheduled_write is not None:
            self._scheduled_write.cancel()
            self._scheduled_write = None
        if self._loop is None or self._thread is None:
            return
        batch, self._batch = self._batch, Batch()
        callbacks, self._callbacks = self._callbacks, []
        waiters, self._waiters = self._waiters, []
        self._pending_writes += 1
        written = self._loop.run_in_executor(self._thread, self._file.apply, batch)
        written.add_done_callback(lambda done: self._on_written(done, callbacks, waiters))

    def _on_written(
        self,
        done: asyncio.Future[Sequence[int | JournalRow]],
        callbacks: list[tuple[OnResult[Any], Any]],
        waiters: list[asyncio.Future[None]],
    ) -> None:
        self._pending_writes -= 1
        failure = done.exception()
        if failure is not None:
            self._fail(failure, callbacks, waiters)
            return
        for (on_result, item), row in zip(callbacks, done.result(), strict=True):
            on_result(item, row)
        if self._failure is None and not self._pending_writes and (self._batch.size or self._waiters):
            # Before the waiters continue, so that the disk and the event loop work in parallel.
            self._write()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail(
        self, failure: BaseException, callbacks: list[tuple[OnResult[Any], Any]], waiters: list[asyncio.Future[None]]
    ) -> None:
        """Report the error to all waiters, and write nothing more: later changes depend on those that were lost."""
        error = failure if isinstance(failure, JournalError) else JournalError(f"{self.path}: {failure}")
        self._failure = self._failure or error
        callbacks, self._callbacks = [*callbacks, *self._callbacks], []
        waiters, self._waiters = [*waiters, *self._waiters], []
        self._batch = Batch()
        for on_result, item in callbacks:
            on_result(item, error)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(JournalError(*error.args))
