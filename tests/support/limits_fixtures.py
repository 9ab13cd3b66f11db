"""Fixtures for the shared limiter: one common Redis, and a separate one for tests that break it."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from tests.support.redis_server import RedisServer, server_binary
from tests.support.virtual_redis import VirtualRedisLimits
from tests.support.virtual_time import VirtualTimeLoop


@pytest.fixture(scope="session")
def common_redis(tmp_path_factory):
    if server_binary() is None:
        pytest.skip("no redis-server here")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_server(common_redis):
    """Return an empty Redis that tests must not break."""
    common_redis.empty()
    return common_redis


@pytest.fixture
def own_redis(tmp_path, common_redis):  # common_redis skips without redis-server
    """Return a Redis that tests may kill and freeze."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def make_limiter():
    """Make limiters, one per simulated process, and close them at the end. `limiter.calls` records Redis calls."""
    limiters = []

    def make(
        url, *, rate=None, adaptive=True, channel="messaging", emit=None, max_pause=60.0, key="9900000", **options
    ):
        virtual = isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        shared = (VirtualRedisLimits if virtual else RedisLimits)(url, key=key, **options)
        limiter = shared.limiter(
            channel, rate=rate, adaptive=adaptive, clock=SystemClock(), emit=emit, max_pause=max_pause
        )
        limiter.calls = []
        exchange = limiter._store.exchange

        def counted(arguments):
            limiter.calls.append(arguments)
            return exchange(arguments)

        limiter._store.exchange = counted
        limiters.append(limiter)
        return limiter

    yield make
    for limiter in limiters:
        limiter.abort(lambda: RuntimeError("the test is over"))
        await limiter.aclose()
