"""One item of a run on its way, which is also the recorder of its call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from .._item_state import JournalState
from ..errors import Delivery, DeliveryUnknownError, NotSentError, RateLimitError

if TYPE_CHECKING:
    from .._clock import Clock
    from .._models import CodeRequest
    from ..errors import MFAError, RequestError
    from ._outcome import BulkSummary
    from .journal._journal import SQLiteJournal


class RunContext(Protocol):
    """What an item needs of its run."""

    clock: Clock
    journal: SQLiteJournal | None
    summary: BulkSummary
    stopping: bool


class Item:
    """One item.

    Args:
        run: its run.
        index: its place in the input.
        key: its idempotency key.
        request: what is to be sent.
        payload: a digest of that, where the key does not say it.
    """

    __slots__ = (
        "attempts",
        "begun_at",
        "error",
        "index",
        "key",
        "payload",
        "request",
        "row",
        "run",
        "under_way",
        "unknown",
    )

    def __init__(
        self, run: RunContext, index: int, key: str, request: CodeRequest, payload: bytes | None = None
    ) -> None:
        self.run = run
        self.index = index
        self.key = key
        self.request = request
        self.payload = payload
        # Its row in the journal; 0 without a journal.
        self.row = 0
        self.attempts = 0
        self.begun_at = 0.0
        # Whether an attempt is under way, and whether one may have reached a person without our knowing.
        self.under_way = False
        self.unknown = False
        # How the last attempt that ended came to fail.
        self.error: RequestError | None = None

    @property
    def check_before_write(self) -> None:
        """None: what a journal has on record, no other process can take over."""

    async def before_attempt(self) -> None:
        """Put the intent on record, and count the attempt."""
        run = self.run
        if run.journal is not None:
            await run.journal.begin(self.row)
        if run.stopping:
            # Between two attempts nothing may have been waited for, so that the cancellation below has not come yet.
            raise asyncio.CancelledError
        self.under_way = True
        self.attempts += 1
        run.summary.in_flight += 1
        self.begun_at = run.clock.monotonic()

    def attempt_failed(self, error: RequestError) -> None:
        """Note a failed attempt: one that certainly sent nothing leaves the item as if it had not begun."""
        self.error = error
        if not self.under_way:
            return
        run = self.run
        self.end()
        self.unknown = self.unknown or error.delivery is Delivery.UNKNOWN
        if isinstance(error, RateLimitError):
            run.summary.throttled += 1
        if run.journal is not None:
            if isinstance(error, RateLimitError):
                run.journal.count("throttled", run.clock.time())
            if not self.unknown:
                run.journal.settle(self.row, JournalState.PENDING)
        if run.stopping and (task := asyncio.current_task()) is not None:
            task.cancel()  # no further attempt

    def cancelled(self, delivery: Delivery) -> None:
        """Note that the call was cancelled."""
        self.end()
        self.unknown = self.unknown or delivery is Delivery.UNKNOWN

    def end(self) -> None:
        """Note that no attempt is under way any more."""
        if self.under_way:
            self.under_way = False
            self.run.summary.in_flight -= 1

    def cut_short(self, operation: str) -> MFAError:
        """Return the error of an item that its run let go of.

        Args:
            operation: the client's method.
        """
        if self.unknown:
            text = "the run was ended while an attempt was under way or its outcome unknown"
            return DeliveryUnknownError(text, operation, attempts=self.attempts, retry_stopped_by="closed")
        if self.error is not None:
            self.error._update(operation=operation, attempts=self.attempts)  # noqa: SLF001 - this package's own
            return self.error
        text = "the run was stopped before the request was written"
        return NotSentError(text, operation, attempts=self.attempts, retry_stopped_by="closed")
