"""Fixtures of the shared limiter's tests: a Redis for tests that break it, and limiters as processes make them."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from tests.support.redis_server import RedisServer
from tests.support.virtual_redis import VirtualRedisLimits
from tests.support.virtual_time import VirtualTimeLoop


@pytest.fixture
def own_redis(tmp_path, common_redis):  # common_redis skips without redis-server
    """Return a Redis that tests may kill and freeze."""
    server = RedisServer(tmp_path, "--appendonly", "no")
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
