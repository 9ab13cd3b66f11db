"""Signal handling of a command from its first moment on, with and without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType
    from typing import Self


class SignalHandlers:
    """Handlers of SIGINT, SIGTERM and SIGHUP, while the context is active.

    Until a run starts, a signal raises a `KeyboardInterrupt` whose message says that nothing was sent. During a run it
    calls the run's function; after it, it does nothing, so that the result is reported. SIGHUP, which a process gets
    when its terminal closes, is left alone if it is ignored at the start, as under nohup.

    The first process of a container needs a handler, because there a signal without one is ignored.
    """

    def __init__(self) -> None:
        self.number = 0
        """The last signal received; 0 if there was none."""
        self._before: dict[signal.Signals, Any] = {}
        self._on_run_signal: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            if number is not signal.SIGHUP or before is not signal.SIG_IGN:
                # None: the handler was not installed by Python.
                self._before[number] = signal.SIG_DFL if before is None else before
                signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def during_run(self, function: Callable[[], None]) -> Generator[None]:
        """Call a function in the running event loop on each signal; from the end on, ignore signals.

        Raises:
            KeyboardInterrupt: there was a signal before.
        """
        loop = asyncio.get_running_loop()
        self._on_run_signal = lambda: loop.call_soon_threadsafe(function)
        try:
            if self.number:
                # Its exception was lost, for example in a destructor.
                raise _nothing_sent()
            yield
        finally:
            self._on_run_signal = lambda: None

    def _on_signal(self, number: int, _frame: object) -> None:
        self.number = number
        if self._on_run_signal is None:
            raise _nothing_sent()
        self._on_run_signal()


def _nothing_sent() -> KeyboardInterrupt:
    return KeyboardInterrupt("nothing was sent")
