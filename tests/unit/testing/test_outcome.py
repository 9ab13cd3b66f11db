"""`Outcome` refuses what a service cannot answer."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async import ServerError
from bandwidth_mfa_async.testing import Outcome


@pytest.mark.parametrize(
    "make",
    [
        lambda: Outcome.answer(100),
        lambda: Outcome.answer(600),
        lambda: Outcome.answer(200, headers={"a b": 1}),
        lambda: Outcome.answer(200, headers={"a": "b\r\nc: d"}),
        lambda: Outcome.accepted(delay=-1),
        lambda: Outcome.accepted(delay=float("nan")),
        lambda: Outcome.not_sent(ValueError),  # type: ignore[type-var]
        lambda: Outcome.unknown(ServerError),  # type: ignore[type-var]
    ],
)
def test_invalid_outcomes_are_refused(make):
    """At construction, not in the middle of a test."""
    with pytest.raises(ValueError, match=r"must be|cannot be sent"):
        make()
