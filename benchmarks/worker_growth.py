"""Redis cost of a code and of an idle worker, by the pace of each worker, and a projection to many workers.

Run: python -m benchmarks.worker_growth [--quick] [--json]
The `MFAWorker`s run in this process with the real scripts of the ledger and of the shared limit, against a real Redis;
only the HTTP requests are simulated. The measurements cover Redis, for which it does not matter in which process the
workers run. They are projected to a thousand workers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import tempfile
import time
from typing import TYPE_CHECKING, Any

from taskiq import AsyncBroker, InMemoryBroker

from bandwidth_mfa_async import CodeTemplate, Limits, Rate, RedisLimits
from bandwidth_mfa_async.testing import FakeTransport
from bandwidth_mfa_async.worker import MFAWorker
from tests.support.redis_server import RedisServer
from tests.support.worker_processes import numbers

from .worker_cost import cpu_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from taskiq import BrokerMessage

    from bandwidth_mfa_async import MFAClient

LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
ACCOUNT = "9900000"
# Workers, and codes per second that they send together.
PACES = ((4, 1_200), (20, 1_000), (80, 800))
IDLE = 100
# Codes per second and numbers of workers of the projection.
CODES = 10_000
SIZES = (10, 100, 1_000)


class SilentBroker(AsyncBroker):
    """A queue that loses every message: the workers poll the ledger."""

    async def kick(self, message: BrokerMessage) -> None:
        pass

    async def listen(self) -> AsyncGenerator[bytes, None]:
        return
        yield b""


def client(url: str, rate: int) -> MFAClient:
    limits = Limits(rate=Rate(rate), shared=RedisLimits(url, key=ACCOUNT))
    return FakeTransport().client(limits=limits)


@contextlib.asynccontextmanager
async def workers(redis: RedisServer, count: int, rate: int) -> AsyncIterator[None]:
    started = []
    for _ in range(count):
        broker = InMemoryBroker()
        worker = MFAWorker(broker, ledger=redis.url, client=lambda: client(redis.url, rate), share_limits=False)
        await broker.startup()
        started.append((broker, worker))
    try:
        yield
    finally:
        for broker, worker in started:
            await broker.shutdown()
            await worker.aclose()


async def counted(redis: RedisServer, seconds: float) -> dict[str, float]:
    """Return what Redis did in so many seconds."""
    from redis.asyncio import Redis as Client

    assert redis.process is not None
    async with Client.from_url(redis.url) as stats_client:
        before, spent, began = await stats_client.info("stats"), cpu_of(redis.process.pid), time.monotonic()
        calls = await stats_client.info("commandstats")
        await asyncio.sleep(seconds)
        after, spent = await stats_client.info("stats"), cpu_of(redis.process.pid) - spent
        later = await stats_client.info("commandstats")
    scripts = ("cmdstat_evalsha", "cmdstat_eval")

    def number(found: dict[str, Any]) -> int:
        return sum(found.get(name, {}).get("calls", 0) for name in scripts)

    wire = ("total_net_input_bytes", "total_net_output_bytes")
    return {
        "seconds": time.monotonic() - began,
        "cpu": spent,
        "scripts": number(later) - number(calls),
        "bytes": sum(after[name] - before[name] for name in wire),
    }


async def busy(count: int, rate: int, seconds: float, folder: pathlib.Path) -> dict[str, float]:
    """Let workers send at a rate, and return what a code cost Redis."""
    redis = RedisServer(tempfile.mkdtemp(dir=folder))
    try:
        items = round(rate * (2 * seconds + 10))
        async with MFAWorker(SilentBroker(), ledger=redis.url, client=lambda: client(redis.url, rate)) as codes:
            job = await codes.submit(numbers(items), name="growth", chunk=100, template=LOGIN)
            async with workers(redis, count, rate):
                while (await job.progress()).accepted < rate:  # noqa: ASYNC110 - until every worker sends
                    await asyncio.sleep(0.1)
                first = (await job.progress()).accepted
                found = await counted(redis, seconds)
                done = (await job.progress()).accepted - first
                await job.cancel()
        return {
            "workers": count,
            "codes a second, all": round(done / found["seconds"]),
            "codes a second, each": round(done / found["seconds"] / count, 1),
            "redis, us a code": round(found["cpu"] / done * 1e6, 1),
            "script calls a code": round(found["scripts"] / done, 2),
            "bytes over the wire a code": round(found["bytes"] / done),
        }
    finally:
        redis.kill()


async def idle(count: int, seconds: float, folder: pathlib.Path) -> dict[str, float]:
    """Let workers wait for work, and return what each of them costs Redis."""
    redis = RedisServer(tempfile.mkdtemp(dir=folder))
    try:
        async with workers(redis, count, 1_000):
            await asyncio.sleep(1.0)
            found = await counted(redis, seconds)
        share = found["seconds"] * count
        return {
            "workers": count,
            "redis, us a second each": round(found["cpu"] / share * 1e6, 1),
            "script calls a second each": round(found["scripts"] / share, 2),
            "bytes a second each": round(found["bytes"] / share),
        }
    finally:
        redis.kill()


def cost_at(pace: float, measured: list[dict[str, float]], name: str) -> float:
    """Return the cost per code at a pace: that of the nearest measured pace, on a logarithmic scale."""
    nearest = min(measured, key=lambda one: abs(_log(one["codes a second, each"]) - _log(pace)))
    return nearest[name]


def _log(value: float) -> float:
    from math import log

    return log(max(value, 1e-6))


def projected(measured: list[dict[str, float]], waiting: dict[str, float]) -> dict[str, Any]:
    """Return the load of one Redis by number of workers, and the codes per second that it can carry."""
    found: dict[str, Any] = {}
    for size in SIZES:
        each = CODES / size
        code, own = cost_at(each, measured, "redis, us a code"), size * waiting["redis, us a second each"]
        found[f"{size:,} workers"] = {
            "codes a second each": each,
            "cores of Redis": round((CODES * code + own) / 1e6, 2),
            "megabits a second": round(CODES * cost_at(each, measured, "bytes over the wire a code") * 8 / 1e6, 1),
            "codes a second at one core": round(max(0.0, 1e6 - own) / code) if code else None,
        }
    return found


async def run(seconds: float, folder: pathlib.Path) -> dict[str, Any]:
    measured = [await busy(count, rate, seconds, folder) for count, rate in PACES]
    waiting = await idle(IDLE, seconds, folder)
    return {
        "measured": measured,
        "idle": waiting,
        f"projected to {CODES:,} codes a second": projected(measured, waiting),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seconds each instead of ten")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    os.environ |= {"BW_ACCOUNT_ID": ACCOUNT, "BW_USERNAME": "user", "BW_PASSWORD": "pass"}
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(run(2.0 if options.quick else 10.0, pathlib.Path(name)))
    if options.as_json:
        print(json.dumps(found))
        return
    for one in found.pop("measured"):
        print(one)
    for fact, value in found.items():
        print(f"{fact}:")
        for key, inner in value.items():
            print(f"  {key}: {inner}")


if __name__ == "__main__":
    main()
