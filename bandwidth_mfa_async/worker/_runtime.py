"""One worker process: its client, what it works at, and the watch it keeps over jobs, so that no hint is needed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from .._client import MFAClient, executor_of
from .._client._recorded_call import AttemptDenied, send
from .._config import Resend
from ..errors import ConfigurationError, LedgerError, MFAError
from ..limits.shared._redis_limits import RedisLimits
from ._chunk_run import ChunkRun
from ._single_code import SingleCode
from .ledger._codec import unpack_code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._client._executor import CallExecutor
    from .._clock import Clock
    from ._coordinator import Coordinator
    from .ledger._code_queue import CodeQueue
    from .ledger._ledger import RedisLedger

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at what is to do, when nothing else causes one."""
_STALE_CODE_AGE: Final = 2.0
_MAX_CODES: Final = 100
FINAL_FLUSH_TIMEOUT: Final = 2.0
"""Seconds in which what was cut is written down."""


class WorkerRuntime:
    """What a worker process does between its start and its end.

    Args:
        ledger: the truth.
        codes: the single codes in it.
        factory: makes the client, or returns an awaitable of one.
        coordinator: names chunks to other workers.
        runs: how many chunks at once.
        max_chunk_seconds: seconds after which a run at a chunk takes no more rows.
        drain_timeout: seconds for requests under way to end.
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
        self._tasks: set[asyncio.Task[Any]] = set()
        self._code_tasks: set[asyncio.Task[Any]] = set()
        self._runs: set[ChunkRun] = set()
        self._running = 0
        self._rotation = 0
        self._poll_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.is_stopping = False

    @property
    def clock(self) -> Clock:
        """Whose time counts."""
        return self._ledger.clock

    @property
    def executor(self) -> CallExecutor:
        """The engine of the process's client."""
        assert self._view is not None  # noqa: S101 - started
        return executor_of(self._view)

    @property
    def resends_unknown(self) -> bool:
        """Whether unknown ones are sent again."""
        return self.executor.policy.resend is Resend.AT_LEAST_ONCE

    async def start(self) -> None:
        """Open the client and begin to work.

        Raises:
            ConfigurationError: the factory makes no client.
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
        """Return the client, or a view of it whose limits are those of every worker of the account."""
        executor = executor_of(client)
        if not self._share_limits or executor.limits.shared is not None:
            return client
        shared = RedisLimits(self._ledger.url, key=executor.state.account_id, prefix=self._ledger.prefix)
        return client.with_options(limits=attrs.evolve(executor.limits, shared=shared))

    def stop(self) -> None:
        """Begin no more attempts; what is under way ends. May be called from the loop at any time."""
        self.is_stopping = True
        self._wake.set()
        for run in tuple(self._runs):
            run.stop()

    async def aclose(self) -> None:
        """Stop, wait for what is under way, and close the client after it; being cancelled cuts what is under way."""
        self.stop()
        if self._client is None:
            return
        clock = self._ledger.clock
        timer = clock.call_at(clock.monotonic() + self._drain_timeout, self._abort)
        try:
            await self.wait_idle()
        except asyncio.CancelledError:
            self._abort()
            await self.wait_idle()
            raise
        finally:
            timer.cancel()
            client, self._client = self._client, None
            await client.aclose(drain_timeout=0)

    def _abort(self) -> None:
        """Cut what is under way; what is known of it is still written, unless Redis is away."""
        for run in tuple(self._runs):
            run.cancel()
        for code in tuple(self._code_tasks):
            code.cancel()
        clock = self._ledger.clock
        clock.call_at(clock.monotonic() + FINAL_FLUSH_TIMEOUT, self._ledger.connection.stop_waiting)

    async def wait_idle(self) -> None:
        """Return once nothing is under way."""
        while tasks := {*self._tasks, *([self._poll_task] if self._poll_task is not None else [])}:
            if not (waiting := {task for task in tasks if not task.done()}):
                break
            await asyncio.wait(waiting)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Chunks.

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be worked at."""
        return not self.is_stopping and self._running < self._max_runs

    async def send_chunks(self, job: str, chunk: int | None) -> dict[str, Any]:
        """Work at a chunk, and then at others of the job, for a bounded time; a full process leaves it to others.

        Args:
            job: which.
            chunk: the one to begin with; None for any.

        Returns:
            What came of it: ``{"chunks": 2}``, or ``{"chunks": 0, "why": "busy"}``.
        """
        if not self.has_room or self._client is None:
            return {"chunks": 0, "why": "busy"}
        self._running += 1
        # In a task of its own: taskiq may give up on a task of its own, and this must come to its end.
        task = self._spawn(self._send_chunks(job, chunk))
        return dict(await asyncio.shield(task))

    async def _send_chunks(self, job: str, chunk: int | None) -> dict[str, Any]:
        clock = self._ledger.clock
        ends = clock.monotonic() + self._max_chunk_seconds
        done = 0
        why = "done"
        try:
            while not self.is_stopping and (left := ends - clock.monotonic()) > 0:
                if chunk is None:
                    chunk = await self._ledger.next_chunk(job)
                    if chunk is None:
                        break
                taken = await self._ledger.claim_chunk(job, chunk, self._ledger.new_lease())
                chunk = None
                if isinstance(taken, str):
                    why = taken
                    if taken == "stopped":
                        break
                    continue
                run = ChunkRun(self.executor, self._ledger, taken)
                self._runs.add(run)
                try:
                    word = await run.run(left)
                finally:
                    self._runs.discard(run)
                done += word == "done"
                if run.account_error:
                    await self._ledger.stop(job, run.account_error, resumed=taken.resumed)
                if run.account_error or run.failure is not None:
                    why = run.account_error or type(run.failure).__name__
                    break
        except LedgerError as error:
            _LOG.warning("a chunk was left to another worker: %s", error)
            why = type(error).__name__
        finally:
            self._running -= 1
            self._wake.set()
        return {"chunks": done, "why": why}

    # Single codes.

    async def send_code(self, name: str) -> dict[str, Any]:
        """Send a single code, unless somebody else does.

        Args:
            name: what the ledger knows it by.

        Returns:
            What came of it: ``{"delivery": "accepted", "id": ...}``; ``{"delivery": None}`` when it is not ours.
        """
        if self.is_stopping or self._client is None:
            return {"delivery": None}
        return dict(await asyncio.shield(self._spawn_code(name)))

    def _spawn_code(self, name: str) -> asyncio.Task[Any]:
        task = self._spawn(self._send_code(name))
        self._code_tasks.add(task)
        task.add_done_callback(self._code_tasks.discard)
        return task

    async def _send_code(self, name: str) -> dict[str, Any]:
        lease = self._ledger.new_lease()
        try:
            payload = await self._codes.claim(name, lease, resends_unknown=self.resends_unknown)
            if payload is None:
                return {"delivery": None}
            channel, request = unpack_code(payload)
        except LedgerError as error:
            _LOG.warning("a code was left to another worker: %s", error)
            return {"delivery": None}
        code = SingleCode(
            self._codes, name, lease, is_stopping=lambda: self.is_stopping, resends_unknown=self.resends_unknown
        )
        renewal = asyncio.create_task(code.renew(self._ledger))
        try:
            await send(self.executor, channel, request, "interactive", code)
        except AttemptDenied:
            pass
        except MFAError as error:
            _LOG.warning("a code was left to another worker: %s", type(error).__name__)
        finally:
            renewal.cancel()
            await asyncio.wait([renewal])
            await self._codes.flush()
        return code.result

    # The watch.

    async def _poll_loop(self) -> None:
        """Coordinate jobs, and take up what no hint led to: a broker may lose messages, and be lost itself."""
        clock = self._ledger.clock
        while not self.is_stopping:
            try:
                await self._poll_once()
            except LedgerError as error:
                _LOG.warning("the worker could not look for work: %s", error)
            except Exception:  # noqa: BLE001 - the watch must not end
                _LOG.exception("the worker could not look for work")
            timer = clock.call_at(clock.monotonic() + POLL_INTERVAL, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
            self._wake.clear()

    async def _poll_once(self) -> None:
        for name in await self._codes.stale(_STALE_CODE_AGE, _MAX_CODES):
            if not self.is_stopping:
                self._spawn_code(name)
        jobs = await self._coordinator.plan_all()
        # Another one first each time, so that a long job lets a short one in.
        self._rotation += 1
        turn = self._rotation % max(1, len(jobs))
        for job in [*jobs[turn:], *jobs[:turn]]:
            while self.has_room and await self._ledger.next_chunk(job) is not None:
                self._running += 1
                self._spawn(self._send_chunks(job, None))
                await asyncio.sleep(0)
