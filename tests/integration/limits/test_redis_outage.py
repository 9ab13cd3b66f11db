"""A Redis that dies, hangs, returns empty or rejects the client: no call fails, and each process keeps its share."""

from __future__ import annotations

import asyncio
import logging
import select

import pytest

from bandwidth_mfa_async import Limits, RedisLimits
from bandwidth_mfa_async._config import Rate
from tests.integration.limits.test_redis_limits import keep_acquiring, run_with_timeout, until

pytestmark = pytest.mark.virtual_time


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_killed_redis_that_restarts_empty(own_redis, make_limiter, caplog):
    """Processes continue at their shares; an empty Redis restarts at 0.8 of the last rate; changes are logged once."""
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

    async def interrupt_redis():
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

    await run_with_timeout(
        3.3, interrupt_redis(), *(keep_acquiring(limiter, mine) for limiter, mine in zip(limiters, times, strict=True))
    )
    logged = warnings(caplog)
    assert len([text for text in logged if "cannot be used" in text]) == 2
    assert len([text for text in logged if "answers again" in text]) == 2


async def test_a_frozen_redis_costs_one_timeout(own_redis, make_limiter):
    """A hang costs a quarter of a second once; then the shared limit is used again."""
    limiter = make_limiter(own_redis.url, rate=Rate(100))
    await run_with_timeout(0.6, keep_acquiring(limiter, []))
    own_redis.freeze()
    began = asyncio.get_running_loop().time()
    for _ in range(10):
        await limiter.acquire()
    assert asyncio.get_running_loop().time() - began <= 0.9
    own_redis.thaw()
    limiter.accepted(await limiter.acquire())
    await until(lambda: limiter._fallback is None)
    assert limiter.rate == 100


async def test_a_start_without_redis_uses_the_fallback_rate(own_redis, make_limiter, caplog):
    """Until Redis is available a process uses `fallback_rate`, else the configured rate, else no limit."""
    own_redis.kill()
    careful = make_limiter(own_redis.url, fallback_rate="20/s")
    known = make_limiter(own_redis.url, rate=Rate(50))
    unknown = make_limiter(own_redis.url)
    for limiter, rate in ((careful, 20), (known, 50), (unknown, None)):
        await limiter.acquire()
        assert limiter.rate == rate
    rejected = await unknown.acquire()
    unknown.rejected(rejected, 0.05)
    assert unknown.rate is not None, "it adapts alone meanwhile"
    own_redis.start()
    await until(lambda: careful.try_acquire() is None and careful._fallback is None, 2.5)
    assert len(warnings(caplog)) >= 3


async def test_waiters_are_granted_across_an_outage(own_redis, make_limiter):
    """Waiters are granted across the start and the end of an outage, and cancellation works."""
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


async def test_a_text_that_waits_to_be_written_outlasts_an_outage(own_redis, make_limiter):
    """Redis dies while one waits for room in the shared windows, and returns while others wait in the local ones."""
    limiter = make_limiter(own_redis.url, rate=Rate(1))
    first, second, third = [await limiter.acquire() for _ in range(3)]
    await first.turn.reserve()  # never written: it fills the window
    waiting = asyncio.ensure_future(second.turn.reserve())
    await until(lambda: limiter._writes._ready)
    own_redis.kill()
    await asyncio.wait_for(waiting, 10.0)
    assert "without" in repr(limiter)
    second.turn.written()
    granted = await limiter.acquire()
    waiting = [asyncio.ensure_future(permit.turn.reserve()) for permit in (third, granted)]
    await asyncio.to_thread(own_redis.start)
    await until(lambda: "without" not in repr(limiter))
    await asyncio.wait_for(waiting[0], 10.0)
    third.turn.written()
    await asyncio.wait_for(waiting[1], 10.0)


@pytest.mark.parametrize("url", ["redis://:wrong-hunter2@127.0.0.1:{port}", "redis://127.0.0.1:{port}"])
async def test_a_wrong_password_fails_no_call(tmp_path, common_redis, server, make_client, template, caplog, url):
    """Sends continue, and the one log line contains neither password nor address."""
    from tests.support.redis_server import RedisServer

    protected = RedisServer(tmp_path, password="right-hunter2")
    try:
        shared = RedisLimits(url.format(port=protected.port), key="9900000")
        client = make_client(limits=Limits(shared=shared))
        for _ in range(3):
            await client.generate_messaging_code(template.to("+19195551234"))
        await client.aclose()
    finally:
        protected.kill()
    logged = warnings(caplog)
    assert len(logged) == 1
    assert "hunter2" not in caplog.text
    assert str(protected.port) not in caplog.text


async def test_a_redis_that_cannot_run_the_script_is_an_outage(redis_server, make_limiter, caplog):
    """A key of another type is treated like an outage."""
    with redis_server.client() as client:
        client.set("bandwidth-mfa:{9900000}:messaging", "of another kind")
    limiter = make_limiter(redis_server.url, rate=Rate(50))
    await limiter.acquire()
    assert "FallbackLimiter" in repr(limiter)
    assert "holds something else" in warnings(caplog)[0]


async def test_a_closed_idle_connection_is_no_outage(redis_server, make_limiter, caplog):
    """If a proxy or Redis closes an idle connection, the limiter reconnects without a warning."""
    limiter = make_limiter(redis_server.url, rate=Rate(50))
    await limiter.acquire()
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await limiter.acquire()
    await limiter.acquire(5)
    assert warnings(caplog) == []


async def test_a_blocked_event_loop_is_no_outage(own_redis, make_limiter, caplog):
    """An answer that arrived while the event loop was blocked is read, not counted as a timeout."""
    limiter = make_limiter(own_redis.url, rate=Rate(50))
    limiter.accepted(await limiter.acquire())
    await until(lambda: not limiter._task._running)
    own_redis.freeze()
    asked = len(limiter.calls)
    task = asyncio.create_task(limiter.acquire(5))
    await until(lambda: len(limiter.calls) > asked)
    for _ in range(20):  # the request is written
        await asyncio.sleep(0)
    assert not task.done()
    own_redis.thaw()
    # Block this process until the answer has arrived, then skip more time than the timeout.
    connection = limiter._store._connection._client._client.connection_pool._in_use_connections.copy().pop()
    assert select.select([connection._writer.get_extra_info("socket")], [], [], 10.0)[0]
    asyncio.get_running_loop().skip(0.4)
    await task
    assert warnings(caplog) == []
