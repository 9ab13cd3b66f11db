"""A tracker keeps receipts and wakes the tasks that wait for them."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from bandwidth_mfa_async import ConfigurationError, MFAError
from bandwidth_mfa_async.webhooks import DeliveryTracker, ReceiptTimeoutError
from tests.support.webhooks import ID, receipt


@pytest.fixture
def tracker(clock) -> DeliveryTracker:
    return DeliveryTracker(clock=clock)


async def test_a_receipt_may_arrive_before_a_task_waits_for_it(tracker):
    """It may even arrive before the response to the request."""
    tracker(receipt())
    assert await tracker.wait(ID) == receipt()
    assert tracker.get(ID) == receipt()
    assert tracker.get("other") is None


async def test_several_tasks_may_wait_for_one_receipt(tracker, clock):
    """All of them get it, no other task wakes up, and no timer remains."""
    waiters = [asyncio.create_task(tracker.wait(ID)) for _ in range(3)]
    other = asyncio.create_task(tracker.wait("other", timeout=None))
    await asyncio.sleep(0)
    tracker(receipt())
    assert await asyncio.gather(*waiters) == [receipt()] * 3
    assert not other.done()
    other.cancel()
    await asyncio.wait([other])
    assert clock.pending == 0
    assert repr(tracker) == "<DeliveryTracker 1 receipts, 0 waiting>"


async def test_a_timeout_raises_a_receipt_timeout_error(tracker, clock):
    """It has the message id and the timeout, is picklable, and no waiter remains."""
    waiting = asyncio.create_task(tracker.wait(ID, timeout=5))
    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.1)
    with pytest.raises(ReceiptTimeoutError, match=f"message {ID} arrived within 5 s") as caught:
        await waiting
    assert isinstance(caught.value, (TimeoutError, MFAError))
    assert tracker._waiting == {}
    for twin in (pickle.loads(pickle.dumps(caught.value)), type(caught.value)(*caught.value.args)):
        assert (twin.message_id, twin.timeout, str(twin)) == (ID, 5, str(caught.value))
    tracker(receipt())  # a late receipt is still stored
    assert await tracker.wait(ID, timeout=0) == receipt()
    with pytest.raises(ReceiptTimeoutError):
        await tracker.wait("other", timeout=0)


async def test_real_time_is_the_default():
    """Without a clock, the tracker uses the clock of the event loop."""
    with pytest.raises(TimeoutError):
        await DeliveryTracker().wait(ID, timeout=0.001)


async def test_a_cancelled_waiter_does_not_affect_the_others(tracker, clock):
    """It leaves neither a future nor a timer."""
    gone, stays = (asyncio.create_task(tracker.wait(ID)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    tracker(receipt())
    assert await stays == receipt()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (tracker._waiting, clock.pending) == ({}, 0)


async def test_the_number_and_age_of_kept_receipts_are_bounded(clock):
    """The age restarts with a newer receipt of the same message."""
    tracker = DeliveryTracker(max_receipts=2, max_age=60, clock=clock)
    for name in "abc":
        tracker(receipt(name))
    assert [tracker.get(name) is not None for name in "abc"] == [False, True, True]
    clock.tick(30)
    tracker(receipt("b", type="message-failed"))
    clock.tick(30)
    assert tracker.get("c") is None
    found = tracker.get("b")
    assert found is not None
    assert not found.delivered
    clock.tick(30)
    assert tracker.get("b") is None


async def test_a_waiter_gets_a_receipt_that_was_dropped_before_it_resumed(clock):
    """Many other receipts may arrive before the waiting task resumes."""
    tracker = DeliveryTracker(max_receipts=1, clock=clock)
    waiting = asyncio.create_task(tracker.wait(ID))
    await asyncio.sleep(0)
    tracker(receipt())
    for number in range(100):
        tracker(receipt(f"other-{number}"))
    assert await waiting == receipt()


@pytest.mark.parametrize("options", [{"max_receipts": 0}, {"max_age": 0}, {"max_age": float("nan")}])
def test_invalid_bounds_of_a_tracker_are_refused(options):
    """A tracker that keeps nothing cannot work."""
    with pytest.raises(ConfigurationError):
        DeliveryTracker(**options)


@pytest.mark.parametrize("first", ["named", "arrived", "waited"])
async def test_made_up_ids_do_not_push_out_the_receipt_of_a_named_message(tracker, clock, first):
    """Whether the application named it before the receipt arrived, after, or by a wait that has timed out."""
    if first == "named":
        tracker.expect(ID)
    elif first == "waited":
        with pytest.raises(ReceiptTimeoutError):
            await tracker.wait(ID, timeout=0)
    tracker(receipt())
    tracker.expect(ID)
    for number in range(10_050):
        tracker(receipt(f"forged-{number}"))
    assert await tracker.wait(ID, timeout=0) == receipt()
    assert repr(tracker) == "<DeliveryTracker 10001 receipts, 0 waiting>"
    await clock.advance(901)
    assert tracker.get(ID) is None
    assert repr(tracker) == "<DeliveryTracker 0 receipts, 0 waiting>"


def test_the_number_of_named_messages_is_bounded(clock):
    """The oldest name is dropped first, and with it only the protection of its receipt."""
    tracker = DeliveryTracker(max_receipts=2, clock=clock)
    for name in "abc":
        tracker.expect(name)
        tracker(receipt(name))
    assert [tracker.get(name) for name in "abc"] == [None, receipt("b"), receipt("c")]
    assert len(tracker._expected) == 2
