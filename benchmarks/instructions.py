"""Machine instructions of one call, one bulk item with a journal and one job item, counted by valgrind.

Run: python -m benchmarks.instructions [--package-dir DIR] [--only PART ...] [--rounds N] [--json]
To compare two versions, run this script once for each checkout with `--package-dir`, in the same Python environment.
The HTTP server and redis-server are separate processes and are not counted. Each part runs with two sizes, and the
difference is divided by the additional items, so that start-up cancels. The event loop runs on virtual time, so that
the size of batches does not depend on the speed of the machine. Two runs differ by about 0.1 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
import pathlib
import re
import selectors
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from bandwidth_mfa_async import MFAClient

ROOT = pathlib.Path(__file__).resolve().parent.parent
VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
TIMEOUT = 1200.0  # for one checkout
IN_FLIGHT = 32
WARM_UP = 64  # items of each part before anything is counted
SMALL, LARGE = 200, 1200  # a job has chunks of 500, so the difference is two chunks
# Virtual seconds of one step of the event loop and of each of its events, and of one transaction of the journal.
STEP, DISK = 50e-6, 2e-3
# Real seconds in which the servers can answer: before each step, and before a timer that is due sooner.
PAUSE, PATIENCE = 0.005, 0.02


class VirtualTime(selectors.DefaultSelector):
    """Time counted in steps of the event loop: valgrind slows the program down, but not the real clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        time.sleep(PAUSE)
        is_timer = timeout is not None and timeout > 0
        events = super().select(max(timeout or 0, PATIENCE) if is_timer else timeout)
        if is_timer and not events:
            self.now += timeout or 0
        self.now += STEP * (1 + len(events))
        return events


class Loop(asyncio.SelectorEventLoop):
    """An event loop on virtual time. It does the work of executors itself, and delivers the result a little later."""

    def __init__(self) -> None:
        self.virtual = VirtualTime()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            deliver, value = future.set_result, func(*args)
        except Exception as error:  # noqa: BLE001 - the future carries it
            deliver, value = future.set_exception, error
        self.call_later(DISK, lambda: future.done() or deliver(value))
        return future


class Place(NamedTuple):
    """The URLs of the servers, and a directory for files."""

    http: str
    redis: str
    folder: str

    def client(self) -> MFAClient:
        # The package is imported in the measured process only, from the directory that is measured.
        from bandwidth_mfa_async import BasicAuth, MFAClient

        return MFAClient("9900000", BasicAuth("user", "pass"), base_url=self.http)


def inputs(count: int) -> tuple[Any, Iterator[str]]:
    from bandwidth_mfa_async import CodeTemplate

    template = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
    return template, (f"+1{index:010}" for index in range(count))


async def calls(count: int, place: Place) -> None:
    template, numbers = inputs(count)

    async def work(mfa: MFAClient) -> None:
        for number in numbers:
            await mfa.generate_messaging_code(template.to(number))

    async with place.client() as mfa:
        await asyncio.gather(*(work(mfa) for _ in range(IN_FLIGHT)))


async def bulk(count: int, place: Place) -> None:
    from bandwidth_mfa_async import BulkSender

    template, numbers = inputs(count)
    journal = pathlib.Path(place.folder) / f"{os.getpid()}.db"
    async with place.client() as mfa, BulkSender(mfa, journal=journal) as sender:
        async for _ in sender.send(numbers, template=template):
            pass
    assert sender.summary.accepted == count, sender.summary


async def job(count: int, place: Place) -> None:
    """Submit a job and send it in the same process: the broker is in memory."""
    from taskiq import InMemoryBroker

    from bandwidth_mfa_async.worker import MFAWorker

    template, numbers = inputs(count)
    async with MFAWorker(InMemoryBroker(), ledger=place.redis, client=place.client, share_limits=False) as worker:
        job = await worker.submit(numbers, name=f"job-{os.getpid()}", template=template)
        while (await job.progress()).accepted < count:  # noqa: ASYNC110 - the count is in Redis
            await asyncio.sleep(0.1)


PARTS: dict[str, Callable[[int, Place], Awaitable[None]]] = {"call": calls, "bulk": bulk, "job": job}


def run_part(name: str, count: int, place: Place) -> None:
    async def run() -> None:
        await PARTS[name](count, place)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


def child(package: str, place: Place, plan: list[tuple[str, int]]) -> None:
    """Run each entry of the plan in a fork of one warm process, and print the process id of each fork."""
    sys.path.insert(0, package)
    for name in dict.fromkeys(name for name, _ in plan):
        run_part(name, WARM_UP, place)
    origin = str(importlib.import_module("bandwidth_mfa_async").__file__)
    assert pathlib.Path(origin).is_relative_to(package), origin
    gc.collect()
    gc.freeze()  # so that a collection does not depend on what was imported
    for name, count in plan:
        pid = os.fork()
        if not pid:
            try:
                run_part(name, count, place)
            except BaseException:  # noqa: BLE001 - a fork must not return to the loop above
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            sys.exit(f"{count} of {name} failed")
        print(pid, flush=True)


@contextlib.contextmanager
def servers(folder: pathlib.Path) -> Generator[Place, None, None]:
    from tests.support import processes
    from tests.support.redis_server import RedisServer

    command = (sys.executable, "-m", "benchmarks._server")
    redis = RedisServer(folder)
    try:
        with processes.running(command, cwd=ROOT, stdout=processes.PIPE, text=True) as http:
            assert http.stdout is not None
            yield Place(f"http://127.0.0.1:{int(http.stdout.readline())}/api/v1", redis.url, str(folder))
    finally:
        redis.kill()


def measure(package: pathlib.Path, parts: list[str], rounds: int) -> dict[str, list[int]]:
    """Return the instructions of one item of each part, once for each round."""
    from tests.support import processes  # not at the top: the measured process has no checkout on its path

    plan = [(name, count) for _ in range(rounds) for name in parts for count in (SMALL, LARGE)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, servers(pathlib.Path(name)) as place:
        folder = pathlib.Path(name)
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        python = (sys.executable, "-P", __file__, "--child", str(package), *place)
        log, pids = folder / "log", list[str]()
        # First without valgrind, which compiles the bytecode and shows errors early.
        first, counted = json.dumps(plan[: 2 * len(parts)]), json.dumps(plan)
        for command in ((*python, first), (*VALGRIND, f"--log-file={log}", *python, counted)):
            with processes.running(command, env=environment, stdout=processes.PIPE, text=True) as process:
                pids = process.communicate(timeout=TIMEOUT)[0].split()
                if process.returncode:
                    sys.exit(f"the measured process ended with {process.returncode}")
        totals = dict(re.findall(r"^==(\d+)== I +refs: +([\d,]+)$", log.read_text(), re.MULTILINE))
    counts = [int(totals[pid].replace(",", "")) for pid in pids]
    found: dict[str, list[int]] = {name: [] for name in parts}
    for (name, _), small, large in zip(plan[::2], counts[::2], counts[1::2], strict=True):
        found[name].append(round((large - small) / (LARGE - SMALL)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package-dir", type=pathlib.Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        package, *place, plan = options.child
        child(package, Place(*place), json.loads(plan))
        return
    if shutil.which("valgrind") is None:
        sys.exit("install valgrind first")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the processes started here are killed
    results = {
        name: {"instructions": round(statistics.median(seen)), "spread": round(max(seen) / min(seen) - 1, 5)}
        for name, seen in measure(options.package_dir.resolve(), options.only, options.rounds).items()
    }
    if options.as_json:
        print(json.dumps(results))
        return
    for name, result in results.items():
        print(f"{name}: {result['instructions']:,} instructions (rounds differ by {result['spread']:.2%})")


if __name__ == "__main__":
    main()
