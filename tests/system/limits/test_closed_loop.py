"""A bulk run and interactive sends against servers whose limit changes: 100, then 30, then 200 per second."""

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


def test_an_unknown_token_bucket_limit():
    """Unknown limit: goodput >= 0.98, <= 1 % 429s, 8 s to rise, <= 20 rejections after the fall, p99 <= 0.3 s."""
    tally = run_virtual(closed_loop(TokenBucket(100), STEPS, until=130, seed=3))
    for phase, rate in zip(PHASES, RATES, strict=True):
        assert tally.goodput(*phase) >= 0.98 * rate
        assert tally.rejected_share(*phase) <= 0.01
    assert tally.time_to(0.9 * 200, 80) <= 8.0
    assert sum(40 <= at < 45 for at in tally.rejected) <= 20
    assert tally.p99(PHASES) <= 0.3


@pytest.mark.parametrize("at", [16.0, 16.25, 16.5, 16.75, 17.0, 17.25])
def test_a_limit_that_falls_right_after_a_cut(at):
    """Messages accepted under the old limit since a cut do not hide the new one: <= 20 rejections at any time."""
    tally = run_virtual(closed_loop(TokenBucket(100), ((at, 30),), until=at + 10, seed=1))
    assert sum(at <= rejected < at + 5 for rejected in tally.rejected) <= 20
    assert tally.goodput(at + 5, at + 10) >= 0.95 * 30


@pytest.mark.parametrize(
    "make_server",
    [lambda: FixedWindow(100), lambda: SlidingLog(100), lambda: AccountQueue(100), lambda: TokenBucket(100, 0.1)],
    ids=["fixed window", "sliding log", "account queue", "small bucket"],
)
def test_unknown_limits_of_other_servers(make_server):
    """A window, a log, a queue and a small bucket: goodput >= 0.93 and <= 1.3 % 429s.

    A phase of 25 s at 30 per second allows ten rejections, so the share is the mean of three runs.
    """
    tallies = [run_virtual(closed_loop(make_server(), STEPS, until=130, seed=seed)) for seed in (1, 2, 3)]
    for phase, rate in zip(PHASES, RATES, strict=True):
        assert all(tally.goodput(*phase) >= 0.93 * rate for tally in tallies)
        assert mean(tally.rejected_share(*phase) for tally in tallies) <= 0.013
    assert all(tally.p99(PHASES) <= 0.3 for tally in tallies)


def test_interactive_p99_during_a_bulk_run():
    """With fifty bulk workers at an unknown 100 per second: p99 at most 2 / R + 50 ms above an idle call's 90 ms."""
    tallies = [run_virtual(closed_loop(TokenBucket(100), (), until=220, seed=seed)) for seed in range(20, 25)]
    took = sorted(wait for tally in tallies for at, wait in tally.interactive if at >= 20)
    assert len(took) > 1500
    assert took[int(0.99 * len(took))] - ROUND_TRIP <= 2 / 100 + 0.05


@pytest.mark.parametrize("server", [AccountQueue(1, 100), FixedWindow(1, 60.0), TokenBucket(1, 10)])
def test_a_known_limit_of_sixty_per_minute(server):
    """A known limit of 60 per minute: >= 0.97 of it, no 429, and almost no queue at the provider."""
    tally = run_virtual(closed_loop(server, (), until=600, rate=Rate.parse("60/m"), per_second=0.1))
    assert tally.goodput(30, 600) >= 0.97
    assert tally.rejected == []
    # One message in flight waits one second; two may overlap because their latencies differ by milliseconds.
    assert getattr(server, "longest", 0.0) <= 1.01


def test_a_used_up_minute_window_does_not_lower_the_rate():
    """A used-up minute window without Retry-After does not lower the rate: the next window is used fully."""
    tally = run_virtual(closed_loop(FixedWindow(1, 60.0), (), until=600, per_second=0.1))
    assert tally.goodput(60, 600) >= 0.95


def test_a_low_limit_that_rises_is_found():
    """The climb also begins at one per second: a limit raised to ten is used within two minutes."""
    tally = run_virtual(closed_loop(TokenBucket(1, 10), ((300, 10),), until=420, per_second=0.05))
    assert tally.rejected_share(100, 300) <= 0.05
    assert tally.goodput(390, 420) >= 9.0


def test_retry_after_pauses_the_whole_channel():
    """No message leaves during a Retry-After, except those already in flight."""
    rejections = []

    def retry_after(now):
        rejections.append(now)
        return 1.0

    tally = run_virtual(closed_loop(TokenBucket(50), (), until=20, retry_after=retry_after))
    # 35 ms until the rejection arrives, and as long again for messages sent before that.
    quiet = [at - 1_000.0 for at in rejections]
    first = quiet[0]
    assert not any(first + 0.15 < at < first + 1.0 for at in tally.accepted)
    assert tally.goodput(5, 20) >= 0.7 * 50
