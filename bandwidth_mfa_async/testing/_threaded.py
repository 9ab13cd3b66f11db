"""`ThreadedSimulator`: a simulator with its own thread and event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from .._frames import clears_locals
from ..simulator import Simulator, SimulatorStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import EllipsisType, TracebackType

    from .._clock import Clock, TimerHandle
    from ..simulator import AccountLimits, Message, ReceiptPolicy

_T = TypeVar("_T")
_P = ParamSpec("_P")

# Seconds to wait for the simulator's loop before the test fails. A failure says more than a test that hangs.
_LOOP_TIMEOUT = 30.0


def _with_signature_of(other: Callable[_P, None]) -> Callable[[Callable[..., None]], Callable[_P, None]]:
    """Decorate a method with the signature of another one, for type checkers, editors and pydoc."""

    def decorate(method: Callable[..., None]) -> Callable[_P, None]:
        vars(method)["__signature__"] = inspect.signature(other)
        return method

    return decorate


class ThreadedSimulator(Simulator):
    """A `Simulator` for use from any thread and any number of event loops.

    ``with ThreadedSimulator() as sim: ...``

    Use it for sync tests, and for a server that outlives the event loop of each test. All methods of `Simulator` can be
    called from any thread; those that change its state run in the simulator's loop and return when they are done.
    `inbox`, `requests` and `limits` can be read at any time. Faults are plain lists: script them between requests, not
    while the simulator answers one. With a `ManualClock`, the timers that a `tick()` makes due run shortly after it, in
    the simulator's loop.

    Args:
        port: port to listen on; 0 for a free port.
        **options: options of `Simulator`.

    Raises:
        InvalidOptionError: the value of an option is invalid.
    """

    @clears_locals
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
        """Start the thread and the server; return when the simulator answers requests.

        Raises:
            SimulatorStateError: it is already running, or `tls` is set and the trustme package is not installed.
            OSError: the port is in use.
        """
        if self._thread is not None:
            raise SimulatorStateError("the simulator is running already; make another one for a second port")
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        # A daemon thread does not delay the exit of the test run.
        self._thread = threading.Thread(target=self._run, args=(ready,), name="bandwidth-mfa-simulator", daemon=True)
        self._thread.start()
        try:
            ready.result(_LOOP_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server and the thread; do nothing if it is not running."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stop_event = self._loop, self._stop_event
        if loop is not None and stop_event is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop_event.set)
        thread.join(_LOOP_TIMEOUT)

    async def start(self) -> None:
        """Start like `open()`, without blocking the caller's event loop."""
        opening = asyncio.ensure_future(asyncio.to_thread(self.open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Cancellation does not stop the thread, so wait until it has opened the simulator and close it again.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await asyncio.to_thread(self.close)
            raise

    async def stop(self) -> None:
        """Stop like `close()`, without blocking the caller's event loop."""
        await asyncio.to_thread(self.close)

    def _run(self, ready: concurrent.futures.Future[None]) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop_event = asyncio.Event()
            if self._loop_clock is not None:
                self._loop_clock.loop = self._loop
            try:
                await Simulator.start(self)
            except BaseException as error:  # noqa: BLE001 - raised in the thread that called `open()`
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
        """Restore the initial state; see `Simulator.clear`."""
        self._run_in_loop(super().clear)

    def reset(self) -> None:
        """Restore the initial state like `clear()`, and accept connections again if they were refused.

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
        """Change the limits immediately; see `Simulator.set_limits`."""
        change = super().set_limits
        self._run_in_loop(lambda: change(messaging=messaging, voice=voice))

    def set_receipts(self, policy: ReceiptPolicy) -> None:
        """Change the policy of delivery receipts; see `Simulator.set_receipts`."""
        change = super().set_receipts
        self._run_in_loop(lambda: change(policy))

    @clears_locals
    def resend_receipt(self, message: Message) -> None:
        """Post the delivery receipt of a message again; see `Simulator.resend_receipt`."""
        change = super().resend_receipt
        self._run_in_loop(lambda: change(message))

    def set_credentials(self, *, basic: bool | EllipsisType = ..., bearer: bool | EllipsisType = ...) -> None:
        """Change which kinds of credentials are accepted; see `Simulator.set_credentials`."""
        change = super().set_credentials
        self._run_in_loop(lambda: change(basic=basic, bearer=bearer))

    def revoke_tokens(self) -> None:
        """Revoke all bearer tokens; see `Simulator.revoke_tokens`."""
        self._run_in_loop(super().revoke_tokens)

    def fail_handshakes(self, count: int = 1) -> None:
        """Make the next TLS handshakes fail; see `Simulator.fail_handshakes`."""
        change = super().fail_handshakes
        self._run_in_loop(lambda: change(count))

    @clears_locals
    async def wait_for_message(self, to: str, *, timeout: float = 5.0, after: Message | None = None) -> Message:
        """Wait until a number has a message and return its newest one; see `Simulator.wait_for_message`."""
        return await self._await_coroutine(super().wait_for_message(to, timeout=timeout, after=after))

    async def refuse_connections(self, seconds: float | None = None) -> None:
        """Close all connections and refuse new ones; see `Simulator.refuse_connections`."""
        await self._await_coroutine(super().refuse_connections(seconds))

    async def accept_connections(self) -> None:
        """Accept connections again; see `Simulator.accept_connections`."""
        await self._await_coroutine(super().accept_connections())

    def _run_in_loop(self, work: Callable[[], _T]) -> _T:
        """Run a function in the simulator's loop and return its result."""
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
    """Wraps a clock that another thread may advance: the callbacks of its timers run in the simulator's loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time(self) -> float:
        return self._clock.time()

    def boottime(self) -> float:
        return self._clock.boottime()

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        return self._clock.call_at(when, lambda: self._call_in_loop(callback))

    def _call_in_loop(self, callback: Callable[[], object]) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(callback)
