"""Reads rows in a thread and feeds them to a bulk run."""

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
    from collections.abc import Callable, Iterator

    from ._plan import Plan
    from ._rejects import Rejects
    from ._rows import BadRow


_BATCH: Final = 256
_BATCHES: Final = 4


class RowProducer:
    """Gives rows to a `BulkSender`, read by a thread: a disk or a pipe may be slow, and the loop must not wait.

    Args:
        plan: where the rows are.
        rejects: told of the columns before the first row comes.
    """

    def __init__(self, plan: Plan, rejects: Rejects | None) -> None:
        self.under_way: dict[int, InputRow | BadRow] = {}
        """Rows that were given and have no outcome yet, by their place in the input."""
        self.ignored: list[str] = []
        self._plan = plan
        self._rejects = rejects
        self._loop = asyncio.get_running_loop()
        self._batches: deque[list[InputRow | BadRow]] = deque()
        self._rows: Iterator[InputRow | BadRow] = iter(())
        self._room = threading.Semaphore(_BATCHES)
        self._given = 0
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        # Nobody waits for it at the end: it may be in the middle of a read from a pipe that says nothing.
        self._thread = threading.Thread(target=self._read, name="bandwidth-mfa-rows", daemon=True)

    def __aiter__(self) -> Self:
        self._thread.start()
        return self

    async def __anext__(self) -> Any:
        """Return the next row's request, or an `InvalidRequestError`, which a `BulkSender` takes for what it says.

        Raises:
            InputFileError: the file as a whole cannot be read any further.
        """
        while (row := next(self._rows, None)) is None:
            if self._batches:
                self._rows = iter(self._batches.popleft())
                self._room.release()
            elif self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            else:
                self._wake = self._loop.create_future()
                await self._wake
        self.under_way[self._given] = row
        self._given += 1
        return row.template.to(row.to) if isinstance(row, InputRow) else InvalidRequestError("row", row.reason)

    def close(self) -> None:
        """Let the thread end as soon as it has something to give."""
        self._closed = True
        self._room.release()

    # The thread's side.

    def _read(self) -> None:
        batch: list[InputRow | BadRow] = []
        error: BaseException | None = None

        def hand_over() -> None:
            if batch:
                self._room.acquire()
                self._tell(self._take, batch.copy())
                batch.clear()

        try:
            with open_rows(self._plan.path, self._plan.form, self._plan.template) as (reader, _):
                # What was read goes out before more is waited for.
                reader.source.before_read = hand_over
                for row in reader:
                    if reader.rows == 1:
                        # The list itself: JSON Lines may add to it.
                        self.ignored = reader.ignored
                        if self._rejects is not None:
                            self._rejects.start(reader.header)
                    batch.append(row)
                    if len(batch) == _BATCH:
                        hand_over()
                    if self._closed:
                        return
        except Exception as failure:  # noqa: BLE001 - raised where the rows are awaited
            error = failure
        hand_over()
        self._tell(self._end, error)

    def _tell(self, what: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, value)

    # The loop's side.

    def _take(self, batch: list[InputRow | BadRow]) -> None:
        self._batches.append(batch)
        self._rouse()

    def _end(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
