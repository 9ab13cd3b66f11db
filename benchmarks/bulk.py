"""CPU of a bulk run compared with a bare gather over aiohttp, the cost of its journal, memory by size, and resume.

Run: python -m benchmarks.bulk [--quick] [--json] [--only cost,memory,resume] [--items N]
The server is another process that answers at once. Ratios compare alternating rounds of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from bandwidth_mfa_async import BasicAuth, BulkSender, CodeTemplate, Delivery, Limits, MFAClient
from tests.support import processes

from ._server import serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MESSAGE = "Your {NAME} {SCOPE} code is {CODE}"
BASIC = "Basic " + base64.b64encode(b"user:pass").decode()
LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
IN_FLIGHT = 100
TARGETS = {
    "cpu, with journal / bare gather": 1.25,
    "calls a second, with journal / without": 0.90,
    "peak memory, most items / 10,000": 1.10,
}


def numbers(count: int) -> Iterator[str]:
    return (f"+1{index:010}" for index in range(count))


def client(port: int) -> MFAClient:
    # The server has no limit, so an adaptive limiter would only add waits until it finds out.
    return MFAClient(
        "9900000",
        BasicAuth("user", "pass"),
        base_url=f"http://127.0.0.1:{port}/api/v1",
        limits=Limits(adaptive=False, max_in_flight=IN_FLIGHT),
    )


async def gathered(port: int, count: int, _folder: pathlib.Path) -> None:
    """The usual handwritten code: a semaphore and one task for each item."""
    url = f"http://127.0.0.1:{port}/api/v1/accounts/9900000/code/messaging"
    fields = {"from": LOGIN.from_, "applicationId": LOGIN.application_id, "scope": "login"}
    fields |= {"message": MESSAGE, "digits": 6}
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession(headers={"Authorization": BASIC}) as session:

        async def send(to: str) -> str:
            async with slots, session.post(url, json={"to": to, **fields}) as response:
                response.raise_for_status()
                return str((await response.json())["messageId"])

        ids = await asyncio.gather(*(send(to) for to in numbers(count)))
    assert len(ids) == count


async def _bulk(port: int, count: int, journal: pathlib.Path | None) -> dict[str, int]:
    async with client(port) as mfa, BulkSender(mfa, journal=journal) as bulk:
        async for outcome in bulk.send(numbers(count), template=LOGIN):
            assert outcome.delivery in {Delivery.ACCEPTED, Delivery.SKIPPED}, outcome
    assert bulk.summary.done == count
    return {"accepted": bulk.summary.accepted, "skipped": bulk.summary.skipped}


async def without_journal(port: int, count: int, _folder: pathlib.Path) -> None:
    """`BulkSender` without a journal."""
    await _bulk(port, count, None)


async def with_journal(port: int, count: int, folder: pathlib.Path) -> None:
    """`BulkSender` with a `SQLiteJournal` on this machine's disk."""
    await _bulk(port, count, folder / f"{time.monotonic_ns()}.db")


WAYS: dict[str, Callable[[int, int, pathlib.Path], Awaitable[None]]] = {
    "bare gather over aiohttp": gathered,
    "bulk without journal": without_journal,
    "bulk with journal": with_journal,
}


def cost(port: int, items: int, rounds: int, folder: pathlib.Path) -> dict[str, Any]:
    """Alternate the ways in short rounds, forwards and backwards; a ratio is the median of those within a round.

    The pace of a shared machine changes from second to second, so compared ways must run within seconds.
    """
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    wall: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name, way in list(WAYS.items())[:: -1 if turn % 2 else 1]:
            gc.collect()
            began, spent = time.perf_counter(), time.process_time()
            asyncio.run(way(port, items, folder))
            cpu[name].append((time.process_time() - spent) / items * 1e6)
            wall[name].append((time.perf_counter() - began) / items * 1e6)

    def ratio(measured: dict[str, list[float]], one: str, other: str) -> float:
        pairs = zip(measured[one], measured[other], strict=True)
        return round(statistics.median(first / second for first, second in pairs), 3)

    gathering, without, with_ = WAYS
    return {
        "us of CPU an item": {name: round(statistics.median(values), 1) for name, values in cpu.items()},
        "items a second": {name: round(1e6 / statistics.median(values)) for name, values in wall.items()},
        "cpu, with journal / bare gather": ratio(cpu, with_, gathering),
        "cpu, without journal / bare gather": ratio(cpu, without, gathering),
        "calls a second, with journal / without": ratio(wall, without, with_),
        "calls a second, with journal / bare gather": ratio(wall, gathering, with_),
    }


def peak(port: int, items: int, folder: pathlib.Path) -> dict[str, Any]:
    """Run in a new process and return its counts, seconds and peak memory in KiB."""
    command = [sys.executable, "-m", "benchmarks.bulk", "--child", str(port), str(items), str(folder / f"{items}.db")]
    done = processes.run(command, timeout=None, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def child(port: int, items: int, journal: str) -> None:
    began = time.perf_counter()
    counts = asyncio.run(_bulk(port, items, pathlib.Path(journal)))
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**counts, "peak_kib": kib, "seconds": round(time.perf_counter() - began, 2)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer items and rounds")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--only", default="cost,memory,resume")
    parser.add_argument("--items", type=int, help="the largest number of items in the memory part")
    parser.add_argument("--child", nargs=3, metavar=("PORT", "ITEMS", "JOURNAL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), int(options.child[1]), options.child[2])
        return
    wanted = set(options.only.split(","))
    results: dict[str, Any] = {}
    with serving() as (name, port), tempfile.TemporaryDirectory() as path:
        results["server"] = name
        folder = pathlib.Path(path)
        if "cost" in wanted:
            results |= cost(port, 4_000 if options.quick else 10_000, 5 if options.quick else 15, folder)
        largest = options.items or (20_000 if options.quick else 100_000)
        if wanted & {"memory", "resume"}:
            runs = {size: peak(port, size, folder) for size in sorted({10_000, min(100_000, largest), largest})}
            small, large = runs[10_000], runs[largest]
            results["peak memory, MiB"] = {f"{n:,}": round(run["peak_kib"] / 1024, 1) for n, run in runs.items()}
            results["codes a second"] = {f"{n:,}": round(n / run["seconds"]) for n, run in runs.items()}
            results["peak memory, most items / 10,000"] = round(large["peak_kib"] / small["peak_kib"], 3)
            again = peak(port, largest, folder)
            assert again["skipped"] == largest, again
            results["seconds to send, then to find all of it done"] = [large["seconds"], again["seconds"]]
    if options.as_json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        target = f"   (target {TARGETS[name]})" if name in TARGETS else ""
        print(f"{name}: {value}{target}")


if __name__ == "__main__":
    main()
