"""The token bucket: order, weights, cancellation, pauses and rate changes."""

from __future__ import annotations

import asyncio
import random

import pytest

from bandwidth_mfa_async._clock import ManualClock, SystemClock
from bandwidth_mfa_async.errors import ConfigurationError
from bandwidth_mfa_async.limits._token_bucket import TokenBucket
from tests.support.limits_simulation import run_virtual


def start_waiters(bucket, granted, *entries):
    """Start one waiter per (name, weight, lane), in order."""

    async def wait(name, weight, lane):
        await bucket.acquire(weight, lane)
        granted.append(name)

    return [asyncio.create_task(wait(*entry)) for entry in entries]


async def test_order_within_a_lane_is_first_come_first_served():
    """Waiters of one lane are granted in order, one every 1/rate seconds."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    granted = []
    tasks = start_waiters(bucket, granted, *((n, 1, "bulk") for n in range(5)))
    await clock.advance(0.0)
    assert granted == [0]
    for expected in range(2, 6):
        await clock.advance(0.1)
        assert granted == list(range(expected))
    await asyncio.gather(*tasks)
    assert clock.pending == 0, "no timer is left without waiters"


async def test_the_interactive_lane_goes_first():
    """An interactive waiter overtakes all bulk waiters; these keep their order."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    assert bucket.try_acquire(1, "bulk")
    granted = []
    tasks = start_waiters(
        bucket, granted, ("b1", 1, "bulk"), ("b2", 1, "bulk"), ("i1", 1, "interactive"), ("i2", 1, "interactive")
    )
    await clock.advance(0.401)
    await asyncio.gather(*tasks)
    assert granted == ["i1", "i2", "b1", "b2"]


async def test_all_waiters_share_one_timer():
    """The clock holds one timer for any number of waiters, with or without deadlines."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    tasks = [asyncio.create_task(bucket.acquire(1, "bulk", clock.monotonic() + 5 + n)) for n in range(50)]
    await clock.advance(0.0)
    assert bucket.waiting == 49
    assert clock.pending == 1
    await clock.advance(100.0)
    assert sum(await asyncio.gather(*tasks)) == len([t for t in tasks if t.result()]) >= 6


async def test_no_caller_overtakes_a_heavy_waiter_of_its_lane():
    """While a heavy permit saves up, a lighter new caller of the same lane waits even if there are enough tokens."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    assert bucket.try_acquire(1, "bulk")
    granted = []
    tasks = start_waiters(bucket, granted, ("heavy", 5, "bulk"))
    await clock.advance(0.4)
    assert not bucket.try_acquire(1, "bulk")
    tasks += start_waiters(bucket, granted, ("light", 1, "bulk"))
    await clock.advance(0.1001)
    assert granted == ["heavy"]
    await clock.advance(0.1)
    assert granted == ["heavy", "light"]
    await asyncio.gather(*tasks)


async def test_a_weight_above_the_burst_is_granted():
    """A permit heavier than the bucket is granted once enough tokens are saved up."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 2.0)
    assert bucket.try_acquire(1, "bulk")
    task = asyncio.create_task(bucket.acquire(9, "bulk"))
    await clock.advance(4.4)
    assert not task.done()
    await clock.advance(0.2)
    assert task.done()
    await task


async def test_a_heavy_permit_uses_tokens_saved_while_idle():
    """After enough idle time a permit above the burst leaves at once, and the next one waits."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    assert bucket.try_acquire(1, "interactive")
    clock.tick(3.0)
    assert bucket.try_acquire(3, "interactive")
    assert not bucket.try_acquire(1, "interactive")


def test_a_heavy_permit_among_light_ones_waits_its_fair_share():
    """Five permits at 100/s behind a hundred looping waiters take at most 1.1 times the fair wait of 1.05 s."""

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


def test_cancelling_half_of_the_waiters_loses_no_capacity():
    """When 250 of 500 waiters are cancelled, the others get 0.98 to 1.02 of the rate."""

    async def scenario():
        loop = asyncio.get_running_loop()
        bucket = TokenBucket(SystemClock(), 200.0)
        granted = []

        async def wait():
            await bucket.acquire(1, "bulk")
            granted.append(loop.time())

        tasks = [asyncio.create_task(wait()) for _ in range(500)]
        await asyncio.sleep(0.1)
        done = len(granted)
        began = loop.time()
        for task in tasks[::2]:
            task.cancel()
        survivors = [task for task in tasks[1::2] if not task.done()]
        await asyncio.gather(*tasks, return_exceptions=True)
        return (len(granted) - done) / (loop.time() - began), len(survivors), bucket

    rate, survivors, bucket = run_virtual(scenario())
    assert survivors > 200
    assert 0.98 * 200 <= rate <= 1.02 * 200
    assert bucket.waiting == 0


def test_random_timeouts_lose_no_capacity():
    """A hundred callers with random timeouts of 1-300 ms still use the whole rate."""

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


async def test_a_waiter_cancelled_at_its_grant_hands_the_permit_over():
    """A waiter that is granted and cancelled in the same iteration hands its permit to the next waiter."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 10.0)
    assert bucket.try_acquire(1, "bulk")
    first, second = (asyncio.create_task(bucket.acquire(1, "bulk")) for _ in range(2))
    await clock.advance(0.0)
    clock.tick(0.1)  # the timer has fired, but the first waiter's task has not run
    first.cancel()
    await clock.advance(0.0)
    assert first.cancelled()
    assert second.done()
    assert await second


async def test_a_cancelled_heavy_waiter_frees_the_light_ones_behind_it():
    """The tokens saved up by a cancelled heavy waiter go, up to the burst, to the waiters behind it."""
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
    assert not later.done(), "tokens above the burst are not kept"
    await clock.advance(1.0)
    await asyncio.gather(light, later)


async def test_a_refund_grants_the_next_waiter():
    """A refunded permit goes to the next waiter at once."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    assert bucket.try_acquire(1, "bulk")
    task = asyncio.create_task(bucket.acquire(1, "bulk"))
    await clock.advance(0.0)
    bucket.refund(1)
    await clock.advance(0.0)
    assert await task


async def test_set_rate_applies_to_waiters():
    """A new rate, higher or lower, applies to the waiters at once."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    granted = []
    tasks = start_waiters(bucket, granted, *((n, 1, "bulk") for n in range(4)))
    await clock.advance(0.5)
    assert granted == [0]
    bucket.set_rate(10.0)
    await clock.advance(0.051)
    assert granted == [0, 1]
    bucket.set_rate(0.1)
    await clock.advance(9.0)
    assert granted == [0, 1]
    bucket.set_rate(None)
    await clock.advance(0.0)
    assert granted == [0, 1, 2, 3]
    assert bucket.free
    await asyncio.gather(*tasks)


async def test_a_pause_grants_nothing_and_saves_no_tokens():
    """After a pause waiters leave at the rate, not together; a pause also applies to an unlimited bucket."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 100.0)
    bucket.pause_until(clock.monotonic() + 10.0)
    granted = []
    tasks = start_waiters(bucket, granted, *((n, 1, "bulk") for n in range(10)))
    await clock.advance(9.99)
    assert granted == []
    await clock.advance(0.0101)
    assert granted == [0]
    await clock.advance(0.0500)
    assert granted == [0, 1, 2, 3, 4, 5]
    bucket.set_rate(None)
    await asyncio.gather(*tasks)
    bucket.pause_until(clock.monotonic() + 1.0)
    assert not bucket.try_acquire(1, "interactive")
    clock.tick(1.0)
    assert bucket.try_acquire(1, "interactive")
    assert bucket.free


async def test_a_shortened_pause_ends_at_once():
    """`pause_until` with an earlier time resumes the waiters."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 1.0)
    bucket.pause_until(clock.monotonic() + 10.0)
    task = asyncio.create_task(bucket.acquire(1, "bulk"))
    await clock.advance(1.0)
    bucket.pause_until(clock.monotonic())
    await clock.advance(0.0)
    assert await task


async def test_a_deadline_ends_the_wait():
    """A waiter whose deadline passes gets False; the next waiter takes its place, and no token is used."""
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


async def test_a_timer_that_fires_slightly_early_does_not_spin():
    """Rounding never causes timers of 1e-16 s: each permit costs at most two wake-ups."""
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


async def test_repr_shows_the_state():
    """The repr shows the rate, the level, the waiters of each lane, a pause and the next wake-up."""
    clock = ManualClock()
    bucket = TokenBucket(clock, 4.0)
    tasks = start_waiters(bucket, [], ("a", 1, "bulk"), ("b", 1, "bulk"), ("c", 1, "interactive"))
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
    """The repr works without a running loop."""
    assert (
        repr(TokenBucket(SystemClock(), 4.0))
        == "TokenBucket(rate=4/s, level=1.00 of 1, interactive=0, bulk=0, no wake-up set)"
    )


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), "60/x", True])
def test_an_invalid_rate_names_the_field(rate):
    """A rate that is not a finite number above 0 raises an error that names the field."""
    with pytest.raises(ConfigurationError, match="rate: "):
        TokenBucket(ManualClock(), rate)


async def test_deadlines_of_cancelled_waiters_do_not_accumulate():
    """Entries of cancelled callers with deadlines do not accumulate."""
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
