"""`SQLiteJournal`: stores the intent of each item before its request and the result after it, in group commits."""

from __future__ import annotations

import asyncio
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ..._clock import SystemClock
from ..._frames import clears_locals
from ..._item_state import JournalState
from ..._keys import TEMPLATE_FIELDS, fact_digest, template_values
from ..._models import CodeTemplate
from ...errors import ClientStateError, ConfigurationError, Delivery, JournalError
from ._file import JournalFile
from ._group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ..._clock import Clock
    from .._outcome import Ending
    from ._group_commit import OnResult

_Item = TypeVar("_Item")

_NO_PAYLOAD = bytes(8)
_ACCEPTED: Final = Delivery.ACCEPTED.value


class SQLiteJournal(GroupCommit):
    """A file with the state of every item of a bulk run: at most one text per item, and an outcome for every item.

    The intent of an item is committed before its request is written, and its result after it. A run that was killed at
    any moment can be started again with the same input and the same file. One thread commits in groups, and every
    commit waits for the disk (SQLite's ``synchronous=FULL``). Use a local disk.

    The file contains digests of keys, positions in the input and outcomes, but no number, text or credential. Only its
    owner can read it. Trying all phone numbers reveals which ones the digests belong to, so protect the file like the
    list of numbers. A lock on the file itself stops other processes from sending with the same journal. After a kill
    the newest results are in ``<path>-wal``, and ``<path>-mark`` shows the next run if they are complete: copy or
    move these files together, and never delete one alone. All files are checked before anything is sent, and a journal
    that is damaged or incomplete is refused.

    `BulkSender` opens and closes the journal. Use ``async with`` to read its `counts` without sending.

    Args:
        path: the file; created if it does not exist, resumed if it does.
        run: part of the default keys: a run with another name sends to the same numbers again.
        template: the template of the run; a file that was made with another one is refused.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    @clears_locals
    def __init__(self, path: str | os.PathLike[str], *, run: str = "", template: CodeTemplate | None = None) -> None:
        name: object = os.fspath(path)
        if not isinstance(name, str) or not name or "\0" in name or name == ":memory:" or name.startswith("file:"):
            raise ConfigurationError("journal: must be the path of a file")
        if not isinstance(run, str):
            raise ConfigurationError("run: must be a name")
        if template is not None and not isinstance(template, CodeTemplate):
            raise ConfigurationError("template: must be a CodeTemplate")
        self.run = run
        self.template = template
        super().__init__(JournalFile(name, run))
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
            clock: source of the time of day; for tests.

        Raises:
            JournalError: the file cannot be used; the message says why and what to do.
            ClientStateError: the journal is open already.
        """
        if self.is_open:
            raise ClientStateError("this journal is open already; use a separate SQLiteJournal for each run")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bandwidth-mfa-journal")
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
        """Tie the file permanently to the facts that determine what every key stands for.

        Args:
            template: the template of the run.
            channel: ``"messaging"`` or ``"voice"``.
            custom_keys: whether the keys come from a function of the user.

        Raises:
            JournalError: the file was made with other values; the message names what differs.
        """
        facts = {} if channel is None else {"channel": channel}
        if custom_keys is not None:
            facts["kind of keys"] = "own" if custom_keys else "default"
        if template is not None:
            values = zip(TEMPLATE_FIELDS, template_values(template), strict=True)
            facts |= {f"template.{name}": fact_digest(value) for name, value in values}
        await self._run_in_thread(lambda: self._file.bind(facts))

    @property
    def has_number_keys(self) -> bool:
        """Whether the journal has items that were given to `claim_numbers`."""
        return self._file.has_number_keys

    async def claim_numbers(self, pairs: Sequence[tuple[bytes, bytes]], *, allow_repeats: bool = False) -> list[bool]:
        """Return for each item whether its number has another text in this journal that was sent, or may have been.

        For items whose text, scope or digits may differ from the template's, and with them the key. An item for which
        False is returned is recorded.

        Args:
            pairs: for each item the digests of the default key that its number has, and of its own key.
            allow_repeats: return False and record the item in any case.

        Raises:
            JournalError: the file cannot be written.
        """
        return await self._run_in_thread(lambda: self._file.claim_numbers(pairs, allow_repeats=allow_repeats))

    async def record_input(self, items: int) -> None:
        """Store how many items the checked input has, so that a report can say how many were not taken."""
        await self._run_in_thread(lambda: self._file.record_input(items))

    async def counts(self) -> dict[str, int]:
        """Return the number of items in each state: ``pending``, ``sending``, ``accepted``, ``rejected``, ...

        Raises:
            JournalError: the file cannot be written or read.
        """
        await self.flush()
        return await self._run_in_thread(self._file.counts)

    async def aclose(self, ending: Ending = "finished") -> None:
        """Write the remaining changes, record how the run ended, and close the file; further calls do nothing.

        Args:
            ending: how the run ended.

        Raises:
            JournalError: not all changes could be written.
        """
        thread = self._thread
        if thread is None or self._loop is None:
            return
        failure: JournalError | None = None
        cancelled: asyncio.CancelledError | None = None
        # Finish despite a cancellation: otherwise the file stays locked and its last results are lost.
        try:
            while self._is_writing:
                cancelled = await _wait_through_cancellation(self._waiter()) or cancelled
            now = self._clock.time()
            closing = self._loop.run_in_executor(thread, self._file.close, ending, now)
            cancelled = await _wait_through_cancellation(closing) or cancelled
            closing.result()
        except JournalError as error:
            failure = error
        finally:
            self._thread = self._loop = None
            thread.shutdown(wait=False)
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

    # Changes that a run writes.

    def add(self, key: bytes, position: int, payload: bytes | None, on_result: OnResult[_Item], item: _Item) -> None:
        """Look an item up, and add it as pending if it is new.

        Args:
            key: digest of the key, 16 bytes.
            position: position in the input.
            payload: digest of the request, 8 bytes, if the key is a custom one.
            on_result: called with the item and its row, once the item is on disk or the journal failed.
            item: argument for `on_result`.
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
        """Return a future that completes when the intent to send an item is on disk.

        Raises:
            JournalError: the journal failed, so the item must not be sent; also raised by the future.
        """
        if self._failure is not None:
            raise JournalError(*self._failure.args)
        waiter = self._waiter()
        self._batch.intents[row_id] = None
        self._schedule_write()
        return waiter

    def accept(  # noqa: PLR0913 - the columns of an acceptance
        self,
        row_id: int,
        provider_id: str,
        attempts: int,
        at: float,
        latency: float | None,
        *,
        possible_duplicate: bool = False,
    ) -> None:
        """Record and count that the service accepted an item; written with the next batch.

        Args:
            row_id: the item's row.
            provider_id: the service's id of the text or call.
            attempts: number of attempts in this run.
            at: time of the result in Unix seconds.
            latency: seconds until the response.
            possible_duplicate: whether an earlier attempt may have been delivered too.
        """
        self.count(_ACCEPTED, at, latency)
        if possible_duplicate:
            self.settle(
                row_id,
                JournalState.ACCEPTED,
                provider_id=provider_id,
                attempts=attempts,
                at=at,
                possible_duplicate=True,
            )
            return
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
        possible_duplicate: bool = False,
    ) -> None:
        """Record the state of an item after its attempts; written with the next batch.

        An item that is unknown, or was before its latest attempt, stays unknown unless `status` is accepted; an
        accepted item stays accepted.

        Args:
            row_id: the item's row.
            status: the state; `JournalState.PENDING` puts the item back.
            provider_id: the service's id of an accepted item.
            cause: class name of the error.
            http_status: HTTP status of the response.
            is_retryable_next_run: whether the next run may send the item again.
            attempts: number of attempts in this run.
            at: time of the result in Unix seconds.
            possible_duplicate: for an accepted item, whether an earlier attempt may have been delivered too.
        """
        # The result replaces an intent of the same batch.
        batch = self._batch
        batch.intents.pop(row_id, None)
        batch.settled[row_id] = (
            status,
            provider_id,
            cause,
            http_status,
            is_retryable_next_run,
            attempts,
            # If the clock is set back, the result is still one of this session.
            None if at is None else max(at, self._file.opened_at),
            possible_duplicate,
        )
        self._schedule_write()

    def count(self, counter: str, at: float, latency: float | None = None) -> None:
        """Count a result or a 429 in its second; call this before `settle`, which schedules the write.

        Args:
            counter: a column of the table ``second``.
            at: time in Unix seconds.
            latency: seconds until the response; None if there was none.
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
        """Wait until all recorded changes are on disk.

        Raises:
            JournalError: some changes could not be written.
        """
        await self._wait_written()
        if self._failure is not None:
            self._failure_raised = True
            raise JournalError(*self._failure.args)


async def _wait_through_cancellation(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for a future even if cancelled; return the last cancellation, for the caller to raise."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    future.exception()  # mark it as retrieved
    return cancelled
