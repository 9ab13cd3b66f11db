"""`MFAWorker`: codes through taskiq, for those who ask for them and for the processes that send them."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from taskiq import AsyncBroker, TaskiqEvents

from .._clock import sleep_until
from .._models import CodeTemplate
from ..errors import ConfigurationError
from ._coordinator import MAX_QUEUED_CHUNKS, REQUEUE_AFTER, Coordinator
from ._job import Job, known_jobs
from ._runtime import WorkerRuntime
from ._send_code import SendCode
from ._submission import Submission
from .ledger._code_queue import CodeQueue
from .ledger._ledger import RedisLedger, checked_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
    from types import TracebackType

    from .._client import MFAClient
    from .._models import CodeRequest

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
_CHANNELS: Final = ("messaging", "voice")
_MAX_ITEMS: Final = 10_000
_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP")
_RECEIVER_EXIT_TIMEOUT: Final = 5.0
"""Seconds that taskiq's receiver has to end after the last of the work has; see `_force_exit`."""


class MFAWorker:
    """Codes through taskiq: asked for anywhere, sent by worker processes, each known to one ledger.

    A message in the queue is a hint that holds a job's name and a chunk, or the digest of a key; it is acknowledged on
    receipt, and losing it costs a second or two. Numbers and texts are in the ledger only. The module that makes this
    object is what ``taskiq worker module:broker`` loads; every process of it opens one client at its start-up, and
    closes it at its shutdown, after what was under way.

    Args:
        broker: any taskiq broker.
        ledger: a `RedisLedger`, or the URL of its Redis.
        client: makes a worker process's client, such as `MFAClient.from_env`; called in worker processes only.
        runs: chunks a process works at side by side; its client's `Limits.max_in_flight` bounds what is under way.
        max_chunk_seconds: seconds after which a run at a chunk takes no more of it, so that a process can end soon.
        max_queued_chunks: chunks of a job in the queue or worked at.
        requeue_after: seconds after which a chunk that nobody works at is put into the queue again.
        drain_timeout: seconds for requests under way to end at a shutdown, before they are cut.
        share_limits: give a client without `Limits.shared` a `RedisLimits` in the ledger's Redis, so that all workers
            share the account's one rate. Not with a ledger in a Redis Cluster: share a limit of your own there.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        broker: AsyncBroker,
        *,
        ledger: RedisLedger | str,
        client: Callable[[], MFAClient | Awaitable[MFAClient]],
        runs: int = 2,
        max_chunk_seconds: float = 20.0,
        max_queued_chunks: int = MAX_QUEUED_CHUNKS,
        requeue_after: float = REQUEUE_AFTER,
        drain_timeout: float = 35.0,
        share_limits: bool = True,
    ) -> None:
        if not isinstance(broker, AsyncBroker):
            raise ConfigurationError(f"broker: must be a taskiq broker, not {type(broker).__name__}")
        if not callable(client):
            raise ConfigurationError("client: must be a function that makes an MFAClient, like MFAClient.from_env")
        for name, value in (("runs", runs), ("max_queued_chunks", max_queued_chunks)):
            if type(value) is not int or not 1 <= value <= _MAX_ITEMS:
                raise ConfigurationError(f"{name}: must be a whole number from 1 to {_MAX_ITEMS}")
        for name, seconds in (
            ("max_chunk_seconds", max_chunk_seconds),
            ("requeue_after", requeue_after),
            ("drain_timeout", drain_timeout),
        ):
            if type(seconds) not in {int, float} or not 0 < seconds < 1e6:
                raise ConfigurationError(f"{name}: must be a number of seconds above 0")
        self.broker = broker
        self.ledger: RedisLedger = ledger if isinstance(ledger, RedisLedger) else RedisLedger(ledger)
        self._codes = CodeQueue(self.ledger)
        self._coordinator = Coordinator(
            self.ledger, self._wake_for_chunk, max_queued_chunks=max_queued_chunks, requeue_after=requeue_after
        )
        self._runtime: WorkerRuntime | None = None
        self._runtime_options: dict[str, Any] = {
            "runs": runs,
            "max_chunk_seconds": max_chunk_seconds,
            "drain_timeout": drain_timeout,
            "share_limits": bool(share_limits) and not self.ledger.cluster,
        }
        self._factory = client
        self._started = False
        self._owns_broker = False
        # Runs from the first signal to the shutdown.
        self._exit_task: asyncio.Task[None] | None = None
        self._register()
        self.send_code: SendCode = SendCode(self._codes, self._wake_for_code, self.ledger.clock)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.broker).__name__}, ledger={self.ledger!r})"

    async def __aenter__(self) -> Self:
        """Open the ledger and start the broker, for a process that asks for codes.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        self.ledger.connection.open()
        await self._ensure_started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the ledger, and of the broker if it was started here; workers go on."""
        try:
            await self.ledger.aclose()
        finally:
            if self._owns_broker:
                self._owns_broker = False
                await self.broker.shutdown()

    def job(self, name: str) -> Job:
        """Return a job by its name, to watch, cancel or resume it.

        Args:
            name: the one it was submitted with.

        Raises:
            ConfigurationError: it can be no job's name.
        """
        return Job(checked_name("name", name), self.ledger, self._coordinator)

    async def jobs(self) -> list[Job]:
        """Return the jobs the ledger knows, oldest first.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        # Not by job(): a name that is refused today may have been taken by an earlier version.
        return [Job(job.name, self.ledger, self._coordinator) for job in await known_jobs(self.ledger)]

    async def submit(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        requests: Iterable[CodeRequest | str] | AsyncIterable[CodeRequest | str],
        *,
        name: str,
        chunk: int = 500,
        template: CodeTemplate | None = None,
        key: Callable[[CodeRequest], str] | None = None,
        channel: str = "messaging",
    ) -> Job:
        """Put many codes into the ledger, and return the job; workers begin with the first chunk.

        Submitting the same input under the same name again continues the job, and sends to nobody twice. Within a job
        a key is sent once; another job is another run.

        Args:
            requests: `CodeRequest`s, or numbers when `template` is given; any iterable or async iterable.
            name: the job's name: at most 100 characters, no blanks or braces.
            chunk: items a worker takes at a time.
            template: makes requests of numbers; the job is held to it.
            key: makes an item's idempotency key; by default number, template, channel and the job's name.
            channel: ``"messaging"`` or ``"voice"``.

        Raises:
            ConfigurationError: an argument is wrong.
            LedgerError: the job was submitted with other input, or the ledger cannot be used.
        """
        checked_name("name", name)
        if type(chunk) is not int or not 1 <= chunk <= _MAX_ITEMS:
            raise ConfigurationError(f"chunk: must be a whole number from 1 to {_MAX_ITEMS}")
        if template is not None and not isinstance(template, CodeTemplate):
            raise ConfigurationError("template: must be a CodeTemplate")
        if key is not None and not callable(key):
            raise ConfigurationError("key: must be a function of a CodeRequest")
        if channel not in _CHANNELS:
            raise ConfigurationError("channel: must be 'messaging' or 'voice'")
        if isinstance(requests, (str, bytes)) or not (hasattr(requests, "__iter__") or hasattr(requests, "__aiter__")):
            raise ConfigurationError("requests: must be an iterable or an async iterable of CodeRequests")
        await self._ensure_started()
        await Submission(self.ledger, name, requests, chunk, channel, template, key).run()
        job = self.job(name)
        await self._coordinator.plan(name)
        return job

    # taskiq.

    def _register(self) -> None:
        async def send_chunk(job: str, chunk: int) -> dict[str, Any]:
            return {} if self._runtime is None else await self._runtime.send_chunks(job, chunk)

        async def send_code(name: str) -> dict[str, Any]:
            return {} if self._runtime is None else await self._runtime.send_code(name)

        # Acknowledged before it is worked at: what a worker dies with is found in the ledger, not in the queue.
        labels = {"ack_type": "when_received"}
        self._send_chunk = self.broker.register_task(send_chunk, task_name="bandwidth_mfa.send_chunk", **labels)
        self._send_code = self.broker.register_task(send_code, task_name="bandwidth_mfa.send_code", **labels)
        self.broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, self._on_worker_startup)
        self.broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self._on_worker_shutdown)
        self.broker.add_event_handler(TaskiqEvents.CLIENT_STARTUP, self._on_client_startup)

    async def _wake_for_chunk(self, job: str, chunk: int) -> None:
        await self._send_chunk.kiq(job, chunk)

    async def _wake_for_code(self, name: str) -> None:
        await self._ensure_started()
        await self._send_code.kiq(name)

    async def _ensure_started(self) -> None:
        await self.ledger.check()
        if not self._started and not self.broker.is_worker_process:
            self._started = self._owns_broker = True
            await self.broker.startup()

    def _on_client_startup(self, _state: Any) -> None:
        self._started = True

    async def _on_worker_startup(self, _state: Any) -> None:
        self._runtime = WorkerRuntime(
            self.ledger, self._codes, self._factory, self._coordinator, **self._runtime_options
        )
        await self._runtime.start()
        _install_signal_handlers(functools.partial(self._on_signal, self._runtime))

    def _on_signal(self, runtime: WorkerRuntime) -> None:
        runtime.stop()
        if self._exit_task is None:
            self._exit_task = asyncio.get_running_loop().create_task(_force_exit(runtime))

    async def _on_worker_shutdown(self, _state: Any) -> None:
        runtime, self._runtime = self._runtime, None
        if self._exit_task is not None:
            self._exit_task.cancel()
        if runtime is not None:
            await runtime.aclose()
            await self.ledger.aclose()


def _install_signal_handlers(stop: Callable[[], None]) -> None:
    """Have the signals that end a taskiq worker stop its work at once, and not only when taskiq has waited for it.

    Only where taskiq's own handlers stand: an application that embeds a worker sees to its signals itself.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is None:
            continue
        previous = signal.getsignal(number)
        if callable(previous) and getattr(previous, "__module__", "").startswith("taskiq."):

            def handle(signum: int, frame: Any, previous: Any = previous) -> None:
                loop.call_soon_threadsafe(stop)
                previous(signum, frame)

            signal.signal(number, handle)


async def _force_exit(runtime: WorkerRuntime) -> None:
    """End a worker whose receiver does not: one in some thousands waits for its queue for ever.

    taskiq cancels a read of its queue then and waits for it. redis-py writes inside `asyncio.wait_for`, which may lose
    a cancellation before Python 3.12: of 40 reads that were cancelled 9 went on. What is raised here ends the loop of
    `taskiq.cli.worker.run.start_listen`, which then shuts the broker down as usual.
    """
    await runtime.wait_idle()
    clock = runtime.clock
    await sleep_until(clock, clock.monotonic() + _RECEIVER_EXIT_TIMEOUT)
    _LOG.warning("taskiq's receiver did not end when it was told to; it is ended now, with no work under way")
    asyncio.get_running_loop().call_soon(_raise_exit)


def _raise_exit() -> None:
    raise SystemExit(0)
