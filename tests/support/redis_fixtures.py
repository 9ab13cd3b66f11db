"""One Redis for all tests of a tier, which each test finds empty, and one with a password."""

from __future__ import annotations

import pytest

from tests.support.redis_server import RedisServer, server_binary


@pytest.fixture(scope="session")
def common_redis(tmp_path_factory):
    if server_binary() is None:
        pytest.skip("no redis-server here")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_server(common_redis):
    """Return a Redis that is empty and must not be broken."""
    common_redis.empty()
    return common_redis


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Return a Redis with a password."""
    if server_binary() is None:
        pytest.skip("no redis-server here")
    server = RedisServer(tmp_path_factory.mktemp("redis"), password="hunter2")
    yield server
    server.kill()
