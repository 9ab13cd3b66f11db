"""SMS pumping against a sign-in: texts that get through, and honest people refused, with the guard and without.

    python -m benchmarks.pumping [--seeds 30] [--json FILE]

Time is simulated; the guard and its store are the real ones. The attack: 20,000 adjacent numbers in 4 hours from 400
visitors, a quarter in each of four regions, and no code is verified. The product: 2,000 honest sign-ins a day, 80 % of
them in one region, twice as many at noon as on average, each from an address and a number of its own, which is the
worst case: no number was verified before. `Guard(unverified=UnverifiedBudget(expected_per_day=...))` with the limits by
visitor and number of a default guard.
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
REGIONS = {"US": "+1919{:07}", "GB": "+447400{:06}", "DE": "+4915123{:06}", "FR": "+3361234{:04}"}
HOME = 0.8
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
    form = REGIONS[region]
    digits = int(form[form.index(":0") + 2])
    lowest = 2_000_000 if region == "US" else 0
    return form.format(rng.randrange(lowest, 10**digits))


async def day(seed: int, *, conversion: float, honest: float, attack: bool, guarded: bool) -> dict[str, float]:
    """Simulate one day; return shares."""
    rng = random.Random(seed)
    clock = ManualClock(wall=1_750_032_000.0)
    options: dict[str, Any] = {} if guarded else {"per_number": None, "per_visitor": None}
    if guarded:
        options["unverified"] = UnverifiedBudget(expected_per_day=EXPECTED)
    guard = Guard(store=MemoryStore(clock=clock), **options)
    visitors = itertools.count()
    events: list[tuple[float, int, str, str, str]] = []
    order = itertools.count()
    for at in honest_times(rng, honest):
        region = "US" if rng.random() < HOME else rng.choice(["GB", "DE", "FR"])
        events.append((at, next(order), "honest", number(rng, region), f"10.{next(visitors)}"))
    began = 10 * 3600.0
    if attack:
        for n in range(ATTACK):
            region = list(REGIONS)[n % 4]
            first = int(REGIONS[region].format(2_000_000 if region == "US" else 0)[1:])
            at = began + n / ATTACK * ATTACK_HOURS * 3600
            events.append((at, next(order), "attack", f"+{first + n // 4}", f"172.16.{n % ATTACKERS}"))
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
