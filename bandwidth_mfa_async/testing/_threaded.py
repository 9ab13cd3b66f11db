"""The simulator in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from ..simulator import Simulator, SimulatorStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import EllipsisType, TracebackType

    from .._clock import Clock, TimerHandle
    from ..simulator import AccountLimits, Message, ReceiptPolicy

_T = TypeVar("_T")
_P = ParamSpec("_P")

# A loop that does not answer for this long is stuck; a test that fails says more than one that hangs.
_LOOP_TIMEOUT = 30.0


def _with_signature_of(other: Callable[_P, None]) -> Callable[[Callable[..., None]], Callable[_P, None]]:
    """Give a method the signature of another, for type checkers, editors and pydoc."""

    def decorate(method: Callable[..., None]) -> Callable[_P, None]:
        vars(method)["__signature__"] = inspect.signature(other)
        return method

    return decorate


class ThreadedSimulator(Simulator):
    """A `Simulator` that any thread and any number of event loops may use.

    ``with ThreadedSimulator() as sim: ...``

    For tests that are not async, and for a server that outlives the event loop of each test. All methods of
    `Simulator` may be called from any thread; those that change its state do so in its own loop and return when it is
    done. `inbox`, `requests` and `limits` may be read at any time. Faults are plain lists: script them between
    requests, not while one is being answered. On a `ManualClock`, what comes due by a `tick()` happens soon after it
    and in the simulator's loop.

    Args:
        port: to listen on; 0 for a free one.
        **options: those of `Simulator`.

    Raises:
        InvalidOptionError: an option has a value that cannot work.
    """

    @_with_signature_of(Simulator.__init__)
    def __init__(self, port: int = 0, **options: Any) -> None:
        clock: Clock | None = options.get("clock")
        self._loop_clock = None if clock is None else _LoopClock(clock)
        if self._loop_clock is not None:
            options = {**options, "clock": self._loop_clock}
        super().__init__(port, **options)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_event: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Start the thread and listen; return when requests are answered.

        Raises:
            SimulatorStateError: it is running already, or `tls` is asked for without the trustme package.
            OSError: the port is taken.
        """
        if self._thread is not None:
            raise SimulatorStateError("the simulator is running already; make another one for a second port")
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        # A daemon, so that a test run that is killed does not wait for it.
        self._thread = threading.Thread(target=self._run, args=(ready,), name="bandwidth-mfa-simulator", daemon=True)
        self._thread.start()
        try:
            ready.result(_LOOP_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening and end the thread; harmless when it is not running."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stop_event = self._loop, self._stop_event
        if loop is not None and stop_event is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop_event.set)
        thread.join(_LOOP_TIMEOUT)

    async def start(self) -> None:
        """Do as `open()`, without holding up the running loop."""
        opening = asyncio.ensure_future(asyncio.to_thread(self.open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on whether or not it is waited for, and nobody would close what it opens.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await asyncio.to_thread(self.close)
            raise

    async def stop(self) -> None:
        """Do as `close()`, without holding up the running loop."""
        await asyncio.to_thread(self.close)

    def _run(self, ready: concurrent.futures.Future[None]) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop_event = asyncio.Event()
            if self._loop_clock is not None:
                self._loop_clock.loop = self._loop
            try:
                await Simulator.start(self)
            except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
                ready.set_exception(error)
                return
            ready.set_result(None)
            try:
                await self._stop_event.wait()
            finally:
                await Simulator.stop(self)

        try:
            asyncio.run(serve())
        finally:
            self._loop = self._stop_event = None

    def clear(self) -> None:
        """Make it as new; see `Simulator.clear`."""
        self._run_in_loop(super().clear)

    def reset(self) -> None:
        """Do as `clear()`, and accept connections again if they were refused.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        self._run_coroutine(super().accept_connections())
        self.clear()

    def set_limits(
        self,
        *,
        messaging: AccountLimits | EllipsisType | None = ...,
        voice: AccountLimits | EllipsisType | None = ...,
    ) -> None:
        """Put other limits in force at once; see `Simulator.set_limits`."""
        change = super().set_limits
        self._run_in_loop(lambda: change(messaging=messaging, voice=voice))

    def set_receipts(self, policy: ReceiptPolicy) -> None:
        """Let receipts follow another policy; see `Simulator.set_receipts`."""
        change = super().set_receipts
        self._run_in_loop(lambda: change(policy))

    def revoke_tokens(self) -> None:
        """Let no bearer token be accepted any more; see `Simulator.revoke_tokens`."""
        self._run_in_loop(super().revoke_tokens)

    def fail_handshakes(self, count: int = 1) -> None:
        """Let the next TLS handshakes fail; see `Simulator.fail_handshakes`."""
        change = super().fail_handshakes
        self._run_in_loop(lambda: change(count))

    async def wait_for_message(self, to: str, *, timeout: float = 5.0, after: Message | None = None) -> Message:
        """Return the newest message to a number, waiting until there is one; see `Simulator.wait_for_message`."""
        return await self._await_coroutine(super().wait_for_message(to, timeout=timeout, after=after))

    async def refuse_connections(self, seconds: float | None = None) -> None:
        """Cut every connection and refuse new ones; see `Simulator.refuse_connections`."""
        await self._await_coroutine(super().refuse_connections(seconds))

    async def accept_connections(self) -> None:
        """Accept connections again; see `Simulator.accept_connections`."""
        await self._await_coroutine(super().accept_connections())

    def _run_in_loop(self, work: Callable[[], _T]) -> _T:
        """Do something in the simulator's loop and wait for it."""
        loop = self._loop
        if loop is None or self._thread is threading.current_thread():
            return work()

        async def run() -> _T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(_LOOP_TIMEOUT)

    def _run_coroutine(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._require_loop(work)).result(_LOOP_TIMEOUT)

    async def _await_coroutine(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._require_loop(work)))

    def _require_loop(self, work: Coroutine[Any, Any, Any]) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            work.close()
            raise SimulatorStateError("the simulator is not running; use 'with ThreadedSimulator() as sim'")
        return self._loop


class _LoopClock:
    """A clock that another thread may move: its timers run in the simulator's loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time(self) -> float:
        return self._clock.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        return self._clock.call_at(when, lambda: self._call_in_loop(callback))

    def _call_in_loop(self, callback: Callable[[], object]) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(callback)
