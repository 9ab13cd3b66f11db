"""Many workers on one account: taskiq carries hints, and a ledger in Redis knows what was sent."""

from __future__ import annotations

from ..errors import LedgerError
from ._codes import CodeOutcome
from ._job import Job, JobOutcome, JobProgress
from ._ledger import RedisLedger
from ._worker import MFAWorker

__all__ = ["CodeOutcome", "Job", "JobOutcome", "JobProgress", "LedgerError", "MFAWorker", "RedisLedger"]
