"""What tests of code that uses this library need.

- `ManualClock`: time that moves when told to, for `MFAClient(clock=...)`, `Simulator(clock=...)` and the webhooks.
- `FakeTransport`: a real client without sockets, whose outcomes are scripted.
- `ThreadedSimulator`: the simulator in a thread of its own, for tests that are not async or whose event loops come and
  go; the pytest fixtures `mfa_simulator`, `mfa_client` and `mfa_environ` (`bandwidth_mfa_async.pytest_plugin`) are made
  of it.
"""

from __future__ import annotations

from .._clock import Clock, ManualClock
from ._fake import FakeTransport, SentRequest
from ._outcome import Outcome
from ._threaded import ThreadedSimulator

__all__ = ["Clock", "FakeTransport", "ManualClock", "Outcome", "SentRequest", "ThreadedSimulator"]
