"""In-flight slots: never more than the limit, nobody's slot lost, people first."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.errors import ClientStateError, ConfigurationError, DeadlineExceededError, Delivery
from bandwidth_mfa_async.limits import PrioritySemaphore


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_interactive_lane_gets_the_next_slot():
    """A freed slot goes to a person before any bulk item, then in order."""
    slots = PrioritySemaphore(1, clock=ManualClock())
    assert slots.try_acquire("bulk")
    assert not slots.try_acquire("interactive")
    order = []

    async def use(name, lane):
        await slots.acquire(lane)
        order.append(name)
        slots.release()

    tasks = [asyncio.create_task(use(*pair)) for pair in (("b1", "bulk"), ("b2", "bulk"), ("i", "interactive"))]
    await settle()
    assert repr(slots) == "PrioritySemaphore(1 of 1 taken, interactive=1, bulk=2 waiting)"
    slots.release()
    await asyncio.gather(*tasks)
    assert order == ["i", "b1", "b2"]
    assert slots.taken == 0


async def test_cancelled_in_the_moment_of_its_grant_passes_the_slot_on():
    """A caller that was given a slot and cancelled in the same iteration loses nobody's slot."""
    slots = PrioritySemaphore(1, clock=ManualClock())
    assert slots.try_acquire()
    first, second = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await settle()
    slots.release()
    first.cancel()
    await settle()
    assert first.cancelled()
    await second
    slots.release()
    assert slots.taken == 0


async def test_cancelled_before_its_task_ran_is_skipped():
    """A slot released to a waiter that is already cancelled goes to the next."""
    slots = PrioritySemaphore(1, clock=ManualClock())
    assert slots.try_acquire()
    first, second = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await settle()
    first.cancel()
    slots.release()
    await settle()
    await second
    slots.release()
    assert slots.taken == 0
    assert slots.waiting == 0


async def test_a_deadline_ends_the_wait():
    """When no slot is free in time the call fails and nothing was sent."""
    clock = ManualClock()
    slots = PrioritySemaphore(1, clock=clock)
    assert slots.try_acquire()
    task = asyncio.create_task(slots.acquire(deadline=clock.monotonic() + 1.0))
    await clock.advance(1.0)
    with pytest.raises(DeadlineExceededError) as caught:
        await task
    assert caught.value.delivery is Delivery.NOT_SENT
    assert caught.value.attempts == 0
    assert clock.pending == 0
    slots.release()
    assert slots.taken == 0


async def test_abort_gives_everyone_an_error_of_their_own():
    """Waiters and later callers get separate errors; a slot in use can still be given back."""
    slots = PrioritySemaphore(1, clock=ManualClock())
    assert slots.try_acquire()
    tasks = [asyncio.create_task(slots.acquire()) for _ in range(2)]
    await settle()
    slots.abort(lambda: ClientStateError("closing"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ClientStateError] * 2
    assert errors[0] is not errors[1]
    with pytest.raises(ClientStateError):
        slots.try_acquire()
    slots.release()
    assert slots.taken == 0


async def test_never_more_than_the_limit_under_random_cancellation():
    """Whatever is cancelled whenever, no more than the limit run at once and all slots come back."""
    slots = PrioritySemaphore(5, clock=ManualClock())
    running = most = 0

    async def use(n):
        nonlocal running, most
        await slots.acquire("bulk" if n % 3 else "interactive")
        running += 1
        most = max(most, running)
        try:
            for _ in range(n % 4):
                await asyncio.sleep(0)
        finally:
            running -= 1
            slots.release()

    tasks = [asyncio.create_task(use(n)) for n in range(200)]
    for n in range(0, 200, 2):
        await asyncio.sleep(0)
        tasks[n].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 5
    assert slots.taken == 0


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "5"])
def test_a_bad_limit_is_named(limit):
    """The limit is a whole number of at least 1."""
    with pytest.raises(ConfigurationError, match="max_in_flight: "):
        PrioritySemaphore(limit, clock=ManualClock())


def test_a_bad_lane_is_named():
    """There are two lanes."""
    with pytest.raises(ConfigurationError, match="lane: "):
        PrioritySemaphore(1, clock=ManualClock()).try_acquire("fast")
