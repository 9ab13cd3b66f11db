"""Other ways to handle an account's limit: two backoffs, botocore's adaptive rule, AIMD, and two queues."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from typing import TYPE_CHECKING, Protocol

from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.limits._token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bandwidth_mfa_async._validation import Lane

    Post = Callable[[], Awaitable[bool]]  # one attempt; False when it was rejected


class Way(Protocol):
    """Sends a message until it is accepted."""

    async def send(self, lane: Lane) -> None: ...


def _now() -> float:
    return asyncio.get_running_loop().time()


class Naive:
    """Full jitter with a doubling bound and no rate limit.

    As in the AWS blog's "Exponential Backoff And Jitter" (2015): 0.5 s doubling to 8 s, the defaults of our
    `RetryPolicy`, with unlimited tries.
    """

    def __init__(self, post: Post, seed: int) -> None:
        self._post = post
        self._rng = random.Random(seed)

    async def send(self, lane: Lane) -> None:
        del lane
        tries = 0
        while not await self._post():
            await asyncio.sleep(self._rng.uniform(0.0, min(8.0, 0.5 * 2.0 ** min(tries, 60))))
            tries += 1


class AiohttpRetry:
    """The default waits of aiohttp-retry's `ExponentialRetry`: 0.2 s after the first rejection, doubling to 30 s.

    https://github.com/inyutin/aiohttp_retry (retry_options.py). There is no jitter and no rate limit. Unlike there, it
    does not end after three attempts.
    """

    def __init__(self, post: Post) -> None:
        self._post = post

    async def send(self, lane: Lane) -> None:
        del lane
        tries = 0
        while not await self._post():
            tries += 1
            await asyncio.sleep(min(30.0, 0.1 * 2.0 ** min(tries, 60)))


class PollingBucket:
    """A bucket of one second of its rate that callers poll: there is no queue, so no order.

    The rule of `botocore.retries.bucket`: the first caller that polls when there are enough tokens takes them.
    """

    def __init__(self, rate: float) -> None:
        self._rate = max(rate, 0.5)
        self._level = 0.0
        self._stamp: float | None = None
        self._sleepers: deque[asyncio.Future[None]] = deque()

    @property
    def rate(self) -> float:
        return self._rate

    def set_rate(self, rate: float) -> None:
        self._fill()
        self._rate = max(rate, 0.5)
        self._level = min(self._level, max(rate, 1.0))
        while self._sleepers:  # one of them polls again at once
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                break

    async def acquire(self, weight: int = 1) -> None:
        self._fill()
        while (missing := weight - self._level) > 1e-9:
            sleeper = asyncio.get_running_loop().create_future()
            self._sleepers.append(sleeper)
            try:
                async with asyncio.timeout(max(missing / self._rate, 1e-5)):
                    await sleeper
            except TimeoutError:
                pass
            finally:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
            self._fill()
        self._level -= weight

    def _fill(self) -> None:
        now = _now()
        if self._stamp is not None:
            self._level = min(max(self._rate, 1.0), self._level + (now - self._stamp) * self._rate)
        self._stamp = now


class Reservations:
    """Assigns each caller a time when it asks, as several limiters on PyPI do; a cancelled caller's time is lost."""

    def __init__(self, rate: float) -> None:
        self._gap = 1.0 / rate
        self._next = -math.inf

    async def acquire(self, weight: int = 1) -> None:
        now = _now()
        mine = max(now, self._next)
        self._next = mine + weight * self._gap
        if mine > now:
            await asyncio.sleep(mine - now)


class BotocoreAdaptive:
    """The adaptive retry mode of botocore, reimplemented from its behaviour.

    https://github.com/boto/botocore/tree/develop/botocore/retries (adaptive.py, throttling.py, bucket.py,
    standard.py), a rate form of CUBIC (RFC 9438): a rejection sets the rate to 0.7 of the measured one; an acceptance
    lets it grow by ``0.4 * (t - k)**3`` around the rate at the last rejection, never beyond twice the measured rate,
    which is smoothed over half seconds. Off until the first rejection. A rejected request waits ``random() * 2**n`` s,
    at most 20, and then queues again. Unlike there, it is retried until it is accepted, and uses no retry quota.
    """

    def __init__(self, post: Post, seed: int) -> None:
        self._post = post
        self._rng = random.Random(seed)
        self._bucket: PollingBucket | None = None
        self._peak = 0.0
        self._plateau = 0.0
        self._failed_at = _now()
        self._measured = 0.0
        self._counted = 0
        self._slot = math.floor(self._failed_at)

    async def send(self, lane: Lane) -> None:
        del lane
        tries = 0
        while True:
            if self._bucket is not None:
                await self._bucket.acquire()
            accepted = await self._post()
            self._answered(accepted)
            if accepted:
                return
            await asyncio.sleep(min(20.0, self._rng.random() * 2.0 ** min(tries, 60)))
            tries += 1

    def _answered(self, accepted: bool) -> None:  # noqa: FBT001 - the only argument
        now = _now()
        self._measure(now)
        if accepted:
            rate = self._peak + 0.4 * (now - self._failed_at - self._plateau) ** 3
        else:
            if self._bucket is None:
                self._bucket = PollingBucket(1.0)
                self._peak = self._measured
            else:
                self._peak = min(self._measured, self._bucket.rate)
            self._plateau = (self._peak * 0.3 / 0.4) ** (1 / 3)
            self._failed_at = now
            rate = 0.7 * self._peak
        if self._bucket is not None:
            self._bucket.set_rate(min(rate, 2.0 * self._measured))

    def _measure(self, now: float) -> None:
        slot = math.floor(now * 2.0) / 2.0
        self._counted += 1
        if slot > self._slot:
            self._measured = 0.8 * self._counted / (slot - self._slot) + 0.2 * self._measured
            self._counted, self._slot = 0, slot


class Aimd:
    """Rises by 5/s per second and falls to 0.7 after a rejection, at most once per second; uses our token bucket.

    The rule is that of Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance"
    (1989), applied to a rate. It is no library's rule: 0.7 is the cut of CUBIC and botocore, and 5/s is our choice.

    Args:
        post: one attempt.
        ceiling: a known limit.
    """

    def __init__(self, post: Post, ceiling: float = math.inf) -> None:
        self._post = post
        self._ceiling = ceiling
        self._bucket = TokenBucket(SystemClock(), min(10.0, ceiling))
        self._grown_at = self._cut_at = _now()

    async def send(self, lane: Lane) -> None:
        while True:
            await self._bucket.acquire(1, lane)
            accepted = await self._post()
            now, rate = _now(), self._bucket.rate or 10.0
            if accepted:
                rate += 5.0 * (now - self._grown_at)
            elif now - self._cut_at >= 1.0:
                rate, self._cut_at = 0.7 * rate, now
            self._grown_at = now
            self._bucket.set_rate(min(max(rate, 0.05), self._ceiling))
            if accepted:
                return
