"""One Redis for all tests of workers, one of its own for each test that breaks it, and workers on a simulator."""

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
