"""Bulk sending: a stream of requests in, a stream of outcomes out, and a journal that survives `kill -9`."""

from __future__ import annotations

from ..errors import JournalError
from ._outcome import BulkSummary, ItemOutcome
from ._sender import BulkSender
from ._stream import OutcomeStream
from .journal._journal import SQLiteJournal
from .report._report import JournalReport

__all__ = [
    "BulkSender",
    "BulkSummary",
    "ItemOutcome",
    "JournalError",
    "JournalReport",
    "OutcomeStream",
    "SQLiteJournal",
]
