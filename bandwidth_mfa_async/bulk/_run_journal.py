"""The journal operations of a run: look items up and record their outcomes; no-ops without a journal."""

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
    from .journal._group_commit import LookupResult
    from .journal._journal import SQLiteJournal


class RunJournal:
    """Look up and record the items of one run.

    Args:
        journal: None for a run without a journal.
        clock: the client's clock.
        channel: ``"messaging"`` or ``"voice"``.
        operation: name of the client method, for errors.
        resends_unknown: whether to send items again that an earlier run left unknown.
    """

    def __init__(
        self, journal: SQLiteJournal | None, clock: Clock, channel: str, operation: str, *, resends_unknown: bool
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._response = MessagingCodeResponse if channel == "messaging" else VoiceCodeResponse
        self._operation = operation
        self._resends_unknown = resends_unknown
        # Ids of the rows whose items this run has admitted and not finished.
        self._active_rows: set[int] = set()

    def admit(self, item: Item, result: int | JournalRow) -> ItemOutcome | None:
        """Admit an item for sending and return None, or return its outcome if it must not be sent.

        Args:
            item: the item; gets its row id, and whether an earlier run may have delivered it.
            result: the row that the journal has, or the id of a new row.
        """
        if isinstance(result, int):
            item.row_id = result
            self._active_rows.add(result)
            return None
        row = result
        item.row_id = row.id
        payload = item.payload
        item.maybe_delivered = row.status is JournalState.UNKNOWN
        if payload is not None and row.payload is not None and row.payload != payload.hex().upper():
            error = InvalidRequestError(
                "key", "is used by another request in this journal; use a different key for each request"
            )
            return ItemOutcome(item.index, item.key, item.request, Delivery.INVALID, error=error)
        if row.id in self._active_rows or row.status is JournalState.SENDING:
            # Active in this run: rows that an earlier run left sending became unknown when the file was opened.
            return ItemOutcome(item.index, item.key, item.request, Delivery.SKIPPED)
        if row.is_final:
            return self._skipped_outcome(item, row)
        if row.status is JournalState.UNKNOWN and not self._resends_unknown:
            text = "in flight when an earlier run ended, so it may or may not have been sent"
            unknown = DeliveryUnknownError(text, self._operation, attempts=row.attempts)
            return ItemOutcome(item.index, item.key, item.request, Delivery.UNKNOWN, error=unknown)
        self._active_rows.add(row.id)
        return None

    def _skipped_outcome(self, item: Item, row: JournalRow) -> ItemOutcome:
        response = None
        if row.provider_id is not None:
            meta = ResponseMeta(attempts=row.attempts, possible_duplicate=row.possible_duplicate)
            response = self._response(row.provider_id, meta=meta)
        previous = DELIVERY_OF_JOURNAL_STATE[row.status]
        return ItemOutcome(item.index, item.key, item.request, Delivery.SKIPPED, response, previous=previous)

    def record_accepted(self, item: Item, provider_id: str, *, possible_duplicate: bool = False) -> None:
        """Record that the service accepted an item.

        Args:
            item: the item.
            provider_id: the service's id of the text or call.
            possible_duplicate: whether an earlier attempt may have been delivered too.
        """
        journal = self._journal
        if journal is None:
            return
        self._active_rows.discard(item.row_id)
        journal.accept(
            item.row_id,
            provider_id,
            item.attempts,
            self._clock.time(),
            self._latency(item),
            possible_duplicate=possible_duplicate,
        )

    def record_failed(self, item: Item, delivery: Delivery, error: MFAError) -> None:
        """Record why an item was not accepted."""
        journal = self._journal
        if journal is None:
            return
        self._active_rows.discard(item.row_id)
        status = error.status if isinstance(error, APIStatusError) else None
        now = self._clock.time()
        journal.count(delivery.value, now, None if status is None else self._latency(item))
        journal.settle(
            item.row_id,
            JOURNAL_STATE_OF[delivery],
            cause=type(error).__name__,
            http_status=status,
            is_retryable_next_run=delivery is not Delivery.UNKNOWN and is_retryable_next_run(error),
            attempts=item.attempts,
            at=now,
        )

    def record_abandoned(self, item: Item, delivery: Delivery, error: MFAError) -> None:
        """Record an item that the run does not finish: rejected if it waited for a retry, otherwise pending."""
        if delivery is Delivery.REJECTED:
            self.record_failed(item, delivery, error)
            return
        if self._journal is not None and (item.attempts or item.row_id in self._active_rows):
            self._journal.settle(item.row_id, JournalState.PENDING, attempts=item.attempts)
        self._active_rows.discard(item.row_id)

    def record_invalid(self, value: object, index: int, on_failure: Callable[[JournalError], None]) -> None:
        """Record an item that breaks a rule; the same text is recorded once, however often it occurs.

        Args:
            value: the value from the input.
            index: its position in the input.
            on_failure: called with the error if the journal fails.
        """
        journal = self._journal
        if journal is None:
            return

        def on_result(_value: object, result: LookupResult) -> None:
            if isinstance(result, JournalError):
                on_failure(result)
            elif isinstance(result, int) or result.status is JournalState.PENDING:
                now = self._clock.time()
                row_id = result if isinstance(result, int) else result.id
                journal.count(Delivery.INVALID.value, now)
                journal.settle(row_id, JournalState.INVALID, cause=InvalidRequestError.__name__, at=now)

        name = value if type(value) is str else index
        journal.add(key_digest(f"invalid {name}"), index, None, on_result, value)

    def _latency(self, item: Item) -> float | None:
        """Return the seconds since the last attempt started; None if there was none."""
        return self._clock.monotonic() - item.started_at if item.attempts else None
