"""The coordinator: keeps a window of chunks in the queue, and names again what is neither done nor worked at."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .._lease import Lease
from ..errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .ledger._ledger import RedisLedger

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
MAX_QUEUED_CHUNKS: Final = 64
REQUEUE_AFTER: Final = 5.0
_LEASE: Final = 5.0
"""Seconds after which another takes over from a coordinator that shows no sign of life."""


class Coordinator:
    """Plans the jobs of a ledger for whoever asks: every worker, and everybody who watches a job.

    One at a time coordinates a job, under a lease of its own; all it knows is in the ledger, so that any other goes on
    where it was killed.

    Args:
        ledger: the truth.
        wake: puts a chunk into the queue.
        max_queued_chunks: how many chunks of a job may be in the queue or worked at.
        requeue_after: seconds after which a chunk that nobody works at is put into the queue again.
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
        self._leases: dict[str, Lease] = {}
        self._queue_failed = False
        # Jobs that cannot be worked at, and why: a round comes every second, and the log is told once.
        self._reported: dict[str, str] = {}

    async def plan_all(self) -> list[str]:
        """Plan every job once; return the names of those there is work for.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        going: list[str] = []
        for job in await self._ledger.jobs():
            try:
                word = await self.plan(job)
                if word in {"ended", "gone"}:
                    await self._ledger.forget(job)
                    # One that was resumed between the two would be nobody's.
                    word = await self.plan(job)
                    if word in {"going", "held"}:
                        await self._ledger.register(job)
            except LedgerError as error:
                if self._reported.get(job) != str(error):
                    self._reported[job] = str(error)
                    _LOG.warning("job %s cannot be worked at: %s", job, error)
                continue
            self._reported.pop(job, None)
            if word in {"going", "held"}:
                going.append(job)
            elif word in {"ended", "gone"}:
                self._leases.pop(job, None)
        return going

    async def plan(self, job: str) -> str:
        """Plan one job once; return what the ledger says of it.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        lease = self._leases.get(job)
        if lease is None:
            lease = self._leases[job] = Lease(min(_LEASE, self._ledger.lease), self._ledger.clock)
        word, chunks = await self._ledger.plan(
            job, lease, max_queued_chunks=self._max_queued_chunks, requeue_after=self._requeue_after
        )
        for chunk in chunks:
            try:
                await self._wake(job, chunk)
            except Exception as error:  # noqa: BLE001 - whatever a broker raises: workers find the chunk by themselves
                if not self._queue_failed:
                    _LOG.warning("the queue takes no hints (%s); workers go on without", type(error).__name__)
                self._queue_failed = True
                break
            self._queue_failed = False
        return word
