"""A Redis for tests that break it, and limiters of the shared rate."""

from tests.support.limits_fixtures import make_limiter, own_redis

__all__ = ["make_limiter", "own_redis"]
