"""Many codes: a stream of requests in, a stream of outcomes out, and a journal that survives `kill -9`."""

from __future__ import annotations

from ..errors import JournalError
from ._journal import SQLiteJournal
from ._outcome import BulkSummary, ItemOutcome
from ._report import JournalReport
from ._run import OutcomeStream
from ._sender import BulkSender

__all__ = [
    "BulkSender",
    "BulkSummary",
    "ItemOutcome",
    "JournalError",
    "JournalReport",
    "OutcomeStream",
    "SQLiteJournal",
]
