"""What a decision costs in round trips to Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import MFAClient, RedisStore
from bandwidth_mfa_async.signin import Guard, SignIns, UnverifiedBudget
from tests.support.signins import LOGIN, NUMBER, OTHER, SECRET, VISITOR, wrong

if TYPE_CHECKING:
    from bandwidth_mfa_async.simulator import Simulator
    from tests.support.redis_server import RedisServer


@pytest.fixture
async def commands(redis_server: RedisServer):
    """Return a function that returns the number of commands since it was called last."""
    seen = 0

    def count() -> int:
        nonlocal seen
        with redis_server.client() as client:
            total = sum(stats["calls"] for name, stats in client.info("commandstats").items() if "eval" in name)
        new, seen = total - seen, total
        return new

    return lambda: asyncio.to_thread(count)


async def test_a_check_takes_two_round_trips(
    commands, redis_server: RedisServer, mfa: MFAClient, sim: Simulator
) -> None:
    guard = Guard(total="1000/h", unverified=UnverifiedBudget(expected_per_day=1000))
    async with RedisStore(redis_server.url, secret=SECRET) as store:
        signins = SignIns(mfa, LOGIN, store=store, guard=guard, cooldown=0)
        for number in (NUMBER, OTHER):  # the second time Redis has all scripts
            await commands()
            flow = await signins.start(number, visitor=VISITOR)
            starts = await commands()
            assert (await signins.check(flow.id, wrong(sim.inbox[-1].code))).reason == "wrong"
            wrongs = await commands()
            assert (await signins.check(flow.id, sim.inbox[-1].code)).valid
            rights = await commands()
            await signins.check(flow.id, sim.inbox[-1].code)
            laters = await commands()
        assert (starts, wrongs, rights, laters) == (2, 2, 2, 1)
