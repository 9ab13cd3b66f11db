"""Random rejections, and those of a limit, are distinguished by the messages accepted between them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async.limits._random_rejections import RandomRejectionFilter
from tests.support.limits_simulation import TokenBucket, closed_loop, run_virtual


class RandomRejections:
    """Rejects a random share of the messages, and those that the server behind it rejects."""

    def __init__(self, share, seed, server=None):
        self.share, self.server = share, server
        self.rng = random.Random(seed)
        self.rate = None

    def take(self, now, weight):
        return (self.server is None or self.server.take(now, weight)) and self.rng.random() >= self.share


def classify(random_filter, between):
    """End six epochs with random counts around this mean; return whether they are classified as random."""
    found = [
        random_filter.on_epoch_end(in_hold=True, accepted=round(between * part))
        for part in (1, 0.4, 1.8, 0.5, 1.7, 0.6)
    ]
    assert not any(found[:-1])
    return found[-1]


def known_filter(share=0.1):
    """Return a filter that has classified rejections as random and completed its probation."""
    random_filter = RandomRejectionFilter()
    between = round(1 / share) - 1
    assert classify(random_filter, between)
    for _ in range(8):
        random_filter.accepted(between)
        assert random_filter.absorbs_rejection()
    random_filter.accepted(between)
    return random_filter


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("share", [0.003, 0.01, 0.02, 0.05, 0.1, 0.3])
def test_random_rejections_do_not_slow_a_client_permanently(share, seed):
    """With fifty workers, no limit and random rejections, sending is fast again within a minute."""
    tally = run_virtual(closed_loop(RandomRejections(share, seed), (), until=120, seed=seed))
    assert tally.goodput(60, 120) >= 0.75 * (1 - share) * 50 / 0.0925


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_limit_among_random_rejections_is_kept(share):
    """A limit among random rejections is kept: only its rejections grow with the rate."""
    tally = run_virtual(closed_loop(RandomRejections(share, 1, TokenBucket(100)), (), until=120))
    assert tally.goodput(20, 120) >= 0.5 * 100
    assert tally.rejected_share(20, 120) <= 2.5 * share


def test_the_first_rejections_are_attributed_to_a_limit():
    """Until there are enough rejections, each is attributed to a limit."""
    random_filter = RandomRejectionFilter()
    assert not any(random_filter.on_epoch_end(in_hold=True, accepted=accepted) for accepted in (9, 3, 16, 8, 15))
    assert not random_filter.absorbs_rejection()
    assert random_filter.on_epoch_end(in_hold=True, accepted=4)
    assert random_filter.share == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    "endings",
    [
        pytest.param([(False, 500)] * 8, id="each after a climb: a limit found repeatedly"),
        pytest.param(
            [(True, 3), (False, 9), (True, 20), (False, 4), (True, 15), (True, 6)],
            id="too few during a hold",
        ),
        pytest.param([(True, count) for count in (1, 2, 4, 9, 20, 35, 52, 67)], id="rising counts"),
        pytest.param([(True, count) for count in (400, 380, 3, 2, 5, 4, 7, 9)], id="a limit that fell"),
        pytest.param([(True, count) for count in (126, 68, 257, 79, 32, 8)], id="a limit that has just fallen"),
        pytest.param([(True, count) for count in (55, 88, 229, 362, 182, 90)], id="a limit found, then falling"),
        pytest.param([(True, count) for count in (109, 4, 9, 300, 7, 11)], id="one very long hold"),
        pytest.param([(True, count) for count in (1, 0, 2, 1, 0, 2, 1, 1)], id="most messages rejected"),
        pytest.param([(True, count) for count in (28, 28, 57, 56, 57, 28, 57, 56)], id="a window used up repeatedly"),
    ],
)
def test_patterns_of_a_limit_are_not_random(endings):
    """These patterns of accepted counts are those of a limit, not random."""
    random_filter = RandomRejectionFilter()
    assert not any(random_filter.on_epoch_end(in_hold=held, accepted=accepted) for held, accepted in endings)


def test_an_excess_of_rejections_is_attributed_to_a_limit():
    """A run of rejections is attributed to a limit; the random share stays known."""
    random_filter = known_filter()
    assert sum(random_filter.absorbs_rejection() for _ in range(20)) < 20
    assert random_filter.share == pytest.approx(0.1, rel=0.6)


def test_a_short_run_during_probation_revokes_the_classification():
    """During the probation three rejections in a row revoke the classification."""
    random_filter = RandomRejectionFilter()
    assert classify(random_filter, 99)
    assert random_filter.on_probation
    assert [random_filter.absorbs_rejection() for _ in range(3)] == [True, True, False]
    assert not random_filter.share
    assert not random_filter.on_probation


def test_a_small_excess_during_probation_is_tolerated():
    """During the probation a few more rejections are tolerated: a limit would reject most messages after the leap."""
    random_filter = RandomRejectionFilter()
    assert classify(random_filter, 99)
    for _ in range(8):
        random_filter.accepted(10)
        assert random_filter.absorbs_rejection()
    random_filter.accepted(10)
    assert not random_filter.on_probation
    assert random_filter.share == pytest.approx(0.02, rel=0.3)


def test_the_share_is_reset_when_rejections_stop():
    """Without rejections the random share is reset."""
    random_filter = known_filter()
    random_filter.accepted(140)
    assert random_filter.share
    random_filter.accepted(40)
    assert not random_filter.share
    assert not random_filter.absorbs_rejection()


@given(st.floats(0.01, 0.3), st.lists(st.integers(0, 400), max_size=300))
def test_the_share_never_grows_to_cover_a_limit(share, gaps):
    """For any sequence the share stays below 1.25 times the share at the end of the probation."""
    random_filter = known_filter(share)
    found = random_filter.share
    for gap in gaps:
        random_filter.accepted(gap)
        random_filter.absorbs_rejection()
        assert random_filter.share <= 1.25 * max(found, share)
