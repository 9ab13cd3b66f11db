"""Fixtures of every test of this tier."""

from tests.support.redis_fixtures import common_redis, redis_server

__all__ = ["common_redis", "redis_server"]
