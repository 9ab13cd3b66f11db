"""Reduces the raw figures of a run to the rows of one table, each with its target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from . import _background_load, bulk, call_cost, first_call, import_cost, worker_cost
from . import _call_rivals as rivals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Targets of the whole library: a share of the limit, percent, and seconds.
MIN_GOODPUT, MAX_REJECTED, MAX_DELAY = 0.95, 1.0, 0.050
IDLE = 0.090  # seconds of a call in the virtual network without other calls
WAYS = {"naive": "naive", "aiohttp-retry": "aiohttp-retry", "botocore": "botocore's", "AIMD": "AIMD"}


@frozen
class Row:
    """One row of the table.

    Args:
        metric: what was measured.
        ours: the figure of this library.
        baseline: the figures of the alternatives.
        ratio: the value that the target limits, as text: a ratio, a share or a difference.
        target: the target as text; empty if there is none.
        met: whether the target is met.
    """

    metric: str
    ours: str
    baseline: str
    ratio: str
    target: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """Whether the target is met, as text."""
        return "" if self.met is None else "met" if self.met else "NOT MET"


def at_most(metric: str, ours: str, baseline: str, ratio: float, target: float) -> Row:
    return Row(metric, ours, baseline, _shown(ratio, target), f"<= {target:.2f}", ratio <= target)


def at_least(metric: str, ours: str, baseline: str, ratio: float, target: float) -> Row:
    return Row(metric, ours, baseline, _shown(ratio, target), f">= {target:.2f}", ratio >= target)


def _shown(ratio: float, target: float) -> str:
    """Return two decimals, or three where two would hide on which side of the target the ratio is."""
    return f"{ratio:.3f}" if f"{ratio:.2f}" == f"{target:.2f}" else f"{ratio:.2f}"


def calls(figures: dict[str, Any]) -> list[Row]:
    """The cost of a call, and how it grows with what is in flight."""
    rows = []
    by: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cost in figures["calls"]:
        by.setdefault((cost["loop"], cost["name"]), []).append(cost)
    for (loop, name), costs in by.items():
        target = call_cost.TARGETS.get(name)
        if target is not None:
            own = " / ".join(f"{cost['cpu']:.0f}" for cost in by[loop, rivals.OURS]) + " us"
            baseline = f"{name} {' / '.join(format(cost['cpu'], '.0f') for cost in costs)} us"
            metric = f"CPU of a call, {loop}, {' / '.join(str(cost['in_flight']) for cost in costs)} in flight: maximum"
            rows.append(at_most(metric, own, baseline, max(cost["ours_to_it"] for cost in costs), target))
    grown = {(one["loop"], one["name"], one["collector"]): _growth(one) for one in figures["growth"]}
    for loop in dict.fromkeys(loop for loop, _, _ in grown):
        own, other = grown[loop, rivals.OURS, "on"], grown[loop, rivals.NAIVE, "on"]
        metric = f"CPU of a call, {loop}, {' / '.join(f'{n:,}' for n in own.cpu)} at once"
        baseline = f"{rivals.NAIVE}, over its 100 connections, {_each(other)}, {other.most:.2f}"
        rows.append(
            at_most(
                f"{metric} over the default 100 slots: growth", _each(own), baseline, own.most, call_cost.GROWTH_TARGET
            )
        )
        wide = {name: grown[loop, call_cost.OURS_WIDE, name] for name in call_cost.COLLECTORS}
        own, other = wide["on"], grown[loop, call_cost.NAIVE_WIDE, "on"]
        baseline = f"{rivals.NAIVE}, with as many connections, {_each(other)}, {other.most:.2f}; this library with"
        baseline = (
            f"{baseline} gc.set_threshold(20_000) {_each(wide['20,000'])}, {wide['20,000'].most:.2f}; without Python's"
        )
        baseline = f"{baseline} garbage collector {_each(wide['off'])}, {wide['off'].most:.2f}"
        metric = f"{metric} with max_in_flight=1000: growth"
        rows.append(at_most(metric, _each(own), baseline, own.most, call_cost.GROWTH_TARGET))
    return rows


def _growth(one: dict[str, Any]) -> call_cost.Growth:
    cpu = {int(count): cost for count, cost in one["cpu"].items()}
    return call_cost.Growth(one["loop"], collector=one["collector"], name=one["name"], cpu=cpu)


def _each(growth: call_cost.Growth) -> str:
    return " / ".join(f"{cost:.0f}" for cost in growth.cpu.values()) + " us"


def rates(figures: dict[str, Any]) -> list[Row]:
    """The throughput under an account limit that the client does not know, and the waits of sign-ins."""
    rows = []
    for case, where in (("token bucket", "virtual time"), ("http: token bucket", "over HTTP")):
        found = [one for one in figures["figures"] if one["case"] == case]
        goodput = [one["values"] for one in found if one["name"].startswith("goodput")]
        rejected = [one["values"] for one in found if one["name"].startswith("429s at")]
        if not found:
            continue
        names = {way: name for way, name in WAYS.items() if way in goodput[0]}
        least = min(values["ours"] for values in goodput)
        most = max(values["ours"] for values in rejected)
        shown = ", ".join(f"{name} {min(values[way] for values in goodput):.2f}" for way, name in names.items())
        metric = f"accepted / limit of 100, 30, 200 a second, unknown, {where}: minimum"
        rows.append(at_least(metric, f"{least:.2f}", shown, least, MIN_GOODPUT))
        shown = ", ".join(f"{name} {max(values[way] for values in rejected):.1f} %" for way, name in names.items())
        metric = f"answered 429, {where}: maximum"
        rows.append(
            Row(metric, f"{most:.2f} %", shown, f"{most:.2f} %", f"<= {MAX_REJECTED:g} %", most <= MAX_REJECTED)
        )
    for one in figures["figures"]:
        case, _, known = one["case"].partition(", ")
        if case == "bulk and logins" and one["name"].startswith("login p99"):
            over = one["values"]["ours"] - IDLE
            limit = 2 / 100 + MAX_DELAY
            others = {way: value for way, value in one["values"].items() if way in WAYS}
            shown = ", ".join(f"{WAYS[way]} {_ms(value)}" for way, value in others.items())
            metric = f"sign-in p99 during a bulk run, limit of 100 a second, {known}; above idle (90 ms)"
            row = Row(metric, _ms(one["values"]["ours"]), shown, _ms(over), f"<= {_ms(limit)}", over <= limit)
            rows.append(row)
    return rows


def _ms(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds * 1e3:,.0f} ms"


def bulk_cost(figures: dict[str, Any]) -> list[Row]:
    """A bulk run with and without its journal, and a gather that stores nothing."""
    cpu, wall = figures["us of CPU an item"], figures["items a second"]
    gathering, without, with_ = bulk.WAYS
    journal = figures["calls a second, with journal / without"]
    least = bulk.TARGETS["calls a second, with journal / without"]
    name = "cpu, with journal / bare gather"
    return [
        at_most(
            "CPU of a code in a bulk run with its journal",
            f"{cpu[with_]:.0f} us",
            f"{gathering} {cpu[gathering]:.0f} us",
            figures[name],
            bulk.TARGETS[name],
        ),
        at_least(
            "codes a second with the journal, against a server that answers at once",
            f"{wall[with_]:,.0f}",
            f"without it {wall[without]:,.0f}, {gathering} {wall[gathering]:,.0f}",
            journal,
            least,
        ),
    ]


def memory(figures: dict[str, Any]) -> list[Row]:
    """A large bulk run compared with a small one."""
    sizes = figures["peak memory, MiB"]
    paces = " / ".join(f"{pace:,}" for pace in figures["codes a second"].values())
    (few, small), *_, (many, large) = sizes.items()
    name = "peak memory, most items / 10,000"
    sent, again = figures["seconds to send, then to find all of it done"]
    return [
        at_most(
            f"peak memory of a bulk run of {many}",
            f"{large:.1f} MiB",
            f"of {few} {small:.1f} MiB",
            figures[name],
            bulk.TARGETS[name],
        ),
        Row(
            f"restart that finds all {many} done",
            f"{again:.0f} s",
            f"sending them {sent:.0f} s",
            f"{again / sent:.2f}",
        ),
        Row(f"codes a second in bulk runs of {' / '.join(sizes)}, journal on", paces, "", ""),
    ]


def imports(figures: dict[str, Any]) -> list[Row]:
    """The cost of an import."""
    by = {one["statement"]: one for one in figures["figures"]}
    rows = []
    for statement, target in import_cost.TARGETS.items():
        others = ", ".join(
            f"`{other}` {by[other]['cpu_ms']:.0f} ms, {by[other]['memory_mb']:.0f} MB"
            for other in (import_cost.AIOHTTP, import_cost.OFFICIAL)
            if other in by
        )
        own = by[statement]
        ours = f"{own['cpu_ms']:.0f} ms, {own['memory_mb']:.0f} MB"
        rows.append(at_most(f"CPU and memory of `{statement}`", ours, others, own["to_aiohttp"], target))
    return rows


def first(figures: dict[str, Any]) -> list[Row]:
    """The first call of a process."""
    by = {one["name"]: one for one in figures["figures"]}
    cold, warm, hand = (by[name] for name in (first_call.COLD, first_call.WARM, first_call.AIOHTTP))
    baseline = f"without {cold['wall_ms']:.1f} ms, handwritten aiohttp {hand['wall_ms']:.1f} ms"
    metric = "a process's first call over TLS, on loopback, after `warm_up`"
    return [Row(metric, f"{warm['wall_ms']:.1f} ms", baseline, f"{warm['to_first_call']:.2f}")]


def worker(figures: dict[str, Any]) -> list[Row]:
    """A code through a worker."""
    local, name = figures["local bulk, us a code"], "cpu, worker / local bulk"
    own = figures["1 worker"]["worker, us a code"]
    metric = "CPU of a code through a worker, its ledger in Redis"
    return [at_most(metric, f"{own:.0f} us", f"local bulk run {local:.0f} us", figures[name], worker_cost.TARGET)]


def truth(figures: dict[str, Any]) -> list[Row]:
    """Reported outcomes compared with the ledger of a service that misbehaves."""
    worlds = [world for world in figures.values() if isinstance(world, dict)]
    wrong = sum(len(world["wrong"]) for world in worlds)
    asked = sum(world["sends"] + world["verifies"] for world in worlds)
    return [
        Row("outcomes contradicted by the service's ledger", f"{wrong} of {asked:,}", "", f"{wrong}", "0", not wrong)
    ]


ROWS: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "calls": calls,
    "rates": rates,
    "bulk": bulk_cost,
    "imports": imports,
    "first": first,
    "worker": worker,
    "truth": truth,
    "memory": memory,
}


def rows(results: Mapping[str, dict[str, Any]]) -> list[Row]:
    """Return the rows of the measured parts in order, marked where the machine was busy."""
    busy = _background_load.busy(results)
    return [
        evolve(row, metric=row.metric + _background_load.MARK) if part in busy else row
        for part, make in ROWS.items()
        if part in results
        for row in make(results[part]["figures"])
    ]


HEADS = ("metric", "this library", "baseline", "ratio", "target", "")


def as_text(table: list[Row]) -> str:
    """Return the table for a terminal."""
    cells = [HEADS, *((row.metric, row.ours, row.baseline, row.ratio, row.target, row.verdict) for row in table)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def as_markdown(table: list[Row]) -> str:
    """Return the table for benchmarks/README.md."""
    cells = [HEADS, ("---",) * len(HEADS)]
    for row in table:
        target = row.target.replace("<=", "≤").replace(">=", "≥")
        verdict = f"**{row.verdict.lower()}**" if row.met is False else row.verdict
        cells.append((row.metric, row.ours, row.baseline, row.ratio, target, verdict))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


# README quotes the first row of a part whose metric begins so, under a name that needs no table around it.
QUOTED = (
    ("calls", "CPU of a call", "CPU of a call with 1 / 32 / 256 in flight"),
    ("rates", "answered 429, virtual time", "answers 429 under a limit that it does not know"),
    ("rates", "sign-in p99", "sign-in during a bulk run at an unknown limit of 100/s, p99 (idle: 90 ms)"),
    ("memory", "peak memory", "peak memory of a bulk run of 1,000,000 codes"),
    ("truth", "outcomes contradicted", "reported outcomes that the service's own record contradicts"),
)


def quoted_rows(results: Mapping[str, dict[str, Any]]) -> list[Row]:
    """Return the rows that README quotes, renamed, and marked as in the whole table."""
    quoted = []
    for part, begin, name in QUOTED:
        if part in results:
            row = next(row for row in rows(results) if row.metric.startswith(begin))
            mark = _background_load.MARK if row.metric.endswith(_background_load.MARK) else ""
            quoted.append(evolve(row, metric=name + mark))
    return quoted


def as_short_markdown(table: list[Row]) -> str:
    """Return the table for README: metric, figure and baseline."""
    cells = [HEADS[:3], ("---",) * 3, *((row.metric, row.ours, row.baseline) for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
