"""One run at one chunk: its rows sent side by side under a lease that is renewed, for a bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from .._client._recorded_call import AttemptDenied, send
from .._clock import sleep_until
from .._config import Resend
from .._item_state import LedgerState
from ..errors import LedgerError, MFAError
from .ledger._codec import keys_only, pack_record, unpack_requests

if TYPE_CHECKING:
    from .._client._executor import CallExecutor
    from .._lease import Lease
    from .._models import CodeRequest
    from .ledger._ledger import Chunk, RedisLedger

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
# So many rows in a row refused for the credentials or the address, and the job has no future.
MAX_CONSECUTIVE_ACCOUNT_ERRORS: Final = 10
_ACCOUNT_ERROR_STATUSES: Final = frozenset({401, 403, 404})


class ChunkRun:
    """A chunk being worked at.

    Args:
        executor: the client's engine.
        ledger: the truth.
        chunk: what was taken.
    """

    def __init__(self, executor: CallExecutor, ledger: RedisLedger, chunk: Chunk) -> None:
        self.executor = executor
        self.ledger = ledger
        self.chunk = chunk
        self.resends_unknown = executor.policy.resend is Resend.AT_LEAST_ONCE
        self.is_stopping = False
        self.failure: MFAError | None = None
        # The error that refused every item, if one did.
        self.account_error = ""
        self._queued: deque[JobItem] = deque()
        self._in_flight: dict[asyncio.Task[None], JobItem] = {}
        self._consecutive_account_errors = 0

    async def run(self, seconds: float) -> str:
        """Work, for no longer than so many seconds plus the requests then under way; return what `leave` says.

        Raises:
            LedgerError: the ledger refuses us.
        """
        chunk, clock = self.chunk, self.ledger.clock
        requests = unpack_requests(chunk.requests)
        open_states = {LedgerState.PENDING, LedgerState.SENDING, LedgerState.NOT_SENT, LedgerState.REFUSED}
        if self.resends_unknown:
            open_states.add(LedgerState.UNKNOWN)
        first = chunk.number * chunk.size
        for place, (state, request) in enumerate(zip(chunk.states, requests, strict=True)):
            if request is not None and LedgerState(state) in open_states:
                self._queued.append(JobItem(self, first + place, request))
        timer = clock.call_at(clock.monotonic() + seconds, self.stop)
        renewal = asyncio.create_task(self._renewal_loop())
        concurrency = min(len(self._queued), self.executor.limits.max_in_flight)
        workers = [asyncio.create_task(self._send_items()) for _ in range(concurrency)]
        try:
            if workers:
                await asyncio.wait(workers)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait(workers)
            raise
        finally:
            timer.cancel()
            renewal.cancel()
            await asyncio.wait([renewal])
        if chunk.lease.lost:
            await self.ledger.flush()
            return "lost"
        # The caller's own keys outlast the requests, since outcomes name them.
        return await self.ledger.release_chunk(chunk, keys_only(chunk.requests))

    def stop(self) -> None:
        """Begin no more attempts; what is under way ends."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self._queued.clear()
        for task, row in tuple(self._in_flight.items()):
            if not row.in_flight:
                task.cancel()

    def cancel(self) -> None:
        """Stop, and cut what is under way: its outcome is unknown."""
        self.stop()
        for task in tuple(self._in_flight):
            task.cancel()

    async def _send_items(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - workers are tasks
        while self._queued:
            row = self._in_flight[task] = self._queued.popleft()
            try:
                await send(self.executor, self.chunk.channel, row.request, "bulk", row)
            except AttemptDenied as held:
                self._held(held.args[0])
            except asyncio.CancelledError:
                # Only this run cancels its workers, or the loop when it is torn down.
                self.stop()
            except MFAError as error:
                self.failure = self.failure or error
                self.stop()
            finally:
                del self._in_flight[task]

    def _held(self, letter: str) -> None:
        if letter in {"L", "G"}:
            self._on_lease_lost()
        elif letter == "X":
            self.stop()
        # Any other letter: somebody settled this row meanwhile.

    def _on_lease_lost(self) -> None:
        self.chunk.lease.lost = True
        self.stop()

    async def _renewal_loop(self) -> None:
        """Renew the lease until the run is over, however long its last requests take."""
        clock = self.ledger.clock
        while True:
            await sleep_until(clock, clock.monotonic() + self.chunk.lease.seconds / 4)
            try:
                if not await self.renew():
                    return
            except LedgerError:
                return  # closed, or refused: the attempts find out by themselves

    async def renew(self) -> bool:
        """Renew the lease once; return whether it is still ours.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        lease = self.chunk.lease
        now = lease.now()
        letter = await self.ledger.renew(self.chunk.job, self.chunk.number, lease)
        if letter == "L":
            self._on_lease_lost()
            return False
        lease.renewed_at(now)
        if letter == "X":
            self.stop()
        return True

    def on_settled(self, state: LedgerState, error: MFAError | None) -> None:
        """Note a row's end, and give up on a job whose credentials or address are refused."""
        status = getattr(error, "status", None)
        self._consecutive_account_errors = (
            self._consecutive_account_errors + 1 if status in _ACCOUNT_ERROR_STATUSES else 0
        )
        if (
            self._consecutive_account_errors == MAX_CONSECUTIVE_ACCOUNT_ERRORS
            and state is LedgerState.REFUSED
            and not self.is_stopping
        ):
            name = type(error).__name__
            _LOG.error("job %s is stopped: %s, whatever the item; mend it and resume the job", self.chunk.job, name)
            self.account_error = name
            self.stop()


class JobItem:
    """One row of a run; what `send` needs to know of it."""

    __slots__ = ("_run", "in_flight", "index", "lease", "request")

    def __init__(self, run: ChunkRun, place: int, request: CodeRequest) -> None:
        self._run = run
        self.lease: Lease = run.chunk.lease
        self.index = place
        self.request = request
        # Whether its intent is, or may be, on record.
        self.in_flight = False

    @property
    def is_stopping(self) -> bool:
        """Whether the run begins no more attempts."""
        return self._run.is_stopping

    async def intent(self) -> str:
        """Put an attempt on record."""
        run = self._run
        letter: str = await run.ledger.intent(run.chunk, self.index, resends_unknown=run.resends_unknown)
        if letter == "L" and not self.lease.lost and await run.renew():
            # It had run out, in a freeze or while Redis was away, and nobody had taken it.
            letter = await run.ledger.intent(run.chunk, self.index, resends_unknown=run.resends_unknown)
        self.in_flight = letter == LedgerState.SENDING
        return letter

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:
        """Write soon what became of it."""
        run = self._run
        self.in_flight = False
        record = "" if state is LedgerState.PENDING else pack_record(provider_id, error, attempts)
        run.ledger.settle(run.chunk, self.index, state, record, resends_unknown=run.resends_unknown)
        if state is not LedgerState.PENDING:
            run.on_settled(state, error)
