"""The retry rules as tables: budget, backoff, and what stops a retry."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from multidict import CIMultiDict

from bandwidth_mfa_async import (
    BadRequestError,
    DeadlineExceededError,
    Delivery,
    DisconnectedError,
    NotSentError,
    RateLimitError,
    RequestError,
    Resend,
    RetryPolicy,
    ServerError,
    TLSError,
)
from bandwidth_mfa_async._retry import Retries, RetryBudget, backoff, is_retryable
from bandwidth_mfa_async._retry_after import parse_retry_after


class Highest(random.Random):
    """Jitter always at its upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(random.Random):
    """Jitter always at its lower bound."""

    def uniform(self, a: float, b: float) -> float:
        return a


def status(code: int, *, delivery: Delivery = Delivery.REJECTED, retry_after: float | None = None) -> RequestError:
    cls = RateLimitError if code == 429 else ServerError if code >= 500 else BadRequestError
    return cls(status=code, delivery=delivery, retry_after=retry_after)


class Run(Retries):
    """One call whose attempts end with the listed errors; None is a success."""

    def __init__(self, *outcomes: RequestError | None, budget: int = 500, time_left: float = 1000.0) -> None:
        self.outcomes = list(outcomes)
        self.budget = RetryBudget(budget)
        self.seconds_left = time_left
        self.is_allowed = True
        self.slept: list[float] = []
        self.announced: list[float] = []

    async def attempt(self) -> str:
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "done"

    def may_retry(self) -> bool:
        return self.is_allowed

    def time_left(self) -> float:
        return self.seconds_left

    def before_pause(self, seconds: float) -> None:
        self.announced.append(seconds)

    async def pause(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds_left -= seconds

    async def __call__(self, policy: RetryPolicy, *, sends: bool = True) -> str:
        super().__init__(policy, self.budget, Highest(), sends=sends)
        first, result = self.outcomes.pop(0), ""
        assert first is not None
        async for trial in self.trials():
            with trial:
                if trial.retry_state.attempt_number == 1:
                    raise first
                result = await self.attempt()
        self.budget.deposit(self.cost)
        return result


# The structure of the AWS SDKs' published standard-mode vectors, with our costs (14 transient, 5 throttled) and jitter
# at its bound: outcomes, initial budget, policy, budget after the call, waits, stop reason.
VECTORS: list[tuple[list[int | None], int, dict[str, Any], int, list[float], str | None]] = [
    ([500, 500, None], 500, {}, 486, [1.0, 2.0], None),
    ([502, 502, 502], 500, {}, 472, [1.0, 2.0], "attempts"),
    ([500, 502], 14, {}, 0, [1.0], "budget"),
    ([500], 0, {}, 0, [], "budget"),
    ([500] * 5, 500, {"max_attempts": 5}, 444, [1.0, 2.0, 4.0, 8.0], "attempts"),
    ([500] * 5, 500, {"max_attempts": 5, "wait_max": 3.0}, 444, [1.0, 2.0, 3.0, 3.0], "attempts"),
    ([429, None], 500, {}, 500, [2.0], None),
    ([429, 503, None], 500, {}, 495, [2.0, 4.0], None),
    ([429, 429, 429], 500, {}, 490, [2.0, 4.0], "attempts"),
    ([429], 4, {}, 4, [], "budget"),
    ([503, 500, None], 500, {}, 495, [2.0, 2.0], None),
]


@pytest.mark.parametrize(("outcomes", "start", "options", "end", "waits", "stopped"), VECTORS)
async def test_standard_mode_vectors(
    outcomes: list[int | None],
    start: int,
    options: dict[str, Any],
    end: int,
    waits: list[float],
    stopped: str | None,
) -> None:
    """Costs, refunds, waits and the stop reason of a call."""
    run = Run(*[None if code is None else status(code) for code in outcomes], budget=start)
    policy = RetryPolicy(**({"wait_initial": 1.0, "wait_max": 20.0} | options))
    if stopped is None:
        assert await run(policy) == "done"
    else:
        with pytest.raises(RequestError) as caught:
            await run(policy)
        assert caught.value.retry_stopped_by == stopped
    assert run.budget.tokens == end
    assert run.slept == run.announced == waits


# The 2026 revision's vectors: base 50 ms, jitter at its bound, one 500 with a wait in ms, then a success. The last
# column is AWS's wait, which caps the requested wait at 5 s above its own. We wait all of it plus our jitter, because
# an earlier request is rejected again.
REVISED: list[tuple[str | None, float, float]] = [
    (None, 0.05, 0.05),
    ("1500", 1.65, 1.5),
    ("0", 0.05, 0.05),
    ("10000", 11.0, 5.05),
    ("invalid", 0.05, 0.05),
    ("-100", 0.05, 0.05),
]


@pytest.mark.parametrize(("requested", "ours", "aws"), REVISED)
async def test_vectors_of_the_2026_revision(requested: str | None, ours: float, aws: float) -> None:
    """A retry costs 14 and a success returns them. `Retry-After` is a lower bound; invalid values are ignored."""
    headers = CIMultiDict({} if requested is None else {"retry-after-ms": requested})
    run = Run(status(500, retry_after=parse_retry_after(headers, 0.0)), None)
    during: list[int] = []
    attempt = run.attempt

    async def watched() -> str:
        during.append(run.budget.tokens)
        return await attempt()

    run.attempt = watched  # type: ignore[method-assign]
    assert await run(RetryPolicy(wait_initial=0.05, wait_max=20.0)) == "done"
    assert (during, run.budget.tokens) == ([486], 500)
    assert run.slept == [pytest.approx(ours)]
    assert ours >= aws


# The classic revision's vectors, where a retry costs 5. Quotas are in units of the cost of a retry.
CLASSIC: list[tuple[list[int | None], int, int, list[float], str | None]] = [
    ([500, 500, None], 500, 1, [1.0, 2.0], None),
    ([502, 502, 502], 500, 2, [1.0, 2.0], "attempts"),
    ([500, 502], 1, 1, [1.0], "budget"),
    ([500], 0, 0, [], "budget"),
    ([500, 500, 500, 500, 500], 500, 4, [1.0, 2.0, 4.0, 8.0], "attempts"),
]


@pytest.mark.parametrize(("outcomes", "retries", "paid", "waits", "stopped"), CLASSIC)
async def test_vectors_of_the_classic_revision(
    outcomes: list[int | None], retries: int, paid: int, waits: list[float], stopped: str | None
) -> None:
    """A budget for n retries ends where AWS's does: all are paid except, after a success, the last."""
    start = min(500, retries * 14)
    run = Run(*[None if code is None else status(code) for code in outcomes], budget=start)
    policy = RetryPolicy(wait_initial=1.0, wait_max=20.0, max_attempts=max(3, len(outcomes)))
    if stopped is None:
        assert await run(policy) == "done"
    else:
        with pytest.raises(RequestError) as caught:
            await run(policy)
        assert caught.value.retry_stopped_by == stopped
    assert start - run.budget.tokens == paid * 14
    assert run.slept == waits


def test_the_budget_stays_between_0_and_500() -> None:
    """It never exceeds 500, and a cost above the balance is not withdrawn."""
    budget = RetryBudget()
    budget.deposit(1)
    assert budget.tokens == 500
    assert budget.withdraw(500)
    assert not budget.withdraw(1)
    assert budget.tokens == 0
    assert "0/500" in repr(budget)


@pytest.mark.parametrize(
    ("error", "retry_number", "lowest", "highest"),
    [
        (status(500), 1, 0.0, 0.5),
        (status(500), 2, 0.0, 1.0),
        (status(500), 10, 0.0, 8.0),
        (status(500), 5000, 0.0, 8.0),
        (NotSentError(), 1, 0.0, 0.5),
        (status(429), 1, 0.5, 1.0),
        (status(429), 2, 1.0, 2.0),
        (status(503), 10, 4.0, 8.0),
        (status(429, retry_after=0.0), 1, 0.5, 1.0),
        (status(429, retry_after=0.2), 1, 0.5, 1.0),
        (status(429, retry_after=5.0), 1, 5.0, 5.5),
        (status(429, retry_after=50.0), 1, 50.0, 51.0),
        (status(500, retry_after=5.0), 1, 5.0, 5.5),
    ],
)
def test_backoff_bounds(error: RequestError, retry_number: int, lowest: float, highest: float) -> None:
    """Full jitter; half jitter at twice the base when throttled; Retry-After is a floor plus 10 % or 1 s."""
    policy = RetryPolicy()
    assert backoff(policy, error, retry_number, Lowest()) == pytest.approx(lowest)
    assert backoff(policy, error, retry_number, Highest()) == pytest.approx(highest)


def test_jitter_is_uniform() -> None:
    """10,000 draws fill ten bins evenly."""
    policy, error, rng = RetryPolicy(), status(500), random.Random(5)
    bins = [0] * 10
    for _ in range(10_000):
        bins[int(backoff(policy, error, 1, rng) / 0.05)] += 1
    assert all(800 < count < 1200 for count in bins)


SENT = Delivery.REJECTED
UNSENT = Delivery.NOT_SENT
UNKNOWN = Delivery.UNKNOWN


@pytest.mark.parametrize(
    ("error", "sends", "policies"),
    [
        (NotSentError(), True, "NRA"),
        (TLSError(), True, ""),
        (DeadlineExceededError(), True, ""),
        (RateLimitError(delivery=UNSENT, local=True), True, ""),
        (status(429), True, "NRA"),
        (status(408, delivery=UNKNOWN), True, "RA"),
        (status(425), True, "RA"),
        (status(500), True, "RA"),
        (status(501), True, "RA"),
        (status(502, delivery=UNKNOWN), True, "RA"),
        (status(504, delivery=UNKNOWN), True, "RA"),
        (DisconnectedError(), True, "A"),
        (status(400), True, ""),
        (status(401), True, ""),
        (status(302, retry_after=1.0), True, ""),
        (status(303, delivery=UNKNOWN), True, ""),
        (status(500, delivery=UNSENT), True, "NRA"),  # the token endpoint's
        (status(429, delivery=UNSENT), True, "NRA"),
        (status(401, delivery=UNSENT), True, ""),
        (NotSentError(), False, "NRA"),
        (status(500), False, "NRA"),
        (status(503), False, "NRA"),
        (status(502, delivery=UNKNOWN), False, ""),
        (status(429), False, ""),
        (DisconnectedError(), False, ""),
    ],
    ids=repr,
)
def test_which_errors_are_retryable_under_each_policy(error: RequestError, sends: bool, policies: str) -> None:
    """Which errors are retried with which policy."""
    allowed = "".join(
        letter
        for letter, resend in (("N", Resend.NEVER_TWICE), ("R", Resend.REJECTED), ("A", Resend.AT_LEAST_ONCE))
        if is_retryable(error, sends=sends, resend=resend)
    )
    assert allowed == policies


async def test_a_sleep_that_would_cross_the_deadline_is_not_started() -> None:
    """The error is raised immediately, not when the time has run out."""
    run = Run(status(500), status(500), None, time_left=2.5)
    with pytest.raises(ServerError) as caught:
        await run(RetryPolicy(wait_initial=1.0))
    assert (run.slept, caught.value.retry_stopped_by) == ([1.0], "deadline")


async def test_a_call_whose_owner_stops_ends_with_its_last_error() -> None:
    """Without a wait, and without a withdrawal from the budget."""
    run = Run(status(500), None)
    run.is_allowed = False
    with pytest.raises(ServerError) as caught:
        await run(RetryPolicy())
    assert (run.slept, run.budget.tokens, caught.value.retry_stopped_by) == ([], 500, None)


@pytest.mark.parametrize(("requested", "stopped"), [(60.0, None), (60.1, "retry_after"), (1e20, "retry_after")])
async def test_a_retry_after_above_the_maximum_ends_the_call(requested: float, stopped: str | None) -> None:
    """`max_retry_after` is the longest wait that is accepted."""
    run = Run(status(429, retry_after=requested), None)
    if stopped is None:
        assert await run(RetryPolicy()) == "done"
    else:
        with pytest.raises(RateLimitError) as caught:
            await run(RetryPolicy())
        assert (caught.value.retry_stopped_by, caught.value.retry_after, run.slept) == (stopped, requested, [])


async def test_the_last_error_is_raised_without_a_wrapper() -> None:
    """The same instance is raised."""
    first, last = status(500), status(502)
    with pytest.raises(ServerError) as caught:
        await Run(first, last)(RetryPolicy(max_attempts=2))
    assert caught.value is last


async def test_a_cancellation_is_not_retried() -> None:
    """A cancelled attempt or sleep is not a failure to retry."""
    run = Run(status(500))

    async def cancelled() -> str:
        raise asyncio.CancelledError

    run.attempt = cancelled  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await run(RetryPolicy())
    assert len(run.slept) == 1


async def test_concurrent_calls_count_their_own_attempts() -> None:
    """100 concurrent calls, each with its own count: they do not share tenacity's state."""
    runs = [Run(*[status(500)] * (index % 4 + 1), None) for index in range(100)]
    results = await asyncio.gather(*(run(RetryPolicy(max_attempts=4)) for run in runs), return_exceptions=True)
    for index, (run, result) in enumerate(zip(runs, results, strict=True)):
        if index % 4 == 3:
            assert isinstance(result, ServerError)
            assert len(run.slept) == 3
        else:
            assert result == "done"
            assert len(run.slept) == index % 4 + 1
