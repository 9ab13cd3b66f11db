"""One Redis for all tests of the shared limiter, and a separate one for each test that breaks it."""

from tests.support.limits_fixtures import common_redis, make_limiter, own_redis, redis_server

__all__ = ["common_redis", "make_limiter", "own_redis", "redis_server"]
