"""Decides whether, when and how often a failed attempt is retried; the only module that uses tenacity."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeVar

from ._config import Resend
from .errors import (
    APIStatusError,
    DeadlineExceededError,
    Delivery,
    RateLimitError,
    RequestError,
    TLSError,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    import tenacity as _t

    from ._config import RetryPolicy
    from .errors import StopReason

_T = TypeVar("_T")

# The figures of the AWS SDKs' 2026 revision: a burst of failures empties the budget.
BUDGET_CAPACITY: Final = 500
TRANSIENT_COST: Final = 14
THROTTLED_COST: Final = 5

_THROTTLED: Final = frozenset({429, 503})
_RETRYABLE_VERIFY_STATUSES: Final = frozenset({500, 503})
_RETRYABLE_SEND_STATUSES: Final = frozenset({408, 425})


class RetryBudget:
    """Tokens that retries cost and successes return, so that retries do not multiply the load of an outage."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: int = BUDGET_CAPACITY) -> None:
        self.tokens: int = tokens

    def __repr__(self) -> str:
        return f"RetryBudget(tokens={self.tokens}/{BUDGET_CAPACITY})"

    def withdraw(self, cost: int) -> bool:
        """Take the cost of one retry; return False and take nothing if there are too few tokens."""
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def deposit(self, amount: int) -> None:
        """Return tokens, up to the capacity."""
        self.tokens = min(BUDGET_CAPACITY, self.tokens + amount)


def is_throttled(error: RequestError) -> bool:
    """Return whether the service is throttling (429 or 503)."""
    return isinstance(error, APIStatusError) and error.status in _THROTTLED


def retry_cost(error: RequestError) -> int:
    """Return the number of budget tokens that a retry after this error costs."""
    return THROTTLED_COST if is_throttled(error) else TRANSIENT_COST


def is_retryable(  # noqa: PLR0911 - a table with a row a line
    error: RequestError, *, sends: bool, resend: Resend
) -> bool:
    """Return whether an attempt that ended with this error may be retried.

    Args:
        error: the attempt's error.
        sends: whether a success reaches a person; False for a verify.
        resend: the user's choice for sends.
    """
    if isinstance(error, (TLSError, DeadlineExceededError)) or (isinstance(error, RateLimitError) and error.local):
        return False
    if error.retry_stopped_by is not None:
        return False
    status = error.status if isinstance(error, APIStatusError) else None
    if error.delivery is Delivery.NOT_SENT:
        # A status is the token endpoint's: the code request was not sent, but a rejection stays one.
        return status is None or status == 429 or status >= 500
    if not sends:
        return status in _RETRYABLE_VERIFY_STATUSES
    if status is not None and 300 <= status < 400:
        # A 303 is unknown, but a server that responds so has accepted the request and would accept it again.
        return False
    if status == 429:
        return True
    if resend is Resend.NEVER_TWICE:
        return False
    if status is not None and (status >= 500 or status in _RETRYABLE_SEND_STATUSES):
        return True
    return resend is Resend.AT_LEAST_ONCE and error.delivery is Delivery.UNKNOWN


def backoff(policy: RetryPolicy, error: RequestError, retry: int, rng: random.Random) -> float:
    """Return the seconds to wait before a retry.

    Full jitter below a bound that doubles; the upper half of twice that bound if the service is throttling; never less
    than `Retry-After`, plus up to 10 % (at most 1 s) so that throttled clients do not retry at the same time.

    Args:
        policy: the bounds.
        error: the last attempt's error.
        retry: 1 for the first retry.
        rng: the source of jitter.
    """
    # Cap the exponent: 2.0**1024 overflows, and any real bound is reached long before.
    doubled = 2.0 ** min(retry - 1, 60)
    if is_throttled(error):
        bound = min(policy.wait_max, policy.wait_initial * 2 * doubled)
        delay = rng.uniform(bound / 2, bound)
    else:
        delay = rng.uniform(0.0, min(policy.wait_max, policy.wait_initial * doubled))
    if error.retry_after is None:
        return delay
    return max(delay, error.retry_after + rng.uniform(0.0, min(0.1 * error.retry_after, 1.0)))


def load() -> None:
    """Import tenacity; later may be too late, because some failures leave no file descriptor to read it with."""
    import_module("tenacity")


async def retry(  # noqa: C901, PLR0913 - each argument is one fact about the call, each closure one callback of tenacity's
    first_error: RequestError,
    attempt: Callable[[], Awaitable[_T]],
    *,
    sends: bool,
    policy: RetryPolicy,
    budget: RetryBudget,
    may_retry: Callable[[], bool],
    time_left: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    before_sleep: Callable[[RequestError, float], None],
    rng: random.Random,
) -> _T:
    """Retry a call whose first attempt, made by the caller, has failed.

    The first attempt runs outside because most calls need no second one, and tenacity costs 40 us per call.

    Args:
        first_error: the first attempt's error.
        attempt: makes another attempt.
        sends: whether a success reaches a person.
        policy: the number of attempts and their waits.
        budget: each retry withdraws its cost from it.
        may_retry: returns whether the call's owner allows another attempt.
        time_left: returns the seconds until the call's deadline.
        sleep: sleeps for a number of seconds.
        before_sleep: called before each sleep with the error and the seconds until the next attempt.
        rng: the source of jitter.

    Raises:
        RequestError: the last attempt's error, with `retry_stopped_by` set if it was retryable.
    """
    import tenacity as _t

    unraised: RequestError | None = first_error
    cost = 0

    async def next_attempt() -> _T:
        """Raise the first attempt's error, then make attempts."""
        nonlocal unraised
        if unraised is not None:
            error, unraised = unraised, None
            raise error
        return await attempt()

    def failure(state: _t.RetryCallState) -> RequestError:
        """Return the last attempt's error."""
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, RequestError)  # noqa: S101 - the predicate lets nothing else through
        return error

    def wait(state: _t.RetryCallState) -> float:
        """Return the seconds until the next attempt."""
        return backoff(policy, failure(state), state.attempt_number, rng)

    def stop(state: _t.RetryCallState) -> bool:
        """Return whether to stop, and store the reason on the error."""
        nonlocal cost
        error = failure(state)
        reason: StopReason | None = None
        if state.attempt_number >= policy.max_attempts:
            reason = "attempts"
        elif error.retry_after is not None and error.retry_after > policy.max_retry_after:
            reason = "retry_after"
        elif state.upcoming_sleep >= time_left():
            reason = "deadline"
        elif not may_retry():
            return True
        elif not budget.withdraw(retry_cost(error)):
            reason = "budget"
        if reason is None:
            cost = retry_cost(error)
            return False
        error._update(retry_stopped_by=reason)  # noqa: SLF001 - errors are this package's own
        return True

    # A new instance for each call: a shared one would mix up the calls of concurrent tasks. The predicate accepts only
    # RequestError: one that accepts BaseException would swallow a cancellation and send again.
    retrying = _t.AsyncRetrying(
        retry=_t.retry_if_exception(
            lambda error: isinstance(error, RequestError) and is_retryable(error, sends=sends, resend=policy.resend)
        ),
        wait=wait,
        stop=stop,
        sleep=sleep,
        before_sleep=lambda state: before_sleep(failure(state), state.upcoming_sleep),
        reraise=True,
    )
    result: _T = await retrying(next_attempt)
    budget.deposit(cost)
    return result
