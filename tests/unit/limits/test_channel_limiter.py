"""The channel limiter: pauses, rates, deadlines, events and closing."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async._config import Rate
from bandwidth_mfa_async.errors import ClientStateError, ConfigurationError, Delivery, RateLimitError
from bandwidth_mfa_async.limits import ChannelLimiter
from bandwidth_mfa_async.telemetry import LimitChangedEvent, LimitWaitEvent, SendsPausedEvent

if TYPE_CHECKING:
    from bandwidth_mfa_async.limits import Limiter


def make(clock, *, rate=None, adaptive=True, **options):
    return ChannelLimiter("messaging", rate=rate, adaptive=adaptive, clock=clock, **options)


def start_waiters(limiter, clock, count, lane="bulk"):
    """Start `count` waiters; return their tasks and the list of their grant times."""
    times = []

    async def one():
        permit = await limiter.acquire(1, lane)
        times.append(clock.monotonic())
        return permit

    return [asyncio.create_task(one()) for _ in range(count)], times


def test_channel_limiter_implements_the_limiter_protocol():
    """The class implements the `Limiter` protocol."""
    limiter: Limiter = make(ManualClock())
    assert limiter.try_acquire() is not None


@pytest.mark.parametrize("adaptive", [True, False])
def test_permits_are_immediate_while_unlimited(adaptive):
    """Before any 429 and without a configured rate, every permit is immediate."""
    limiter = make(ManualClock(), adaptive=adaptive)
    for _ in range(10_000):
        permit = limiter.try_acquire(3, "bulk")
        limiter.accepted(permit)
    assert limiter.rate is None


@pytest.mark.parametrize("adaptive", [True, False])
async def test_retry_after_pauses_both_lanes(adaptive):
    """A 429 with a Retry-After pauses both lanes until then, adaptive or not."""
    clock = ManualClock()
    limiter = make(clock, adaptive=adaptive)
    limiter.rejected(limiter.try_acquire(), 5.0)
    assert limiter.try_acquire(1, "interactive") is None
    tasks, times = start_waiters(limiter, clock, 1, "interactive")
    await clock.advance(4.99)
    assert times == []
    await clock.advance(0.02)
    assert len(times) == 1
    await asyncio.gather(*tasks)


async def test_waiters_leave_at_the_configured_rate_after_a_pause():
    """With a fixed rate, waiters leave one by one after the pause, not together."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(100), adaptive=False)
    limiter.rejected(limiter.try_acquire(), 1.0)
    tasks, times = start_waiters(limiter, clock, 100)
    await clock.advance(1.5)
    assert 49 <= len(times) <= 52
    await clock.advance(1.0)
    await asyncio.gather(*tasks)


async def test_waiters_leave_at_the_estimated_rate_after_a_pause():
    """Without a configured rate, waiters leave at the rate accepted before the rejection."""
    clock = ManualClock()
    limiter = make(clock)
    permits = [limiter.try_acquire() for _ in range(50)]
    for permit in permits[:-1]:
        clock.tick(0.02)
        limiter.accepted(permit)
    limiter.rejected(permits[-1], 2.0)
    tasks, times = start_waiters(limiter, clock, 200)
    await clock.advance(3.0)
    assert 45 <= len(times) <= 52
    await clock.advance(10.0)
    await asyncio.gather(*tasks)


async def test_a_channel_without_a_rate_uses_slow_start_after_a_pause():
    """Not adaptive and no rate: the queue leaves at ten per second, doubling each second, then without a limit."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    limiter.rejected(limiter.try_acquire(), 1.0)
    tasks, times = start_waiters(limiter, clock, 100)
    opens = clock.monotonic() + 1.0
    await clock.advance(2.0)
    assert 8 <= len(times) <= 16
    await clock.advance(1.0)
    assert 28 <= len(times) <= 48
    await clock.advance(3.0)
    assert len(times) == 100
    assert limiter.rate is None
    assert min(times) >= opens
    assert limiter.try_acquire(1, "bulk") is limiter.try_acquire(1, "bulk"), "unlimited again"
    await asyncio.gather(*tasks)


async def test_slow_start_begins_at_the_accepted_rate():
    """The slow start begins at the accepted 200 per second, not at ten."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    for _ in range(400):
        clock.tick(0.005)
        limiter.accepted(limiter.try_acquire())
    limiter.rejected(limiter.try_acquire(), 1.0)
    tasks, times = start_waiters(limiter, clock, 500)
    await clock.advance(1.5)
    assert 90 <= len(times) <= 140
    await clock.advance(5.0)
    await asyncio.gather(*tasks)


async def test_slow_start_ends_when_no_caller_waits():
    """Without waiters the channel is unlimited again one second after the pause."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    limiter.rejected(limiter.try_acquire(), 1.0)
    clock.tick(2.5)
    assert all(limiter.try_acquire(1, "bulk") for _ in range(100))


def test_429_without_retry_after_has_no_effect_when_not_adaptive():
    """A 429 without a Retry-After has no effect when the limiter is not adaptive."""
    limiter = make(ManualClock(), adaptive=False)
    limiter.rejected(limiter.try_acquire(), None)
    assert limiter.try_acquire() is not None


def test_retry_after_is_clamped():
    """A Retry-After of an hour pauses for `max_pause`; an invalid one does not pause."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False, max_pause=60.0)
    limiter.rejected(limiter.try_acquire(), 3600.0)
    clock.tick(60.0)
    assert limiter.try_acquire() is not None
    clock.tick(100.0)
    for invalid in (float("nan"), -5.0):
        permit = limiter.try_acquire()
        limiter.rejected(permit, invalid)
        assert limiter.try_acquire() is not None


def test_rejections_of_one_episode_cut_the_rate_once():
    """Rejections of one episode cut the rate once; a Retry-After among them still pauses."""
    clock = ManualClock()
    limiter = make(clock)
    permits = [limiter.try_acquire() for _ in range(50)]
    for permit in permits[:20]:
        clock.tick(0.01)
        limiter.accepted(permit)
    for permit in permits[20:]:
        limiter.rejected(permit, None)
    assert limiter.epoch == 1
    assert limiter.rate == pytest.approx(0.97 * 20)
    limiter.rejected(permits[-1], 7.0)
    assert limiter.epoch == 1
    clock.tick(6.9)
    assert limiter.try_acquire() is None
    clock.tick(0.2)
    assert limiter.try_acquire() is not None


async def test_a_shorter_retry_after_does_not_shorten_a_pause():
    """The latest end of all requested pauses applies."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    first, second = limiter.try_acquire(), limiter.try_acquire()
    limiter.rejected(first, 10.0)
    limiter.rejected(second, 1.0)
    clock.tick(5.0)
    assert limiter.try_acquire() is None


async def test_one_probe_message_leaves_while_everything_is_rejected():
    """While everything is rejected, each pause ends with one message; the others follow when it is accepted."""
    clock = ManualClock()
    limiter = make(clock)
    permits = [limiter.try_acquire() for _ in range(100)]
    for permit in permits[:-1]:
        limiter.accepted(permit)
    limiter.rejected(permits[-1], None)
    clock.tick(0.11)
    limiter.rejected(limiter.try_acquire(), None)  # the first of the new epoch is rejected too: half open
    tasks, times = start_waiters(limiter, clock, 30)
    await clock.advance(0.3)
    assert len(times) == 1
    limiter.accepted(tasks[0].result())
    await clock.advance(0.1)
    assert len(times) > 5, "accepted: the pause has ended"
    await clock.advance(5.0)
    await asyncio.gather(*tasks)


async def test_a_probe_without_an_answer_times_out_after_half_a_second():
    """A probe without an answer lets the next one leave after half a second; a refund does so at once."""
    clock = ManualClock()
    limiter = make(clock)
    permit = limiter.try_acquire()
    limiter.rejected(permit, None)
    clock.tick(0.2)
    limiter.rejected(limiter.try_acquire(), None)
    tasks, times = start_waiters(limiter, clock, 3)
    await clock.advance(0.35)  # the pause of 0.2 s, then one permit's time at 9.7 a second
    assert len(times) == 1
    await clock.advance(0.65)
    assert len(times) == 2
    limiter.refund(tasks[1].result())
    await clock.advance(0.15)
    assert len(times) == 3, "a refund ends the pause at once"
    await asyncio.gather(*tasks)


async def test_a_known_wait_beyond_the_deadline_fails_at_once():
    """If the known wait exceeds the deadline, the call fails without waiting and `retry_after` holds the wait."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate.parse("60/m"), adaptive=False)
    assert limiter.try_acquire()
    tasks, _ = start_waiters(limiter, clock, 10)
    await clock.advance(0.0)
    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(1, "bulk", deadline=clock.monotonic() + 5.0)
    error = caught.value
    assert error.local
    assert error.delivery is Delivery.NOT_SENT
    assert error.attempts == 0
    assert error.operation is None
    assert error.retry_after == pytest.approx(11.0)
    interactive = asyncio.create_task(limiter.acquire(1, "interactive", deadline=clock.monotonic() + 1.5))
    await clock.advance(1.01)
    assert interactive.done(), "the interactive lane goes first, so the same deadline is enough"
    await clock.advance(12.0)
    await asyncio.gather(interactive, *tasks)


@pytest.mark.parametrize("adaptive", [True, False])
async def test_a_pause_beyond_the_deadline_fails_at_once(adaptive):
    """The rest of a Retry-After counts as known wait, with or without a rate."""
    clock = ManualClock()
    limiter = make(clock, adaptive=adaptive)
    limiter.rejected(limiter.try_acquire(), 30.0)
    clock.tick(10.0)
    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(deadline=clock.monotonic() + 5.0)
    assert caught.value.retry_after == pytest.approx(20.0, abs=0.3)


async def test_a_pause_during_a_wait_ends_it_at_the_deadline():
    """A pause that begins during a wait ends the wait at its deadline with the same error."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(1), adaptive=False)
    permit = limiter.try_acquire()
    task = asyncio.create_task(limiter.acquire(1, "bulk", deadline=clock.monotonic() + 3.0))
    await clock.advance(0.5)
    limiter.rejected(permit, 10.0)
    await clock.advance(2.6)
    with pytest.raises(RateLimitError) as caught:
        await task
    assert caught.value.local
    assert limiter.waiting == 0
    assert clock.pending == 0


async def test_a_refund_grants_the_next_waiter():
    """A refunded permit goes to the next waiter."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(1), adaptive=False)
    permit = limiter.try_acquire()
    tasks, times = start_waiters(limiter, clock, 1)
    await clock.advance(0.0)
    limiter.refund(permit)
    await clock.advance(0.0)
    assert len(times) == 1
    await asyncio.gather(*tasks)


async def test_abort_ends_current_and_future_waits():
    """Each waiter gets a separate error; later calls fail too, also when the channel is unlimited."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(1))
    limiter.try_acquire()
    tasks, _ = start_waiters(limiter, clock, 3)
    await clock.advance(0.0)
    limiter.abort(lambda: ClientStateError("closing"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ClientStateError] * 3
    assert len({id(error) for error in errors}) == 3
    assert clock.pending == 0
    with pytest.raises(ClientStateError):
        limiter.try_acquire()
    free = make(clock)
    permit = free.try_acquire()
    free.abort(lambda: ClientStateError("closing"))
    free.rejected(permit, 1.0)
    clock.tick(5.0)
    with pytest.raises(ClientStateError):
        await free.acquire()


async def test_waits_pauses_and_rate_changes_emit_events():
    """A wait, a pause and a rate change emit one event each; otherwise there are no events."""
    clock = ManualClock()
    events = []
    limiter = make(clock, emit=events.append)
    permits = [limiter.try_acquire() for _ in range(40)]
    for permit in permits[:20]:
        clock.tick(0.05)
        limiter.accepted(permit)
    assert events == []
    for permit in permits[20:]:
        limiter.rejected(permit, 2.0)
    assert [type(event) for event in events] == [SendsPausedEvent, LimitChangedEvent]
    assert events[0] == SendsPausedEvent(channel="messaging", seconds=2.0)
    assert events[1].cause == "refused"
    assert events[1].rate == pytest.approx(limiter.rate)
    events.clear()
    tasks, _ = start_waiters(limiter, clock, 1)
    await clock.advance(2.1)
    await asyncio.gather(*tasks)
    (event,) = events
    assert isinstance(event, LimitWaitEvent)
    assert event.seconds == pytest.approx(2.0)
    assert event.lane == "bulk"


async def test_a_higher_rate_is_emitted_once_its_messages_are_accepted():
    """A rate above the last emitted one is emitted once its messages are accepted, in steps of a quarter."""
    clock = ManualClock()
    events = []
    limiter = make(clock, emit=events.append)
    limiter.rejected(limiter.try_acquire(), None)
    events.clear()

    async def sender():
        while True:
            limiter.accepted(await limiter.acquire(1, "bulk"))

    task = asyncio.create_task(sender())
    await clock.advance(14.0, settle=3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    probes = [event for event in events if isinstance(event, LimitChangedEvent)]
    assert probes
    assert {event.cause for event in probes} == {"probe"}
    rates = [event.rate for event in probes]
    assert all(later > 1.25 * earlier for earlier, later in pairwise(rates))


async def test_a_weight_above_the_burst_is_granted():
    """A text of many segments at a slow rate is granted after its time."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(1))
    limiter.try_acquire()
    task = asyncio.create_task(limiter.acquire(5, "interactive"))
    await clock.advance(5.01)
    assert (await task).weight == 5


@pytest.mark.parametrize(
    ("field", "make_bad"),
    [
        ("rate", lambda clock: make(clock, rate="60/m")),
        ("rate", lambda clock: make(clock, rate=5)),
        ("max_pause", lambda clock: make(clock, max_pause=float("nan"))),
        ("weight", lambda clock: make(clock).try_acquire(0)),
        ("weight", lambda clock: make(clock).try_acquire(1.5)),
        ("weight", lambda clock: make(clock).try_acquire(-1)),
        ("lane", lambda clock: make(clock).try_acquire(1, "fast")),
    ],
)
def test_invalid_input_names_the_field(field, make_bad):
    """Invalid input raises a ConfigurationError that begins with the field's name."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        make_bad(ManualClock())


def test_repr_shows_bucket_and_state():
    """The repr shows the token bucket and the state of the adaptation."""
    limiter = make(ManualClock(), rate=Rate(5))
    assert repr(limiter).startswith("ChannelLimiter('messaging', TokenBucket(rate=5/s, ")
    assert "HoldAndProbe(unlimited" in repr(limiter)
