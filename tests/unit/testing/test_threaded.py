"""The members of `ThreadedSimulator`; tests/integration/testing runs it."""

from __future__ import annotations

import inspect

from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.testing import ThreadedSimulator


def test_every_method_of_the_simulator_is_thread_safe():
    """A new method of `Simulator` must be overridden or be listed here as safe."""
    plain = {"client_kwargs", "environ", "last_code"}
    methods = {
        name for name, member in vars(Simulator).items() if inspect.isfunction(member) and not name.startswith("_")
    }
    assert methods - plain <= vars(ThreadedSimulator).keys()
