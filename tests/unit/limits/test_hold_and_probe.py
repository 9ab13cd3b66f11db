"""Hold and probe, step by step, and each bug that was met while the policy was found (rates.md, section 7)."""

from __future__ import annotations

import random

import pytest

from bandwidth_mfa_async.limits._hold_and_probe import HoldAndProbe
from bandwidth_mfa_async.limits._sliding_window import SlidingWindowCounter


def learnt(rate, *, now=100.0):
    """Return a machine that has just met its first refusal after a second of `rate` accepted messages."""
    machine = HoldAndProbe()
    for n in range(rate):
        machine.on_accept(now - 1.0 + n / rate, 1, 0)
    machine.on_429(now, 0)
    return machine


def send(machine, seconds, *, now):
    """Send at the machine's own rate, all accepted; return the time afterwards."""
    end = now + seconds
    while now < end:
        now += 1.0 / machine.rate()
        machine.on_grant(1)
        machine.on_accept(now, 1, machine.epoch)
    return now


def test_no_limit_is_believed_in_before_the_first_refusal():
    """A user without a limit is never slowed: unlimited until the first 429, however much is sent."""
    machine = HoldAndProbe()
    for n in range(1000):
        machine.on_grant(1)
        machine.on_accept(n / 100, 1, 0)
    assert machine.rate() is None
    assert machine.state == "unlimited"


def test_the_first_refusal_estimates_from_what_was_accepted():
    """The first belief is what was accepted a second, and sending goes on just below it after a short pause."""
    machine = HoldAndProbe()
    for n in range(100):
        machine.on_accept(99.0 + n / 100, 1, 0)
    assert machine.on_429(100.0, 0) == pytest.approx(0.08)
    assert machine.rate() == pytest.approx(0.97 * 100, rel=0.02)
    assert machine.epoch == 1


def test_a_burst_is_not_a_rate():
    """A hundred accepted in a tenth of a second count as a hundred a second, not a thousand."""
    machine = HoldAndProbe()
    for n in range(100):
        machine.on_accept(n / 1000, 1, 0)
    machine.on_429(0.1, 0)
    assert machine.rate() == pytest.approx(97.0)


def test_refused_before_anything_was_accepted():
    """With nothing to measure, the first rate is ten a second."""
    machine = HoldAndProbe()
    machine.on_429(5.0, 0)
    assert machine.rate() == pytest.approx(9.7)


def test_hold_then_climb():
    """The limit is approached from 0.97 for a hundred messages, then exceeded slowly at first, then ever faster."""
    machine = learnt(100)
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
    """Refusals of what was sent before the last cut are the same episode: the rate is cut by the first of them only."""
    machine = learnt(100)
    rate = machine.rate()
    for n in range(50):
        assert machine.on_429(100.0 + n / 1000, 0) == 0.0
    assert machine.rate() == rate
    assert machine.epoch == 1


def test_refused_again_soon_measures_exactly():
    """Accepted messages between two moments at which the service's bucket was empty are its rate."""
    machine = learnt(100)
    now = 100.0
    while now < 100.9:  # the service takes 80 a second of the 97 that are sent
        now += 1.0 / 80
        machine.on_accept(now, 1, machine.epoch)
    machine.on_429(now, machine.epoch)
    assert machine.rate() == pytest.approx(0.97 * 80, rel=0.02)


def test_the_time_until_the_first_answers_is_no_lower_rate():
    """After a pause nothing is accepted for a round trip; that belongs to no estimate."""
    machine = learnt(100)
    for n in range(130):
        machine.on_accept(100.3 + n / 97, 1, 1)
    machine.on_429(100.3 + 130 / 97, 1)
    assert 0.95 * 97 <= machine._estimate <= 97.0


def test_a_ceiling_is_never_exceeded():
    """A configured rate is where it begins, also before any refusal, and what probing stops at."""
    machine = HoldAndProbe(ceiling=10.0)
    assert machine.rate() == 10.0
    now = send(machine, 50.0, now=0.0)
    assert machine.rate() == 10.0
    machine.on_429(now, 0)
    assert machine.rate() < 10.0
    send(machine, 500.0, now=now)
    assert machine.rate() == 10.0


def test_bug_1_low_rates_are_probed():
    """At one a second every served waiter counts as sending at the limit, so the climb does begin."""
    machine = HoldAndProbe()
    machine.on_accept(9.5, 1, 0)
    machine.on_429(10.0, 0)
    first = machine.rate()
    send(machine, 125.0, now=10.1)
    assert machine.rate() > 2 * first


def test_no_probing_while_idle():
    """Messages that did not have to wait are not reported, and nothing but a report moves the rate."""
    machine = learnt(100)
    rate = machine.rate()
    for n in range(1000):
        machine.on_accept(101.0 + n, 1, machine.epoch)
    assert machine.rate() == rate


def test_bug_2_the_hold_is_bounded_at_tiny_rates():
    """At 0.05 a second a hundred messages would be held for 2000 s; the hold ends after 100 s."""
    machine = HoldAndProbe(ceiling=0.05)
    machine.on_429(10.0, 0)
    assert machine._hold_seconds() == 100.0


def test_bug_3_a_closed_window_does_not_cut_the_rate_to_the_floor():
    """While everything is refused the rate stays, the pauses grow to 8 s, and one acceptance ends it."""
    machine = learnt(100)
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
    """However long nothing is refused, the rate stays a finite number."""
    machine = learnt(100)
    for _ in range(1000):
        machine.on_grant(10**9)
    assert machine.rate() < 1e300


def test_a_climb_far_past_the_old_limit_trusts_what_it_reached():
    """After a step up the average of the last seconds lags, so a surge is cut to 0.8 of the rate it reached."""
    machine = learnt(30)
    now = 100.1
    while machine.rate() < 200:
        now = send(machine, 0.05, now=now)
    reached = machine.rate()
    machine.on_429(now, machine.epoch)
    assert machine.rate() >= 0.97 * 0.8 * reached


def test_retry_after_is_a_floor_for_the_pause():
    """The pause is at least what the service asked for, and what comes soon after reopening counts as soon."""
    machine = learnt(100)
    machine.on_accept(100.5, 1, 1)
    assert machine.on_429(101.0, 1, 30.0) == 30.0
    assert machine.on_429(101.1, 1, 40.0) == 40.0, "an old epoch's refusal still says when to come again"


def test_the_window_counts_the_last_one_to_two_seconds():
    """Rates are averaged over the current and the previous second, and a quiet time before them is left out."""
    window = SlidingWindowCounter()
    for n in range(300):
        window.add(10.0 + n / 100, 1)
    assert window.per_second(13.0) == pytest.approx(100, rel=0.02)
    for n in range(50):
        window.add(500.0 + n / 100, 1)
    assert window.per_second(500.5) == pytest.approx(50)
    assert window.per_second(900.0) == 0.0


def test_repr_tells_state_and_rates():
    """The repr names what it does and what it believes."""
    assert repr(HoldAndProbe()) == "HoldAndProbe(unlimited, rate=unlimited, estimate=inf/s, epoch=0)"
    assert "holding, rate=97" in repr(learnt(100))


def run_random_rejections(share, seed, *, until):
    """Refuse this share of everything whatever the rate; return the machine and how much was accepted."""
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
def test_refusals_by_chance_do_not_end_at_a_standstill(share, seed):
    """What comes at any rate is known as that, and its share too; from then on it slows nothing."""
    machine, _, _ = run_random_rejections(share, seed, until=int(400 / share))
    assert machine.random_rejection_share == pytest.approx(share, rel=0.6)
    assert machine.rate() > 500, machine


def test_a_limit_that_is_kept_is_no_noise():
    """Two hundred refusals by a limit of fifty a second, each after it was exceeded: not one is taken for chance."""
    machine, now, level = HoldAndProbe(), 0.0, 50.0
    refused = 0
    while refused < 200:
        rate = machine.rate() or 500.0
        now, level = now + 1 / rate, min(50.0, level + 50 / rate)
        machine.on_grant(1)
        if level >= 1:
            level -= 1
            machine.on_accept(now, 1, machine.epoch)
        else:
            refused += 1
            pause = machine.on_429(now, machine.epoch)
            now, level = now + pause, min(50.0, level + 50 * pause)
        assert not machine.random_rejection_share


def test_what_turns_out_to_be_a_limit_is_one_again():
    """Refusals that look like chance, until several times the rate is tried: back to what got through."""
    machine, now = learnt(100), 1000.0
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
    refused, epoch = 0, machine.epoch
    while machine.epoch == epoch:
        now += machine.on_429(now, epoch)
        refused += 1
    assert refused <= 4
    assert machine.state == "holding"
    assert machine.rate() < held / 2
    assert not machine.random_rejection_share


def test_what_was_under_way_at_the_first_refusal_raises_the_estimate():
    """Two hundred are sent at once, the tenth is refused first, most others are accepted: the limit is not nine."""
    machine = HoldAndProbe()
    for _ in range(9):
        machine.on_accept(0.01, 1, 0)
    machine.on_429(0.01, 0)
    assert machine.rate() < 10
    for _ in range(150):
        machine.on_accept(0.05, 1, 0)
    assert machine.rate() > 140
