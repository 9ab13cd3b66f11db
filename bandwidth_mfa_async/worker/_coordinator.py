"""Keeps a bounded number of chunks in the queue, and queues a chunk again that no worker has claimed in time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .._lease import Lease
from .._process import PerProcess
from .._redaction import printable
from ..errors import LedgerError
from .ledger._protocol import PlanReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .ledger._ledger import RedisLedger

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
MAX_QUEUED_CHUNKS: Final = 64
REQUEUE_AFTER: Final = 5.0
_LEASE: Final = 5.0
"""Seconds without a renewal after which another process takes over the coordination of a job."""
_HAS_WORK: Final = frozenset({PlanReply.ACTIVE, PlanReply.HELD})
_IS_OVER: Final = frozenset({PlanReply.ENDED, PlanReply.GONE})


class Coordinator:
    """Plans the jobs of a ledger. Every worker and every `Job.watch` runs one.

    One process at a time coordinates a job, under a lease. All state is in the ledger, so any other process continues
    where a killed one stopped.

    Args:
        ledger: the ledger.
        wake: sends the wake-up message of a chunk.
        max_queued_chunks: the number of chunks of a job that may be queued or claimed.
        requeue_after: seconds after which a chunk that no worker has claimed is queued again.
    """

    def __init__(
        self,
        ledger: RedisLedger,
        wake: Callable[[str, int], Awaitable[None]],
        *,
        max_queued_chunks: int = MAX_QUEUED_CHUNKS,
        requeue_after: float = REQUEUE_AFTER,
    ) -> None:
        self._ledger = ledger
        self._wake = wake
        self._max_queued_chunks = max_queued_chunks
        self._requeue_after = requeue_after
        self._leases: PerProcess[dict[str, Lease]] = PerProcess(dict)
        self._queue_failed = False
        # The last error of each job: this runs every second, and each error is logged once.
        self._logged_errors: dict[str, str] = {}

    async def plan_all(self) -> list[str]:
        """Plan every job once; return the names of the jobs that have work.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        active: list[str] = []
        for job in await self._ledger.jobs():
            try:
                status = await self.plan(job)
                if status in _IS_OVER:
                    await self._ledger.forget(job)
                    # It may have been resumed between the two.
                    status = await self.plan(job)
                    if status in _HAS_WORK:
                        await self._ledger.register(job)
            except LedgerError as error:
                if self._logged_errors.get(job) != str(error):
                    self._logged_errors[job] = str(error)
                    _LOG.warning("this worker skips job %s: %s", printable(job), error)
                continue
            self._logged_errors.pop(job, None)
            if status in _HAS_WORK:
                active.append(job)
            elif status in _IS_OVER:
                self._leases.get().pop(job, None)
        return active

    async def plan(self, job: str) -> PlanReply:
        """Plan one job once; return its status.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        leases = self._leases.get()
        lease = leases.get(job)
        if lease is None:
            lease = leases[job] = Lease(min(_LEASE, self._ledger.lease), self._ledger.clock)
        status, chunks = await self._ledger.plan(
            job, lease, max_queued_chunks=self._max_queued_chunks, requeue_after=self._requeue_after
        )
        for chunk in chunks:
            try:
                await self._wake(job, chunk)
            except Exception as error:  # noqa: BLE001 - brokers raise anything; workers find the chunk without a message
                if not self._queue_failed:
                    _LOG.warning(
                        "the queue did not accept a wake-up message (%s); workers poll the ledger until it does: "
                        "check that the broker runs",
                        type(error).__name__,
                    )
                self._queue_failed = True
                break
            self._queue_failed = False
        return status
