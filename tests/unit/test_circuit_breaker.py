"""The circuit breaker of bulk runs and jobs, and the errors that it counts."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async import (
    AuthenticationError,
    BadRequestError,
    ConnectTimeoutError,
    Delivery,
    MFAError,
    NotSentError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from bandwidth_mfa_async._item_state import is_account_error
from bandwidth_mfa_async._items._circuit_breaker import CircuitBreaker
from bandwidth_mfa_async.errors import NotFoundError

PAUSED = NotSentError("not tried", retry_stopped_by="credentials")
ACCOUNT_ERRORS = [
    AuthenticationError(status=401),
    AuthenticationError("no token", delivery=Delivery.NOT_SENT, status=401),
    BadRequestError("no token", delivery=Delivery.NOT_SENT, status=400),
    PermissionDeniedError(status=403),
    NotFoundError(status=404),
    PAUSED,
]
OTHER_ERRORS = [
    None,
    BadRequestError(status=400),
    RateLimitError(),
    RateLimitError(delivery=Delivery.NOT_SENT, local=True),
    ServerError(status=500),
    ServerError("no token", delivery=Delivery.NOT_SENT, status=503),
    NotSentError(),
    ConnectTimeoutError(),
]


@pytest.mark.parametrize("error", ACCOUNT_ERRORS, ids=repr)
def test_an_account_error_is_one(error: MFAError) -> None:
    assert is_account_error(error)


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=repr)
def test_another_error_is_not_and_closes_the_streak(error: MFAError | None) -> None:
    assert not is_account_error(error)
    breaker = CircuitBreaker()
    for _ in range(9):
        assert not breaker.record(AuthenticationError())
    assert not breaker.record(error)
    for _ in range(9):
        assert not breaker.record(AuthenticationError())
    assert breaker.opened_by == ""


def test_ten_in_a_row_open_the_breaker_and_it_stays_open() -> None:
    """It names the rejection, not the pause that follows it."""
    breaker = CircuitBreaker()
    outcomes = [breaker.record(PermissionDeniedError()), *(breaker.record(PAUSED) for _ in range(9))]
    assert outcomes == [False] * 9 + [True]
    assert breaker.opened_by == "PermissionDeniedError"
    assert not breaker.record(None)
    assert breaker.opened_by == "PermissionDeniedError"
