"""Properties of the token bucket over any sequence of events."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.limits._token_bucket import TokenBucket

MAX_WEIGHT = 7

steps = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.integers(1, MAX_WEIGHT), st.sampled_from(["interactive", "bulk"])),
        st.tuples(st.just("deadline"), st.integers(1, MAX_WEIGHT), st.floats(0.0, 3.0)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("refund")),
        st.tuples(st.just("rate"), st.sampled_from([0.5, 1.0, 3.0, 10.0, 77.7, 1000.0])),
        st.tuples(st.just("pause"), st.floats(0.0, 5.0)),
        st.tuples(st.just("time"), st.floats(0.0, 2.0)),
        st.tuples(st.just("tick"), st.floats(0.0, 0.5)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_grants_are_bounded_and_every_waiter_is_granted(sequence):
    """Net grants never exceed rate x time + burst (or the heaviest weight); every uncancelled waiter is granted."""
    asyncio.run(_check(sequence))


async def _check(sequence):
    clock = ManualClock()
    bucket = TokenBucket(clock, 5.0)
    # The upper bound since the start: the burst, then each interval at its rate.
    allowed, since = max(bucket.burst, MAX_WEIGHT), clock.monotonic()
    net = 0
    held, open_tasks, all_tasks = [], [], []

    def settle_account():
        nonlocal allowed, since
        now = clock.monotonic()
        if bucket.rate is not None:
            allowed += (now - since) * bucket.rate
        since = now

    async def caller(weight, lane, deadline=None):
        nonlocal net
        if await bucket.acquire(weight, lane, deadline):
            net += weight
            held.append(weight)
            return True
        return False

    for name, *values in sequence:
        settle_account()
        if name == "acquire":
            open_tasks.append(asyncio.create_task(caller(*values)))
        elif name == "deadline":
            all_tasks.append(asyncio.create_task(caller(values[0], "bulk", clock.monotonic() + values[1])))
        elif name == "cancel" and open_tasks:
            task = open_tasks.pop(values[0] % len(open_tasks))
            task.cancel()
            all_tasks.append(task)
        elif name == "refund" and held:
            weight = held.pop()
            net -= weight
            bucket.refund(weight)
        elif name == "rate":
            bucket.set_rate(values[0])
        elif name == "pause":
            bucket.pause_until(clock.monotonic() + values[0])
        elif name == "time":
            await clock.advance(values[0], settle=4)
        elif name == "tick":
            clock.tick(values[0])  # tasks do not run, so grants and cancellations coincide
        settle_account()
        assert net <= allowed + 1e-3 * (1 + len(all_tasks) + len(open_tasks) + net)
    settle_account()
    bucket.set_rate(1000.0)
    bucket.pause_until(clock.monotonic())
    await clock.advance(20.0, settle=4)
    settle_account()
    for task in open_tasks:
        assert task.done(), "a waiter that was not cancelled is granted"
        assert await task
    await asyncio.gather(*all_tasks, return_exceptions=True)
    assert bucket.waiting == 0
    assert clock.pending == 0
    assert net <= allowed + 1e-3 * (1 + net)
