"""CPU per code through a worker, compared with a local bulk run with a journal; Redis operations and memory.

Run: python -m benchmarks.worker_cost [--items 20000] [--rounds 3] [--processes 1,2,4] [--keys 1000000] [--json]
The service is another process that answers at once, and there is no rate limit. Ratios compare alternating rounds of
one run. A worker's CPU is that of its process: taskiq, ledger and client together. The CPU of Redis is separate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import BulkSender, CodeTemplate, Limits, MFAClient
from tests.support import processes
from tests.support.redis_server import RedisServer
from tests.support.worker_processes import Workers, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = 1.35
LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


def local_bulk(port: int, items: int, folder: pathlib.Path) -> None:
    """Send through a local bulk run with a journal, and print its CPU seconds."""

    async def send() -> None:
        mfa = MFAClient.from_env(limits=Limits(adaptive=False, max_in_flight=50))
        async with mfa, BulkSender(mfa, journal=folder / f"{time.monotonic_ns()}.db") as bulk:
            async for _ in bulk.send(numbers(items), template=LOGIN):
                pass
        assert bulk.summary.accepted == items, bulk.summary

    os.environ["BW_MFA_URL"] = f"http://127.0.0.1:{port}/api/v1"
    import uvloop  # as taskiq's workers do if it is installed

    began = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send())
    print(json.dumps({"cpu": time.process_time() - began}))


def cpu_of(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def through_workers(port: int, items: int, processes: int, folder: pathlib.Path) -> dict[str, float]:
    """Send through workers, and return what it cost a code."""
    redis = RedisServer(tempfile.mkdtemp(dir=folder))
    environment = os.environ | {
        "BW_MFA_URL": f"http://127.0.0.1:{port}/api/v1",
        "WORKER_REDIS": redis.url,
        "WORKER_ADAPTIVE": "0",
        "WORKER_LEASE": "30",
    }
    workers = Workers(processes, environment, folder / "workers.log")
    from redis.asyncio import Redis as Client
    from taskiq_redis import RedisStreamBroker

    from bandwidth_mfa_async.worker import MFAWorker

    try:
        async with (
            MFAWorker(RedisStreamBroker(redis.url), ledger=redis.url, client=MFAClient.from_env) as codes,
            Client.from_url(redis.url) as client,
        ):
            job = await codes.submit(numbers(items), name="cost", template=LOGIN)
            for place in range(processes):
                await workers.start(place)
            while (await job.progress()).accepted < items // 10:  # noqa: ASYNC110 - another process works
                await asyncio.sleep(0.01)
            pids = [process.pid for process in workers.processes if process is not None]
            redis_pid = redis.process.pid if redis.process is not None else 0
            first = await job.progress()
            began, spent, kept = time.monotonic(), sum(map(cpu_of, pids)), cpu_of(redis_pid)
            commands = (await client.info("stats"))["total_commands_processed"]
            while (await job.progress()).accepted < items:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.05)
            done = items - first.accepted
            stats = await client.info("stats")
            return {
                "worker, us a code": round((sum(map(cpu_of, pids)) - spent) / done * 1e6, 1),
                "redis, us a code": round((cpu_of(redis_pid) - kept) / done * 1e6, 1),
                "codes a second": round(done / (time.monotonic() - began)),
                "redis commands a code, those in scripts included": round(
                    (stats["total_commands_processed"] - commands) / done, 3
                ),
                "bytes over the wire a code": round(
                    (stats["total_net_input_bytes"] + stats["total_net_output_bytes"]) / items
                ),
            }
    finally:
        await workers.end()
        redis.kill()


def scattered_numbers(count: int) -> Iterator[str]:
    """Yield numbers in an order that does not compress well."""
    return (f"+1{index * 6_364_136_223 % 10**10:010}" for index in range(count))


async def memory(keys: int, folder: pathlib.Path) -> dict[str, Any]:
    """Submit a job of many keys, and return what it weighs, before anything of it is sent."""
    redis = RedisServer(tempfile.mkdtemp(dir=folder))
    from redis.asyncio import Redis as Client
    from taskiq_redis import RedisStreamBroker

    from bandwidth_mfa_async.worker import MFAWorker

    try:
        async with (
            MFAWorker(RedisStreamBroker(redis.url), ledger=redis.url, client=MFAClient.from_env) as codes,
            Client.from_url(redis.url) as client,
        ):
            before = (await client.info("memory"))["used_memory"]
            began = time.monotonic()
            job = await codes.submit(scattered_numbers(keys), name="large", template=LOGIN)
            seconds = time.monotonic() - began
            began = time.perf_counter()
            for _ in range(100):
                await job.progress()
            per_count = (time.perf_counter() - began) / 100
            return {
                "keys": keys,
                "redis, bytes a key": round(((await client.info("memory"))["used_memory"] - before) / keys, 1),
                "keys submitted a second": round(keys / seconds),
                "peak memory of who submits, MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "ms for the counts": round(per_count * 1e3, 2),
            }
    finally:
        redis.kill()


def run(options: argparse.Namespace, port: int, folder: pathlib.Path) -> dict[str, Any]:
    local: list[float] = []
    found: dict[int, list[dict[str, float]]] = {count: [] for count in options.processes}
    for _ in range(options.rounds):
        command = [sys.executable, "-m", "benchmarks.worker_cost", "--child", str(port), str(options.items)]
        done = processes.run([*command, str(folder)], timeout=None, capture_output=True, text=True, check=True)
        local.append(json.loads(done.stdout)["cpu"] / options.items * 1e6)
        for count in options.processes:
            found[count].append(asyncio.run(through_workers(port, options.items, count, folder)))
    bulk = sorted(local)[len(local) // 2]
    results: dict[str, Any] = {"local bulk, us a code": round(bulk, 1)}
    for count, rounds in found.items():
        median = {name: sorted(one[name] for one in rounds)[len(rounds) // 2] for name in rounds[0]}
        results[f"{count} worker{'s' if count > 1 else ''}"] = median
        if count == 1:
            results["cpu, worker / local bulk"] = round(median["worker, us a code"] / bulk, 3)
    if options.keys:
        results["a large job"] = asyncio.run(memory(options.keys, folder))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", default="1,2,4", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys of the large job; 0 for none")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ |= {"BW_ACCOUNT_ID": "9900000", "BW_USERNAME": "user", "BW_PASSWORD": "pass"}
    if options.child:
        port, items, name = options.child
        local_bulk(int(port), int(items), pathlib.Path(name))
        return
    command = [sys.executable, "-m", "benchmarks._server"]
    with processes.running(command, stdout=processes.PIPE, text=True) as server, tempfile.TemporaryDirectory() as name:
        assert server.stdout is not None
        results = run(options, int(server.stdout.readline()), pathlib.Path(name))
    if options.as_json:
        print(json.dumps(results))
        return
    for fact, value in results.items():
        print(f"{fact}: {value}" + (f"   (target {TARGET})" if fact.startswith("cpu") else ""))


if __name__ == "__main__":
    main()
