"""Cancelling a send under a shared limit at each suspension: no waiter stays in Redis and no permit is lost."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async import Limits, RedisLimits
from tests.conftest import TO
from tests.support.fault_server import taken, until
from tests.support.suspensions import Suspensions, every_suspension


@pytest.mark.uvloop
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_a_send_cancelled_at_each_suspension_leaves_no_waiter(
    redis_server, server, make_client, template, lane, late
):
    """Neither the process nor Redis keeps a waiter; later sends keep the rate; unsent messages are not counted."""
    shared = RedisLimits(redis_server.url, key="9900000")
    client = make_client(limits=Limits(shared=shared, rate="50/s"))
    ends, at, accepted = set(), 0, 0
    while True:
        # Two sends go first, so that the third one waits for its permit.
        others = [asyncio.create_task(client.generate_messaging_code(template.to(TO))) for _ in range(2)]
        before = len(server.seen)
        suspensions = Suspensions(at, late=late)
        task = await suspensions.run(client.generate_messaging_code(template.to(TO), lane=lane))
        await asyncio.gather(*others)
        accepted += 2 + (not task.cancelled())
        ends.add(task.cancelled())
        executor = client._executor
        assert (executor.slots.taken, executor.slots.waiting, executor.state._active) == (0, 0, 0)
        assert executor.limiters["messaging"].waiting == 0
        assert taken(client) == 0
        assert len(server.seen) - before in {2, 3}
        if suspensions.count <= at:
            break
        at += 1
        assert at < 100
    assert ends == {True, False}
    await client.generate_messaging_code(template.to(TO))
    await client.aclose()
    status = await shared.status()
    assert (status.interactive, status.bulk, status.processes, status.refused) == (0, 0, 0, 0)
    with redis_server.client() as redis:  # no write that is reserved and was neither made nor given back
        assert redis.hget(shared.redis_keys("messaging")[0], "held") == b""
    assert accepted + 1 <= status.accepted <= len(server.seen)


async def test_a_status_query_cancelled_at_each_suspension_leaves_no_connection(redis_server):
    """A cancelled status query leaves no connection behind, even while it closes one."""
    shared = RedisLimits(redis_server.url, key="9900000")
    async for suspensions, task in every_suspension(shared.status):
        assert task.cancelled() == suspensions.struck
        assert len(gone := await connections(redis_server)) <= 1, f"wait {suspensions.at}: {gone}"


async def test_a_close_cancelled_at_each_suspension_closes_all_connections(redis_server, server, make_client, template):
    """A client with shared limits closes its connections to Redis and to the service."""
    made = []

    async def close():
        await made[-1].aclose()

    for late in (False, True):
        at = 0
        while True:
            made.append(make_client(limits=Limits(shared=RedisLimits(redis_server.url, key="9900000"), rate="50/s")))
            await made[-1].generate_messaging_code(template.to(TO))
            suspensions = Suspensions(at, late=late)
            task = await suspensions.run(close())
            assert task.cancelled() == suspensions.struck
            await until(lambda: server.open_connections == 0)
            assert len(await connections(redis_server)) <= 1, f"wait {at}"
            if suspensions.count <= at:
                break
            at += 1


async def connections(redis_server):
    """Return Redis's open connections, including the one of this query, after closed ones have disappeared."""
    with redis_server.client() as client:
        for _ in range(50):
            found = client.client_list()
            if len(found) <= 1:
                break
            await asyncio.sleep(0.002)
        return found
