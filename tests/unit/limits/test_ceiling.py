"""A configured rate is a hard ceiling: no window of time holds more written segments than it allows."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async._clock import ManualClock, SystemClock, sleep_until
from bandwidth_mfa_async._config import Rate
from bandwidth_mfa_async.errors import RateLimitError
from bandwidth_mfa_async.limits import ChannelLimiter
from bandwidth_mfa_async.limits._write_window import window_limits
from tests.support.limits_simulation import run_virtual
from tests.support.windows import assert_windows

RATES = [Rate(1), Rate(3), Rate(10), Rate(100), Rate(0.5), Rate(60, per=60), Rate(120, per=60), Rate(90, per=60)]


async def send(limiter, clock, writes, weight, lane, *, late=0.0, lost=False):
    """Do what an attempt does: get a permit, get a connection after `late` seconds, then write or fail."""
    permit = await limiter.acquire(weight, lane)
    try:
        await sleep_until(clock, clock.monotonic() + late)
        while not permit.turn.try_reserve():
            await permit.turn.reserve()
        if lost:
            raise ConnectionError
    except BaseException:
        limiter.refund(permit)
        raise
    writes.append((clock.monotonic(), weight))
    permit.turn.written()
    limiter.accepted(permit)


attempts = st.tuples(
    st.just("send"),
    st.integers(1, 3),  # how many at once
    st.sampled_from([1, 1, 1, 2, 3, 7]),  # weight
    st.sampled_from(["interactive", "bulk"]),
    st.sampled_from([0.0, 0.0, 0.001, 0.3, 1.7]),  # a slow connection
    st.booleans(),
)
events = st.lists(
    st.one_of(
        attempts,
        st.tuples(st.just("burst"), st.integers(5, 120)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("retry_after"), st.floats(0.1, 3.0)),
        st.tuples(st.just("time"), st.sampled_from([0.0, 0.01, 0.1, 0.999, 1.0, 2.5])),
        st.tuples(st.just("stall"), st.floats(0.0, 2.0)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("adaptive", [True, False])
@settings(max_examples=60, deadline=None)
@given(events=events, rate=st.sampled_from(RATES), start=st.floats(1.0, 1e6))
def test_no_window_holds_more_than_the_rate(adaptive, events, rate, start):
    """Bursts, weights, idle time, pauses, stalls, slow connections, failures, cancellations: no window is exceeded."""
    asyncio.run(_check_windows(adaptive, events, rate, start))


async def _check_windows(adaptive, events, rate, start):
    clock = ManualClock(monotonic=start)
    limiter = ChannelLimiter("messaging", rate=rate, adaptive=adaptive, clock=clock)
    writes, tasks = [], []

    def begin(*arguments, **options):
        tasks.append(asyncio.create_task(send(limiter, clock, writes, *arguments, **options)))

    for name, *values in events:
        if name == "send":
            count, weight, lane, late, lost = values
            for _ in range(count):
                begin(weight, lane, late=late, lost=lost)
        elif name == "burst":
            for _ in range(values[0]):
                begin(1, "bulk")
        elif name == "cancel" and tasks:
            tasks[values[0] % len(tasks)].cancel()
        elif name == "retry_after":
            permit = limiter.try_acquire()
            if permit is not None:
                limiter.rejected(permit, values[0])
        elif name == "time":
            await clock.advance(values[0], settle=4)
        elif name == "stall":
            clock.tick(values[0])  # timers fire, but no task runs
    await clock.advance(40.0, settle=4)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await clock.advance(100.0)
    assert limiter.waiting == 0
    assert limiter._writes.waiting == 0
    assert limiter._writes._reserved == 0
    assert clock.pending == 0
    assert_windows(writes, rate)


class LateClock(SystemClock):
    """Fires timers late, as a busy event loop does."""

    def __init__(self, seed, mean):
        self._rng = random.Random(seed)
        self._mean = mean

    def call_at(self, when, callback):
        return super().call_at(when + self._rng.expovariate(1 / self._mean), callback)


@pytest.mark.parametrize("late", [1e-4, 2e-3])
@pytest.mark.parametrize("rate", [Rate(1), Rate(5), Rate(100), Rate(400), Rate(60, per=60), Rate(600, per=60)])
def test_the_whole_rate_is_used_while_texts_wait(rate, late):
    """With late timers and connections of 0-30 ms, the mean is between 0.99 of the rate and the rate."""
    seconds = max(20.0, 60.0 / rate.per_second)

    async def main():
        loop = asyncio.get_running_loop()
        clock = LateClock(1, late)
        limiter = ChannelLimiter("messaging", rate=rate, adaptive=True, clock=clock)
        writes, rng = [], random.Random(2)
        start = loop.time()

        async def worker():
            while True:
                await send(limiter, clock, writes, 1, "bulk", late=rng.choice([0.0, 0.0, 0.001, rng.uniform(0, 0.03)]))

        try:
            async with asyncio.timeout_at(start + seconds), asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(worker())
        except TimeoutError:
            pass
        return writes, writes[-1][0] - writes[0][0]

    writes, elapsed = run_virtual(main())
    assert_windows(writes, rate)
    mean = (len(writes) - 1) / elapsed
    assert 0.99 * rate.per_second <= mean <= rate.per_second


def test_a_text_heavier_than_the_rate_is_sent_alone():
    """Five segments at 2/s: nothing in the second before, and nothing until they have used up their time."""

    async def main():
        clock = SystemClock()
        limiter = ChannelLimiter("messaging", rate=Rate(2), adaptive=False, clock=clock)
        writes = []
        async with asyncio.TaskGroup() as group:
            for weight in (1, 1, 5, 1, 1):
                group.create_task(send(limiter, clock, writes, weight, "bulk"))
        return writes

    writes = run_virtual(main())
    times = [at for at, _ in writes]
    assert [weight for _, weight in writes] == [1, 1, 5, 1, 1]
    assert times[2] - times[1] >= 1.0
    assert times[3] - times[2] >= 2.5
    assert_windows(writes, Rate(2))


def test_a_late_write_does_not_bunch_with_later_ones():
    """Permits that are used late, together, are written within the rate; the sign-ins among them first."""

    async def main():
        clock = SystemClock()
        limiter = ChannelLimiter("messaging", rate=Rate(10), adaptive=False, clock=clock)
        writes = []
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for n in range(40):
                # Permits come at 0, 0.1, 0.2, ...; all connections of the first three seconds at 3 s.
                group.create_task(send(limiter, clock, writes, 1, "bulk", late=max(0.0, 3.0 - n / 10)))
        return writes, start

    writes, start = run_virtual(main())
    assert len(writes) == 40
    assert writes[0][0] - start >= 2.9
    assert_windows(writes, Rate(10))


async def test_no_permit_is_granted_while_writes_wait():
    """Attempts that wait for their write hold up the permits, so that they stay few; deadlines still end waits."""
    clock = ManualClock()
    limiter = ChannelLimiter("messaging", rate=Rate(2), adaptive=False, clock=clock)
    writes = []
    tasks = [asyncio.create_task(send(limiter, clock, writes, 1, "bulk", late=2.0 - n / 2)) for n in range(5)]
    await clock.advance(2.1)
    assert len(writes) == 2
    assert limiter._writes.waiting >= 1
    assert limiter.try_acquire(1, "interactive") is None
    waiting = asyncio.create_task(limiter.acquire(1, "bulk", deadline=clock.monotonic() + 0.6))
    await clock.advance(0.7)
    with pytest.raises(RateLimitError):
        await waiting
    await clock.advance(5.0)
    await asyncio.gather(*tasks)
    assert_windows(writes, Rate(2))


async def test_closing_ends_the_wait_for_a_write():
    """`abort` also ends the waits of attempts that hold a permit."""
    clock = ManualClock()
    limiter = ChannelLimiter("messaging", rate=Rate(1), adaptive=False, clock=clock)
    permits = [limiter.try_acquire()]
    clock.tick(1.1)
    permits.append(limiter.try_acquire())
    assert permits[0].turn.try_reserve()
    task = asyncio.create_task(permits[1].turn.reserve())
    await clock.advance(0.5)
    assert not task.done()
    limiter.abort(lambda: RuntimeError("closed"))
    with pytest.raises(RuntimeError):
        await task
    assert clock.pending == 0


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (Rate(100), {(100, 1.0)}),
        (Rate(2.5), {(2, 1.0)}),
        (Rate(0.25), {(1, 1.0)}),
        (Rate.parse("60/m"), {(60, 60.0), (1, 1.0)}),
        (Rate.parse("90/m"), {(90, 60.0), (2, 1.0)}),
        (Rate.parse("1000/h"), {(1000, 3600.0), (1, 1.0)}),
        (Rate(10, per=0.1), {(10, 0.1), (100, 1.0)}),
    ],
)
def test_the_windows_of_a_rate(rate, expected):
    """A rate bounds its own period and every second."""
    assert set(window_limits(rate)) == expected


async def test_many_writes_take_bounded_memory():
    """At 100,000 an hour or a second, the writes of a window are stored in about a thousand entries."""
    for rate, step in ((Rate(100_000, per=3600), 0.036), (Rate(100_000), 1e-5)):
        clock = ManualClock()
        limiter = ChannelLimiter("messaging", rate=rate, adaptive=False, clock=clock)
        for _ in range(20_000):
            permit = limiter.try_acquire()
            if permit is not None and permit.turn.try_reserve():
                permit.turn.written()
            clock.tick(step * 5)
        assert max(len(window._entries) for window in limiter._writes._windows) <= 2_100
