"""A configured rate that processes share through Redis is a hard ceiling for all of them together."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import pytest

from bandwidth_mfa_async._config import Rate
from tests.support import processes
from tests.support.limits_simulation import run_virtual
from tests.support.virtual_redis import virtual_limiter
from tests.support.windows import assert_windows


async def send(limiter, writes, weight, lane, late):
    permit = await limiter.acquire(weight, lane)
    await asyncio.sleep(late)
    while not permit.turn.try_reserve():
        await permit.turn.reserve()
    writes.append((asyncio.get_running_loop().time(), weight))
    permit.turn.written()
    await asyncio.sleep(0.09)
    limiter.accepted(permit)


async def run_workers(script, rate, seconds, late, *, workers=12, seed=3):
    """Return what eight limiters wrote, each with so many workers that send without a pause."""
    loop = asyncio.get_running_loop()
    limiters = [virtual_limiter(script, rate) for _ in range(8)]
    writes, rng = [], random.Random(seed)

    async def worker(limiter):
        while True:
            await send(limiter, writes, 1, "bulk", late(rng))

    try:
        async with asyncio.timeout_at(loop.time() + seconds), asyncio.TaskGroup() as group:
            for limiter in limiters:
                for _ in range(workers):
                    group.create_task(worker(limiter))
    except TimeoutError:
        pass
    for limiter in limiters:
        limiter.abort(lambda: RuntimeError("the test is over"))
        await limiter.aclose()
    return writes


@pytest.mark.parametrize("rate", [Rate(5), Rate(100), Rate(400), Rate(60, per=60)])
def test_eight_processes_use_the_whole_rate_and_no_more(script, rate):
    """Virtual time, eight limiters: no window is exceeded, and the mean is at least 0.99 of the rate."""
    seconds = max(15.0, 90.0 / rate.per_second)
    writes = run_virtual(run_workers(script, rate, seconds, lambda rng: rng.choice([0.0, 0.001, 0.002])))
    assert_windows(writes, rate)
    elapsed = writes[-1][0] - writes[0][0]
    mean = (len(writes) - 1) / elapsed
    assert 0.99 * rate.per_second <= mean <= rate.per_second


@pytest.mark.parametrize(
    "late",
    [
        lambda _rng: 0.005,
        lambda _rng: 0.05,
        lambda _rng: 0.2,
        lambda rng: rng.uniform(0.0, 0.2),
        lambda rng: rng.expovariate(10.0),
    ],
    ids=["5 ms", "50 ms", "200 ms", "up to 200 ms", "100 ms, exponential"],
)
def test_time_between_permit_and_write_costs_nothing_of_the_rate(script, late):
    """As with a journal or a ledger; the windows hold for any distribution of these times."""
    rate = Rate(50)
    writes = run_virtual(run_workers(script, rate, 60.0, late))
    assert_windows(writes, rate)
    begin, end = writes[0][0] + 2.0, writes[-1][0]  # the first writes are as late as the others, but not later
    mean = sum(at >= begin for at, _ in writes) / (end - begin)
    assert 0.99 * rate.per_second <= mean <= rate.per_second


def test_a_text_that_is_not_written_gives_its_place_to_another(script):
    """A reservation whose attempt fails before the write, or is cancelled, is not counted for ten seconds."""
    rate = Rate(1)

    async def main():
        loop = asyncio.get_running_loop()
        limiters = [virtual_limiter(script, rate) for _ in range(2)]
        permits = [await limiter.acquire() for limiter in limiters]
        await permits[0].turn.reserve()
        waiting = asyncio.ensure_future(permits[1].turn.reserve())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        began = loop.time()
        limiters[0].refund(permits[0])
        await waiting
        elapsed = loop.time() - began
        third = await limiters[0].acquire()
        cancelled = asyncio.ensure_future(third.turn.reserve())
        await asyncio.sleep(0.1)
        cancelled.cancel()
        permits[1].turn.written()
        written_at = loop.time()
        fourth = await limiters[1].acquire()
        await fourth.turn.reserve()
        waited = loop.time() - written_at
        for limiter in limiters:
            limiter.abort(lambda: RuntimeError("the test is over"))
            await limiter.aclose()
        return elapsed, waited

    elapsed, waited = run_virtual(main())
    assert elapsed <= 1.1
    assert 1.0 <= waited <= 2.5


@pytest.mark.parametrize("seed", range(6))
def test_bursts_weights_and_late_writes_stay_within_the_windows(script, seed):
    """Virtual time, random bursts with weights, slow connections and idle time in three processes."""
    rng = random.Random(seed)
    rate = rng.choice([Rate(3), Rate(20), Rate(120, per=60)])

    async def main():
        limiters = [virtual_limiter(script, rate) for _ in range(3)]
        writes, tasks = [], []
        for _ in range(12):
            for _ in range(rng.choice([1, 5, 30])):
                late = rng.choice([0.0, 0.0, 0.01, 0.5, 2.0])
                weight = rng.choice([1, 1, 1, 2, 5])
                coroutine = send(rng.choice(limiters), writes, weight, rng.choice(["bulk", "interactive"]), late)
                tasks.append(asyncio.create_task(coroutine))
            await asyncio.sleep(rng.choice([0.0, 0.05, 1.0, 3.0]))
            rng.choice(tasks).cancel()
        await asyncio.sleep(20.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for limiter in limiters:
            limiter.abort(lambda: RuntimeError("the test is over"))
            await limiter.aclose()
        return writes

    writes = run_virtual(main())
    # Less than the whole rate: connections take up to 2 s between permit and write, and nothing is waiting at the end.
    assert len(writes) > 20
    assert sum(weight for _, weight in writes) >= 0.5 * rate.per_second * (writes[-1][0] - writes[0][0])
    assert_windows(writes, rate)


def test_a_reservation_is_valid_from_its_answer(script):
    """One that waits longer for room than a reservation is valid needs no second one."""
    rate = Rate(1, per=20)

    async def main():
        limiter = virtual_limiter(script, rate)
        first, second = await limiter.acquire(), asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(15.0)
        await first.turn.reserve()
        first.turn.written()
        written_at = asyncio.get_running_loop().time()
        turn = (await second).turn
        await turn.reserve()
        waited = asyncio.get_running_loop().time() - written_at
        limiter.abort(lambda: RuntimeError("the test is over"))
        await limiter.aclose()
        return waited

    assert 20.0 <= run_virtual(main()) <= 20.3


def test_the_reservation_of_a_heavy_text_is_not_divided(script):
    """A text heavier than the rate is reserved and cancelled; others do not share its weight."""
    rate = Rate(5)

    async def main():
        limiter = virtual_limiter(script, rate)
        permits = [await limiter.acquire(weight) for weight in (7, 2, 2, 2)]
        writes = []

        async def write(permit):
            await permit.turn.reserve()
            writes.append((asyncio.get_running_loop().time(), permit.weight))
            permit.turn.written()

        heavy = asyncio.ensure_future(write(permits[0]))
        await asyncio.sleep(0.0002)  # the exchange has begun
        others = [asyncio.ensure_future(write(permit)) for permit in permits[1:]]
        heavy.cancel()
        await asyncio.gather(*others)
        limiter.abort(lambda: RuntimeError("the test is over"))
        await limiter.aclose()
        return writes

    writes = run_virtual(main())
    assert len(writes) == 3
    assert_windows(writes, rate)


_PROGRAM = """
import asyncio, json, sys, time
from aiohttp import web
from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, MFAError, Rate, RedisLimits

async def main(url, redis, seconds):
    writes = []
    class Watched(asyncio.selector_events._SelectorSocketTransport):
        pass
    write = asyncio.selector_events._SelectorSocketTransport.write
    def watched(self, data):
        if bytes(data[:5]) == b"POST ":
            writes.append(time.monotonic())
        return write(self, data)
    asyncio.selector_events._SelectorSocketTransport.write = watched
    limits = Limits(rate=Rate(100), shared=RedisLimits(redis, key="ceiling"))
    template = CodeTemplate("+19195554321", "app")
    async with MFAClient("9900000", BasicAuth("u", "p"), base_url=url, limits=limits) as mfa:
        end = time.monotonic() + seconds
        async def worker():
            while time.monotonic() < end:
                try:
                    await mfa.generate_messaging_code(template.to("+19195551234"), timeout=2.0)
                except MFAError:
                    pass
        await asyncio.gather(*(worker() for _ in range(8)))
    print(json.dumps(writes))

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""


async def test_eight_real_processes_never_exceed_the_rate(redis_server, tmp_path):
    """A real Redis and a loopback server, measured at the write on the machine's one monotonic clock."""
    from aiohttp import web

    async def answer(_request):
        return web.json_response({"messageId": "1750000000000fake000000000001"})

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    program = tmp_path / "sender.py"
    program.write_text(_PROGRAM)
    began = time.monotonic()
    command = (sys.executable, str(program), url, redis_server.url, "5")
    started = [await processes.start_async(*command, stdout=processes.PIPE) for _ in range(8)]
    outputs = await asyncio.gather(*(process.communicate() for process in started))
    await runner.cleanup()
    written = [json.loads(output) for output, _ in outputs]
    writes = sorted((at, 1) for times in written for at in times)
    assert time.monotonic() - began < 60
    start, end = max(times[0] for times in written), min(times[-1] for times in written)  # while all of them send
    mean = sum(start <= at < end for at, _ in writes) / (end - start)
    assert end - start > 2
    assert 95 <= mean <= 100 * (1 + 1 / (end - start))  # a loaded machine is late; in virtual time it is 0.99
    assert_windows(writes, Rate(100))
