"""The state machine of keys over an `SQLiteStore` and a `RedisStore`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from bandwidth_mfa_async import RedisStore, SQLiteStore
from tests.support.store_machine import LEASE, StoreMachine

SETTINGS = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# One event loop would be blocked by the machine's own.
@pytest.mark.filterwarnings("ignore:unclosed")
def test_sqlite(tmp_path):
    class SQLiteMachine(StoreMachine):
        def make_store(self, clock):
            return SQLiteStore(tmp_path / "store.db", lease=LEASE, clock=clock)

    run_state_machine_as_test(SQLiteMachine, settings=SETTINGS)


@pytest.mark.filterwarnings("ignore:unclosed")
def test_redis(redis_server):
    class RedisMachine(StoreMachine):
        def make_store(self, clock):
            return RedisStore(redis_server.url, lease=LEASE, clock=clock)

    run_state_machine_as_test(RedisMachine, settings=SETTINGS)
