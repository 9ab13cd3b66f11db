"""Sends codes from many worker processes: taskiq carries wake-up messages, and a ledger in Redis holds all state.

`MFAWorker` is imported at its first use, because reading a ledger does not need taskiq.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import LedgerError
from ._job import Job, JobOutcome, JobProgress, known_jobs
from .ledger._code_queue import CodeOutcome
from .ledger._ledger import RedisLedger

if TYPE_CHECKING:
    from ._worker import MFAWorker

__all__ = [
    "CodeOutcome",
    "Job",
    "JobOutcome",
    "JobProgress",
    "LedgerError",
    "MFAWorker",
    "RedisLedger",
    "known_jobs",
]


def __getattr__(name: str) -> object:
    if name != "MFAWorker":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        from ._worker import MFAWorker
    except ImportError as error:
        if error.name is None or not error.name.startswith("taskiq"):
            raise
        msg = "MFAWorker needs taskiq: pip install 'bandwidth-mfa-async[worker]'"
        raise ImportError(msg) from None
    return MFAWorker
