"""The state machine of sign-in flows over each store."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from bandwidth_mfa_async import MemoryStore, RedisStore, SQLiteStore
from tests.support.signin_machine import SignInMachine
from tests.support.signins import SECRET

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def run(examples: int, make) -> None:
    class Machine(SignInMachine):
        def make_store(self, clock):
            return make(clock)

    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=SLOW),
    )


def test_memory() -> None:
    run(25, lambda clock: MemoryStore(clock=clock, secret=SECRET))


def test_sqlite(tmp_path) -> None:
    numbers = itertools.count()
    run(4, lambda clock: SQLiteStore(tmp_path / f"{next(numbers)}.db", clock=clock, secret=SECRET))


@pytest.mark.filterwarnings("ignore:unclosed")
def test_redis(redis_server) -> None:
    numbers = itertools.count()
    run(4, lambda clock: RedisStore(redis_server.url, clock=clock, secret=SECRET, prefix=f"p{next(numbers)}"))
