"""Decides whether, when and how often a failed attempt is retried; the only module that uses tenacity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Final

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

    import tenacity as _t

    from ._config import RetryPolicy
    from .errors import StopReason

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


class Retries(ABC):
    """The retries of one call whose first attempt has failed, as callbacks of tenacity.

    The first attempt runs outside, because most calls need no second one and tenacity costs 40 us per call. The first
    trial raises its error::

        async for trial in retries.trials():
            with trial:
                if trial.retry_state.attempt_number == 1:
                    raise first_error
                response = await attempt()
        budget.deposit(retries.cost)

    Args:
        policy: the number of attempts and their waits.
        budget: each retry withdraws its cost from it.
        rng: the source of jitter.
        sends: whether a success reaches a person.
    """

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, rng: random.Random, *, sends: bool) -> None:
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self._sends = sends
        self.cost = 0
        """What the last retry cost; a success returns it to the budget."""

    @abstractmethod
    def may_retry(self) -> bool:
        """Return whether the call's owner allows another attempt."""

    @abstractmethod
    def time_left(self) -> float:
        """Return the seconds until the call's deadline."""

    @abstractmethod
    def before_pause(self, seconds: float) -> None:
        """Report the failed attempt, and in how many seconds the next one follows."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait before the next attempt."""

    def trials(self) -> _t.AsyncRetrying:
        """Return the attempts to iterate over.

        The error of the last one is raised, with `retry_stopped_by` set if another attempt could have helped.
        """
        import tenacity

        # A new instance for each call: a shared one would mix up the calls of concurrent tasks. The predicate accepts
        # only RequestError: one that accepts BaseException would swallow a cancellation and send again.
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._is_retryable),
            wait=self._wait,
            stop=self._stop,
            before_sleep=self._before_sleep,
            sleep=self.pause,
            reraise=True,
        )

    def _is_retryable(self, error: BaseException) -> bool:
        return isinstance(error, RequestError) and is_retryable(error, sends=self._sends, resend=self._policy.resend)

    def _wait(self, state: _t.RetryCallState) -> float:
        return backoff(self._policy, _error_of(state), state.attempt_number, self._rng)

    def _stop(self, state: _t.RetryCallState) -> bool:
        """Return whether to stop, and store the reason on the error."""
        error = _error_of(state)
        cost = retry_cost(error)
        reason: StopReason
        if state.attempt_number >= self._policy.max_attempts:
            reason = "attempts"
        elif error.retry_after is not None and error.retry_after > self._policy.max_retry_after:
            reason = "retry_after"
        elif state.upcoming_sleep >= self.time_left():
            reason = "deadline"
        elif not self.may_retry():
            return True
        elif not self._budget.withdraw(cost):
            reason = "budget"
        else:
            self.cost = cost
            return False
        error._update(retry_stopped_by=reason)  # noqa: SLF001 - errors are this package's own
        return True

    def _before_sleep(self, state: _t.RetryCallState) -> None:
        self.before_pause(state.upcoming_sleep)


def _error_of(state: _t.RetryCallState) -> RequestError:
    """Return the last attempt's error."""
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, RequestError)  # noqa: S101 - the predicate lets nothing else through
    return error
