"""The public names of the test tools."""

from __future__ import annotations

from bandwidth_mfa_async import testing
from bandwidth_mfa_async.testing import ManualClock


def test_all_public_names_exist():
    """Everything in `__all__` can be imported."""
    assert all(hasattr(testing, name) for name in testing.__all__)
    assert isinstance(ManualClock().monotonic(), float)
