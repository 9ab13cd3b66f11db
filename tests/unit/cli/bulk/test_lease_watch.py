"""A lease that its worker no longer renews is noticed before it ends."""

from __future__ import annotations

from bandwidth_mfa_async.cli.bulk._lease_watch import LeaseWatch


def test_a_renewed_lease_is_not_waited_for() -> None:
    """Each renewal changes its text."""
    watch = LeaseWatch(30.0)
    assert all(watch.longest_wait({"0": f"token {at}"}, float(at)) is None for at in range(0, 100, 8))


def test_a_lease_that_is_not_renewed_is_waited_for() -> None:
    """From half of its time until its end; the longest wait counts, and a released lease is forgotten."""
    watch = LeaseWatch(30.0)
    assert watch.longest_wait({"0": "a 1"}, 0.0) is None
    assert watch.longest_wait({"0": "a 1", "1": "b 1"}, 10.0) is None
    assert watch.longest_wait({"0": "a 1", "1": "b 1"}, 16.0) == 14.0
    assert watch.longest_wait({"0": "a 1", "1": "b 1"}, 26.0) == 14.0
    assert watch.longest_wait({"0": "a 1"}, 27.0) == 3.0
    assert watch.longest_wait({"0": "a 1"}, 31.0) is None
    assert watch.longest_wait({}, 32.0) is None
    assert watch.longest_wait({"0": "a 1"}, 33.0) is None
