"""Callers of a permit queue that leave it or need five permits, and the cost of a permit."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Protocol

from bandwidth_mfa_async import Rate
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.limits import ChannelLimiter
from tests.support.limits_simulation import run_virtual

from ._rate_rivals import PollingBucket, Reservations

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

OURS, RESERVED, POLLED = "ours", "reservations", "botocore"


class Queue(Protocol):
    """Grants permits at a rate."""

    async def acquire(self, weight: int = 1) -> object: ...


def ours(rate: float | None) -> Queue:
    limit = None if rate is None else Rate(rate)
    return ChannelLimiter("messaging", rate=limit, adaptive=True, clock=SystemClock())


MAKERS: dict[str, Callable[[float], Queue]] = {OURS: ours, RESERVED: Reservations, POLLED: PollingBucket}


def _in_virtual_time(scenario: Callable[[Queue], Coroutine[object, object, float]], rate: float) -> dict[str, float]:
    async def run(make: Callable[[float], Queue]) -> float:
        return await scenario(make(rate))

    return {name: run_virtual(run(make)) for name, make in MAKERS.items()}


def half_cancelled(rate: float = 200.0, waiters: int = 500) -> dict[str, float]:
    """Return the survivors' rate as a share of the limit after half of the waiters were cancelled at random."""

    async def scenario(queue: Queue) -> float:
        loop = asyncio.get_running_loop()
        served: list[float] = []

        async def wait() -> None:
            await queue.acquire()
            served.append(loop.time())

        tasks = [asyncio.create_task(wait()) for _ in range(waiters)]
        await asyncio.sleep(0.1)
        began, before = loop.time(), len(served)
        waiting = [task for task in tasks if not task.done()]
        for task in random.Random(1).sample(waiting, len(waiting) // 2):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        left = sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert left + len(served) == waiters, "a waiter was neither granted nor cancelled"
        return (len(served) - before) / (served[-1] - began) / rate

    return _in_virtual_time(scenario, rate)


def random_timeouts(rate: float = 200.0, waiters: int = 100, seconds: float = 10.0) -> dict[str, float]:
    """Return the rate of 100 waiters that time out after 1 to 300 ms and retry, as a share of the limit."""

    async def scenario(queue: Queue) -> float:
        loop = asyncio.get_running_loop()
        rng = random.Random(1)
        served: list[float] = []
        start = loop.time()

        async def wait() -> None:
            while True:
                try:
                    async with asyncio.timeout(rng.uniform(0.001, 0.3)):
                        await queue.acquire()
                except TimeoutError:
                    continue
                served.append(loop.time() - start)

        tasks = [asyncio.create_task(wait()) for _ in range(waiters)]
        await asyncio.sleep(1.0 + seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The first second includes the initial burst.
        return sum(at >= 1.0 for at in served) / seconds / rate

    return _in_virtual_time(scenario, rate)


def heavy_among_light(rate: float = 100.0, waiters: int = 100) -> dict[str, float]:
    """Return the wait of a weight of 5 among 100 looping callers of weight 1, as a multiple of its fair wait.

    The fair wait is that of its place in the queue: (100 + 5) / rate.
    """

    async def scenario(queue: Queue) -> float:
        loop = asyncio.get_running_loop()

        async def light() -> None:
            while True:
                await queue.acquire()

        tasks = [asyncio.create_task(light()) for _ in range(waiters)]
        await asyncio.sleep(2.0)
        began = loop.time()
        fair = (waiters + 5) / rate
        try:
            async with asyncio.timeout(30.0 * fair):
                await queue.acquire(5)
        except TimeoutError:
            return float("inf")
        finally:
            waited = loop.time() - began
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return waited / fair

    return _in_virtual_time(scenario, rate)


def cost_of_a_permit(rounds: int = 5, permits: int = 50_000) -> dict[str, dict[str, float]]:
    """Return microseconds of CPU (the best round) of an acquire that does not wait, alone and with its outcome."""

    async def acquire(make: Callable[[], Queue]) -> float:
        queue = make()
        for _ in range(100):
            await queue.acquire()
        began = time.process_time()
        for _ in range(permits):
            await queue.acquire()
        return (time.process_time() - began) / permits * 1e6

    async def with_outcome() -> float:
        limiter = ChannelLimiter("messaging", rate=None, adaptive=True, clock=SystemClock())
        began = time.process_time()
        for _ in range(permits):
            limiter.accepted(await limiter.acquire(1, "bulk"))
        return (time.process_time() - began) / permits * 1e6

    makers: dict[str, Callable[[], Queue]] = {
        OURS: lambda: ours(None),
        RESERVED: lambda: Reservations(1e9),
        POLLED: lambda: PollingBucket(1e9),
    }
    unlimited = {name: float("inf") for name in makers}
    both = ceiling = float("inf")
    for _ in range(rounds):
        for name, make in makers.items():
            unlimited[name] = min(unlimited[name], asyncio.run(acquire(make)))
        both = min(both, asyncio.run(with_outcome()))
        ceiling = min(ceiling, asyncio.run(acquire(lambda: ours(1e9))))
    return {"not limited": unlimited, "with its outcome": {OURS: both}, "a limit far away": {OURS: ceiling}}
