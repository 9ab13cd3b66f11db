"""The real script in a real Redis, with the time as an argument."""

from __future__ import annotations

import asyncio

from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async._redis._script import Script
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from bandwidth_mfa_async.limits.shared._shared_limiter import SharedLimiter

EPOCH = 1_750_000_000


class VirtualScript:
    """Runs the script at a given time."""

    def __init__(self, server):
        text = RedisLimits(server.url, key="any")._script.text
        asks = "redis.call('TIME')"
        assert text.count(asks) == 1
        self.client = server.client()
        self.script = self.client.register_script(text.replace(asks, "{ARGV[#ARGV - 1], ARGV[#ARGV]}"))
        self.key = "{account}"
        self.calls = 0

    def __call__(self, now, arguments):
        self.calls += 1
        micros = round((EPOCH + now) * 1_000_000)
        return self.script(
            keys=[self.key, self.key + ":waiting"], args=[*arguments, str(micros // 1_000_000), str(micros % 1_000_000)]
        )


class VirtualStore:
    """A `LimitStore` with the latency `trip`."""

    def __init__(self, script, trip=0.001):
        self.script = script
        self.trip = trip

    async def exchange(self, arguments):
        await asyncio.sleep(self.trip / 2)
        answer = self.script(asyncio.get_running_loop().time(), arguments)
        await asyncio.sleep(self.trip / 2)
        return answer

    async def aclose(self):
        pass


def virtual_limiter(script, rate=None):
    """Return the limiter of one process; those with the same script share their state."""
    return SharedLimiter(
        "messaging",
        store=VirtualStore(script),
        rate=rate,
        adaptive=True,
        clock=SystemClock(),
        emit=None,
        max_pause=60.0,
        fallback_rate=None,
        expires=3600,
    )


class VirtualRedisLimits(RedisLimits):
    """Real connections to a real Redis on a virtual loop: the script adds the loop's skipped time to Redis's time.

    No time is skipped while an answer is pending, so a slow Redis on a busy machine causes no timeout.
    """

    def __init__(self, url, **options):
        super().__init__(url, **options)
        asks = "redis.call('TIME')"
        assert self._script.text.count(asks) == 1
        later = f"(function() local now = {asks} return {{now[1] + ARGV[#ARGV], now[2]}} end)()"
        self._script = Script(self._script.text.replace(asks, later))

    def _store(self, *arguments):
        store = super()._store(*arguments)
        exchange = store.exchange

        async def with_skipped_time(report):
            loop = asyncio.get_running_loop()
            loop.executor_jobs += 1
            try:
                return await exchange([*report, repr(loop.skipped)])
            finally:
                loop.executor_jobs -= 1

        store.exchange = with_skipped_time
        return store
