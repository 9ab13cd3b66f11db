"""A Redis for tests that break it, a simulator, and workers."""

from tests.support.worker_fixtures import asker, ledger, make_worker, own_redis, simulator

__all__ = ["asker", "ledger", "make_worker", "own_redis", "simulator"]
