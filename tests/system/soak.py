"""Runs sign-ins and bulk runs with one client for minutes and checks that the resource usage stays constant.

Run: python -m tests.system.soak [--minutes 10] [--loop asyncio|uvloop] [--seed N] [--json]
The simulator runs in a separate process that is killed and restarted. It injects faults, changes its limits, and its
bearer tokens expire and are revoked. The program takes a sample every second and ignores the first fifth. Constant
means that, from the first to the last quarter of the samples, the median of the memory grows by at most 5 % (or 2 MiB),
and the minimum number of sockets, file descriptors, tasks and threads by at most 3 (a leak raises the minimum, a short
peak does not). There are never more sockets than calls in flight plus 12. After the client is closed, no task, socket
or descriptor is left.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import json
import os
import pathlib
import random
import secrets
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import (
    BulkSender,
    CodeTemplate,
    Limits,
    MFAClient,
    OAuth2ClientCredentials,
    RequestError,
    RetryPolicy,
)
from bandwidth_mfa_async.simulator import AccountLimits, Fault, Simulator
from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
SIGN_IN_TASKS = 12
IN_FLIGHT = 48
RUN_ITEMS = 2_000  # items of a bulk run
TOKEN_LIFETIME = 12.0  # seconds; the client renews a token after half of them
GAUGES = ("memory", "sockets", "descriptors", "tasks", "threads")


async def simulate(port: int, password: str, seed: int) -> None:
    """Run the simulator until the process is killed."""
    rng = random.Random(seed)
    simulator = Simulator(
        port,
        client_secret=password,
        token_lifetime=TOKEN_LIFETIME,
        inbox_limit=1000,
        request_log_limit=100,
        seed=seed,
    )
    random_faults = [
        (Fault(status=500), 0.02),
        (Fault(status=503, headers={"Retry-After": 1}), 0.002),
        (Fault(status=502, body="<html>"), 0.01),
        (Fault(status=400), 0.01),
        (Fault(status=200, body="<html>"), 0.01),
        (Fault(drop="before_read"), 0.01),
        (Fault(drop="after_read"), 0.01),
        (Fault(drop="half_answer"), 0.01),
        (Fault(truncate=True), 0.01),
        (Fault(delay=5.0), 0.002),
        (Fault(delay=0.05), 0.3),
        (Fault(seconds_per_byte=0.001), 0.01),
    ]
    async with simulator:
        for operation in ("messaging", "voice", "verify"):
            for fault, probability in random_faults:
                simulator.faults.chance(fault, probability, operation=operation)  # type: ignore[arg-type]
        simulator.faults.chance(Fault(status=500), 0.1, operation="token")
        print("ready", flush=True)
        while True:
            rate = rng.choice([60.0, 120.0, 240.0, 0.0])
            limit = AccountLimits(rate=rate, model="token_bucket", retry_after=rng.random() < 0.3) if rate else None
            simulator.set_limits(messaging=limit, voice=limit)
            await asyncio.sleep(rng.uniform(3.0, 9.0))
            if rng.random() < 0.3:
                simulator.revoke_tokens()
            if rng.random() < 0.2:
                await simulator.refuse_connections(0.5)


class Service:
    """The simulator's process, which is killed and restarted on the same port."""

    def __init__(self, seed: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.secret = secrets.token_urlsafe(12)
        self.seed = seed
        self.starts = 0
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.starts += 1
        self.process = await processes.start_async(
            *(sys.executable, "-m", "tests.system.soak", "--simulator", str(self.port), str(self.seed + self.starts)),
            env={**os.environ, "SOAK_SECRET": self.secret},
            stdout=processes.PIPE,
        )
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line == b"ready\n", "the simulator did not start"

    async def kill(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        await self.process.wait()
        await processes.end_async(self.process)

    def client(self) -> MFAClient:
        origin = f"http://127.0.0.1:{self.port}"
        return MFAClient(
            "9900000",
            OAuth2ClientCredentials("simulator-client", self.secret, token_url=f"{origin}/api/v1/oauth2/token"),
            base_url=f"{origin}/api/v1",
            limits=Limits(max_in_flight=IN_FLIGHT),
            retry=RetryPolicy(wait_initial=0.05, wait_max=0.5, timeout=10.0, attempt_timeout=2.0, connect_timeout=1.0),
        )


def sample() -> dict[str, float]:
    """Return the resources that this process uses."""
    links = []
    for descriptor in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(descriptor.readlink()))
    pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "sockets": sum(link.startswith("socket:") for link in links),
        "descriptors": len(links),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
    }


def numbers(start: int, count: int) -> Iterator[str]:
    return (f"+1{(start + index) % 10**10:010}" for index in range(count))


async def sign_in(mfa: MFAClient, rng: random.Random, counts: collections.Counter[str], until: float) -> None:
    """Request and verify codes in a loop; sometimes cancel a call after a short time."""
    while time.monotonic() < until:
        number = f"+1{rng.randrange(10**10):010}"
        view = mfa if rng.random() < 0.8 else mfa.with_options(timeout=3.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.03 if rng.random() < 0.1 else None):
                try:
                    if rng.random() < 0.3:
                        await view.generate_voice_code(LOGIN.to(number))
                    else:
                        await view.generate_messaging_code(LOGIN.to(number))
                    await view.verify_code(to=number, code=f"{rng.randrange(10**6):06}", scope="login")
                    counts["signed in"] += 1
                except RequestError as error:
                    counts[f"{type(error).__name__} {error.delivery.value}"] += 1
        await asyncio.sleep(rng.uniform(0.0, 0.3))


def remove(folder: pathlib.Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def bulk_runs(mfa: MFAClient, folder: pathlib.Path, counts: collections.Counter[str], until: float) -> None:
    """Run bulk runs with a journal, one after the other."""
    run = 0
    while time.monotonic() < until:
        journal = folder / f"{run}.db"
        async with BulkSender(mfa, journal=journal) as bulk:
            async for outcome in bulk.send(numbers(run * RUN_ITEMS, RUN_ITEMS), template=LOGIN):
                counts[f"bulk {outcome.delivery.value}"] += 1
                if time.monotonic() > until:
                    bulk.stop()
        counts["bulk runs"] += 1
        run += 1
        remove(folder)


async def restart_service(service: Service, rng: random.Random, until: float) -> None:
    """Kill and restart the simulator at random times."""
    while time.monotonic() < until:
        await asyncio.sleep(min(rng.uniform(10.0, 40.0), max(0.1, (until - time.monotonic()) / 2)))
        await service.kill(rng.choice([signal.SIGKILL, signal.SIGTERM]))
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await service.start()
        if until - time.monotonic() < 5:
            return


async def take_samples(samples: list[dict[str, float]], until: float) -> None:
    while time.monotonic() < until:
        samples.append(sample())
        await asyncio.sleep(1.0)


async def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Run everything for `minutes` and return the counts and the resource usage."""
    service = Service(seed)
    counts: collections.Counter[str] = collections.Counter()
    samples: list[dict[str, float]] = []
    await service.start()
    before = sample()
    until = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        async with service.client() as mfa:
            await asyncio.gather(
                *[sign_in(mfa, random.Random(f"{seed} {n}"), counts, until) for n in range(SIGN_IN_TASKS)],
                bulk_runs(mfa, pathlib.Path(folder), counts, until),
                restart_service(service, random.Random(seed), until),
                take_samples(samples, until),
            )
    gc.collect()
    await asyncio.sleep(0.2)
    after = sample()
    await service.kill(signal.SIGTERM)
    return {
        "minutes": minutes,
        "starts of the simulator": service.starts,
        "words": dict(counts),
        "gauges": gauges(samples),
        "left": {name: after[name] - before[name] for name in ("sockets", "descriptors", "tasks")},
    }


def gauges(samples: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Compare the first with the last quarter of the samples, without the first fifth."""
    settled = samples[len(samples) // 5 :]
    quarter = max(1, len(settled) // 4)
    found = {}
    for name in GAUGES:
        reduce = statistics.median if name == "memory" else min
        first, last = (reduce(each[name] for each in part) for part in (settled[:quarter], settled[-quarter:]))
        maximum = max(each[name] for each in settled)
        flat = last <= first + (max(0.05 * first, 2.0) if name == "memory" else 3)
        found[name] = {
            "first quarter": round(first, 1),
            "last quarter": round(last, 1),
            "most": round(maximum, 1),
            "flat": flat and (name != "sockets" or maximum <= IN_FLIGHT + 12),
        }
    return found


def is_sound(result: dict[str, Any]) -> bool:
    return all(gauge["flat"] for gauge in result["gauges"].values()) and not any(
        count > 0 for count in result["left"].values()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--simulator", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simulator:
        port, seed = options.simulator
        asyncio.run(simulate(port, os.environ["SOAK_SECRET"], seed))
        return
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(soak(options.minutes, options.seed))
    if options.as_json:
        print(json.dumps({"seed": options.seed, "sound": is_sound(result)} | result))
    else:
        print(f"seed {options.seed}, {options.loop}, {options.minutes:g} minutes, simulator started", end=" ")
        print(f"{result['starts of the simulator']} times")
        print("   ", ", ".join(f"{name} {count:,}" for name, count in sorted(result["words"].items())))
        for name, gauge in result["gauges"].items():
            print(f"    {name:12}", *(f"{key} {value}" for key, value in gauge.items()), sep="  ")
        print("    left after close:", result["left"])
        print("flat" if is_sound(result) else "NOT FLAT")
    sys.exit(not is_sound(result))


if __name__ == "__main__":
    main()
