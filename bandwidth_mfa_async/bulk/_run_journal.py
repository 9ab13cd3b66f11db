"""What a run writes of its items into its journal, and what it learns of them there; without a journal, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._item_state import DELIVERY_OF_JOURNAL_STATE, JOURNAL_STATE_OF, JournalState, is_retryable_next_run
from .._keys import key_digest
from .._models import MessagingCodeResponse, ResponseMeta, VoiceCodeResponse
from ..errors import APIStatusError, Delivery, DeliveryUnknownError, InvalidRequestError, JournalError
from ._outcome import ItemOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._clock import Clock
    from ..errors import MFAError
    from ._item import Item
    from .journal._file import JournalRow
    from .journal._journal import LookupResult, SQLiteJournal


class RunJournal:
    """A run's side of its journal.

    Args:
        journal: None for a run that remembers nothing.
        clock: the client's.
        channel: ``"messaging"`` or ``"voice"``.
        operation: the client's method, for errors.
        resends_unknown: whether what an earlier run left unknown is sent again.
    """

    def __init__(
        self, journal: SQLiteJournal | None, clock: Clock, channel: str, operation: str, *, resends_unknown: bool
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._response = MessagingCodeResponse if channel == "messaging" else VoiceCodeResponse
        self._operation = operation
        self._resends_unknown = resends_unknown
        # The rows of items that this run has taken on and not yet ended.
        self._active: set[int] = set()

    def begin(self, item: Item, row: int | JournalRow) -> ItemOutcome | None:
        """Take an item on, unless what the journal knows of it is its outcome already.

        Args:
            item: it learns its row, and whether it may have been sent before.
            row: what the journal knows; the number of a new one.
        """
        if isinstance(row, int):
            item.row = row
            self._active.add(row)
            return None
        item.row = row.id
        payload = item.payload
        item.unknown = row.status is JournalState.UNKNOWN
        if payload is not None and row.payload is not None and row.payload != payload.hex().upper():
            error = InvalidRequestError("key", "stands for another request in this journal; give each request its own")
            return ItemOutcome(item.index, item.key, item.request, Delivery.INVALID, error=error)
        if row.id in self._active or row.status is JournalState.SENDING:
            # Under way in this very run: a row that an earlier run left so became unknown when the file was opened.
            return ItemOutcome(item.index, item.key, item.request, Delivery.SKIPPED)
        if row.settled:
            return self._done_before(item, row)
        if row.status is JournalState.UNKNOWN and not self._resends_unknown:
            text = "it was under way when an earlier run ended, and nobody knows whether it was sent"
            unknown = DeliveryUnknownError(text, self._operation, attempts=row.attempts)
            return ItemOutcome(item.index, item.key, item.request, Delivery.UNKNOWN, error=unknown)
        self._active.add(row.id)
        return None

    def _done_before(self, item: Item, row: JournalRow) -> ItemOutcome:
        response = None
        if row.provider_id is not None:
            response = self._response(row.provider_id, meta=ResponseMeta(attempts=row.attempts, elapsed=0.0))
        previous = DELIVERY_OF_JOURNAL_STATE[row.status]
        return ItemOutcome(item.index, item.key, item.request, Delivery.SKIPPED, response, previous=previous)

    def accepted(self, item: Item, provider_id: str) -> None:
        """Write that the service took an item."""
        journal = self._journal
        if journal is None:
            return
        self._active.discard(item.row)
        journal.accept(item.row, provider_id, item.attempts, self._clock.time(), self._latency(item))

    def failed(self, item: Item, delivery: Delivery, error: MFAError) -> None:
        """Write why an item was not taken."""
        journal = self._journal
        if journal is None:
            return
        self._active.discard(item.row)
        status = error.status if isinstance(error, APIStatusError) else None
        now = self._clock.time()
        journal.count(delivery.value, now, None if status is None else self._latency(item))
        journal.settle(
            item.row,
            JOURNAL_STATE_OF[delivery],
            cause=type(error).__name__,
            http_status=status,
            again=delivery is not Delivery.UNKNOWN and is_retryable_next_run(error),
            attempts=item.attempts,
            at=now,
        )

    def put_back(self, item: Item) -> None:
        """Let an item wait in the journal for the next run, whatever became of its intent."""
        if self._journal is not None and (item.attempts or item.row in self._active):
            self._journal.settle(item.row, JournalState.PENDING, attempts=item.attempts)
        self._active.discard(item.row)

    def invalid(self, value: object, index: int, on_failure: Callable[[JournalError], None]) -> None:
        """Write that an item breaks a rule, once however often it comes.

        Args:
            value: what the input held.
            index: its place.
            on_failure: told when the journal cannot take it.
        """
        journal = self._journal
        if journal is None:
            return

        def known(_value: object, row: LookupResult) -> None:
            if isinstance(row, JournalError):
                on_failure(row)
            elif isinstance(row, int) or row.status is JournalState.PENDING:
                now = self._clock.time()
                id_ = row if isinstance(row, int) else row.id
                journal.count(Delivery.INVALID.value, now)
                journal.settle(id_, JournalState.INVALID, cause=InvalidRequestError.__name__, at=now)

        name = value if type(value) is str else index
        journal.add(key_digest(f"invalid {name}"), index, None, known, value)

    def _latency(self, item: Item) -> float | None:
        """Return how long the answer took, in seconds; None for an item of which nothing was sent."""
        return self._clock.monotonic() - item.begun_at if item.attempts else None
