"""The channel limiter: gate, pace, deadline, events and closing, as the client meets them."""

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


def line(limiter, clock, count, lane="bulk"):
    """Start `count` waiters; return their tasks and a list of the times at which they got permits."""
    times = []

    async def one():
        permit = await limiter.acquire(1, lane)
        times.append(clock.monotonic())
        return permit

    return [asyncio.create_task(one()) for _ in range(count)], times


def test_it_is_a_limiter():
    """The class has the shape that a shared limiter will have too."""
    limiter: Limiter = make(ManualClock())
    assert limiter.try_acquire() is not None


@pytest.mark.parametrize("adaptive", [True, False])
def test_without_a_limit_nothing_waits(adaptive):
    """Before any 429, and with no rate configured, every permit is immediate."""
    limiter = make(ManualClock(), adaptive=adaptive)
    for _ in range(10_000):
        permit = limiter.try_acquire(3, "bulk")
        limiter.accepted(permit)
    assert limiter.rate is None


@pytest.mark.parametrize("adaptive", [True, False])
async def test_retry_after_closes_the_gate_for_everyone(adaptive):
    """A 429 with a Retry-After stops the channel, people included, until then, adaptive or not."""
    clock = ManualClock()
    limiter = make(clock, adaptive=adaptive)
    limiter.rejected(limiter.try_acquire(), 5.0)
    assert limiter.try_acquire(1, "interactive") is None
    tasks, times = line(limiter, clock, 1, "interactive")
    await clock.advance(4.99)
    assert times == []
    await clock.advance(0.02)
    assert len(times) == 1
    await asyncio.gather(*tasks)


async def test_after_the_gate_waiters_leave_at_a_known_rate():
    """A fixed rate paces those who waited at the gate; they do not leave together."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(100), adaptive=False)
    limiter.rejected(limiter.try_acquire(), 1.0)
    tasks, times = line(limiter, clock, 100)
    await clock.advance(1.5)
    assert 49 <= len(times) <= 52
    await clock.advance(1.0)
    await asyncio.gather(*tasks)


async def test_after_the_gate_waiters_leave_at_the_learnt_rate():
    """With nothing configured, the rate accepted before the refusal is what the queue leaves at."""
    clock = ManualClock()
    limiter = make(clock)
    permits = [limiter.try_acquire() for _ in range(50)]
    for permit in permits[:-1]:
        clock.tick(0.02)
        limiter.accepted(permit)
    limiter.rejected(permits[-1], 2.0)
    tasks, times = line(limiter, clock, 200)
    await clock.advance(3.0)
    assert 45 <= len(times) <= 52
    await clock.advance(10.0)
    await asyncio.gather(*tasks)


async def test_after_the_gate_a_channel_without_any_rate_ramps_up():
    """Not adaptive and no rate: the queue leaves at ten a second, doubling each second, and then all is free again."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    limiter.rejected(limiter.try_acquire(), 1.0)
    tasks, times = line(limiter, clock, 100)
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


async def test_the_ramp_starts_at_what_was_accepted():
    """A queue that was taken at 200 a second leaves at that pace, not at ten."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    for _ in range(400):
        clock.tick(0.005)
        limiter.accepted(limiter.try_acquire())
    limiter.rejected(limiter.try_acquire(), 1.0)
    tasks, times = line(limiter, clock, 500)
    await clock.advance(1.5)
    assert 90 <= len(times) <= 140
    await clock.advance(5.0)
    await asyncio.gather(*tasks)


async def test_a_gate_nobody_waited_at_leaves_no_pace_behind():
    """With nobody waiting a second after the gate opened, the channel is unlimited again."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    limiter.rejected(limiter.try_acquire(), 1.0)
    clock.tick(2.5)
    assert all(limiter.try_acquire(1, "bulk") for _ in range(100))


def test_not_adaptive_and_no_retry_after_pauses_nothing():
    """Without a word from the service and without learning, a 429 changes nothing here."""
    limiter = make(ManualClock(), adaptive=False)
    limiter.rejected(limiter.try_acquire(), None)
    assert limiter.try_acquire() is not None


def test_retry_after_is_clamped():
    """A service that asks for an hour closes the gate for `max_pause`; rubbish closes nothing."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False, max_pause=60.0)
    limiter.rejected(limiter.try_acquire(), 3600.0)
    clock.tick(60.0)
    assert limiter.try_acquire() is not None
    clock.tick(100.0)
    for rubbish in (float("nan"), -5.0):
        permit = limiter.try_acquire()
        limiter.rejected(permit, rubbish)
        assert limiter.try_acquire() is not None


def test_an_old_epoch_does_not_cut_twice():
    """Fifty refusals of one episode cut the rate once; a Retry-After among them is still honoured."""
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


async def test_a_shorter_retry_after_does_not_open_the_gate():
    """The latest moment anybody was told wins."""
    clock = ManualClock()
    limiter = make(clock, adaptive=False)
    first, second = limiter.try_acquire(), limiter.try_acquire()
    limiter.rejected(first, 10.0)
    limiter.rejected(second, 1.0)
    clock.tick(5.0)
    assert limiter.try_acquire() is None


async def test_one_message_tries_a_closed_gate():
    """While all is refused, each pause ends with one message; the rest follow when it is accepted, or after 0.5 s."""
    clock = ManualClock()
    limiter = make(clock)
    permits = [limiter.try_acquire() for _ in range(100)]
    for permit in permits[:-1]:
        limiter.accepted(permit)
    limiter.rejected(permits[-1], None)
    clock.tick(0.11)
    limiter.rejected(limiter.try_acquire(), None)  # the first of the new epoch is refused too: closed
    tasks, times = line(limiter, clock, 30)
    await clock.advance(0.3)
    assert len(times) == 1
    limiter.accepted(tasks[0].result())
    await clock.advance(0.1)
    assert len(times) > 5, "accepted: the gate is open"
    await clock.advance(5.0)
    await asyncio.gather(*tasks)


async def test_a_gate_probe_without_an_answer_holds_nobody_for_long():
    """A message whose outcome never comes lets the next one try after half a second; a refund at once."""
    clock = ManualClock()
    limiter = make(clock)
    permit = limiter.try_acquire()
    limiter.rejected(permit, None)
    clock.tick(0.2)
    limiter.rejected(limiter.try_acquire(), None)
    tasks, times = line(limiter, clock, 3)
    await clock.advance(0.35)  # the pause of 0.2 s, then one permit's time at 9.7 a second
    assert len(times) == 1
    await clock.advance(0.65)
    assert len(times) == 2
    limiter.refund(tasks[1].result())
    await clock.advance(0.15)
    assert len(times) == 3, "a refund opens the gate at once"
    await asyncio.gather(*tasks)


async def test_a_known_wait_beyond_the_deadline_fails_at_once():
    """When the queue is known to outlast the deadline the call fails before waiting, and says when to come again."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate.parse("60/m"), adaptive=False)
    assert limiter.try_acquire()
    tasks, _ = line(limiter, clock, 10)
    await clock.advance(0.0)
    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(1, "bulk", deadline=clock.monotonic() + 5.0)
    error = caught.value
    assert error.local
    assert error.delivery is Delivery.NOT_SENT
    assert error.attempts == 0
    assert error.operation is None
    assert error.retry_after == pytest.approx(11.0)
    person = asyncio.create_task(limiter.acquire(1, "interactive", deadline=clock.monotonic() + 1.5))
    await clock.advance(1.01)
    assert person.done(), "a person goes before the queue, so the same deadline is enough"
    await clock.advance(12.0)
    await asyncio.gather(person, *tasks)


@pytest.mark.parametrize("adaptive", [True, False])
async def test_a_closed_gate_beyond_the_deadline_fails_at_once(adaptive):
    """The rest of a Retry-After counts as known wait, with a rate or without."""
    clock = ManualClock()
    limiter = make(clock, adaptive=adaptive)
    limiter.rejected(limiter.try_acquire(), 30.0)
    clock.tick(10.0)
    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(deadline=clock.monotonic() + 5.0)
    assert caught.value.retry_after == pytest.approx(20.0, abs=0.3)


async def test_time_that_runs_out_while_waiting_fails_alike():
    """A gate that closes while a caller waits ends its wait at the deadline, with the same error."""
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


async def test_refund_serves_the_next():
    """An attempt that never left gives its permit to whoever waits."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(1), adaptive=False)
    permit = limiter.try_acquire()
    tasks, times = line(limiter, clock, 1)
    await clock.advance(0.0)
    limiter.refund(permit)
    await clock.advance(0.0)
    assert len(times) == 1
    await asyncio.gather(*tasks)


async def test_abort_ends_every_wait_now_and_later():
    """A closing client gives each waiter its own error; later calls get one too, also when nothing is limited."""
    clock = ManualClock()
    limiter = make(clock, rate=Rate(1))
    limiter.try_acquire()
    tasks, _ = line(limiter, clock, 3)
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


async def test_events_tell_waits_gates_and_changes():
    """A real wait, a closed gate and a changed belief are told once each; nothing is told when nothing happened."""
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
    tasks, _ = line(limiter, clock, 1)
    await clock.advance(2.1)
    await asyncio.gather(*tasks)
    (event,) = events
    assert isinstance(event, LimitWaitEvent)
    assert event.seconds == pytest.approx(2.0)
    assert event.lane == "bulk"


async def test_probing_is_told_when_it_has_proved_itself():
    """A climb above the old belief is told once messages sent in it are accepted, in steps of a quarter."""
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


async def test_weight_above_the_burst_is_served():
    """A text of many segments at a slow rate waits its time and goes."""
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
def test_bad_input_is_named(field, make_bad):
    """Whatever is wrong is a ConfigurationError that begins with the field's name."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        make_bad(ManualClock())


def test_repr_explains_itself():
    """The repr shows the pacer and what was learnt."""
    limiter = make(ManualClock(), rate=Rate(5))
    assert repr(limiter).startswith("ChannelLimiter('messaging', TokenBucket(rate=5/s, ")
    assert "HoldAndProbe(unlimited" in repr(limiter)
