"""The timed waits that all modules share."""

import asyncio

import pytest

from bandwidth_mfa_async._clock import ManualClock, alarm, sleep_until, wait_until


def test_an_alarm_rings_at_its_time_and_not_after_its_block():
    clock, rings = ManualClock(), []
    with alarm(clock, clock.monotonic() + 5, lambda: rings.append(clock.monotonic())):
        clock.tick(10)
    assert rings == [1005.0]
    with alarm(clock, clock.monotonic() + 5, lambda: rings.append("late")):
        pass
    with pytest.raises(ValueError, match="failed"), alarm(clock, clock.monotonic() + 5, lambda: rings.append("late")):
        raise ValueError("failed")
    clock.tick(10)
    assert rings == [1005.0]
    assert not clock.pending


def test_an_alarm_without_a_time_sets_no_timer():
    clock = ManualClock()
    with alarm(clock, None, pytest.fail):
        assert not clock.pending
        clock.tick(1e6)


async def test_a_wait_ends_with_the_future_or_its_time():
    clock = ManualClock()
    future = asyncio.get_running_loop().create_future()
    waits = [asyncio.ensure_future(wait_until(clock, when, future)) for when in (clock.monotonic() + 5, None)]
    await clock.advance(5)
    assert waits[0].done()
    assert not waits[0].result()
    assert not waits[1].done()
    future.set_result(None)
    assert await waits[1]
    assert await wait_until(clock, clock.monotonic(), future)
    assert not clock.pending


async def test_a_cancelled_wait_leaves_no_timer_and_the_future():
    clock = ManualClock()
    future = asyncio.get_running_loop().create_future()
    wait = asyncio.ensure_future(wait_until(clock, clock.monotonic() + 5, future))
    sleep = asyncio.ensure_future(sleep_until(clock, clock.monotonic() + 5))
    await asyncio.sleep(0)
    assert clock.pending == 2
    wait.cancel()
    sleep.cancel()
    await asyncio.wait([wait, sleep])
    assert not clock.pending
    assert not future.cancelled()
