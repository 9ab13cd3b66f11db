"""A Redis that dies, hangs, comes back empty or refuses us: no call fails, and every process keeps to its share."""

from __future__ import annotations

import asyncio
import logging
import select

import pytest

from bandwidth_mfa_async import Limits, RedisLimits
from bandwidth_mfa_async._config import Rate
from tests.integration.limits.test_redis_limits import busy, run_for, until

pytestmark = pytest.mark.virtual_time


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_killed_and_restarted_empty(own_redis, make_limiter, caplog):
    """Each goes on at its own share, an empty Redis begins at 0.8 of the last rate, and each change is logged once."""
    limiters = [make_limiter(own_redis.url) for _ in range(2)]
    for limiter in limiters:
        for _ in range(30):
            limiter.accepted(await limiter.acquire())
    limiters[0].rejected(await limiters[0].acquire(), None)
    await until(lambda: limiters[0].epoch == 1)
    limiters[1].accepted(await limiters[1].acquire())
    await until(lambda: limiters[1].epoch == 1)
    rate = limiters[1].rate
    times = [[], []]

    async def break_it():
        await asyncio.sleep(1.2)
        own_redis.kill()
        await until(lambda: all("FallbackLimiter" in repr(limiter) for limiter in limiters))
        assert sum(limiter.rate for limiter in limiters) <= 1.2 * rate
        before = sum(map(len, times))
        await asyncio.sleep(0.5)
        assert 0.5 * 0.5 * rate <= sum(map(len, times)) - before <= 0.5 * 1.3 * rate + 4
        own_redis.start()
        await until(lambda: not any("FallbackLimiter" in repr(limiter) for limiter in limiters), 2.5)
        assert limiters[0].rate >= 0.75 * rate
        await asyncio.sleep(10)

    await run_for(3.3, break_it(), *(busy(limiter, mine) for limiter, mine in zip(limiters, times, strict=True)))
    told = warnings(caplog)
    assert len([text for text in told if "cannot be used" in text]) == 2
    assert len([text for text in told if "answers again" in text]) == 2


async def test_frozen(own_redis, make_limiter):
    """A hang costs a quarter of a second, once; afterwards the shared limit is taken up again."""
    limiter = make_limiter(own_redis.url, rate=Rate(100))
    await run_for(0.6, busy(limiter, []))
    own_redis.freeze()
    began = asyncio.get_running_loop().time()
    for _ in range(10):
        await limiter.acquire()
    assert asyncio.get_running_loop().time() - began <= 0.9
    own_redis.thaw()
    limiter.accepted(await limiter.acquire())
    await until(lambda: limiter._fallback is None)
    assert limiter.rate == 100


async def test_a_start_without_redis(own_redis, make_limiter, caplog):
    """`fallback_rate` is what a process sends at until Redis is there; without one, the configured rate or none."""
    own_redis.kill()
    careful = make_limiter(own_redis.url, fallback_rate="20/s")
    known = make_limiter(own_redis.url, rate=Rate(50))
    unknown = make_limiter(own_redis.url)
    for limiter, rate in ((careful, 20), (known, 50), (unknown, None)):
        await limiter.acquire()
        assert limiter.rate == rate
    refused = await unknown.acquire()
    unknown.rejected(refused, 0.05)
    assert unknown.rate is not None, "it learns alone meanwhile"
    own_redis.start()
    await until(lambda: careful.try_acquire() is None and careful._fallback is None, 2.5)
    assert len(warnings(caplog)) >= 3


async def test_waiters_move_and_nobody_is_lost(own_redis, make_limiter):
    """Those who wait when Redis goes, and those who wait when it comes back, are served; so are cancellations."""
    limiter = make_limiter(own_redis.url, rate=Rate(40))
    tasks = [asyncio.create_task(limiter.acquire(1, "bulk")) for _ in range(60)]
    await asyncio.sleep(0.3)
    own_redis.kill()
    await until(lambda: limiter._fallback is not None)
    for task in tasks[40:50]:
        task.cancel()
    own_redis.start()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 4.0)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 10
    assert sum(getattr(outcome, "weight", 0) for outcome in outcomes) == 50
    assert limiter.waiting == 0


@pytest.mark.parametrize("url", ["redis://:wrong-hunter2@127.0.0.1:{port}", "redis://127.0.0.1:{port}"])
async def test_a_refused_password_fails_no_call(tmp_path, common_redis, server, make_client, template, caplog, url):
    """Sends go on, and the one line in the log holds neither password nor address."""
    from tests.support.redis_server import RedisServer

    guarded = RedisServer(tmp_path, password="right-hunter2")
    try:
        shared = RedisLimits(url.format(port=guarded.port), key="9900000")
        client = make_client(limits=Limits(shared=shared))
        for _ in range(3):
            await client.generate_messaging_code(template.to("+19195551234"))
        await client.aclose()
    finally:
        guarded.kill()
    told = warnings(caplog)
    assert len(told) == 1
    assert "hunter2" not in caplog.text
    assert str(guarded.port) not in caplog.text


async def test_a_redis_that_cannot_run_the_script(redis_server, make_limiter, caplog):
    """Too old, a key of another kind, a command that is not allowed: the same as no Redis."""
    with redis_server.client() as client:
        client.set("bandwidth-mfa:{9900000}:messaging", "of another kind")
    limiter = make_limiter(redis_server.url, rate=Rate(50))
    await limiter.acquire()
    assert "FallbackLimiter" in repr(limiter)
    assert "holds something else" in warnings(caplog)[0]


async def test_an_idle_connection_that_was_closed_is_no_outage(redis_server, make_limiter, caplog):
    """A proxy or Redis's own `timeout` may end it; one reconnect, no warning."""
    limiter = make_limiter(redis_server.url, rate=Rate(50))
    await limiter.acquire()
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await limiter.acquire()
    await limiter.acquire(5)
    assert warnings(caplog) == []


async def test_a_busy_process_does_not_blame_redis(own_redis, make_limiter, caplog):
    """The answer that came while this process was held up is in its socket, and is read."""
    limiter = make_limiter(own_redis.url, rate=Rate(50))
    limiter.accepted(await limiter.acquire())
    await until(lambda: limiter._task._running is None)
    own_redis.freeze()
    asked = len(limiter.calls)
    task = asyncio.create_task(limiter.acquire(5))
    await until(lambda: len(limiter.calls) > asked)
    for _ in range(20):  # it is written
        await asyncio.sleep(0)
    assert not task.done()
    own_redis.thaw()
    # Nothing else of this process runs until the answer is there, which is when more than the timeout has passed.
    connection = limiter._store._connection._client.connection_pool._in_use_connections.copy().pop()
    assert select.select([connection._writer.get_extra_info("socket")], [], [], 10.0)[0]
    asyncio.get_running_loop().skip(0.4)
    await task
    assert warnings(caplog) == []
