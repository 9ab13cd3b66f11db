"""Hold and probe: the policy step by step, and a regression test for each bug found while it was designed."""

from __future__ import annotations

import random

import pytest

from bandwidth_mfa_async.limits._hold_and_probe import HoldAndProbe
from bandwidth_mfa_async.limits._sliding_window import SlidingWindowCounter


def after_first_rejection(rate, *, now=100.0):
    """Return a state machine after its first rejection, which followed one second of `rate` accepted messages."""
    machine = HoldAndProbe()
    for n in range(rate):
        machine.on_accept(now - 1.0 + n / rate, 1, 0)
    machine.on_429(now, 0)
    return machine


def send(machine, seconds, *, now):
    """Send at the current rate with everything accepted; return the time afterwards."""
    end = now + seconds
    while now < end:
        now += 1.0 / machine.rate()
        machine.on_grant(1)
        machine.on_accept(now, 1, machine.epoch)
    return now


def test_unlimited_before_the_first_rejection():
    """The rate is unlimited until the first 429, however much is sent."""
    machine = HoldAndProbe()
    for n in range(1000):
        machine.on_grant(1)
        machine.on_accept(n / 100, 1, 0)
    assert machine.rate() is None
    assert machine.state == "unlimited"


def test_the_first_estimate_is_the_accepted_rate():
    """The first estimate is the accepted rate; sending continues just below it after a short pause."""
    machine = HoldAndProbe()
    for n in range(100):
        machine.on_accept(99.0 + n / 100, 1, 0)
    assert machine.on_429(100.0, 0) == pytest.approx(0.08)
    assert machine.rate() == pytest.approx(0.97 * 100, rel=0.02)
    assert machine.epoch == 1


def test_a_burst_is_not_a_rate():
    """A hundred messages accepted in a tenth of a second count as a hundred per second, not a thousand."""
    machine = HoldAndProbe()
    for n in range(100):
        machine.on_accept(n / 1000, 1, 0)
    machine.on_429(0.1, 0)
    assert machine.rate() == pytest.approx(97.0)


def test_the_first_rate_without_any_acceptance_is_ten():
    """Without any acceptance the first rate is ten per second."""
    machine = HoldAndProbe()
    machine.on_429(5.0, 0)
    assert machine.rate() == pytest.approx(9.7)


def test_hold_then_climb():
    """The rate starts at 0.97 of the estimate, reaches it within a hundred messages, then climbs faster and faster."""
    machine = after_first_rejection(100)
    estimate = machine.rate() / 0.97
    now = send(machine, 3.7, now=100.1)
    assert machine.state == "holding"
    assert 0.99 * estimate < machine.rate() <= estimate
    now = send(machine, 1.0, now=now)
    assert machine.state == "probing"
    assert estimate < machine.rate() < 1.15 * estimate
    send(machine, 4.0, now=now)
    assert machine.rate() > 4 * estimate


def test_one_episode_cuts_once():
    """Rejections of messages sent before the last cut belong to the same episode and do not cut again."""
    machine = after_first_rejection(100)
    rate = machine.rate()
    for n in range(50):
        assert machine.on_429(100.0 + n / 1000, 0) == 0.0
    assert machine.rate() == rate
    assert machine.epoch == 1


def test_a_second_rejection_soon_measures_the_exact_rate():
    """Messages accepted between two moments with an empty server bucket give the server's rate."""
    machine = after_first_rejection(100)
    now = 100.0
    while now < 100.9:  # the service takes 80 a second of the 97 that are sent
        now += 1.0 / 80
        machine.on_accept(now, 1, machine.epoch)
    machine.on_429(now, machine.epoch)
    assert machine.rate() == pytest.approx(0.97 * 80, rel=0.02)


def test_the_round_trip_after_a_pause_does_not_lower_the_estimate():
    """The round trip after a pause, without acceptances, does not lower the estimate."""
    machine = after_first_rejection(100)
    for n in range(130):
        machine.on_accept(100.3 + n / 97, 1, 1)
    machine.on_429(100.3 + 130 / 97, 1)
    assert 0.95 * 97 <= machine._estimate <= 97.0


def test_a_ceiling_is_never_exceeded():
    """A configured rate is the initial rate and the upper bound of probing."""
    machine = HoldAndProbe(ceiling=10.0)
    assert machine.rate() == 10.0
    now = send(machine, 50.0, now=0.0)
    assert machine.rate() == 10.0
    machine.on_429(now, 0)
    assert machine.rate() < 10.0
    send(machine, 500.0, now=now)
    assert machine.rate() == 10.0


def test_bug_1_low_rates_are_probed():
    """At one per second every delayed grant counts as sending at the limit, so the climb begins."""
    machine = HoldAndProbe()
    machine.on_accept(9.5, 1, 0)
    machine.on_429(10.0, 0)
    first = machine.rate()
    send(machine, 125.0, now=10.1)
    assert machine.rate() > 2 * first


def test_messages_that_did_not_wait_do_not_change_the_rate():
    """Messages that did not wait do not change the rate."""
    machine = after_first_rejection(100)
    rate = machine.rate()
    for n in range(1000):
        machine.on_accept(101.0 + n, 1, machine.epoch)
    assert machine.rate() == rate


def test_bug_2_the_hold_is_bounded_at_tiny_rates():
    """At 0.05 per second a hundred messages take 2000 s; the hold ends after 100 s."""
    machine = HoldAndProbe(ceiling=0.05)
    machine.on_429(10.0, 0)
    assert machine._hold_seconds() == 100.0


def test_bug_3_a_used_up_window_does_not_cut_the_rate_to_the_minimum():
    """While everything is rejected the rate stays and the pauses grow to 8 s; one acceptance ends it."""
    machine = after_first_rejection(100)
    rate = machine.rate()
    now = 100.0
    pauses = []
    for _ in range(10):
        now += 1.0
        pauses.append(machine.on_429(now, machine.epoch))
    assert machine.rate() == rate
    assert machine.half_open
    assert pauses[:3] == pytest.approx([0.16, 0.32, 0.64])
    assert pauses[-1] == 8.0
    machine.on_accept(now + 1, 1, machine.epoch)
    assert not machine.half_open


def test_rates_never_overflow():
    """The rate stays finite however long nothing is rejected."""
    machine = after_first_rejection(100)
    for _ in range(1000):
        machine.on_grant(10**9)
    assert machine.rate() < 1e300


def test_a_surge_is_cut_to_a_share_of_the_reached_rate():
    """Far above the old limit the average lags, so the rate is cut to 0.8 of the rate it reached."""
    machine = after_first_rejection(30)
    now = 100.1
    while machine.rate() < 200:
        now = send(machine, 0.05, now=now)
    reached = machine.rate()
    machine.on_429(now, machine.epoch)
    assert machine.rate() >= 0.97 * 0.8 * reached


def test_retry_after_is_the_minimum_pause():
    """The pause is never shorter than the Retry-After."""
    machine = after_first_rejection(100)
    machine.on_accept(100.5, 1, 1)
    assert machine.on_429(101.0, 1, 30.0) == 30.0
    assert machine.on_429(101.1, 1, 40.0) == 40.0, "the Retry-After of an old epoch still applies"


def test_the_sliding_window_averages_one_to_two_seconds():
    """The rate is averaged over the current and the previous second, without idle time before them."""
    window = SlidingWindowCounter()
    for n in range(300):
        window.add(10.0 + n / 100, 1)
    assert window.per_second(13.0) == pytest.approx(100, rel=0.02)
    for n in range(50):
        window.add(500.0 + n / 100, 1)
    assert window.per_second(500.5) == pytest.approx(50)
    assert window.per_second(900.0) == 0.0


def test_repr_shows_state_and_rates():
    """The repr shows the state, the rate and the estimate."""
    assert repr(HoldAndProbe()) == "HoldAndProbe(unlimited, rate=unlimited, estimate=inf/s, epoch=0)"
    assert "holding, rate=97" in repr(after_first_rejection(100))


def run_random_rejections(share, seed, *, until):
    """Reject this share of all messages at any rate; return the state machine, the time and the accepted count."""
    rng = random.Random(seed)
    machine, now, accepted = HoldAndProbe(), 0.0, 0
    for _ in range(until):
        rate = machine.rate()
        now += 0.001 if rate is None else 1.0 / rate
        epoch = machine.epoch
        if rate is not None:
            machine.on_grant(1)
        if rng.random() < share:
            now += machine.on_429(now, epoch)
        else:
            machine.on_accept(now, 1, epoch)
            accepted += 1
    return machine, now, accepted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_random_rejections_do_not_end_at_a_standstill(share, seed):
    """Random rejections are recognised with their share, and then do not lower the rate."""
    machine, _, _ = run_random_rejections(share, seed, until=int(400 / share))
    assert machine.random_rejection_share == pytest.approx(share, rel=0.6)
    assert machine.rate() > 500, machine


def test_rejections_of_a_real_limit_are_not_classified_as_random():
    """Two hundred rejections by a limit of fifty per second: none is classified as random."""
    machine, now, level = HoldAndProbe(), 0.0, 50.0
    rejected = 0
    while rejected < 200:
        rate = machine.rate() or 500.0
        now, level = now + 1 / rate, min(50.0, level + 50 / rate)
        machine.on_grant(1)
        if level >= 1:
            level -= 1
            machine.on_accept(now, 1, machine.epoch)
        else:
            rejected += 1
            pause = machine.on_429(now, machine.epoch)
            now, level = now + pause, min(50.0, level + 50 * pause)
        assert not machine.random_rejection_share


def test_a_wrong_classification_as_random_is_revoked():
    """If a leap shows that the rejections were those of a limit, the rate returns to the accepted one."""
    machine, now = after_first_rejection(100), 1000.0
    for between in (30, 90, 20, 110, 40, 70, 30):
        for _ in range(between):
            now += 1 / machine.rate()
            machine.on_grant(1)
            machine.on_accept(now, 1, machine.epoch)
        now += machine.on_429(now, machine.epoch)
        if machine.random_rejection_share:
            break
    held = machine.rate()
    assert machine.random_rejection_share
    assert machine.state == "probing"
    rejected, epoch = 0, machine.epoch
    while machine.epoch == epoch:
        now += machine.on_429(now, epoch)
        rejected += 1
    assert rejected <= 4
    assert machine.state == "holding"
    assert machine.rate() < held / 2
    assert not machine.random_rejection_share


def test_messages_in_flight_at_the_first_rejection_raise_the_estimate():
    """Two hundred are sent at once and the tenth is rejected first; later acceptances raise the estimate of nine."""
    machine = HoldAndProbe()
    for _ in range(9):
        machine.on_accept(0.01, 1, 0)
    machine.on_429(0.01, 0)
    assert machine.rate() < 10
    for _ in range(150):
        machine.on_accept(0.05, 1, 0)
    assert machine.rate() > 140
