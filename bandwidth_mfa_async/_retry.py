"""Whether, when and how often a failed attempt is repeated; the only module that knows tenacity. No I/O."""

from __future__ import annotations

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

# The figures of the AWS SDKs' 2026 revision: a store of tokens that a storm of failures empties.
BUDGET_CAPACITY: Final = 500
TRANSIENT_COST: Final = 14
THROTTLED_COST: Final = 5

_THROTTLED: Final = frozenset({429, 503})
_RETRYABLE_VERIFY_STATUSES: Final = frozenset({500, 503})
_RETRYABLE_SEND_STATUSES: Final = frozenset({408, 425})


class RetryBudget:
    """Tokens that retries cost and successes give back, so that an outage is not multiplied by its own retries."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: int = BUDGET_CAPACITY) -> None:
        self.tokens: int = tokens

    def __repr__(self) -> str:
        return f"RetryBudget(tokens={self.tokens}/{BUDGET_CAPACITY})"

    def withdraw(self, cost: int) -> bool:
        """Take the cost of one retry; return False, and take nothing, where there is not enough."""
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def deposit(self, amount: int) -> None:
        """Give back, up to the capacity."""
        self.tokens = min(BUDGET_CAPACITY, self.tokens + amount)


def is_throttled(error: RequestError) -> bool:
    """Tell whether the service said that it has too much to do."""
    return isinstance(error, APIStatusError) and error.status in _THROTTLED


def retry_cost(error: RequestError) -> int:
    """Return how many budget tokens a retry after this error costs."""
    return THROTTLED_COST if is_throttled(error) else TRANSIENT_COST


def is_retryable(  # noqa: PLR0911 - a table with a row a line
    error: RequestError, *, sends: bool, resend: Resend
) -> bool:
    """Tell whether an attempt that ended so may be repeated.

    Args:
        error: how it ended.
        sends: whether a success reaches a person; False for a verify.
        resend: the user's choice for sends.
    """
    if isinstance(error, (TLSError, DeadlineExceededError)) or (isinstance(error, RateLimitError) and error.local):
        return False
    status = error.status if isinstance(error, APIStatusError) else None
    if error.delivery is Delivery.NOT_SENT:
        # With a status it is the token endpoint's: the code request has not left, but a refusal stays one.
        return status is None or status == 429 or status >= 500
    if not sends:
        return status in _RETRYABLE_VERIFY_STATUSES
    if status is not None and 300 <= status < 400:
        # A 303 is unknown, but what answers with it has taken the request and would only do so again.
        return False
    if status == 429:
        return True
    if resend is Resend.NEVER_TWICE:
        return False
    if status is not None and (status >= 500 or status in _RETRYABLE_SEND_STATUSES):
        return True
    return resend is Resend.AT_LEAST_ONCE and error.delivery is Delivery.UNKNOWN


def backoff(policy: RetryPolicy, error: RequestError, retry: int, rng: random.Random) -> float:
    """Return how many seconds to wait before a retry.

    Full jitter below a doubling bound; where the service is throttling, the upper half of twice that; never less
    than `Retry-After`, which gets up to 10 % (at most 1 s) on top so that those who were refused do not come back
    together.

    Args:
        policy: bounds.
        error: how the last attempt ended.
        retry: 1 for the first retry.
        rng: the source of jitter.
    """
    # The exponent is capped because 2.0**1024 overflows and any real bound is reached long before.
    doubled = 2.0 ** min(retry - 1, 60)
    if is_throttled(error):
        bound = min(policy.wait_max, policy.wait_initial * 2 * doubled)
        delay = rng.uniform(bound / 2, bound)
    else:
        delay = rng.uniform(0.0, min(policy.wait_max, policy.wait_initial * doubled))
    if error.retry_after is None:
        return delay
    return max(delay, error.retry_after + rng.uniform(0.0, min(0.1 * error.retry_after, 1.0)))


async def retry(  # noqa: C901, PLR0913 - each argument is one fact about the call, each closure one of tenacity's
    first_error: RequestError,
    attempt: Callable[[], Awaitable[_T]],
    *,
    sends: bool,
    policy: RetryPolicy,
    budget: RetryBudget,
    time_left: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    before_sleep: Callable[[RequestError, float], None],
    rng: random.Random,
) -> _T:
    """Repeat a call whose first attempt, made by the caller, has failed.

    The first attempt is not run in here because most calls need no second one, and tenacity costs 40 us a call.

    Args:
        first_error: how the first attempt ended.
        attempt: makes one more.
        sends: whether a success reaches a person.
        policy: how often and how long.
        budget: paid from before each retry.
        time_left: seconds until the call's deadline.
        sleep: waits so many seconds.
        before_sleep: told of each failure that will be followed by another attempt, and in how many seconds.
        rng: the source of jitter.

    Raises:
        RequestError: the last attempt's, with `retry_stopped_by` set where it could have been repeated.
    """
    # Loaded with the first failure: most processes that import this library never see one.
    import tenacity as _t

    recorded: RequestError | None = first_error
    cost = 0

    async def again() -> _T:
        """Fail with what is already known, then try for real."""
        nonlocal recorded
        if recorded is not None:
            error, recorded = recorded, None
            raise error
        return await attempt()

    def failure(state: _t.RetryCallState) -> RequestError:
        """Return the last attempt's error."""
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, RequestError)  # noqa: S101 - the predicate lets nothing else through
        return error

    def wait(state: _t.RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        return backoff(policy, failure(state), state.attempt_number, rng)

    def stop(state: _t.RetryCallState) -> bool:
        """Say whether this was the last attempt, and note why."""
        nonlocal cost
        error = failure(state)
        reason: StopReason | None = None
        if state.attempt_number >= policy.max_attempts:
            reason = "attempts"
        elif error.retry_after is not None and error.retry_after > policy.max_retry_after:
            reason = "retry_after"
        elif state.upcoming_sleep >= time_left():
            reason = "deadline"
        elif not budget.withdraw(retry_cost(error)):
            reason = "budget"
        if reason is None:
            cost = retry_cost(error)
            return False
        error._update(retry_stopped_by=reason)  # noqa: SLF001 - errors are this package's own
        return True

    # A new instance for every call: one that is shared mixes up the calls of concurrent tasks. The predicate names
    # RequestError, because one that accepts BaseException would swallow cancellation and send again.
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
    result: _T = await retrying(again)
    budget.deposit(cost)
    return result
