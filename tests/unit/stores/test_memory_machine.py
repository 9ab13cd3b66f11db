"""The state machine of keys over a `MemoryStore`."""

from __future__ import annotations

from hypothesis import settings

from bandwidth_mfa_async import MemoryStore
from tests.support.store_machine import LEASE, StoreMachine


class MemoryMachine(StoreMachine):
    def make_store(self, clock):
        return MemoryStore(lease=LEASE, retention=86_400, clock=clock)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
