"""Tools for testing code that uses this library.

- `ManualClock`: a clock that only the test advances, for `MFAClient(clock=...)`, `Simulator(clock=...)` and webhooks.
- `FakeTransport`: gives a real client scripted outcomes instead of sockets.
- `ThreadedSimulator`: a simulator in its own thread, for sync tests and for tests that each have their own event loop.
  The pytest fixtures `mfa_simulator`, `mfa_client` and `mfa_environ` (`bandwidth_mfa_async.pytest_plugin`) use it.
"""

from __future__ import annotations

from .._clock import Clock, ManualClock
from ._fake import FakeTransport, SentRequest
from ._outcome import Outcome
from ._threaded import ThreadedSimulator

__all__ = ["Clock", "FakeTransport", "ManualClock", "Outcome", "SentRequest", "ThreadedSimulator"]
