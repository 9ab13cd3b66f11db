"""SMS pumping against a sign-in: texts that get through, and honest people refused, with the guard and without.

    python -m benchmarks.pumping [--seeds 30] [--json FILE]

Time is simulated; the guard and its store are the real ones. The attack: 20,000 adjacent numbers in 4 hours from 400
visitors, a quarter in each of four regions, and no code is verified. The product: 2,000 honest sign-ins a day, 80 % of
them in one region, twice as many at noon as on average, each from an address and a number of its own. 1,200 of the
numbers were verified the day before; on a launch day all others are new.
`Guard(unverified=UnverifiedBudget(expected_per_day=...))` with a default guard's limits by visitor and number.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import logging
import math
import pathlib
import random
import statistics
from typing import Any

from bandwidth_mfa_async import GuardRefusedError, MemoryStore
from bandwidth_mfa_async.signin import Guard, UnverifiedBudget
from bandwidth_mfa_async.testing import ManualClock

DAY = 86_400
AREAS = (212, 213, 305, 312, 404, 415, 617, 702, 713, 919)
REGIONS = {"US": (12_122_000_000, 12_129_999_999), "GB": (447_400_000_000, 447_599_999_999)}
REGIONS |= {"DE": (4_915_110_000_000, 4_915_199_999_999), "FR": (33_610_000_000, 33_689_999_999)}
HOME = 0.8
RETURNING = 1_200
EXPECTED = {"US": 1_600, "GB": 133, "DE": 133, "FR": 133}
ATTACK, ATTACK_HOURS, ATTACKERS = 20_000, 4, 400
FIRST_MINUTES = 15 * 60


def honest_times(rng: random.Random, count: float) -> list[float]:
    """Return the times of a day's sign-ins: twice the mean at noon, none at midnight."""
    times = []
    for _ in range(round(count)):
        while True:
            at = rng.uniform(0, DAY)
            if rng.random() < (1 - math.cos(2 * math.pi * at / DAY)) / 2:
                times.append(at)
                break
    return times


def number(rng: random.Random, region: str) -> str:
    if region == "US":
        return f"+1{rng.choice(AREAS)}{rng.randint(2_000_000, 9_999_999)}"
    return f"+{rng.randint(*REGIONS[region])}"


async def day(seed: int, *, conversion: float, honest: float, attack: bool, guarded: bool) -> dict[str, float]:
    """Simulate one day; return shares."""
    rng = random.Random(seed)
    clock = ManualClock(wall=1_750_032_000.0)
    options: dict[str, Any] = {} if guarded else {"per_number": None, "per_visitor": None}
    if guarded:
        options["unverified"] = UnverifiedBudget(expected_per_day=EXPECTED)
    guard = Guard(store=MemoryStore(clock=clock), **options)
    visitors = itertools.count()
    known: list[tuple[str, str]] = []
    for _ in range(RETURNING):
        region = "US" if rng.random() < HOME else rng.choice(["GB", "DE", "FR"])
        known.append((region, number(rng, region)))
        clock.tick(DAY / RETURNING)
        await (await guard.admit(known[-1][1], visitor=f"10.{next(visitors)}")).verified()
    events: list[tuple[float, int, str, str, str]] = []
    order = itertools.count()
    for at in honest_times(rng, honest):
        region = "US" if rng.random() < HOME else rng.choice(["GB", "DE", "FR"])
        to = known.pop()[1] if known and rng.random() < RETURNING / honest else number(rng, region)
        events.append((at, next(order), "honest", to, f"10.{next(visitors)}"))
    began = 10 * 3600.0
    if attack:
        for n in range(ATTACK):
            region = list(REGIONS)[n % 4]
            at = began + n / ATTACK * ATTACK_HOURS * 3600
            events.append((at, next(order), "attack", f"+{REGIONS[region][0] + n // 4}", f"172.16.{n % ATTACKERS}"))
    heapq.heapify(events)
    counts = dict.fromkeys(("honest", "honest refused", "attack", "attack sent", "late", "late sent"), 0)
    tickets: dict[int, Any] = {}
    now = 0.0
    while events:
        at, place, kind, to, visitor = heapq.heappop(events)
        clock.tick(at - now)
        now = at
        if kind == "verify":
            await tickets.pop(place).verified()
            continue
        counts[kind] += 1
        late = kind == "attack" and at >= began + FIRST_MINUTES
        counts["late"] += late
        try:
            ticket = await guard.admit(to, visitor=visitor)
        except GuardRefusedError:
            counts["honest refused"] += kind == "honest"
            continue
        counts["attack sent"] += kind == "attack"
        counts["late sent"] += late
        if kind == "honest" and rng.random() < conversion:
            tickets[place] = ticket
            heapq.heappush(events, (at + rng.uniform(8, 90), place, "verify", to, visitor))
    return {
        "honest refused %": 100 * counts["honest refused"] / max(1, counts["honest"]),
        "attack sent %": 100 * counts["attack sent"] / max(1, counts["attack"]),
        "attack sent after 15 min %": 100 * counts["late sent"] / max(1, counts["late"]),
    }


SCENES: dict[str, dict[str, Any]] = {
    "attack, no guard": {"honest": 2_000, "attack": True, "guarded": False},
    "attack, guard": {"honest": 2_000, "attack": True, "guarded": True},
    "no attack, guard": {"honest": 2_000, "attack": False, "guarded": True},
    "launch day (ten times the traffic), guard": {"honest": 20_000, "attack": False, "guarded": True},
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    results: dict[str, dict[str, float]] = {}
    print(f"mean of {arguments.seeds} seeds; expected_per_day={EXPECTED}")
    for scene, options in SCENES.items():
        for conversion in (0.95, 0.85, 0.70):
            days = [await day(seed, conversion=conversion, **options) for seed in range(arguments.seeds)]
            means = {name: statistics.mean(each[name] for each in days) for name in days[0]}
            results[f"{scene}, {conversion:.0%} verified"] = means
            shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"{scene}, {conversion:.0%} verified:  {shown}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
