"""The local bucket: order, weights, cancellation, pauses and the rate itself."""

from __future__ import annotations

import asyncio
import random

import pytest

from bandwidth_mfa_async._clock import ManualClock, SystemClock
from bandwidth_mfa_async.errors import ConfigurationError
from bandwidth_mfa_async.limits._token_bucket import TokenBucket
from tests.support.limits_simulation import run_virtual


def queue(bucket, served, *entries):
    """Start one waiter per (name, weight, lane), in order."""

    async def wait(name, weight, lane):
        await bucket.acquire(weight, lane)
        served.append(name)

    return [asyncio.create_task(wait(*entry)) for entry in entries]


async def test_order_within_a_lane_is_first_come_first_served():
    """Waiters of one lane leave in the order in which they came, one every 1/rate seconds."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    served = []
    tasks = queue(bucket, served, *((n, 1, "bulk") for n in range(5)))
    await clock.advance(0.0)
    assert served == [0]
    for expected in range(2, 6):
        await clock.advance(0.1)
        assert served == list(range(expected))
    await asyncio.gather(*tasks)
    assert clock.pending == 0, "no timer is left once nobody waits"


async def test_the_interactive_lane_goes_first():
    """A person overtakes every queued bulk item; bulk items keep their order."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    assert bucket.try_acquire(1, "bulk")
    served = []
    tasks = queue(
        bucket, served, ("b1", 1, "bulk"), ("b2", 1, "bulk"), ("i1", 1, "interactive"), ("i2", 1, "interactive")
    )
    await clock.advance(0.401)
    await asyncio.gather(*tasks)
    assert served == ["i1", "i2", "b1", "b2"]


async def test_one_timer_serves_all_waiters():
    """However many wait, with deadlines or without, the clock holds one timer."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    tasks = [asyncio.create_task(bucket.acquire(1, "bulk", clock.monotonic() + 5 + n)) for n in range(50)]
    await clock.advance(0.0)
    assert bucket.waiting == 49
    assert clock.pending == 1
    await clock.advance(100.0)
    assert sum(await asyncio.gather(*tasks)) == len([t for t in tasks if t.result()]) >= 6


async def test_nobody_overtakes_a_heavy_waiter_of_its_lane():
    """While a heavy permit saves up, a lighter newcomer of the same lane waits even if there is enough for it."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    assert bucket.try_acquire(1, "bulk")
    served = []
    tasks = queue(bucket, served, ("heavy", 5, "bulk"))
    await clock.advance(0.4)
    assert not bucket.try_acquire(1, "bulk")
    tasks += queue(bucket, served, ("light", 1, "bulk"))
    await clock.advance(0.1001)
    assert served == ["heavy"]
    await clock.advance(0.1)
    assert served == ["heavy", "light"]
    await asyncio.gather(*tasks)


async def test_a_weight_above_the_burst_is_served():
    """A permit heavier than the bucket waits until it is paid for, and does not hang."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 2.0)
    assert bucket.try_acquire(1, "bulk")
    task = asyncio.create_task(bucket.acquire(9, "bulk"))
    await clock.advance(4.4)
    assert not task.done()
    await clock.advance(0.2)
    assert task.done()
    await task


async def test_a_heavy_permit_may_use_what_a_quiet_time_saved():
    """After a quiet time as long as it costs, a permit above the burst leaves at once, and the next one waits."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    assert bucket.try_acquire(1, "interactive")
    clock.tick(3.0)
    assert bucket.try_acquire(3, "interactive")
    assert not bucket.try_acquire(1, "interactive")


def test_a_weight_of_five_among_a_hundred_of_one_waits_its_fair_share():
    """Five permits at 100/s behind a hundred looping waiters are fair after 1.05 s, and come within 1.1 times that."""

    async def scenario():
        loop = asyncio.get_running_loop()
        bucket = TokenBucket(SystemClock(), 100.0)

        async def light():
            while True:
                await bucket.acquire(1, "bulk")

        lights = [asyncio.create_task(light()) for _ in range(100)]
        await asyncio.sleep(0.5)
        began = loop.time()
        await bucket.acquire(5, "bulk")
        waited = loop.time() - began
        for task in lights:
            task.cancel()
        await asyncio.gather(*lights, return_exceptions=True)
        return waited

    assert run_virtual(scenario()) <= 1.1 * 1.05


def test_half_of_the_waiters_cancelled_loses_nothing():
    """When 250 of 500 waiters are cancelled, the others get at least 0.98 of the rate and not more than the rate."""

    async def scenario():
        loop = asyncio.get_running_loop()
        bucket = TokenBucket(SystemClock(), 200.0)
        served = []

        async def wait():
            await bucket.acquire(1, "bulk")
            served.append(loop.time())

        tasks = [asyncio.create_task(wait()) for _ in range(500)]
        await asyncio.sleep(0.1)
        done = len(served)
        began = loop.time()
        for task in tasks[::2]:
            task.cancel()
        survivors = [task for task in tasks[1::2] if not task.done()]
        await asyncio.gather(*tasks, return_exceptions=True)
        return (len(served) - done) / (loop.time() - began), len(survivors), bucket

    rate, survivors, bucket = run_virtual(scenario())
    assert survivors > 200
    assert 0.98 * 200 <= rate <= 1.02 * 200
    assert bucket.waiting == 0


def test_random_timeouts_lose_no_capacity():
    """A hundred callers that give up after 1-300 ms and try again still use the whole rate."""

    async def scenario():
        loop = asyncio.get_running_loop()
        bucket = TokenBucket(SystemClock(), 200.0)
        rng = random.Random(7)
        end = loop.time() + 5.0
        granted = 0

        async def caller():
            nonlocal granted
            while loop.time() < end:
                try:
                    async with asyncio.timeout(rng.uniform(0.001, 0.3)):
                        await bucket.acquire(1, "bulk")
                    granted += 1
                except TimeoutError:
                    pass

        await asyncio.gather(*(caller() for _ in range(100)))
        return granted / 5.0

    assert 0.98 * 200 <= run_virtual(scenario()) <= 1.06 * 200


async def test_cancelled_in_the_moment_of_its_grant_gives_the_permit_back():
    """A waiter that was served and cancelled in the same loop iteration passes its permit to the next in line."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    assert bucket.try_acquire(1, "bulk")
    first, second = (asyncio.create_task(bucket.acquire(1, "bulk")) for _ in range(2))
    await clock.advance(0.0)
    clock.tick(0.1)  # the timer runs, and the first waiter's task has not yet
    first.cancel()
    await clock.advance(0.0)
    assert first.cancelled()
    assert second.done()
    assert await second


async def test_a_cancelled_heavy_head_frees_the_light_ones_behind_it():
    """What a heavy waiter had saved up goes, up to a bucketful, to whoever stands behind it when it leaves."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    assert bucket.try_acquire(1, "bulk")
    heavy = asyncio.create_task(bucket.acquire(50, "bulk"))
    await clock.advance(5.0)
    light = asyncio.create_task(bucket.acquire(1, "bulk"))
    later = asyncio.create_task(bucket.acquire(1, "bulk"))
    await clock.advance(0.0)
    heavy.cancel()
    await clock.advance(0.0)
    assert light.done()
    assert not later.done(), "what is above the burst is not kept"
    await clock.advance(1.0)
    await asyncio.gather(light, later)


async def test_refund_goes_to_the_next_in_line():
    """A permit given back is used at once by whoever waits."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    assert bucket.try_acquire(1, "bulk")
    task = asyncio.create_task(bucket.acquire(1, "bulk"))
    await clock.advance(0.0)
    bucket.refund(1)
    await clock.advance(0.0)
    assert await task


async def test_set_rate_applies_to_those_who_wait():
    """A new rate moves the one timer: faster and slower both count from the moment they are set."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    served = []
    tasks = queue(bucket, served, *((n, 1, "bulk") for n in range(4)))
    await clock.advance(0.5)
    assert served == [0]
    bucket.set_rate(10.0)
    await clock.advance(0.051)
    assert served == [0, 1]
    bucket.set_rate(0.1)
    await clock.advance(9.0)
    assert served == [0, 1]
    bucket.set_rate(None)
    await clock.advance(0.0)
    assert served == [0, 1, 2, 3]
    assert bucket.free
    await asyncio.gather(*tasks)


async def test_a_pause_lets_nothing_leave_and_saves_nothing_up():
    """After a pause waiters leave at the rate, not together; an unlimited bucket is closed by it as well."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 100.0)
    bucket.pause_until(clock.monotonic() + 10.0)
    served = []
    tasks = queue(bucket, served, *((n, 1, "bulk") for n in range(10)))
    await clock.advance(9.99)
    assert served == []
    await clock.advance(0.0101)
    assert served == [0]
    await clock.advance(0.0500)
    assert served == [0, 1, 2, 3, 4, 5]
    bucket.set_rate(None)
    await asyncio.gather(*tasks)
    bucket.pause_until(clock.monotonic() + 1.0)
    assert not bucket.try_acquire(1, "interactive")
    clock.tick(1.0)
    assert bucket.try_acquire(1, "interactive")
    assert bucket.free


async def test_a_shortened_pause_opens_at_once():
    """`pause_until` an earlier moment wakes those who wait."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    bucket.pause_until(clock.monotonic() + 10.0)
    task = asyncio.create_task(bucket.acquire(1, "bulk"))
    await clock.advance(1.0)
    bucket.pause_until(clock.monotonic())
    await clock.advance(0.0)
    assert await task


async def test_a_deadline_ends_the_wait():
    """A waiter whose time runs out gets False; its place goes to the next, and nothing was taken."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    assert bucket.try_acquire(1, "bulk")
    late = asyncio.create_task(bucket.acquire(1, "bulk", clock.monotonic() + 0.5))
    patient = asyncio.create_task(bucket.acquire(1, "bulk"))
    await clock.advance(0.6)
    assert late.done()
    assert not await late
    await clock.advance(0.41)
    assert await patient


async def test_a_timer_that_fires_a_hair_early_does_not_spin():
    """Rounding never makes the bucket set a timer for 1e-16 s: each permit costs one wake-up, two at most."""
    clock = ManualClock(monotonic=123_456.789)
    bucket = TokenBucket(clock, 3.0)
    wakes = 0
    original = bucket._on_timer

    def counted():
        nonlocal wakes
        wakes += 1
        original()

    bucket._on_timer = counted
    tasks = [asyncio.create_task(bucket.acquire(1, "bulk")) for _ in range(100)]
    await clock.advance(34.0)
    await asyncio.gather(*tasks)
    assert wakes <= 200


async def test_repr_explains_itself():
    """The repr tells the rate, the level, the waiters of each lane, a pause, and when it wakes next."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 4.0)
    tasks = queue(bucket, [], ("a", 1, "bulk"), ("b", 1, "bulk"), ("c", 1, "interactive"))
    await clock.advance(0.05)
    assert repr(bucket) == "TokenBucket(rate=4/s, level=0.20 of 1, interactive=1, bulk=1, next wake-up in 0.200 s)"
    bucket.pause_until(clock.monotonic() + 2.0)
    assert "paused for 2.000 s" in repr(bucket)
    bucket.set_rate(None)
    assert repr(bucket).startswith("TokenBucket(unlimited, ")
    await clock.advance(2.0)
    await asyncio.gather(*tasks)
    assert repr(bucket).endswith("no wake-up set)")


def test_repr_outside_a_loop():
    """Without a running loop there is no time, and the repr still works."""
    assert (
        repr(TokenBucket(SystemClock(), 4.0))
        == "TokenBucket(rate=4/s, level=1.00 of 1, interactive=0, bulk=0, no wake-up set)"
    )


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), "60/x", True])
def test_a_bad_rate_is_named(rate):
    """A rate that is not a finite number above 0 is refused, and the message names the field."""
    with pytest.raises(ConfigurationError, match="rate: "):
        TokenBucket(ManualClock(), rate)


async def test_left_deadlines_do_not_pile_up():
    """Callers that come with a deadline and leave early do not make the bucket grow."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 0.001)
    bucket.try_acquire(1, "bulk")
    for _ in range(300):
        task = asyncio.create_task(bucket.acquire(1, "bulk", clock.monotonic() + 1e6))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(bucket._deadlines) <= 66
    assert bucket.waiting == 0
