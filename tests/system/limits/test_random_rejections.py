"""Refusals that no rate would avoid, and those of a limit: told apart by what gets through between them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async.limits._random_rejections import RandomRejectionFilter
from tests.support.limits_simulation import TokenBucket, closed_loop, run_virtual


class Chance:
    """Refuses a share by chance, and what a server behind it refuses."""

    def __init__(self, share, seed, server=None):
        self.share, self.server = share, server
        self.rng = random.Random(seed)
        self.rate = None

    def take(self, now, weight):
        return (self.server is None or self.server.take(now, weight)) and self.rng.random() >= self.share


def find(random_filter, between):
    """Refuse six times by chance, with so many messages between on average; tell whether that was seen."""
    found = [
        random_filter.on_epoch_end(in_hold=True, accepted=round(between * part))
        for part in (1, 0.4, 1.8, 0.5, 1.7, 0.6)
    ]
    assert not any(found[:-1])
    return found[-1]


def known(share=0.1):
    """A random_filter that was found, and has stood its trial."""
    random_filter = RandomRejectionFilter()
    between = round(1 / share) - 1
    assert find(random_filter, between)
    for _ in range(8):
        random_filter.accepted(between)
        assert random_filter.absorbs_rejection()
    random_filter.accepted(between)
    return random_filter


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("share", [0.003, 0.01, 0.02, 0.05, 0.1, 0.3])
def test_a_client_is_not_slowed_for_good(share, seed):
    """Fifty workers and no limit, some answers refused by chance: within a minute they send as fast as they can."""
    tally = run_virtual(closed_loop(Chance(share, seed), (), until=120, seed=seed))
    assert tally.goodput(60, 120) >= 0.75 * (1 - share) * 50 / 0.0925


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_limit_among_noise_is_kept(share):
    """Noise does not grow with the rate as a limit's refusals do, so these are not taken for it."""
    tally = run_virtual(closed_loop(Chance(share, 1, TokenBucket(100)), (), until=120))
    assert tally.goodput(20, 120) >= 0.5 * 100
    assert tally.rejected_share(20, 120) <= 2.5 * share


def test_the_first_refusals_are_news():
    """Until there were as many as it takes, each is a limit's."""
    random_filter = RandomRejectionFilter()
    assert not any(random_filter.on_epoch_end(in_hold=True, accepted=accepted) for accepted in (9, 3, 16, 8, 15))
    assert not random_filter.absorbs_rejection()
    assert random_filter.on_epoch_end(in_hold=True, accepted=4)
    assert random_filter.share == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    "endings",
    [
        pytest.param([(False, 500)] * 8, id="each after a climb: a limit that is found again and again"),
        pytest.param(
            [(True, 3), (False, 9), (True, 20), (False, 4), (True, 15), (True, 6)],
            id="not often enough while one was held",
        ),
        pytest.param([(True, count) for count in (1, 2, 4, 9, 20, 35, 52, 67)], id="more and more gets through"),
        pytest.param([(True, count) for count in (400, 380, 3, 2, 5, 4, 7, 9)], id="a limit that has just fallen"),
        pytest.param([(True, count) for count in (126, 68, 257, 79, 32, 8)], id="a limit that has fallen this moment"),
        pytest.param([(True, count) for count in (55, 88, 229, 362, 182, 90)], id="a limit that is found, then falls"),
        pytest.param([(True, count) for count in (109, 4, 9, 300, 7, 11)], id="once it was kept for very long"),
        pytest.param([(True, count) for count in (1, 0, 2, 1, 0, 2, 1, 1)], id="most is refused"),
        pytest.param(
            [(True, count) for count in (28, 28, 57, 56, 57, 28, 57, 56)], id="a window used up again and again"
        ),
    ],
)
def test_what_is_a_limits(endings):
    random_filter = RandomRejectionFilter()
    assert not any(random_filter.on_epoch_end(in_hold=held, accepted=accepted) for held, accepted in endings)


def test_much_more_than_its_share_is_a_limits():
    """A row of refusals ends what random_filter explains; it stays known, as the limit teaches nothing of it."""
    random_filter = known()
    assert sum(random_filter.absorbs_rejection() for _ in range(20)) < 20
    assert random_filter.share == pytest.approx(0.1, rel=0.6)


def test_on_trial_a_short_row_refutes_it():
    random_filter = RandomRejectionFilter()
    assert find(random_filter, 99)
    assert random_filter.on_probation
    assert [random_filter.absorbs_rejection() for _ in range(3)] == [True, True, False]
    assert not random_filter.share
    assert not random_filter.on_probation


def test_on_trial_what_is_little_is_tolerated():
    """A few more than its share do not refute it: a limit would refuse most of what is sent at several times itself."""
    random_filter = RandomRejectionFilter()
    assert find(random_filter, 99)
    for _ in range(8):
        random_filter.accepted(10)
        assert random_filter.absorbs_rejection()
    random_filter.accepted(10)
    assert not random_filter.on_probation
    assert random_filter.share == pytest.approx(0.02, rel=0.3)


def test_noise_that_has_ended_is_forgotten():
    random_filter = known()
    random_filter.accepted(140)
    assert random_filter.share
    random_filter.accepted(40)
    assert not random_filter.share
    assert not random_filter.absorbs_rejection()


@given(st.floats(0.01, 0.3), st.lists(st.integers(0, 400), max_size=300))
def test_it_never_explains_away_a_limit(share, gaps):
    """Whatever comes, its share stays below a quarter more than it was found to be in its trial."""
    random_filter = known(share)
    found = random_filter.share
    for gap in gaps:
        random_filter.accepted(gap)
        random_filter.absorbs_rejection()
        assert random_filter.share <= 1.25 * max(found, share)
