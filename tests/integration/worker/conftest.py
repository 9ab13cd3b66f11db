"""Fixtures of the worker tests: a shared Redis, a separate one for tests that break it, and workers on a simulator."""

from tests.support.worker_fixtures import (
    common_ledger_redis,
    ledger,
    make_worker,
    own_redis,
    producer,
    redis_server,
    simulator,
)

__all__ = ["common_ledger_redis", "ledger", "make_worker", "own_redis", "producer", "redis_server", "simulator"]
