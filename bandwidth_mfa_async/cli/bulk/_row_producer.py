"""Reads rows in a thread and provides them to a bulk run as an async iterator."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

from ...errors import InvalidRequestError
from ._plan import open_rows
from ._rows import InputRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ._plan import Plan
    from ._rejects import Rejects
    from ._rows import BadRow


_BATCH: Final = 256
_BATCHES: Final = 4


class RowProducer:
    """Provides rows to a `BulkSender`; a thread reads them, so that a slow disk or pipe does not block the event loop.

    Args:
        plan: the run with the input to read.
        rejects: started with the input's columns before the first row.
        admit: returns a batch of rows, with bad rows in place of those that must not be sent.
    """

    def __init__(
        self,
        plan: Plan,
        rejects: Rejects | None,
        admit: Callable[[list[InputRow | BadRow]], Awaitable[list[InputRow | BadRow]]] | None = None,
    ) -> None:
        self.pending_rows: dict[int, InputRow | BadRow] = {}
        """Rows that were returned and have no outcome yet, by their position in the input."""
        self.ignored: list[str] = []
        self._plan = plan
        self._rejects = rejects
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._batches: deque[list[InputRow | BadRow]] = deque()
        self._rows: Iterator[InputRow | BadRow] = iter(())
        self._free_batches = threading.Semaphore(_BATCHES)
        self._next_index = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        # A daemon: at exit it may be blocked in a read from a pipe that never ends.
        self._thread = threading.Thread(target=self._read, name="bandwidth-mfa-rows", daemon=True)

    def __aiter__(self) -> Self:
        self._thread.start()
        return self

    async def __anext__(self) -> Any:
        """Return the next row's request, or an `InvalidRequestError`, which a `BulkSender` counts as invalid.

        Raises:
            InputFileError: the rest of the file cannot be read, or the file was changed.
        """
        while (row := next(self._rows, None)) is None:
            if self._batches:
                batch = self._batches.popleft()
                self._free_batches.release()
                # The thread reads ahead, so the file may have been changed since.
                if not self._plan.input.is_pipe:
                    await asyncio.to_thread(self._plan.input.verify)
                self._rows = iter(batch if self._admit is None else await self._admit(batch))
            elif self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            else:
                self._waiter = self._loop.create_future()
                await self._waiter
        self.pending_rows[self._next_index] = row
        self._next_index += 1
        return row.template.to(row.to) if isinstance(row, InputRow) else InvalidRequestError("row", row.reason)

    def close(self) -> None:
        """Stop the thread at its next row."""
        self._closed = True
        self._free_batches.release()

    # Called in the thread.

    def _read(self) -> None:
        batch: list[InputRow | BadRow] = []
        error: BaseException | None = None

        def hand_over() -> None:
            if batch:
                self._free_batches.acquire()
                self._post(self._on_batch, batch.copy())
                batch.clear()

        try:
            with open_rows(self._plan) as (reader, _):
                # Hand over the rows read so far before a read that may block.
                reader.source.before_read = hand_over
                for row in reader:
                    if reader.rows == 1:
                        # Share the list: the reader adds to it for JSON Lines.
                        self.ignored = reader.ignored
                        if self._rejects is not None:
                            self._rejects.start(reader.header)
                    batch.append(row)
                    if len(batch) == _BATCH:
                        hand_over()
                    if self._closed:
                        return
        except Exception as failure:  # noqa: BLE001 - raised in __anext__
            error = failure
        hand_over()
        self._post(self._on_end, error)

    def _post(self, callback: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, value)

    # Called in the event loop.

    def _on_batch(self, batch: list[InputRow | BadRow]) -> None:
        self._batches.append(batch)
        self._wake_consumer()

    def _on_end(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._wake_consumer()

    def _wake_consumer(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
