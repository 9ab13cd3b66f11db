"""A Redis for tests that break it, a simulator, and workers."""

from tests.support.worker_fixtures import ledger, make_worker, own_redis, producer, simulator

__all__ = ["ledger", "make_worker", "own_redis", "producer", "simulator"]
