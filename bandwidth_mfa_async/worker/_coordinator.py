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
WINDOW: Final = 64
AGAIN_AFTER: Final = 5.0
_LEASE: Final = 5.0
"""Seconds after which another takes over from a coordinator that shows no sign of life."""


class Coordinator:
    """Plans the jobs of a ledger for whoever asks: every worker, and everybody who watches a job.

    One at a time coordinates a job, under a lease of its own; all it knows is in the ledger, so that any other goes on
    where it was killed.

    Args:
        ledger: the truth.
        hint: puts a chunk into the queue.
        window: how many chunks of a job may be in the queue or worked at.
        again_after: seconds after which a chunk that nobody works at is put into the queue again.
    """

    def __init__(
        self,
        ledger: RedisLedger,
        hint: Callable[[str, int], Awaitable[None]],
        *,
        window: int = WINDOW,
        again_after: float = AGAIN_AFTER,
    ) -> None:
        self._ledger = ledger
        self._hint = hint
        self._window = window
        self._again_after = again_after
        self._leases: dict[str, Lease] = {}
        self._queue_is_lost = False
        # Jobs that cannot be worked at, and why: a round comes every second, and the log is told once.
        self._told: dict[str, str] = {}

    async def round(self) -> list[str]:
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
                if self._told.get(job) != str(error):
                    self._told[job] = str(error)
                    _LOG.warning("job %s cannot be worked at: %s", job, error)
                continue
            self._told.pop(job, None)
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
        word, chunks = await self._ledger.plan(job, lease, window=self._window, again_after=self._again_after)
        for chunk in chunks:
            try:
                await self._hint(job, chunk)
            except Exception as error:  # noqa: BLE001 - whatever a broker raises: workers find the chunk by themselves
                if not self._queue_is_lost:
                    _LOG.warning("the queue takes no hints (%s); workers go on without", type(error).__name__)
                self._queue_is_lost = True
                break
            self._queue_is_lost = False
        return word
