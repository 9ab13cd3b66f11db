"""`SQLiteJournal`: what a bulk run intends and what came of it, on disk before and after each request."""

from __future__ import annotations

import asyncio
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from ..._clock import SystemClock
from ..._keys import TEMPLATE_FIELDS, fact_digest, template_values
from ..._models import CodeTemplate
from ...errors import ClientStateError, ConfigurationError, Delivery, JournalError
from ._file import Batch, JournalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from ..._clock import Clock
    from ..._item_state import JournalState
    from .._outcome import Ending
    from ._file import JournalRow

LookupResult: TypeAlias = "int | JournalRow | JournalError"
"""What is known of an item that was added: the row of a new one, all of another, or why it is not on disk."""
OnResult: TypeAlias = "Callable[[_Item, LookupResult], None]"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_NO_PAYLOAD = bytes(8)
_ACCEPTED: Final = Delivery.ACCEPTED.value
# How many rows a batch must concern to be handed over before the end of a round: while none is on its way, and while
# one is.
_FULL_BATCH: Final = (32, 96)


class SQLiteJournal:
    """Remembers every item of a bulk run in one file, so that nobody is texted twice and nobody is forgotten.

    An item's intent is committed before its request is written, and its result after; a run that is killed at any
    moment can be started again with the same input and the same file. Commits wait for the disk (SQLite's
    ``synchronous=FULL``) and are made in groups, by one thread. The file holds digests of keys, positions in the input
    and outcomes, but no number, text or credential; it is readable by its owner only. A digest of a phone number can be
    found by trying all numbers, so keep the file as you keep the list. A file ``<path>-lock`` beside it keeps other
    processes from sending with the same journal; it may be deleted when no run is under way. Use a local disk.
    After a kill the newest results are in ``<path>-wal``: copy or move it with the file, and never delete it alone.

    `BulkSender` opens and closes it; ``async with`` is for looking at `counts` without sending.

    Args:
        path: the file; created when it does not exist, resumed when it does.
        run: part of the default keys: another name is another run, which sends to the same numbers again.
        template: what the run sends; a file that was made with another one is refused.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(self, path: str | os.PathLike[str], *, run: str = "", template: CodeTemplate | None = None) -> None:
        name: object = os.fspath(path)
        if not isinstance(name, str) or not name or "\0" in name or name == ":memory:" or name.startswith("file:"):
            raise ConfigurationError("journal: must be the path of a file")
        if not isinstance(run, str):
            raise ConfigurationError("run: must be a name")
        if template is not None and not isinstance(template, CodeTemplate):
            raise ConfigurationError("template: must be a CodeTemplate")
        self.path = name
        self.run = run
        self.template = template
        self._file = JournalFile(name, run)
        self._executor: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = Batch()
        self._callbacks: list[tuple[OnResult[Any], Any]] = []
        self._waiters: list[asyncio.Future[None]] = []
        # Set while the batch that gathers is to be handed over at the end of this round of the loop.
        self._scheduled_write: asyncio.Handle | None = None
        # How many batches the thread has, the last of them not begun.
        self._pending_writes = 0
        self._failure: JournalError | None = None
        # Whether somebody was told of the failure who can do something about it.
        self._failure_raised = False
        self._clock: Clock = SystemClock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}{', open' if self.is_open else ''})"

    @property
    def is_open(self) -> bool:
        """Whether this process holds the file."""
        return self._loop is not None

    async def open(self, clock: Clock | None = None) -> None:
        """Open or create the file.

        Args:
            clock: where the time of day comes from; for tests.

        Raises:
            JournalError: it cannot be used; says why and what to do.
            ClientStateError: it is open already.
        """
        if self.is_open:
            raise ClientStateError("this journal is open already; give each run a SQLiteJournal of its own")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bandwidth-mfa-journal")
        self._loop = asyncio.get_running_loop()
        self._failure, self._failure_raised = None, False
        self._clock = clock or SystemClock()
        try:
            now = self._clock.time()
            await self._run_in_thread(lambda: self._file.open(now))
            if self.template is not None:
                await self.bind(self.template)
        except BaseException:
            await self.aclose("failed")
            raise

    async def bind(
        self, template: CodeTemplate | None = None, *, channel: str | None = None, custom_keys: bool | None = None
    ) -> None:
        """Hold the file for good to what would make every item another one.

        Args:
            template: what is sent.
            channel: ``"messaging"`` or ``"voice"``.
            custom_keys: whether keys are the caller's own or default ones.

        Raises:
            JournalError: the file was made with another; names what differs.
        """
        facts = {} if channel is None else {"channel": channel}
        if custom_keys is not None:
            facts["kind of keys"] = "own" if custom_keys else "default"
        if template is not None:
            values = zip(TEMPLATE_FIELDS, template_values(template), strict=True)
            facts |= {f"template.{name}": fact_digest(value) for name, value in values}
        await self._run_in_thread(lambda: self._file.bind(facts))

    async def counts(self) -> dict[str, int]:
        """Return how many items have which status: ``pending``, ``sending``, ``accepted``, ``rejected``, ...

        Raises:
            JournalError: the file cannot be read.
        """
        await self.flush()
        return await self._run_in_thread(self._file.counts)

    async def aclose(self, ending: Ending = "finished") -> None:
        """Write what is left, note how the run ended, and let go of the file; harmless when repeated.

        Args:
            ending: how the run ended.

        Raises:
            JournalError: something could not be written.
        """
        executor = self._executor
        if executor is None or self._loop is None:
            return
        failure: JournalError | None = None
        cancelled: asyncio.CancelledError | None = None
        # A cancellation waits too: half closed, the file would stay locked, and its last results unwritten.
        try:
            while self._is_writing:
                cancelled = await _wait_through_cancellation(self._waiter()) or cancelled
            now = self._clock.time()
            closing = self._loop.run_in_executor(executor, self._file.close, ending, now)
            cancelled = await _wait_through_cancellation(closing) or cancelled
            closing.result()
        except JournalError as error:
            failure = error
        finally:
            self._executor = self._loop = None
            executor.shutdown(wait=False)
        if cancelled is not None:
            raise cancelled from failure
        failure = self._failure or failure
        if failure is not None and not self._failure_raised:
            self._failure_raised = True
            raise JournalError(*failure.args)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose("finished" if error is None else "failed")

    # What a run writes.

    def add(self, key: bytes, position: int, payload: bytes | None, on_result: OnResult[_Item], item: _Item) -> None:
        """Learn what is known of an item, and let the journal know it from now on.

        Args:
            key: 16 bytes.
            position: its place in the input.
            payload: 8 bytes, where the key does not say all of what is sent.
            on_result: called with the item and what is known of it, once it is on disk or cannot be.
            item: for `on_result`.
        """
        if self._failure is not None:
            on_result(item, self._failure)
            return
        batch = self._batch
        batch.keys += key
        batch.positions.append(position)
        batch.payloads += payload or _NO_PAYLOAD
        self._callbacks.append((on_result, item))
        self._schedule_write()

    def begin(self, row_id: int) -> asyncio.Future[None]:
        """Return a future that ends once the intent to send an item is on disk.

        Raises:
            JournalError: it is not, so nothing may be sent; by the future as well.
        """
        if self._failure is not None:
            raise JournalError(*self._failure.args)
        waiter = self._waiter()
        self._batch.intents[row_id] = None
        self._schedule_write()
        return waiter

    def accept(self, row_id: int, provider_id: str, attempts: int, at: float, latency: float | None) -> None:
        """Write soon that the service took an item, and count that.

        Args:
            row_id: the item.
            provider_id: the service's id of it.
            attempts: how many more there were.
            at: when, in Unix seconds.
            latency: how long the answer took, in seconds.
        """
        self.count(_ACCEPTED, at, latency)
        self._batch.accept(row_id, provider_id, attempts, at)
        self._schedule_write()

    def settle(  # noqa: PLR0913 - the columns of an end
        self,
        row_id: int,
        status: JournalState,
        *,
        provider_id: str | None = None,
        cause: str | None = None,
        http_status: int | None = None,
        is_retryable_next_run: bool = False,
        attempts: int = 0,
        at: float | None = None,
    ) -> None:
        """Write soon what became of an item; with `Status.PENDING`, that nothing did.

        Args:
            row_id: the item.
            status: what is known.
            provider_id: the service's id of an accepted one.
            cause: the error's class.
            http_status: the status of the answer.
            is_retryable_next_run: whether another run may try again.
            attempts: how many more there were.
            at: when, in Unix seconds.
        """
        # An intent that is not on its way to the disk yet is moot.
        batch = self._batch
        batch.intents.pop(row_id, None)
        batch.settled[row_id] = (status, provider_id, cause, http_status, is_retryable_next_run, attempts, at)
        self._schedule_write()

    def count(self, counter: str, at: float, latency: float | None = None) -> None:
        """Count an end, or a refusal, in the second it happened; before it is settled, which sees to the writing.

        Args:
            counter: a column of the table ``second``.
            at: when, in Unix seconds.
            latency: how long the answer took, in seconds; None where there was none.
        """
        batch, second = self._batch, int(at)
        counts = batch.seconds.get(second)
        if counts is None:
            counts = batch.seconds[second] = {}
        counts[counter] = counts.get(counter, 0) + 1
        if latency is not None:
            bucket = int(10 * math.log10(max(latency * 1e6, 1.0)))
            batch.latencies[bucket] = batch.latencies.get(bucket, 0) + 1

    async def flush(self) -> None:
        """Return once all that was told is on disk.

        Raises:
            JournalError: some of it is not.
        """
        await self._wait_written()
        if self._failure is not None:
            self._failure_raised = True
            raise JournalError(*self._failure.args)

    async def _wait_written(self) -> None:
        while self._is_writing:
            try:
                await self._waiter()
            except JournalError:
                return

    def _waiter(self) -> asyncio.Future[None]:
        """Return a future that ends with the batch that gathers now."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def _run_in_thread(self, work: Callable[[], _Result]) -> _Result:
        if self._loop is None or self._executor is None:
            raise ClientStateError("this journal is not open")
        return await self._loop.run_in_executor(self._executor, work)

    # Batches: one is on its way to the disk, and perhaps another behind it, while the next one gathers.

    @property
    def _is_writing(self) -> bool:
        return self._pending_writes > 0 or self._scheduled_write is not None

    def _schedule_write(self) -> None:
        """Let what happens in this round of the loop go into one transaction, unless it is much.

        A busy run would otherwise fall into step with its disk: all that can be sent is sent, then all of it is written
        down, and each waits while the other works. So a large batch does not wait for the round's end, and one more
        stands behind the one that is on its way; what comes then gathers, as a slow disk wants few and large ones.
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
        if self._loop is None or self._executor is None:
            return
        batch, self._batch = self._batch, Batch()
        callbacks, self._callbacks = self._callbacks, []
        waiters, self._waiters = self._waiters, []
        self._pending_writes += 1
        written = self._loop.run_in_executor(self._executor, self._file.apply, batch)
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
            # Before those who waited go on: the disk works while they do.
            self._write()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail(
        self, failure: BaseException, callbacks: list[tuple[OnResult[Any], Any]], waiters: list[asyncio.Future[None]]
    ) -> None:
        """Tell all who wait, and write no more: what came later would be on disk without what came before."""
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


async def _wait_through_cancellation(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for a future through cancellations; return the last of them, for the caller to raise."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    future.exception()  # seen
    return cancelled
