"""`MFAWorker`: connects a taskiq broker, the ledger and the client, in requesting and in sending processes."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, Self, overload

from taskiq import AsyncBroker, TaskiqEvents

from .._clock import sleep_until
from .._frames import clears_locals
from .._items._intake import check_input
from .._validation import checked_channel, checked_count, checked_name, checked_seconds
from ..errors import ConfigurationError
from ._coordinator import MAX_QUEUED_CHUNKS, REQUEUE_AFTER, Coordinator
from ._job import Job, known_jobs
from ._runtime import WorkerRuntime
from ._send_code import SendCode
from ._submission import Submission
from .ledger._code_queue import CodeQueue
from .ledger._ledger import RedisLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
    from types import TracebackType

    from .._client import MFAClient
    from .._models import CodeRequest, CodeTemplate
    from .._validation import Channel

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
_MAX_ITEMS: Final = 10_000
_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP")
_RECEIVER_EXIT_TIMEOUT: Final = 5.0
"""Seconds that taskiq's receiver has to return after the last task; see `_force_exit`."""


class MFAWorker:
    """Codes through taskiq: requested in any process, sent by worker processes, with all state in one ledger.

    A wake-up message contains a job's name and a chunk number, or the digest of a key. It is acknowledged on receipt;
    a lost one costs a second or two. Only the ledger holds numbers and texts. ``taskiq worker module:broker`` loads the
    module that makes this object. Each worker process opens one client at its start-up and closes it at its shutdown,
    after the requests in flight.

    Args:
        broker: any taskiq broker.
        ledger: a `RedisLedger`, or the URL of its Redis.
        client: makes a worker process's client, such as `MFAClient.from_env`; called in worker processes only.
        runs: chunks that a process sends concurrently; its client's `Limits.max_in_flight` bounds the requests.
        max_chunk_seconds: seconds after which no attempt of a claimed chunk begins, so that a process can stop soon.
        max_queued_chunks: chunks of a job that may be queued or claimed.
        requeue_after: seconds after which a chunk that no worker has claimed is queued again.
        drain_timeout: seconds for requests in flight to complete at a shutdown, before they are cancelled.
        share_limits: give a client without `Limits.shared` a `RedisLimits` in the ledger's Redis, so that all workers
            share the account's rate. Has no effect with a Redis Cluster: pass your own `Limits.shared` there.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    @clears_locals
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
            checked_count(name, value, _MAX_ITEMS)
        for name, seconds in (
            ("max_chunk_seconds", max_chunk_seconds),
            ("requeue_after", requeue_after),
            ("drain_timeout", drain_timeout),
        ):
            checked_seconds(name, seconds, exclusive=True)
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
        # Started by the first signal, cancelled by the shutdown.
        self._exit_task: asyncio.Task[None] | None = None
        self._register()
        self.send_code: SendCode = SendCode(self._codes, self._wake_for_code, self.ledger.clock)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.broker).__name__}, ledger={self.ledger!r})"

    async def __aenter__(self) -> Self:
        """Open the ledger and start the broker, in a process that requests codes.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        self.ledger.connection.open()
        try:
            await self._ensure_started()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the ledger, and the broker if it was started here. Workers continue."""
        try:
            await self.ledger.aclose()
        finally:
            if self._owns_broker:
                self._owns_broker = False
                await self.broker.shutdown()

    def job(self, name: str) -> Job:
        """Return a job by its name, to watch, cancel or resume it.

        Args:
            name: the name it was submitted under.

        Raises:
            ConfigurationError: a job may not have this name.
        """
        return Job(checked_name("name", name), self.ledger, self._coordinator)

    async def jobs(self) -> list[Job]:
        """Return the jobs in the ledger, oldest first.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        # Not by job(): an earlier version may have allowed a name that is refused today.
        return [Job(job.name, self.ledger, self._coordinator) for job in await known_jobs(self.ledger)]

    @overload
    async def submit(
        self,
        requests: Iterable[CodeRequest] | AsyncIterable[CodeRequest],
        *,
        name: str,
        chunk: int = 500,
        template: None = None,
        key: Callable[[CodeRequest], str] | None = None,
        channel: Channel = "messaging",
    ) -> Job: ...

    @overload
    async def submit(
        self,
        requests: Iterable[str] | AsyncIterable[str],
        *,
        name: str,
        chunk: int = 500,
        template: CodeTemplate,
        key: Callable[[CodeRequest], str] | None = None,
        channel: Channel = "messaging",
    ) -> Job: ...

    @clears_locals
    async def submit(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        requests: Iterable[CodeRequest] | AsyncIterable[CodeRequest] | Iterable[str] | AsyncIterable[str],
        *,
        name: str,
        chunk: int = 500,
        template: CodeTemplate | None = None,
        key: Callable[[CodeRequest], str] | None = None,
        channel: Channel = "messaging",
    ) -> Job:
        """Write many codes to the ledger, and return the job; workers start as soon as the first chunk is written.

        The same input under the same name continues the job and sends no item twice. A key is sent once within a job;
        another job may send it again.

        Args:
            requests: `CodeRequest`s, or numbers if `template` is given; any iterable or async iterable.
            name: the job's name: at most 100 characters, no blanks or braces.
            chunk: items that a worker claims at a time.
            template: makes requests of numbers; another template cannot continue the job.
            key: makes the idempotency key of an item; by default number, template, channel and the job's name.
            channel: ``"messaging"`` or ``"voice"``.

        Raises:
            ConfigurationError: an argument is wrong.
            LedgerError: the job has other input, or the ledger cannot be used.
        """
        checked_name("name", name)
        checked_count("chunk", chunk, _MAX_ITEMS)
        checked_channel(channel)
        check_input(requests, key, template)
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

        # Acknowledged on receipt: the ledger, not the queue, recovers the work of a worker that died.
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
            try:
                await self.broker.startup()
            except BaseException:
                self._started = False  # the next call tries again
                raise

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
    """Stop the work at the signals that end a taskiq worker, before taskiq waits for its running tasks.

    Wraps taskiq's own handlers only: an application that embeds a worker handles its signals itself.
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
    """End a worker whose receiver does not return: about one in several thousand waits for its queue for ever.

    At a shutdown taskiq cancels the read of its queue and waits for it. redis-py writes inside `asyncio.wait_for`,
    which may lose a cancellation before Python 3.12: 9 of 40 cancelled reads continued. The `SystemExit` raised here
    ends the loop of `taskiq.cli.worker.run.start_listen`, which then shuts the broker down as usual.
    """
    await runtime.wait_idle()
    clock = runtime.clock
    await sleep_until(clock, clock.monotonic() + _RECEIVER_EXIT_TIMEOUT)
    _LOG.warning(
        "taskiq's receiver did not return within %g s of the last request; the worker exits, and nothing is lost",
        _RECEIVER_EXIT_TIMEOUT,
    )
    asyncio.get_running_loop().call_soon(_raise_exit)


def _raise_exit() -> None:
    raise SystemExit(0)
