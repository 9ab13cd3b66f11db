"""One worker process: its client, its chunks and single codes, and the poll task that finds work without messages."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from .._client import MFAClient, executor_of
from .._client._recorded_call import AttemptDenied, send
from .._clock import alarm
from .._config import Resend
from .._item_state import LedgerState
from .._items._circuit_breaker import CircuitBreaker
from .._logger import WAITS
from .._redaction import printable
from .._tasks import TaskSet
from .._wire import OPERATION_OF
from ..errors import ConfigurationError, InvalidRequestError, LedgerError, MFAError
from ..limits.shared._redis_limits import RedisLimits
from ._chunk_run import ChunkRun
from ._keyed_code import KeyedCode
from ._single_code import SingleCode
from .ledger._codec import unpack_code
from .ledger._ledger import Chunk
from .ledger._protocol import ClaimReply, ReleaseReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._client._executor import CallExecutor
    from .._clock import Clock
    from ._coordinator import Coordinator
    from .ledger._code_queue import CodeQueue
    from .ledger._ledger import RedisLedger

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
POLL_INTERVAL: Final = 1.0
"""Seconds between two polls of the ledger, if nothing wakes the poll task earlier."""
_STALE_CODE_AGE: Final = 2.0
"""Seconds after which a code is sent without its wake-up message."""
_MAX_CODES: Final = 100
FINAL_FLUSH_TIMEOUT: Final = 2.0
"""Seconds for writing the outcomes of cancelled requests."""


class WorkerRuntime:
    """What a worker process runs between its start-up and its shutdown.

    Args:
        ledger: the ledger.
        codes: the single codes in it.
        factory: makes the client, or returns an awaitable of one.
        coordinator: plans the jobs.
        runs: the number of chunks sent concurrently.
        max_chunk_seconds: seconds after which no attempt of a claimed chunk begins.
        drain_timeout: seconds for requests in flight to complete at a shutdown.
        share_limits: whether a client without shared limits gets `RedisLimits` in the ledger's Redis.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        ledger: RedisLedger,
        codes: CodeQueue,
        factory: Callable[[], MFAClient | Awaitable[MFAClient]],
        coordinator: Coordinator,
        *,
        runs: int,
        max_chunk_seconds: float,
        drain_timeout: float,
        share_limits: bool,
    ) -> None:
        self._ledger = ledger
        self._codes = codes
        self._factory = factory
        self._coordinator = coordinator
        self._max_runs = runs
        self._max_chunk_seconds = max_chunk_seconds
        self._drain_timeout = drain_timeout
        self._share_limits = share_limits
        self._client: MFAClient | None = None
        self._view: MFAClient | None = None
        self._chunk_tasks = TaskSet()
        self._code_tasks = TaskSet()
        self._runs: set[ChunkRun] = set()
        # By job: how often it had been resumed, and its circuit breaker.
        self._breakers: dict[str, tuple[str, CircuitBreaker]] = {}
        self._running = 0
        self._rotation = 0
        self._poll_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.is_stopping = False

    @property
    def clock(self) -> Clock:
        """The ledger's time source."""
        return self._ledger.clock

    @property
    def executor(self) -> CallExecutor:
        """The executor of the process's client."""
        assert self._view is not None  # noqa: S101 - started
        return executor_of(self._view)

    @property
    def resends_unknown(self) -> bool:
        """Whether unknown items and codes are sent again."""
        return self.executor.policy.resend is Resend.AT_LEAST_ONCE

    async def start(self) -> None:
        """Open the client and start the poll task.

        Raises:
            ConfigurationError: the factory does not make a client.
            LedgerError: the ledger cannot be used.
        """
        self._ledger.connection.open()
        made = self._factory()
        client = await made if inspect.isawaitable(made) else made
        if not isinstance(client, MFAClient):
            raise ConfigurationError(f"client: must be a function that makes an MFAClient, not {type(client).__name__}")
        self._client = client
        self._view = self._with_shared_limits(client)
        try:
            await self._ledger.check()
        except BaseException:
            await client.aclose()
            raise
        self._poll_task = asyncio.create_task(self._poll_loop())

    def _with_shared_limits(self, client: MFAClient) -> MFAClient:
        """Return the client, or a view of it that shares its limits with every worker of the account."""
        executor = executor_of(client)
        if not self._share_limits or executor.limits.shared is not None:
            return client
        shared = RedisLimits(self._ledger.url, key=executor.state.account_id, prefix=self._ledger.prefix)
        return client.with_options(limits=attrs.evolve(executor.limits, shared=shared))

    def stop(self) -> None:
        """Begin no more attempts; requests in flight complete. May be called from the loop at any time."""
        self.is_stopping = True
        self._wake.set()
        for run in tuple(self._runs):
            run.stop()

    async def aclose(self) -> None:
        """Stop, wait for requests in flight, and close the client. A cancellation cancels the requests in flight."""
        self.stop()
        if self._client is None:
            return
        if running := len(self._chunk_tasks) + len(self._code_tasks):
            WAITS.debug("the worker stops; it waits up to %g s for %d tasks", self._drain_timeout, running)
        clock = self._ledger.clock
        try:
            with alarm(clock, clock.monotonic() + self._drain_timeout, self._abort):
                await self.wait_idle()
        except asyncio.CancelledError:
            self._abort()
            await self.wait_idle()
            raise
        finally:
            client, self._client = self._client, None
            await client.aclose(drain_timeout=0)

    def _abort(self) -> None:
        """Cancel requests in flight. Their outcomes are still written, unless Redis cannot be reached."""
        for run in tuple(self._runs):
            run.cancel()
        self._code_tasks.cancel()
        clock = self._ledger.clock
        clock.call_at(clock.monotonic() + FINAL_FLUSH_TIMEOUT, self._ledger.connection.stop_waiting)

    async def wait_idle(self) -> None:
        """Wait until no task of the runtime runs."""
        if self._poll_task is not None:
            await asyncio.wait([self._poll_task])  # the only one that starts other tasks
        await self._chunk_tasks.wait_idle()
        await self._code_tasks.wait_idle()

    # Chunks.

    def has_room(self) -> bool:
        """Return whether another chunk may be claimed."""
        return not self.is_stopping and self._running < self._max_runs

    async def send_chunks(self, job: str, chunk: int | None) -> dict[str, Any]:
        """Send a chunk and then others of the job, for a bounded time. Does nothing in a process that is busy.

        Args:
            job: the job's name.
            chunk: the number of the first chunk; None for any.

        Returns:
            The result of the taskiq task: ``{"chunks": 2, "why": "done"}``, or ``{"chunks": 0, "why": "busy"}``.
        """
        if not self.has_room() or self._client is None:
            WAITS.debug("a wake-up message of job %s waits: this worker sends %d chunks", printable(job), self._running)
            return {"chunks": 0, "why": "busy"}
        self._running += 1
        # In a separate task: taskiq may cancel its own task, and the chunk must be settled and released.
        return dict(await asyncio.shield(self._chunk_tasks.start(self._send_chunks(job, chunk))))

    async def _send_chunks(self, job: str, chunk: int | None) -> dict[str, Any]:
        clock = self._ledger.clock
        until = clock.monotonic() + self._max_chunk_seconds
        done = 0
        why = "done"
        try:
            while not self.is_stopping and (seconds := until - clock.monotonic()) > 0:
                if chunk is None:
                    chunk = await self._ledger.next_chunk(job)
                    if chunk is None:
                        break
                number, chunk = chunk, None
                claimed = await self._ledger.claim_chunk(job, number, self._ledger.new_lease())
                if not isinstance(claimed, Chunk):
                    why = claimed.value
                    self._explain_denied_claim(job, number, claimed)
                    if claimed is ClaimReply.STOPPED:
                        break
                    continue
                breaker = self._breaker(claimed)
                run = ChunkRun(self.executor, self._ledger, claimed, breaker, functools.partial(self._stop_runs, job))
                self._runs.add(run)
                try:
                    released = await run.run(seconds)
                finally:
                    self._runs.discard(run)
                done += released is ReleaseReply.DONE
                if breaker.opened_by:
                    await self._ledger.stop(job, breaker.opened_by, resumed=claimed.resumed)
                if breaker.opened_by or run.failure is not None:
                    why = breaker.opened_by or type(run.failure).__name__
                    break
        except LedgerError as error:
            _LOG.warning("a chunk of job %s is left to another worker: %s", printable(job), error)
            why = type(error).__name__
        finally:
            self._running -= 1
            self._wake.set()
        return {"chunks": done, "why": why}

    def _explain_denied_claim(self, job: str, chunk: int, reply: ClaimReply) -> None:
        if reply is ClaimReply.HELD:
            text = "chunk %d of job %s waits for the worker that holds it, or for the end of its lease of %g s"
            WAITS.debug(text, chunk, printable(job), self._ledger.lease)
        else:
            WAITS.debug("chunk %d of job %s is not sent by this worker: %s", chunk, printable(job), reply.value)

    def _breaker(self, chunk: Chunk) -> CircuitBreaker:
        """Return the circuit breaker of a chunk's job; a job that was resumed gets a new one."""
        resumed, breaker = self._breakers.get(chunk.job, ("", None))
        if breaker is None or resumed != chunk.resumed:
            breaker = CircuitBreaker()
            self._breakers[chunk.job] = (chunk.resumed, breaker)
        return breaker

    def _stop_runs(self, job: str) -> None:
        for run in tuple(self._runs):
            if run.chunk.job == job:
                run.stop()

    # Single codes.

    async def send_code(self, name: str) -> dict[str, Any]:
        """Send a single code, unless another worker holds it.

        Args:
            name: the code's name in the ledger.

        Returns:
            The result of the taskiq task: ``{"delivery": "accepted", "id": ...}``, with ``"possible_duplicate": True``
            if it is one, or ``{"delivery": None}`` if this worker did not settle the code.
        """
        if self.is_stopping or self._client is None:
            return {"delivery": None}
        if not self._codes.is_name(name):
            # It would name another key of the ledger, or spoil the batch of other codes.
            _LOG.warning("a wake-up message that names no code is ignored")
            return {"delivery": None}
        return dict(await asyncio.shield(self._code_tasks.start(self._send_code(name))))

    async def _send_code(self, name: str) -> dict[str, Any]:
        lease = self._ledger.new_lease()
        resends_unknown = self.resends_unknown
        try:
            claimed = await self._codes.claim(name, lease, resends_unknown=resends_unknown)
            if claimed is None:
                WAITS.debug("a single code is not sent by this worker: another one holds it, or it is settled")
                return {"delivery": None}
            channel, request = unpack_code(claimed.payload)
        except LedgerError as error:
            _LOG.warning("a single code is left to another worker: %s", error)
            return {"delivery": None}
        code = SingleCode(
            self._codes,
            name,
            lease,
            is_stopping=lambda: self.is_stopping,
            resends_unknown=resends_unknown,
            maybe_delivered=claimed.maybe_delivered,
        )
        operation = OPERATION_OF[channel]
        entry: SingleCode | KeyedCode = code
        if claimed.secret and self.executor.state.store_use.store is not None:
            entry = KeyedCode(code, claimed.secret, self.executor, operation, request)
        try:
            async with code.keeper.renewing():
                try:
                    await send(self.executor, operation, request, "interactive", entry)
                finally:
                    await entry.finish()
        except AttemptDenied:
            pass
        except InvalidRequestError as error:  # the key is another request's in the store
            code.settle(LedgerState.NOT_SENT, None, error, 0)
        except MFAError as error:
            _LOG.warning("a single code is left to another worker: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a defect; what is known of the code is settled
            _LOG.exception("a single code is left, because of an unexpected error")
        finally:
            await self._codes.flush()
        return code.result

    # Polling.

    async def _poll_loop(self) -> None:
        """Coordinate jobs and find work without messages: a broker may lose messages or fail."""
        clock = self._ledger.clock
        while not self.is_stopping:
            try:
                await self._poll_once()
            except LedgerError as error:
                _LOG.warning("the poll for work failed and is repeated: %s", error)
            except Exception:  # noqa: BLE001 - the poll task must not end
                _LOG.exception("the poll for work failed and is repeated")
            with alarm(clock, clock.monotonic() + POLL_INTERVAL, self._wake.set):
                await self._wake.wait()
            self._wake.clear()

    async def _poll_once(self) -> None:
        for name in await self._codes.stale(_STALE_CODE_AGE, _MAX_CODES):
            if not self.is_stopping:
                self._code_tasks.start(self._send_code(name))
        jobs = await self._coordinator.plan_all()
        self._breakers = {job: self._breakers[job] for job in self._breakers.keys() & set(jobs)}
        # Round-robin, so that a long job does not delay a short one.
        self._rotation += 1
        first = self._rotation % max(1, len(jobs))
        for job in [*jobs[first:], *jobs[:first]]:
            while self.has_room():
                if await self._ledger.next_chunk(job) is None:
                    text = "job %s has no free chunk; that of a dead worker becomes free when its lease of %g s ends"
                    WAITS.debug(text, printable(job), self._ledger.lease)
                    break
                if not self.has_room():  # a wake-up message came during the question
                    return
                self._running += 1
                self._chunk_tasks.start(self._send_chunks(job, None))
                await asyncio.sleep(0)
