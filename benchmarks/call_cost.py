"""What one `generate_messaging_code` costs, everything on: CPU and wall time beside aiohttp by hand and other clients.

Run: python -m benchmarks.call_cost [--quick] [--only NAME ...] [--in-flight 1 32 256] [--no-growth] [--json FILE]
The server is nginx in a process of its own. Clients take turns in rounds of some milliseconds, so that the noise of a
shared machine falls on all; a ratio is the median over rounds of one client's cost to another's in the same round, or
of both medians for a client that is slow and takes few turns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import pathlib
import platform
import statistics
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from attrs import asdict, frozen

from bandwidth_mfa_async import Limits

from ._call_rivals import NAIVE, OFFICIAL, OURS, RIVALS, naive, ours, urllib3_is_replaced
from ._server import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._call_rivals import Call, Make, Rival

    K = TypeVar("K")
    Spent = tuple[float, float]
    Paced = tuple[float, float, float]

GROWTH = (1, 10, 100, 1000)
SLOW = 0.2  # seconds of CPU in one round
TARGETS = {NAIVE: 1.0, OFFICIAL: 0.20}
GROWTH_TARGET = 1.3
# With as many slots, or connections, as there are calls at most.
OURS_WIDE, NAIVE_WIDE = f"{OURS}, wide", f"{NAIVE}, wide"
GROWING: dict[str, Make] = {
    OURS: ours,
    NAIVE: naive,
    OURS_WIDE: partial(ours, limits=Limits(max_in_flight=GROWTH[-1])),
    NAIVE_WIDE: partial(naive, connections=GROWTH[-1]),
}
# Of Python's garbage collector: as it is, looking less often, and off. 0 as the first threshold is off.
COLLECTORS = {"on": gc.get_threshold(), "20,000": (20_000, *gc.get_threshold()[1:]), "off": (0, 0, 0)}


@frozen
class Cost:
    """What a call came to.

    Args:
        loop: which event loop.
        in_flight: how many calls at once.
        name: by which client.
        cpu: microseconds of this process's CPU, the median of the rounds, each brought to the machine's best pace.
        wall: microseconds a call, the same.
        to_naive: CPU as a multiple of naive aiohttp's.
        ours_to_it: the CPU of a call of ours as a multiple of this client's.
    """

    loop: str
    in_flight: int
    name: str
    cpu: float
    wall: float
    to_naive: float
    ours_to_it: float


@frozen
class Growth:
    """How a call's cost changes with how many are in flight.

    Args:
        loop: which event loop.
        collector: how Python's garbage collector was set, a key of `COLLECTORS`.
        name: of which client.
        cpu: microseconds a call, by how many were in flight.
    """

    loop: str
    collector: str
    name: str
    cpu: dict[int, float]

    @property
    def most(self) -> float:
        """The most by which more at once cost more than fewer; that one alone costs more is no growth."""
        return max(cost / min(self.cpu[fewer] for fewer in self.cpu if fewer <= n) for n, cost in self.cpu.items())


async def spend(call: Call, calls: int, in_flight: int) -> Spent:
    """Make calls, and return CPU and wall seconds for each."""
    numbers = iter(range(calls))

    async def work() -> None:
        for n in numbers:
            await call(f"+1919{n:07}")

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def pace() -> float:
    """Return how long a fixed piece of work takes just now, in seconds of CPU.

    On a shared machine that may be twice as long as it was a second ago.
    """
    began, count = time.thread_time(), 0
    while count < 200_000:
        count += 1
    return time.thread_time() - began


async def spend_paced(call: Call, calls: int, in_flight: int) -> Paced:
    """Make calls; return CPU and wall seconds for each, and the machine's pace meanwhile."""
    before = pace()
    cpu, wall = await spend(call, calls, in_flight)
    return cpu, wall, (before + pace()) / 2


def at_best_pace(seen: dict[K, list[Paced]]) -> dict[K, Spent]:
    """Return the median microseconds of CPU and of wall time, each round brought to the best pace of them all."""
    best = min(took for rounds in seen.values() for _, _, took in rounds)

    def median(rounds: list[Paced], which: int) -> float:
        return statistics.median(one[which] * best / one[2] for one in rounds) * 1e6

    return {key: (median(rounds, 0), median(rounds, 1)) for key, rounds in seen.items()}


async def alternate(ways: dict[str, Call], in_flight: int, rounds: int) -> dict[str, list[Paced]]:
    """Measure each way in turn, beginning with another one in each round; return what it spent in each."""
    calls = max(50, 2 * in_flight)
    every: dict[str, int] = {}
    for name, call in ways.items():
        # Connections are opened and caches filled before anything counts.
        await spend(call, 2 * in_flight, in_flight)
        cpu, _ = await spend(call, calls, in_flight)
        # A way that takes long anyway needs no hundred short looks.
        every[name] = 1 if cpu * calls < SLOW else 5
    seen: dict[str, list[Paced]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            if turn % every[name] == 0:
                seen[name].append(await spend_paced(ways[name], calls, in_flight))
    return seen


async def compare(rivals: list[Rival], base_url: str, loop: str, in_flight: int, rounds: int) -> list[Cost]:
    """Return what each client costs with so many calls at once."""
    async with AsyncExitStack() as stack:
        ways = {rival.name: await stack.enter_async_context(rival.make(base_url)) for rival in rivals}
        spent = at_best_pace(await alternate(ways, in_flight, rounds))

    (ours_cpu, _), (naive_cpu, _) = spent[OURS], spent[NAIVE]
    return [
        Cost(loop, in_flight, name, cpu, wall, to_naive=cpu / naive_cpu, ours_to_it=ours_cpu / cpu)
        for name, (cpu, wall) in spent.items()
    ]


async def grow(base_url: str, loop: str, rounds: int, collector: str) -> list[Growth]:
    """Return what a call of ours and a naive one cost with one, ten, a hundred and a thousand at once.

    By default both have a hundred on the wire, and the rest waits. Each is alone in its round: the collector looks at
    every object there is, and others' connections are not its cost. What a call costs is the median over the rounds,
    each brought to the machine's best pace.
    """
    makes = GROWING if collector == "on" else {name: GROWING[name] for name in (OURS_WIDE, NAIVE_WIDE)}
    seen: dict[tuple[str, int], list[Paced]] = {(name, n): [] for name in makes for n in GROWTH}
    gc.set_threshold(*COLLECTORS[collector])
    try:
        for _ in range(rounds):
            for n in GROWTH:
                for name, make in makes.items():
                    async with make(base_url) as call:
                        await spend(call, 2 * n, n)
                        gc.collect()
                        await spend(call, max(100, n), n)
                        seen[name, n].append(await spend_paced(call, max(500, 2 * n), n))
    finally:
        gc.set_threshold(*COLLECTORS["on"])
    spent = at_best_pace(seen)
    return [Growth(loop, collector, name, {n: spent[name, n][0] for n in GROWTH}) for name in makes]


def grow_all(base_url: str, loops: dict[str, Callable[[], asyncio.AbstractEventLoop]], rounds: int) -> list[Growth]:
    """Return the same for every loop and setting of the collector."""
    found: list[Growth] = []
    for loop, factory in loops.items():
        for collector in COLLECTORS:
            with asyncio.Runner(loop_factory=factory) as runner:
                found += runner.run(grow(base_url, loop, rounds if collector == "on" else rounds // 2, collector))
    return found


def show_head() -> None:
    print(f"\n{'':26}{'loop':>9}{'in flight':>11}{'us CPU':>9}{'us wall':>9}{'to naive':>10}{'ours to it':>12}  target")


def show(costs: list[Cost]) -> None:
    """Print what was measured with one loop and so many in flight."""
    for cost in costs:
        target = TARGETS.get(cost.name)
        verdict = "" if target is None else f"  <= {target:.2f} {'met' if cost.ours_to_it <= target else 'NOT MET'}"
        print(
            f"{cost.name:26}{cost.loop:>9}{cost.in_flight:11}{cost.cpu:9.0f}{cost.wall:9.0f}"
            f"{cost.to_naive:10.2f}{cost.ours_to_it:12.2f}{verdict}"
        )


def show_missing(missing: list[Rival]) -> None:
    for rival in missing:
        print(f"{rival.name:26} missing: install this package's [{rival.extra}] extra")
    if urllib3_is_replaced():
        print(f"{OFFICIAL:26} ran on urllib3-future, which niquests brings; the [bench] extra alone leaves it its own")


def show_growth(growths: list[Growth]) -> None:
    head = "".join(f"{n:>7}" for n in GROWTH)
    print(f"\nus CPU a call by how many are under way\n{'':26}{'loop':>9}{'collector':>11}{head}{'growth':>9}  target")
    for growth in growths:
        costs = "".join(f"{cost:7.0f}" for cost in growth.cpu.values())
        verdict = "met" if growth.most <= GROWTH_TARGET else "NOT MET"
        verdict = f"  <= {GROWTH_TARGET} {verdict}" if growth.name in {OURS, OURS_WIDE} else ""
        print(f"{growth.name:26}{growth.loop:>9}{growth.collector:>11}{costs}{growth.most:9.2f}{verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five rounds, asyncio only, 32 in flight, no growth")
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--no-growth", action="store_true", help="leave out how a call's cost grows")
    parser.add_argument("--only", nargs="+", default=[rival.name for rival in RIVALS], metavar="NAME")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    chosen = [rival for rival in RIVALS if rival.name in {*options.only, OURS, NAIVE}]
    rivals, missing = ([rival for rival in chosen if rival.installed is there] for there in (True, False))
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        print("uvloop is missing: pip install uvloop, or this package's [speed] extra")
    else:
        loops["uvloop"] = uvloop.new_event_loop
    rounds, levels = options.rounds, options.in_flight
    if options.quick:
        rounds, levels, loops = 5, [32], {"asyncio": asyncio.new_event_loop}
    costs: list[Cost] = []
    growth: list[Growth] = []
    with serving() as (server, port):
        print(f"against {server}, Python {platform.python_version()}, {platform.platform()}")
        base_url = f"http://127.0.0.1:{port}/api/v1"
        # Growth comes first, while nothing of the other clients is imported that the collector would look at as well.
        if not (options.quick or options.no_growth):
            growth = grow_all(base_url, loops, max(9, rounds // 3))
        show_head()
        for loop, factory in loops.items():
            for in_flight in levels:
                with asyncio.Runner(loop_factory=factory) as runner:
                    measured = runner.run(compare(rivals, base_url, loop, in_flight, rounds))
                show(measured)
                costs += measured
    show_missing(missing)
    if growth:
        show_growth(growth)
    if options.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.platform(), "server": server}
        figures = {"calls": [asdict(cost) for cost in costs], "growth": [asdict(cost) for cost in growth]}
        missed = [rival.name for rival in missing]
        options.json.write_text(json.dumps({**machine, "missing": missed, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
