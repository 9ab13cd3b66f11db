"""The priority semaphore: the limit is kept, no slot is lost, the interactive lane goes first."""

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
    """A freed slot goes to the interactive lane before the bulk lane, then in order."""
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


async def test_a_waiter_cancelled_at_its_grant_hands_the_slot_over():
    """A caller that is granted and cancelled in the same iteration hands its slot to the next waiter."""
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


async def test_a_cancelled_waiter_is_skipped():
    """A slot released to a cancelled waiter goes to the next one."""
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
    """If no slot is free in time, the call fails with NOT_SENT."""
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


async def test_abort_gives_each_caller_a_separate_error():
    """Waiters and later callers get separate errors; slots in use can still be released."""
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


async def test_the_limit_holds_under_random_cancellation():
    """Under random cancellation the limit is never exceeded and all slots are released."""
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
def test_an_invalid_limit_names_the_field(limit):
    """The limit is a whole number of at least 1."""
    with pytest.raises(ConfigurationError, match="max_in_flight: "):
        PrioritySemaphore(limit, clock=ManualClock())


def test_an_invalid_lane_names_the_field():
    """There are two lanes."""
    with pytest.raises(ConfigurationError, match="lane: "):
        PrioritySemaphore(1, clock=ManualClock()).try_acquire("fast")
