"""The real script in a real Redis, told the time instead of asking for it."""

from __future__ import annotations

import asyncio

from bandwidth_mfa_async._redis._script import Script
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits

EPOCH = 1_750_000_000


class VirtualScript:
    """Runs the script at a given time."""

    def __init__(self, server):
        text = RedisLimits(server.url, key="any")._script.text
        asks = "redis.call('TIME')"
        assert text.count(asks) == 1
        self.client = server.client()
        self.script = self.client.register_script(text.replace(asks, "{ARGV[19], ARGV[20]}"))
        self.key = "{account}"
        self.calls = 0

    def __call__(self, now, arguments):
        self.calls += 1
        micros = round((EPOCH + now) * 1_000_000)
        return self.script(
            keys=[self.key, self.key + ":waiting"], args=[*arguments, str(micros // 1_000_000), str(micros % 1_000_000)]
        )


class VirtualStore:
    """A `LimitStore` that takes no time, or as long as a network's round trip."""

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


class VirtualRedisLimits(RedisLimits):
    """Real connections to a real Redis, on a virtual loop: to Redis's time the script adds what the loop skipped.

    While an answer is on its way nothing is skipped, so that a busy machine's Redis is not called away.
    """

    def __init__(self, url, **options):
        super().__init__(url, **options)
        asks = "redis.call('TIME')"
        assert self._script.text.count(asks) == 1
        later = f"(function() local now = {asks} return {{now[1] + ARGV[19], now[2]}} end)()"
        self._script = Script(self._script.text.replace(asks, later))

    def _store(self, *arguments):
        store = super()._store(*arguments)
        exchange = store.exchange

        async def told(report):
            loop = asyncio.get_running_loop()
            loop.executor_jobs += 1
            try:
                return await exchange([*report, repr(loop.skipped)])
            finally:
                loop.executor_jobs -= 1

        store.exchange = told
        return store
