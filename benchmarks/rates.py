"""Goodput, 429s and waits against accounts with unknown and changing limits: this library and four others in one run.

Run: python -m benchmarks.rates [--quick] [--json FILE] [--only CASE ...]
The long cases run in virtual time with several seeds; a figure is that of the worst seed unless it says otherwise. The
case "http" sends real requests to the simulator on loopback, in real time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import pathlib
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from attrs import Factory, asdict, evolve, frozen

from bandwidth_mfa_async.simulator import AccountLimits
from tests.support.redis_server import server_binary

from . import _rate_waiters as waiters
from ._rate_worlds import OURS, WAYS, Account, in_virtual_time, over_http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._rate_worlds import Seen

RATES = (100.0, 30.0, 200.0)
COLUMNS = (*WAYS, waiters.RESERVED)


@frozen
class Figure:
    """One line of the table.

    Args:
        case: the scenario.
        name: the metric.
        values: by way.
        target: the target of this library, as text; empty for a figure without one.
        met: whether the target is met.
        course: messages accepted and rejected in each second of the first run, by way; set on one figure, for the
            chart.
    """

    case: str
    name: str
    values: dict[str, float]
    target: str = ""
    met: bool | None = None
    course: dict[str, dict[str, list[int]]] = Factory(dict)


def at_least(case: str, name: str, values: dict[str, float], target: float) -> Figure:
    return Figure(case, name, values, f">= {target:g}", round(values[OURS], 3) >= target)


def at_most(case: str, name: str, values: dict[str, float], target: float) -> Figure:
    return Figure(case, name, values, f"<= {target:g}", round(values[OURS], 3) <= target)


@frozen
class Plan:
    """The lengths of the phases. The steady part excludes the first third of each phase, or the first half of the last.

    Args:
        seconds: of each phase.
        seeds: number of runs.
    """

    seconds: float
    seeds: int

    @property
    def steady(self) -> tuple[tuple[float, float], ...]:
        length = self.seconds
        return ((length / 3, length), (length * 4 / 3, length * 2), (length * 2.5, length * 3))

    def account(self, limits: AccountLimits) -> Account:
        steps = ((self.seconds, RATES[1]), (2 * self.seconds, RATES[2]))
        return Account(limits=limits, steps=steps, until=3 * self.seconds)


def waits(runs: Iterable[Seen], phases: Iterable[tuple[float, float]]) -> list[float]:
    """Return the login times of all runs, the shortest first."""
    within = tuple(phases)
    return sorted(wait for run in runs for at, wait in run.tally.interactive if any(a <= at < b for a, b in within))


def p99(runs: Iterable[Seen], phases: Iterable[tuple[float, float]]) -> float:
    """Return the 99th percentile of the logins of all runs together."""
    took = waits(runs, phases)
    return took[math.ceil(0.99 * len(took)) - 1] if took else math.nan


def late(runs: Iterable[Seen], phases: Iterable[tuple[float, float]]) -> float:
    """Return the percentage of logins that took longer than 0.3 s."""
    took = waits(runs, phases)
    return 100 * sum(wait > 0.3 for wait in took) / max(1, len(took))


def steps(  # noqa: PLR0913 - the targets of one row
    case: str, runs: dict[str, list[Seen]], plan: Plan, *, goodput: float, rejected: float, whole: bool
) -> list[Figure]:
    """Return the figures of an account that goes from 100 to 30 to 200 per second."""

    def each(pick: Callable[[list[Seen]], float]) -> dict[str, float]:
        return {way: pick(seen) for way, seen in runs.items()}

    figures = []
    for phase, rate in zip(plan.steady, RATES, strict=True):
        share = each(lambda seen, p=phase, r=rate: min(s.tally.goodput(*p) for s in seen) / r)
        figures.append(at_least(case, f"goodput / R at {rate:g}/s", share, goodput))
    for phase, rate in zip(plan.steady, RATES, strict=True):
        # A phase at 30 per second allows ten rejections, so the share is the mean of all seeds.
        share = each(lambda seen, p=phase: 100 * sum(s.tally.rejected_share(*p) for s in seen) / len(seen))
        figures.append(at_most(case, f"429s at {rate:g}/s, % (mean)", share, rejected))
    last = 2 * plan.seconds
    up = each(lambda seen: max(s.tally.time_to(0.9 * RATES[2], last) for s in seen))
    down = each(
        lambda seen: float(max(sum(plan.seconds <= at < plan.seconds + 5 for at in s.tally.rejected) for s in seen))
    )
    login = each(lambda seen: p99(seen, plan.steady))
    if not whole:
        return [*figures, Figure(case, "s to 0.9 R after the step up", up), Figure(case, "login p99, s", login)]
    return [
        *figures,
        at_most(case, "s to 0.9 R after the step up", up, 8),
        at_most(case, "429s in 5 s after the step down", down, 20),
        at_most(case, "login p99, s (all seeds)", login, 0.3),
        Figure(case, "logins above 0.3 s, %", each(lambda seen: late(seen, plan.steady))),
    ]


def by_second(run: Seen, seconds: float) -> dict[str, list[int]]:
    """Return the numbers of accepted and rejected messages in each second."""

    def counted(times: list[float]) -> list[int]:
        counts = [0] * int(seconds)
        for at in times:
            if at < len(counts):
                counts[int(at)] += 1
        return counts

    return {"accepted": counted(run.tally.accepted), "refused": counted(run.tally.rejected)}


def virtual_runs(account: Account, seeds: int) -> dict[str, list[Seen]]:
    with ProcessPoolExecutor() as pool:
        jobs = {way: [pool.submit(in_virtual_time, way, account, seed + 1) for seed in range(seeds)] for way in WAYS}
        return {way: [job.result() for job in jobs[way]] for way in WAYS}


def measure_bucket(*, quick: bool) -> list[Figure]:
    """A token bucket of one second; every target of the rates issue."""
    plan = Plan(30, 1) if quick else Plan(60, 5)
    runs = virtual_runs(plan.account(AccountLimits(rate=RATES[0], model="token_bucket")), plan.seeds)
    first, *others = steps("token bucket", runs, plan, goodput=0.98, rejected=1.0, whole=True)
    return [evolve(first, course={way: by_second(seen[0], 3 * plan.seconds) for way, seen in runs.items()}), *others]


def measure_others(*, quick: bool) -> list[Figure]:
    """A fixed window of a second, a sliding log of a second, and a queue of 200 messages."""
    plan = Plan(30, 1) if quick else Plan(60, 3)
    figures = []
    for model, case in (("fixed_window", "fixed window"), ("sliding_log", "sliding log"), ("queue", "account queue")):
        limits = AccountLimits(rate=RATES[0], model=model, queue_seconds=2.0)
        runs = virtual_runs(plan.account(limits), plan.seeds)
        figures += steps(case, runs, plan, goodput=0.93, rejected=1.3, whole=False)
    return figures


def measure_eight(*, quick: bool) -> list[Figure]:
    """Eight programs at one token bucket, 10 in flight each; ours share through the real script in virtual time."""
    if server_binary() is None:
        print("eight: skipped, redis-server is not installed", file=sys.stderr)
        return []
    plan = Plan(30, 1) if quick else Plan(60, 3)
    bucket = AccountLimits(rate=RATES[0], model="token_bucket")
    account = evolve(plan.account(bucket), processes=8, bulk=80)
    runs = virtual_runs(account, plan.seeds)
    case = "eight programs"
    figures = steps(case, runs, plan, goodput=0.98, rejected=1.0, whole=False)
    for phase, rate in zip(plan.steady, RATES, strict=True):
        jain = {way: min(s.jain(*phase) for s in seen) for way, seen in runs.items()}
        figures.append(at_least(case, f"Jain's index at {rate:g}/s", jain, 0.98))
    calls = {OURS: max(s.calls / len(s.tally.accepted) for s in runs[OURS])}
    return [*figures, at_most(case, "Redis calls a send", calls, 1.0)]


def measure_minute(*, quick: bool) -> list[Figure]:
    """60 messages per minute into a queue of 100; the limit is known to us, and to AIMD as its ceiling."""
    seconds = 200.0 if quick else 1200.0
    limits = AccountLimits(rate=60, per=60, model="queue", queue_seconds=100)
    runs = virtual_runs(Account(limits=limits, until=seconds, known=True, logins=0.05), 1 if quick else 3)
    case = "60 a minute, known"
    share = {way: min(s.tally.goodput(30, seconds) for s in seen) for way, seen in runs.items()}
    rejected = {way: float(sum(len(s.tally.rejected) for s in seen)) for way, seen in runs.items()}
    queue = {way: max(s.longest_queue for s in seen) for way, seen in runs.items()}
    return [
        at_least(case, "goodput / R", share, 0.97),
        at_most(case, "429s", rejected, 0),
        at_most(case, "the provider's queue wait, s", queue, 1.0),
    ]


def measure_logins(*, quick: bool) -> list[Figure]:
    """50 in flight at a limit of 100 per second, unknown and known (to us and AIMD), and 2 logins per second."""
    seconds, seeds = (100.0, 3) if quick else (300.0, 5)
    figures = []
    for known in (False, True):
        case = f"bulk and logins, {'known' if known else 'unknown'}"
        limits = AccountLimits(rate=100, model="token_bucket")
        runs = virtual_runs(Account(limits=limits, until=seconds, known=known), seeds)
        steady = ((20.0, seconds),)
        login = {way: p99(seen, steady) for way, seen in runs.items()}
        share = {way: late(seen, steady) for way, seen in runs.items()}
        worst = {way: max(waits(seen, steady), default=math.nan) for way, seen in runs.items()}
        figures += [
            at_most(case, "login p99, s", login, 0.3),
            Figure(case, "logins above 0.3 s, %", share),
            Figure(case, "slowest login, s", worst),
        ]
    return figures


def measure_leavers(*, quick: bool) -> list[Figure]:
    """Callers that leave the queue; 200 per second."""
    del quick
    return [
        at_least("250 of 500 cancelled", "survivors' rate / R", waiters.half_cancelled(), 0.98),
        at_least("timeouts of 1-300 ms", "rate / R", waiters.random_timeouts(), 0.98),
    ]


def measure_weight(*, quick: bool) -> list[Figure]:
    """A message of five segments among 100 callers with one each; 100 per second."""
    del quick
    return [at_most("weight 5 among 100 of 1", "wait / fair wait", waiters.heavy_among_light(), 1.1)]


def measure_cost(*, quick: bool) -> list[Figure]:
    """The CPU cost of a permit that does not wait."""
    costs = waiters.cost_of_a_permit(2, 5_000) if quick else waiters.cost_of_a_permit()
    case = "us CPU a permit"
    others = [Figure(case, name, costs[name]) for name in ("with its outcome", "a limit far away")]
    return [at_most(case, "not limited", costs["not limited"], 3.0), *others]


def http_run(way: str, account: Account, seed: int) -> Seen:
    return asyncio.run(over_http(way, account, seed))


def measure_http(*, quick: bool) -> list[Figure]:
    """The token bucket with real requests to the simulator, two runs at a time; every target of the rates issue."""
    plan = Plan(15 if quick else 20, 1)
    account = plan.account(AccountLimits(rate=RATES[0], model="token_bucket"))
    # One run has too few logins for a 99th percentile.
    seeds = {OURS: 1} if quick else dict.fromkeys(WAYS, 1) | {OURS: 5}
    with ProcessPoolExecutor(2) as pool:
        jobs = {way: [pool.submit(http_run, way, account, seed + 1) for seed in range(n)] for way, n in seeds.items()}
        runs = {way: [job.result() for job in started] for way, started in jobs.items()}
    return steps("http: token bucket", runs, plan, goodput=0.98, rejected=1.0, whole=True)


CASES: dict[str, Callable[..., list[Figure]]] = {
    "bucket": measure_bucket,
    "others": measure_others,
    "eight": measure_eight,
    "minute": measure_minute,
    "logins": measure_logins,
    "leavers": measure_leavers,
    "weight": measure_weight,
    "cost": measure_cost,
    "http": measure_http,
}


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    if math.isinf(value):
        return "never"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def show(figures: list[Figure]) -> None:
    print(f"{'':26}{'':34}{'target':>9} " + "".join(f"{way:>13}" for way in COLUMNS) + "  ours")
    case = ""
    for figure in figures:
        values = "".join(f"{_shown(figure.values.get(way)):>13}" for way in COLUMNS)
        verdict = "" if figure.met is None else "met" if figure.met else "NOT MET"
        shown = "" if figure.case == case else figure.case
        print(f"{shown:26}{figure.name:34}{figure.target:>9} {values}  {verdict}".rstrip())
        case = figure.case


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter phases, one seed, no rivals over HTTP")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args()
    figures = [figure for name in options.only for figure in CASES[name](quick=options.quick)]
    show(figures)
    if options.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.platform()}
        # JSON has no infinity.
        rows = [asdict(figure) for figure in figures]
        for row in rows:
            row["values"] = {way: value if math.isfinite(value) else None for way, value in row["values"].items()}
        options.json.write_text(json.dumps({**machine, "quick": options.quick, "figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
