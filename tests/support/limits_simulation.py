"""A virtual-time simulation for limiters: a loop whose time jumps, server models, and a closed loop of callers."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque

from attrs import Factory, define

from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.limits import ChannelLimiter

REJECTION_TRIP = 0.035
ROUND_TRIP = 0.090


class _JumpingSelector(selectors.DefaultSelector):
    """Advances the loop's time instead of waiting."""

    def __init__(self):
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs timers in order without waiting for them."""

    def __init__(self):
        self._jumper = _JumpingSelector()
        super().__init__(self._jumper)

    def time(self):
        return self._jumper.now


def run_virtual(coroutine):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


class TokenBucket:
    def __init__(self, rate, seconds=1.0):
        self.rate, self.seconds = rate, seconds
        self.level, self.stamp = rate * seconds, None

    def take(self, now, weight):
        size = max(1.0, self.rate * self.seconds)
        elapsed = 0.0 if self.stamp is None else now - self.stamp
        self.level, self.stamp = min(size, self.level + elapsed * self.rate), now
        if self.level < weight:
            return False
        self.level -= weight
        return True


class FixedWindow:
    def __init__(self, rate, length=1.0):
        self.rate, self.length = rate, length
        self.window, self.used = None, 0

    def take(self, now, weight):
        if (window := now // self.length) != self.window:
            self.window, self.used = window, 0
        if self.used + weight > self.rate * self.length:
            return False
        self.used += weight
        return True

    def retry_after(self, now):
        return self.length - now % self.length


class SlidingLog:
    def __init__(self, rate, length=1.0):
        self.rate, self.length = rate, length
        self.log = deque()

    def take(self, now, weight):
        while self.log and self.log[0] <= now - self.length:
            self.log.popleft()
        if len(self.log) + weight > self.rate * self.length:
            return False
        self.log.extend([now] * weight)
        return True


class AccountQueue:
    """Accepts messages into a queue that drains at the rate."""

    def __init__(self, rate, size=200):
        self.rate, self.size = rate, size
        self.length, self.stamp = 0.0, None
        self.longest = 0.0

    def take(self, now, weight):
        elapsed = 0.0 if self.stamp is None else now - self.stamp
        self.length, self.stamp = max(0.0, self.length - elapsed * self.rate), now
        if self.length + weight > self.size:
            return False
        self.length += weight
        self.longest = max(self.longest, self.length / self.rate)
        return True


@define
class Tally:
    """What the closed loop observed; times are in virtual seconds."""

    accepted: list[float] = Factory(list)
    rejected: list[float] = Factory(list)
    interactive: list[tuple[float, float]] = Factory(list)

    def goodput(self, start, end):
        return sum(start <= at < end for at in self.accepted) / (end - start)

    def rejected_share(self, start, end):
        rejected = sum(start <= at < end for at in self.rejected)
        accepted = sum(start <= at < end for at in self.accepted)
        return rejected / max(1, rejected + accepted)

    def time_to(self, rate, start, window=2.0):
        """Return the seconds from `start` until a window of 2 s first reaches `rate`."""
        seen = sorted(at for at in self.accepted if at >= start)
        first = 0
        for last, at in enumerate(seen):
            while seen[first] < at - window:
                first += 1
            if (last - first + 1) / window >= rate:
                return at - start
        return float("inf")

    def p99(self, phases):
        waits = sorted(wait for at, wait in self.interactive if any(a <= at < b for a, b in phases))
        return waits[int(0.99 * (len(waits) - 1))]


async def closed_loop(
    server, steps, *, until, workers=50, per_second=2.0, seed=1, limiter=None, rate=None, retry_after=None
):
    """Run bulk workers and interactive sends against a server whose rate changes; return the tally.

    `steps` are pairs of a time in seconds and the rate from then on. `retry_after` is called with the time of a
    rejection and returns its Retry-After.
    """
    loop = asyncio.get_running_loop()
    rng = random.Random(seed)
    tally = Tally()
    clock = SystemClock()
    limiter = limiter or ChannelLimiter("messaging", rate=rate, adaptive=True, clock=clock)
    start = loop.time()

    async def send(lane):
        began = loop.time()
        while True:
            permit = await limiter.acquire(1, lane)
            await asyncio.sleep(REJECTION_TRIP * rng.uniform(0.45, 0.55))
            now = loop.time()
            if server.take(now, 1):
                await asyncio.sleep((ROUND_TRIP - REJECTION_TRIP / 2) * rng.uniform(0.9, 1.1))
                limiter.accepted(permit)
                tally.accepted.append(now - start)
                if lane == "interactive":
                    tally.interactive.append((began - start, loop.time() - began))
                return
            await asyncio.sleep(REJECTION_TRIP / 2)
            tally.rejected.append(now - start)
            limiter.rejected(permit, None if retry_after is None else retry_after(now))

    async def worker():
        while True:
            await send("bulk")

    async def interactive(group):
        while True:
            await asyncio.sleep(rng.expovariate(per_second))
            group.create_task(send("interactive"))

    async def change():
        for at, value in steps:
            await asyncio.sleep(start + at - loop.time())
            server.rate = value

    try:
        async with asyncio.timeout_at(start + until), asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
            group.create_task(interactive(group))
            group.create_task(change())
    except TimeoutError:
        pass
    return tally
