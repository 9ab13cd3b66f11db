"""The state of one item in a bulk run; it observes the attempts of its call."""

from __future__ import annotations

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
    """The part of a run that its items use."""

    clock: Clock
    journal: SQLiteJournal | None
    summary: BulkSummary
    stopping: bool


class Item:
    """One item of a bulk run.

    Args:
        run: the run that sends it.
        index: position in the input.
        key: idempotency key.
        request: the request to send.
        payload: digest of the request, if the key is a custom one.
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
        "was_stopped",
    )

    def __init__(
        self, run: RunContext, index: int, key: str, request: CodeRequest, payload: bytes | None = None
    ) -> None:
        self.run = run
        self.index = index
        self.key = key
        self.request = request
        self.payload = payload
        # Id of the journal row; 0 without a journal.
        self.row_id = 0
        self.attempts = 0
        self.started_at = 0.0
        # Whether an attempt is in flight.
        self.in_flight = False
        # Whether an attempt with an unknown outcome may have been delivered.
        self.maybe_delivered = False
        # Whether the run's stop ended the call.
        self.was_stopped = False
        # Error of the last failed attempt.
        self.error: RequestError | None = None

    @property
    def before_wait(self) -> None:
        """None: an item in a journal never waits for another one."""
        return

    @property
    def check_before_write(self) -> None:
        """None: the journal is locked, so no other process can take over the item."""

    async def before_attempt(self) -> bool:
        """Wait until the intent is on disk, then count the attempt; return False if the run stops."""
        run = self.run
        if run.journal is not None:
            await run.journal.begin(self.row_id)
        if not self.may_retry():
            return False
        self.in_flight = True
        self.attempts += 1
        run.summary.in_flight += 1
        self.started_at = run.clock.monotonic()
        return True

    def may_retry(self) -> bool:
        """Return whether the run continues; otherwise it puts the item back."""
        self.was_stopped = self.was_stopped or self.run.stopping
        return not self.was_stopped

    def attempt_failed(self, error: RequestError) -> None:
        """Record a failed attempt; put the item back to pending, or to unknown if it may have been delivered."""
        if self.was_stopped:
            return  # the error says only that
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
            if self.maybe_delivered:
                # At once, not at the end of the call: the next intent then remembers this attempt.
                cause, status = type(error).__name__, getattr(error, "status", None)
                run.journal.settle(self.row_id, JournalState.UNKNOWN, cause=cause, http_status=status)
            else:
                run.journal.settle(self.row_id, JournalState.PENDING)

    def interrupted(self, delivery: Delivery) -> None:
        """Record that a cancellation or an unexpected error ended the call."""
        self.end_attempt()
        self.maybe_delivered = self.maybe_delivered or delivery is Delivery.UNKNOWN

    def end_attempt(self) -> None:
        """Record that no attempt is in flight."""
        if self.in_flight:
            self.in_flight = False
            self.run.summary.in_flight -= 1

    def abandoned_error(self, operation: str) -> MFAError:
        """Return the error of an item that its run abandoned.

        Args:
            operation: name of the client method.
        """
        if self.maybe_delivered:
            text = "the run ended while an attempt was in flight or its outcome unknown"
            return DeliveryUnknownError(text, operation, attempts=self.attempts, retry_stopped_by="closed")
        if self.error is not None:
            self.error._update(operation=operation, attempts=self.attempts)  # noqa: SLF001 - this package's own
            return self.error
        text = "the run was stopped before the request was written"
        return NotSentError(text, operation, attempts=self.attempts, retry_stopped_by="closed")
