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
        "error",
        "in_flight",
        "index",
        "key",
        "maybe_delivered",
        "payload",
        "request",
        "row_id",
        "run",
        "started_at",
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
        self.row_id = 0
        self.attempts = 0
        self.started_at = 0.0
        # Whether an attempt is under way, and whether one may have reached a person without our knowing.
        self.in_flight = False
        self.maybe_delivered = False
        # How the last attempt that ended came to fail.
        self.error: RequestError | None = None

    @property
    def check_before_write(self) -> None:
        """None: what a journal has on record, no other process can take over."""

    async def before_attempt(self) -> None:
        """Put the intent on record, and count the attempt."""
        run = self.run
        if run.journal is not None:
            await run.journal.begin(self.row_id)
        if run.stopping:
            # Between two attempts nothing may have been waited for, so that the cancellation below has not come yet.
            raise asyncio.CancelledError
        self.in_flight = True
        self.attempts += 1
        run.summary.in_flight += 1
        self.started_at = run.clock.monotonic()

    def attempt_failed(self, error: RequestError) -> None:
        """Note a failed attempt: one that certainly sent nothing leaves the item as if it had not begun."""
        self.error = error
        if not self.in_flight:
            return
        run = self.run
        self.end_attempt()
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        if isinstance(error, RateLimitError):
            run.summary.throttled += 1
        if run.journal is not None:
            if isinstance(error, RateLimitError):
                run.journal.count("throttled", run.clock.time())
            if not self.maybe_delivered:
                run.journal.settle(self.row_id, JournalState.PENDING)
        if run.stopping and (task := asyncio.current_task()) is not None:
            task.cancel()  # no further attempt

    def cancelled(self, delivery: Delivery) -> None:
        """Note that the call was cancelled."""
        self.end_attempt()
        self.maybe_delivered = self.maybe_delivered or delivery is Delivery.UNKNOWN

    def end_attempt(self) -> None:
        """Note that no attempt is under way any more."""
        if self.in_flight:
            self.in_flight = False
            self.run.summary.in_flight -= 1

    def abandoned_error(self, operation: str) -> MFAError:
        """Return the error of an item that its run let go of.

        Args:
            operation: the client's method.
        """
        if self.maybe_delivered:
            text = "the run was ended while an attempt was under way or its outcome unknown"
            return DeliveryUnknownError(text, operation, attempts=self.attempts, retry_stopped_by="closed")
        if self.error is not None:
            self.error._update(operation=operation, attempts=self.attempts)  # noqa: SLF001 - this package's own
            return self.error
        text = "the run was stopped before the request was written"
        return NotSentError(text, operation, attempts=self.attempts, retry_stopped_by="closed")
