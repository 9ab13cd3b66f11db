"""A local server that behaves like Bandwidth's MFA service, for tests, demos and development without an account."""

from __future__ import annotations

from ._errors import InvalidFaultError, InvalidOptionError, SimulatorError, SimulatorStateError, StateFileError
from ._faults import Fault, Faults
from ._messages import Message, ReceiptState, RequestRecord
from ._ready import wait_until_ready
from ._receipts import ReceiptPolicy
from ._segments import count_segments
from ._server_limiter import AccountLimits
from ._simulator import Simulator

__all__ = [
    "AccountLimits",
    "Fault",
    "Faults",
    "InvalidFaultError",
    "InvalidOptionError",
    "Message",
    "ReceiptPolicy",
    "ReceiptState",
    "RequestRecord",
    "Simulator",
    "SimulatorError",
    "SimulatorStateError",
    "StateFileError",
    "count_segments",
    "wait_until_ready",
]
