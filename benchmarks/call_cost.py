"""CPU and wall time of one call with all features on, beside handwritten aiohttp and other clients.

Run: python -m benchmarks.call_cost [--quick] [--only NAME ...] [--in-flight 1 32 256] [--no-growth] [--json FILE]
The server is nginx in a separate process. Clients alternate in rounds of some milliseconds, so that the noise of a
shared machine affects all; a ratio is the median over rounds of one client's cost to another's in the same round, or
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
# With as many slots, or connections, as the largest number of concurrent calls.
OURS_WIDE, NAIVE_WIDE = f"{OURS}, wide", f"{NAIVE}, wide"
GROWING: dict[str, Make] = {
    OURS: ours,
    NAIVE: naive,
    OURS_WIDE: partial(ours, limits=Limits(max_in_flight=GROWTH[-1])),
    NAIVE_WIDE: partial(naive, connections=GROWTH[-1]),
}
# Thresholds of Python's garbage collector: its default, less frequent, and off (0 as the first threshold).
COLLECTORS = {"on": gc.get_threshold(), "20,000": (20_000, *gc.get_threshold()[1:]), "off": (0, 0, 0)}


@frozen
class Cost:
    """The cost of a call.

    Args:
        loop: the event loop.
        in_flight: the number of concurrent calls.
        name: the client.
        cpu: microseconds of this process's CPU, the median of the rounds, each scaled to the machine's best pace.
        wall: microseconds of wall time, likewise.
        to_naive: CPU as a multiple of naive aiohttp's.
        ours_to_it: our CPU as a multiple of this client's.
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
    """The cost of a call by the number of calls in flight.

    Args:
        loop: the event loop.
        collector: the setting of Python's garbage collector, a key of `COLLECTORS`.
        name: the client.
        cpu: microseconds a call, by the number in flight.
    """

    loop: str
    collector: str
    name: str
    cpu: dict[int, float]

    @property
    def most(self) -> float:
        """The largest ratio of a call's cost to its cost with fewer in flight; a decrease does not count."""
        return max(cost / min(self.cpu[fewer] for fewer in self.cpu if fewer <= n) for n, cost in self.cpu.items())


async def spend(call: Call, calls: int, in_flight: int) -> Spent:
    """Make calls and return the CPU and wall seconds of one."""
    numbers = iter(range(calls))

    async def work() -> None:
        for n in numbers:
            await call(f"+1919{n:07}")

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def pace() -> float:
    """Return the CPU seconds that a fixed piece of work takes now.

    On a shared machine that may be twice as long as a second ago.
    """
    began, count = time.thread_time(), 0
    while count < 200_000:
        count += 1
    return time.thread_time() - began


async def spend_paced(call: Call, calls: int, in_flight: int) -> Paced:
    """Make calls; return the CPU and wall seconds of one, and the machine's pace meanwhile."""
    before = pace()
    cpu, wall = await spend(call, calls, in_flight)
    return cpu, wall, (before + pace()) / 2


def at_best_pace(seen: dict[K, list[Paced]]) -> dict[K, Spent]:
    """Return the median microseconds of CPU and of wall time, with each round scaled to the best pace of all."""
    best = min(took for rounds in seen.values() for _, _, took in rounds)

    def median(rounds: list[Paced], which: int) -> float:
        return statistics.median(one[which] * best / one[2] for one in rounds) * 1e6

    return {key: (median(rounds, 0), median(rounds, 1)) for key, rounds in seen.items()}


async def alternate(ways: dict[str, Call], in_flight: int, rounds: int) -> dict[str, list[Paced]]:
    """Measure the ways in turn, in rotated order; return the cost of each in each round."""
    calls = max(50, 2 * in_flight)
    every: dict[str, int] = {}
    for name, call in ways.items():
        # Open connections and fill caches first.
        await spend(call, 2 * in_flight, in_flight)
        cpu, _ = await spend(call, calls, in_flight)
        # A slow way needs fewer rounds.
        every[name] = 1 if cpu * calls < SLOW else 5
    seen: dict[str, list[Paced]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            if turn % every[name] == 0:
                seen[name].append(await spend_paced(ways[name], calls, in_flight))
    return seen


async def compare(rivals: list[Rival], base_url: str, loop: str, in_flight: int, rounds: int) -> list[Cost]:
    """Return the cost of each client with this number of calls in flight."""
    async with AsyncExitStack() as stack:
        ways = {rival.name: await stack.enter_async_context(rival.make(base_url)) for rival in rivals}
        spent = at_best_pace(await alternate(ways, in_flight, rounds))

    (ours_cpu, _), (naive_cpu, _) = spent[OURS], spent[NAIVE]
    return [
        Cost(loop, in_flight, name, cpu, wall, to_naive=cpu / naive_cpu, ours_to_it=ours_cpu / cpu)
        for name, (cpu, wall) in spent.items()
    ]


async def grow(base_url: str, loop: str, rounds: int, collector: str) -> list[Growth]:
    """Return the cost of our call and of a naive one with 1, 10, 100 and 1,000 concurrent calls.

    By default both have a hundred in flight, and the rest waits. Each is alone in its round: the collector visits all
    objects, and the connections of other clients are not its cost. The cost of a call is the median over the rounds,
    each scaled to the machine's best pace.
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
    """Return the growth for every loop and setting of the collector."""
    found: list[Growth] = []
    for loop, factory in loops.items():
        for collector in COLLECTORS:
            with asyncio.Runner(loop_factory=factory) as runner:
                found += runner.run(grow(base_url, loop, rounds if collector == "on" else rounds // 2, collector))
    return found


def show_head() -> None:
    print(f"\n{'':26}{'loop':>9}{'in flight':>11}{'us CPU':>9}{'us wall':>9}{'to naive':>10}{'ours to it':>12}  target")


def show(costs: list[Cost]) -> None:
    """Print the costs of one loop and one number in flight."""
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
        print(f"{OFFICIAL:26} ran on urllib3-future, which niquests installs; for urllib3, install [bench] alone")


def show_growth(growths: list[Growth]) -> None:
    head = "".join(f"{n:>7}" for n in GROWTH)
    print("\nus CPU a call by the number of concurrent calls")
    print(f"{'':26}{'loop':>9}{'collector':>11}{head}{'growth':>9}  target")
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
    parser.add_argument("--no-growth", action="store_true", help="skip the growth of a call's cost")
    parser.add_argument("--only", nargs="+", default=[rival.name for rival in RIVALS], metavar="NAME")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures to this file")
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
        # Growth comes first, before other clients are imported, whose objects the collector would visit as well.
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
