"""A Redis for tests that break it, a simulator, workers, and limiters of the shared rate."""

from tests.support.limits_fixtures import make_limiter
from tests.support.worker_fixtures import ledger, make_worker, own_redis, producer, simulator

__all__ = ["ledger", "make_limiter", "make_worker", "own_redis", "producer", "simulator"]
