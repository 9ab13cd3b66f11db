"""What one `generate_messaging_code` costs, everything on: CPU and wall time beside aiohttp by hand and other clients.

Run: python -m benchmarks.call_cost [--quick] [--only NAME ...] [--in-flight 1 32 256] [--json FILE]
The server is nginx in a process of its own. Clients take turns in short rounds, so that the noise of a shared machine
falls on all; a ratio is the median over rounds of the client's cost to naive aiohttp's in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import platform
import statistics
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from attrs import asdict, frozen

from bandwidth_mfa_async import Limits

from ._call_rivals import NAIVE, OFFICIAL, OURS, RIVALS, ours, urllib3_is_replaced
from ._server import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._call_rivals import Call, Rival

GROWTH = (1, 10, 100, 1000)
TARGETS = {OURS: 1.0}
OFFICIAL_TARGET = 0.20
GROWTH_TARGET = 1.3


@frozen
class Cost:
    """What a call came to.

    Args:
        loop: which event loop.
        in_flight: how many calls at once.
        name: by which client.
        cpu: microseconds of this process's CPU, the median of the rounds.
        wall: microseconds a call, the same.
        to_naive: CPU as a multiple of naive aiohttp's.
    """

    loop: str
    in_flight: int
    name: str
    cpu: float
    wall: float
    to_naive: float | None = None


async def spend(call: Call, calls: int, in_flight: int) -> tuple[float, float]:
    """Make calls, and return CPU and wall seconds for each."""
    numbers = iter(range(calls))

    async def work() -> None:
        for n in numbers:
            await call(f"+1919{n:07}")

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


async def alternate(
    ways: dict[str, Call], levels: dict[str, int], rounds: int, seconds: float
) -> dict[str, list[tuple[float, float]]]:
    """Measure each way in turn, so many rounds, beginning with another one each time."""
    counts = {}
    for name, call in ways.items():
        # Connections are opened and caches filled before anything counts.
        await spend(call, 2 * levels[name], levels[name])
        _, wall = await spend(call, max(50, 2 * levels[name]), levels[name])
        counts[name] = max(50, 2 * levels[name], int(seconds / wall))
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            seen[name].append(await spend(ways[name], counts[name], levels[name]))
    return seen


async def compare(rivals: list[Rival], base_url: str, loop: str, in_flight: int, rounds: int) -> list[Cost]:
    """Return what each client costs with so many calls at once."""
    async with AsyncExitStack() as stack:
        ways = {rival.name: await stack.enter_async_context(rival.make(base_url)) for rival in rivals}
        seen = await alternate(ways, dict.fromkeys(ways, in_flight), rounds, 0.1)
    costs = []
    for name, figures in seen.items():
        ratio = statistics.median(cpu / other for (cpu, _), (other, _) in zip(figures, seen[NAIVE], strict=True))
        cpu, wall = (statistics.median(figure[i] for figure in figures) * 1e6 for i in (0, 1))
        costs.append(Cost(loop, in_flight, name, cpu, wall, ratio))
    return costs


async def grow(base_url: str, loop: str, rounds: int) -> list[Cost]:
    """Return what a call of ours costs with one, ten, a hundred and a thousand at once."""
    async with AsyncExitStack() as stack:
        limits = Limits(max_in_flight=GROWTH[-1])
        ways = {str(n): await stack.enter_async_context(ours(base_url, limits)) for n in GROWTH}
        seen = await alternate(ways, {str(n): n for n in GROWTH}, rounds, 0.1)
    median = statistics.median
    return [
        Cost(loop, int(n), OURS, median(cpu for cpu, _ in figures) * 1e6, median(wall for _, wall in figures) * 1e6)
        for n, figures in seen.items()
    ]


def show(costs: list[Cost], missing: list[Rival]) -> None:
    print(f"\n{'':26}{'loop':>9}{'in flight':>11}{'us CPU':>9}{'us wall':>9}{'to naive':>10}  target")
    for cost in costs:
        verdict = ""
        if cost.name in TARGETS and cost.to_naive is not None:
            verdict = f"  <= {TARGETS[cost.name]:.2f} {'met' if cost.to_naive <= TARGETS[cost.name] else 'NOT MET'}"
        if cost.name == OFFICIAL:
            of_ours = next(c.cpu for c in costs if (c.loop, c.in_flight, c.name) == (cost.loop, cost.in_flight, OURS))
            share = of_ours / cost.cpu
            verdict = f"  ours {share:.2f} of it, <= {OFFICIAL_TARGET:.2f} "
            verdict += "met" if share <= OFFICIAL_TARGET else "NOT MET"
        ratio = "" if cost.to_naive is None else f"{cost.to_naive:.2f}"
        print(f"{cost.name:26}{cost.loop:>9}{cost.in_flight:11}{cost.cpu:9.0f}{cost.wall:9.0f}{ratio:>10}{verdict}")
    for rival in missing:
        print(f"{rival.name:26} missing: install this package's [{rival.extra}] extra")
    if urllib3_is_replaced():
        print(f"{OFFICIAL:26} ran on urllib3-future, which niquests brings; the [bench] extra alone leaves it its own")


def show_growth(costs: list[Cost]) -> None:
    """Tell how a call's cost changes with how many are in flight; that one alone costs more is no growth."""
    print("\nOurs with so many in flight, us CPU a call, and the most by which more at once cost more than fewer")
    for loop in dict.fromkeys(cost.loop for cost in costs):
        row = {cost.in_flight: cost.cpu for cost in costs if cost.loop == loop}
        growth = max(cpu / min(row[fewer] for fewer in GROWTH if fewer <= n) for n, cpu in row.items())
        steps = "  ".join(f"{n}: {cpu:.0f}" for n, cpu in row.items())
        print(f"{loop:>9}  {steps}  {growth:.2f}, <= {GROWTH_TARGET} {'met' if growth <= GROWTH_TARGET else 'NOT MET'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, asyncio only, 32 in flight, no growth")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 32, 256])
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
        rounds, levels, loops = 3, [32], {"asyncio": asyncio.new_event_loop}
    costs: list[Cost] = []
    growth: list[Cost] = []
    with serving() as (server, port):
        print(f"against {server}, Python {platform.python_version()}, {platform.platform()}")
        base_url = f"http://127.0.0.1:{port}/api/v1"
        for loop, factory in loops.items():
            run = partial(asyncio.Runner, loop_factory=factory)
            for in_flight in levels:
                with run() as runner:
                    costs += runner.run(compare(rivals, base_url, loop, in_flight, rounds))
            if not options.quick:
                with run() as runner:
                    growth += runner.run(grow(base_url, loop, rounds))
    show(costs, missing)
    if growth:
        show_growth(growth)
    if options.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.platform(), "server": server}
        figures = {"calls": [asdict(cost) for cost in costs], "growth": [asdict(cost) for cost in growth]}
        missed = [rival.name for rival in missing]
        options.json.write_text(json.dumps({**machine, "missing": missed, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
