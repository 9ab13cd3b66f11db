"""A whole bulk run and its people against servers whose limit changes: 100, then 30, then 200 a second."""

from __future__ import annotations

from statistics import mean

import pytest

from bandwidth_mfa_async._config import Rate
from tests.support.limits_simulation import (
    ROUND_TRIP,
    AccountQueue,
    FixedWindow,
    SlidingLog,
    TokenBucket,
    closed_loop,
    run_virtual,
)

STEPS = ((40, 30), (80, 200))
PHASES = ((15, 40), (55, 80), (105, 130))
RATES = (100, 30, 200)


def test_token_bucket():
    """Unknown limit: >= 0.98 goodput, <= 1 % 429s, up in 8 s, <= 20 refusals after the step down, p99 <= 0.3 s."""
    tally = run_virtual(closed_loop(TokenBucket(100), STEPS, until=130, seed=3))
    for phase, rate in zip(PHASES, RATES, strict=True):
        assert tally.goodput(*phase) >= 0.98 * rate
        assert tally.rejected_share(*phase) <= 0.01
    assert tally.time_to(0.9 * 200, 80) <= 8.0
    assert sum(40 <= at < 45 for at in tally.rejected) <= 20
    assert tally.p99(PHASES) <= 0.3


@pytest.mark.parametrize("at", [16.0, 16.25, 16.5, 16.75, 17.0, 17.25])
def test_a_limit_that_falls_right_after_a_cut(at):
    """What the old limit let through since that cut does not hide the new one: <= 20 refusals, whenever it falls."""
    tally = run_virtual(closed_loop(TokenBucket(100), ((at, 30),), until=at + 10, seed=1))
    assert sum(at <= refused < at + 5 for refused in tally.rejected) <= 20
    assert tally.goodput(at + 5, at + 10) >= 0.95 * 30


@pytest.mark.parametrize(
    "make_server",
    [lambda: FixedWindow(100), lambda: SlidingLog(100), lambda: AccountQueue(100), lambda: TokenBucket(100, 0.1)],
    ids=["fixed window", "sliding log", "account queue", "small bucket"],
)
def test_other_servers(make_server):
    """The same against a window, a log, a queue and a small bucket: >= 0.93 goodput and <= 1.3 % 429s.

    A phase of 25 s at 30 a second has room for ten refusals, so their share is taken over three runs together.
    """
    tallies = [run_virtual(closed_loop(make_server(), STEPS, until=130, seed=seed)) for seed in (1, 2, 3)]
    for phase, rate in zip(PHASES, RATES, strict=True):
        assert all(tally.goodput(*phase) >= 0.93 * rate for tally in tallies)
        assert mean(tally.rejected_share(*phase) for tally in tallies) <= 0.013
    assert all(tally.p99(PHASES) <= 0.3 for tally in tallies)


def test_a_sign_in_hardly_waits_behind_a_bulk_run():
    """Beside fifty bulk workers at an unknown 100 a second: p99 at most 2 / R + 50 ms over an idle call's 90 ms."""
    tallies = [run_virtual(closed_loop(TokenBucket(100), (), until=220, seed=seed)) for seed in range(20, 25)]
    took = sorted(wait for tally in tallies for at, wait in tally.interactive if at >= 20)
    assert len(took) > 1500
    assert took[int(0.99 * len(took))] - ROUND_TRIP <= 2 / 100 + 0.05


@pytest.mark.parametrize("server", [AccountQueue(1, 100), FixedWindow(1, 60.0), TokenBucket(1, 10)])
def test_sixty_a_minute_known(server):
    """A known limit of 60 a minute: >= 0.97 of it, no 429, and (nearly) no queue at the provider."""
    tally = run_virtual(closed_loop(server, (), until=600, rate=Rate.parse("60/m"), per_second=0.1))
    assert tally.goodput(30, 600) >= 0.97
    assert tally.rejected == []
    # One message under way is a wait of one second; two may meet where their trips differ by milliseconds.
    assert getattr(server, "longest", 0.0) <= 1.01


def test_a_minute_window_does_not_drive_the_rate_down():
    """A used-up window of a minute, with no Retry-After, says nothing about the rate: the next one is used whole."""
    tally = run_virtual(closed_loop(FixedWindow(1, 60.0), (), until=600, per_second=0.1))
    assert tally.goodput(60, 600) >= 0.95


def test_a_low_limit_that_rises_is_found():
    """At one a second the climb begins too: a limit raised to ten is used within a minute and a half."""
    tally = run_virtual(closed_loop(TokenBucket(1, 10), ((300, 10),), until=420, per_second=0.05))
    assert tally.rejected_share(100, 300) <= 0.05
    assert tally.goodput(390, 420) >= 9.0


def test_retry_after_is_honoured_by_the_whole_channel():
    """No message leaves before the moment named by a refusal, except those that were under way."""
    refusals = []

    def retry_after(now):
        refusals.append(now)
        return 1.0

    tally = run_virtual(closed_loop(TokenBucket(50), (), until=20, retry_after=retry_after))
    # 35 ms until the refusal is known, and as long again for what had left before that.
    quiet = [at - 1_000.0 for at in refusals]
    first = quiet[0]
    assert not any(first + 0.15 < at < first + 1.0 for at in tally.accepted)
    assert tally.goodput(5, 20) >= 0.7 * 50
