"""SMS pumping against a sign-in: texts that get through, and honest people refused, with the guard and without.

    python -m benchmarks.pumping [--seeds 30] [--only SCENE] [--json FILE]

Time is simulated; the guard and its store are the real ones. The attack: 20,000 adjacent numbers in 4 hours from 400
visitors, a quarter in each of four regions, and no code is verified. The product: 2,000 honest sign-ins a day, 80 % of
them in one region, twice as many at noon as on average, each from an address and a number of its own. 1,200 of the
numbers were verified the day before; on a launch day all others are new.
`Guard(unverified=UnverifiedBudget(expected_per_day=...))` with a default guard's limits by visitor and number.

Further scenes, each over a day. A new product without history, with 5 and 200 honest sign-ins an hour, under the same
attack, with `expected_per_day` and without. An attacker who starts 60 or 120 sign-ins an hour with random numbers of
the home region, each from another address, to close it for everybody. One who starts with the numbers of ten people,
once in two minutes each; they sign in three times a day. In the last two, honest requests are also made with
`cleared=True`.
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
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import GuardRefusedError, MemoryStore
from bandwidth_mfa_async.signin import Guard, UnverifiedBudget
from bandwidth_mfa_async.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Attack = Callable[[random.Random, float], Iterator[tuple[float, str, str, str]]]

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


async def day(  # noqa: PLR0913 - the facts of a scene
    seed: int,
    *,
    conversion: float,
    honest: float,
    attack: str = "",
    guarded: bool = True,
    history: bool = True,
    expects: bool = True,
    cleared: bool = False,
) -> dict[str, float]:
    """Simulate one day; return shares."""
    rng = random.Random(seed)
    clock = ManualClock(wall=1_750_032_000.0)
    options: dict[str, Any] = {} if guarded else {"per_number": None, "per_visitor": None}
    if guarded:
        expected = EXPECTED if history else {region: round(n * honest / 2_000) for region, n in EXPECTED.items()}
        options["unverified"] = UnverifiedBudget(expected_per_day=expected if expects else None)
    guard = Guard(store=MemoryStore(clock=clock), **options)
    visitors = itertools.count()
    known: list[str] = []
    for _ in range(RETURNING if history else 0):
        known.append(number(rng, home_or_abroad(rng)))
        clock.tick(DAY / RETURNING)
        await (await guard.admit(known[-1], visitor=f"10.{next(visitors)}")).verified()
    events: list[tuple[float, int, str, str, str]] = []
    order = itertools.count()
    for at in honest_times(rng, honest):
        to = known.pop() if known and rng.random() < RETURNING / honest else number(rng, home_or_abroad(rng))
        events.append((at, next(order), "honest", to, f"10.{next(visitors)}"))
    began = 10 * 3600.0
    for at, kind, to, visitor in ATTACKS[attack](rng, began):
        events.append((at, next(order), kind, to, visitor))
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
            ticket = await guard.admit(to, visitor=visitor, cleared=cleared and kind == "honest")
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


def home_or_abroad(rng: random.Random) -> str:
    return "US" if rng.random() < HOME else rng.choice(["GB", "DE", "FR"])


def no_attack(_rng: random.Random, _began: float) -> Iterator[tuple[float, str, str, str]]:
    return iter(())


def adjacent_numbers(_rng: random.Random, began: float) -> Iterator[tuple[float, str, str, str]]:
    for n in range(ATTACK):
        to = f"+{REGIONS[list(REGIONS)[n % 4]][0] + n // 4}"
        yield began + n / ATTACK * ATTACK_HOURS * 3600, "attack", to, f"172.16.{n % ATTACKERS}"


def closing(per_hour: int) -> Attack:
    def attack(rng: random.Random, _began: float) -> Iterator[tuple[float, str, str, str]]:
        for n in range(24 * per_hour):
            yield n * 3600 / per_hour, "attack", number(rng, "US"), f"172.16.{n}"

    return attack


def spending_caps(rng: random.Random, _began: float) -> Iterator[tuple[float, str, str, str]]:
    for victim in range(10):
        to = number(rng, "US")
        for n in range(24 * 30):
            yield n * 120.0 + victim, "attack", to, f"172.16.{victim}.{n}"
        for _ in range(3):
            yield rng.uniform(0, DAY), "honest", to, f"10.victim.{victim}"


ATTACKS: dict[str, Attack] = {
    "": no_attack,
    "adjacent": adjacent_numbers,
    "closing 60": closing(60),
    "closing 120": closing(120),
    "caps": spending_caps,
}
SCENES: dict[str, dict[str, Any]] = {
    "attack, no guard": {"honest": 2_000, "attack": "adjacent", "guarded": False},
    "attack, guard": {"honest": 2_000, "attack": "adjacent"},
    "no attack, guard": {"honest": 2_000},
    "launch day (ten times the traffic), guard": {"honest": 20_000},
}
for each in (5, 200):
    new = {"honest": each * 24, "attack": "adjacent", "history": False}
    SCENES[f"new product, {each} an hour, attack"] = new
    SCENES[f"new product, {each} an hour, attack, without expected_per_day"] = new | {"expects": False}
for each in (60, 120):
    SCENES[f"closing a region, {each} an hour"] = {"honest": 2_000, "attack": f"closing {each}"}
    SCENES[f"closing a region, {each} an hour, cleared"] = SCENES[f"closing a region, {each} an hour"] | {
        "cleared": True
    }
SCENES["spending a victim's caps"] = {"honest": 1, "attack": "caps"}
SCENES["spending a victim's caps, cleared"] = {"honest": 1, "attack": "caps", "cleared": True}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--only", default="", help="the scenes whose names begin so")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    results: dict[str, dict[str, float]] = {}
    print(f"mean of {arguments.seeds} seeds; expected_per_day={EXPECTED}")
    for scene, options in SCENES.items():
        if not scene.startswith(arguments.only):
            continue
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
