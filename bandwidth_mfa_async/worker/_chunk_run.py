"""Sends the open items of one claimed chunk concurrently, for a bounded time, under a lease that is renewed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from .._client._recorded_call import AttemptDenied, Entry, send
from .._clock import alarm
from .._config import Resend
from .._item_state import DenyReason, LedgerState
from .._items._circuit_breaker import MAX_CONSECUTIVE_ACCOUNT_ERRORS
from .._items._task_pool import TaskPool
from .._lease import LeaseKeeper
from .._logger import WAITS
from .._redaction import printable
from .._wire import OPERATION_OF
from ..errors import MFAError
from .ledger._codec import keys_only, pack_record, unpack_requests
from .ledger._protocol import INTENT_STORED, ReleaseReply, Reply, deny_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._client._executor import CallExecutor
    from .._items._circuit_breaker import CircuitBreaker
    from .._lease import Lease
    from .._models import CodeRequest
    from .ledger._ledger import Chunk, RedisLedger

_UNKNOWN: Final = frozenset({LedgerState.UNKNOWN, LedgerState.RESENDING})
_LOG = logging.getLogger("bandwidth_mfa_async.worker")


class ChunkRun:
    """The sending of one claimed chunk.

    Args:
        executor: the client's executor.
        ledger: the ledger that holds the chunk.
        chunk: the claimed chunk.
        breaker: the job's circuit breaker in this process.
        on_account_error: called when this run opens the breaker; stops every run of the job in this process.
    """

    def __init__(
        self,
        executor: CallExecutor,
        ledger: RedisLedger,
        chunk: Chunk,
        breaker: CircuitBreaker,
        on_account_error: Callable[[], None],
    ) -> None:
        self.executor = executor
        self.ledger = ledger
        self.chunk = chunk
        self.resends_unknown = executor.policy.resend is Resend.AT_LEAST_ONCE
        self.is_stopping = False
        self.failure: Exception | None = None
        self._breaker = breaker
        self._on_account_error = on_account_error
        self.keeper = LeaseKeeper(chunk.lease, self._renew, on_lost=self.stop)
        self._pool: TaskPool[JobItem] = TaskPool(
            executor.limits.max_in_flight,
            self._send,
            is_in_flight=lambda item: item.in_flight,
            abandon=lambda _item: None,  # it stays pending
            on_cancelled=self.stop,
        )

    async def run(self, seconds: float) -> ReleaseReply:
        """Send the open items and release the chunk.

        No attempt begins after so many seconds; requests in flight then complete.

        Returns:
            The reply of `RedisLedger.release_chunk`.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        chunk, clock = self.chunk, self.ledger.clock
        requests = unpack_requests(chunk.requests)
        open_states = {LedgerState.PENDING, LedgerState.SENDING, LedgerState.NOT_SENT, LedgerState.REFUSED}
        if self.resends_unknown:
            open_states |= _UNKNOWN
        first = chunk.number * chunk.size
        for index, (state, request) in enumerate(zip(chunk.states, requests, strict=True), start=first):
            if request is not None and LedgerState(state) in open_states and not self._breaker.opened_by:
                self._pool.submit(JobItem(self, index, request, maybe_delivered=LedgerState(state) in _UNKNOWN))
        self._pool.close()
        async with self.keeper.renewing():
            try:
                with alarm(clock, clock.monotonic() + seconds, self.stop):
                    await self._pool.wait_idle()
            except asyncio.CancelledError:
                self.cancel()
                await self._pool.wait_idle()
                raise
        if chunk.lease.lost:
            await self.ledger.flush()
            return ReleaseReply.LOST
        # The custom keys outlive the requests, because outcomes name them.
        return await self.ledger.release_chunk(chunk, keys_only(chunk.requests))

    def stop(self) -> None:
        """Begin no more attempts; requests in flight complete."""
        self.is_stopping = True
        self._pool.stop()

    def cancel(self) -> None:
        """Stop, and cancel requests in flight: their outcome is unknown."""
        self.stop()
        self._pool.cancel()

    async def _send(self, item: JobItem) -> None:
        try:
            await send(self.executor, OPERATION_OF[self.chunk.channel], item.request, "bulk", item)
        except AttemptDenied as denied:
            self._on_denied(denied.reason)
        except asyncio.CancelledError:
            # Cancelled by this run, or by the loop at its shutdown.
            self.stop()
        except MFAError as error:
            self.failure = self.failure or error
            self.stop()
        except Exception as error:  # noqa: BLE001 - a defect; what is known of the item is settled
            _LOG.exception("a chunk of job %s is left, because of an unexpected error", self.chunk.job)
            self.failure = self.failure or error
            self.stop()

    def _on_denied(self, reason: DenyReason) -> None:
        WAITS.debug("an item of job %s is not sent by this worker: %s", printable(self.chunk.job), reason.value)
        if reason in {DenyReason.LEASE_LOST, DenyReason.GONE}:
            self.keeper.lose()
        elif reason in {DenyReason.JOB_STOPPED, DenyReason.LEASE_EXPIRED}:
            # The release below says whether the lease is lost; if not, the next claim gets a new one.
            self.stop()

    async def _renew(self) -> bool:
        reply = await self.ledger.renew(self.chunk.job, self.chunk.number, self.chunk.lease)
        if reply == Reply.JOB_STOPPED:
            self.stop()
        return bool(reply != Reply.LEASE_LOST)

    def on_settled(self, error: MFAError | None) -> None:
        """Count consecutive account errors, and stop the job after too many."""
        was_open = bool(self._breaker.opened_by)
        if not self._breaker.record(error) or was_open:
            return
        _LOG.error(
            "job %s is stopped: the service rejected %d consecutive items with %s; "
            "correct the credentials or the address, then resume the job",
            printable(self.chunk.job),
            MAX_CONSECUTIVE_ACCOUNT_ERRORS,
            self._breaker.opened_by,
        )
        self._on_account_error()


class JobItem(Entry):
    """One item of a chunk; the `Entry` that `send` stores its attempts under."""

    __slots__ = ("_run", "in_flight", "index", "lease", "maybe_delivered", "request")

    def __init__(self, run: ChunkRun, index: int, request: CodeRequest, *, maybe_delivered: bool) -> None:
        self._run = run
        self.lease: Lease = run.chunk.lease
        self.maybe_delivered = maybe_delivered
        self.index = index
        self.request = request
        # Whether the ledger holds an intent of it.
        self.in_flight = False

    @property
    def is_stopping(self) -> bool:
        """Whether the run begins no more attempts."""
        return self._run.is_stopping

    async def intent(self, *, maybe_delivered: bool) -> DenyReason | None:
        """Store the intent of an attempt; return None, or why the attempt may not begin."""
        run = self._run
        options = {"resends_unknown": run.resends_unknown, "maybe_delivered": maybe_delivered}
        reply = await run.keeper.intent(
            lambda: run.ledger.intent(run.chunk, self.index, **options), lease_lost=Reply.LEASE_LOST
        )
        self.in_flight = reply in INTENT_STORED
        return None if self.in_flight else deny_reason(reply)

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:
        """Schedule the write of the outcome."""
        run = self._run
        self.in_flight = False
        record = "" if state is LedgerState.PENDING else pack_record(provider_id, error, attempts)
        run.ledger.settle(run.chunk, self.index, state, record)
        if state is not LedgerState.PENDING:
            run.on_settled(error)
