"""Draws the charts as SVG from the raw figures of a run, for light and for dark pages.

They fit a phone's width, so that letters stay legible there and on a screen. The colours are Okabe and Ito's, which
people with colour vision deficiencies can distinguish; a text repeats what a colour says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from attrs import Factory, define, frozen

from . import _background_load
from . import _call_rivals as rivals
from .rates import RATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WIDTH, MARGIN = 480, 16
IN_FLIGHT = 32  # in the chart of calls
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@frozen
class Theme:
    """Colours.

    Args:
        name: part of the file's name.
        page: the background.
        text: text that is read first.
        quiet: text that is read second.
        other: the figures of the baselines.
        ours: the figures of this library.
        limit: a limit.
    """

    name: str
    page: str
    text: str
    quiet: str
    other: str
    ours: str
    limit: str


LIGHT = Theme("light", "#ffffff", "#1f2328", "#59636e", "#9aa4ae", "#0072b2", "#d55e00")
DARK = Theme("dark", "#0d1117", "#f0f6fc", "#9ba5b0", "#6b7683", "#56b4e9", "#e69f00")
THEMES = (LIGHT, DARK)


@define
class Drawing:
    """A column of shapes.

    Args:
        theme: its colours.
        note: a text below the shapes.
        parts: the SVG so far.
    """

    theme: Theme
    note: str = ""
    parts: list[str] = Factory(list)

    def text(  # noqa: PLR0913 - the attributes of a text
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 14,
        color: str = "",
        bold: bool = False,
        end: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        anchor = ' text-anchor="end"' if end else ""
        place = f'x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{color or self.theme.text}"'
        self.parts.append(f"<text {place}{weight}{anchor}>{escape(words)}</text>")

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:g}" rx="2" fill="{color}"/>')

    def line(self, points: list[tuple[float, float]], color: str, width: float, dashes: str = "") -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        stroke = f'stroke="{color}" stroke-width="{width:g}" stroke-linejoin="round"{dashed}'
        self.parts.append(f'<polyline points="{path}" fill="none" {stroke}/>')

    def area(self, points: list[tuple[float, float]], color: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="{color}" fill-opacity="0.4"/>')

    def svg(self, title: str, height: float) -> str:
        """Return the picture. Its title states the finding, for screen readers."""
        if self.note:
            self.text(MARGIN, height + 8, self.note, size=13, color=self.theme.quiet)
            height += 20
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
            f'height="{height:g}" role="img" aria-labelledby="title" font-family="{FONT}">'
        )
        page = f'<rect width="{WIDTH}" height="{height:g}" rx="6" fill="{self.theme.page}"/>'
        lines = [head, f'<title id="title">{escape(title)}</title>', page, *self.parts, "</svg>"]
        return "\n".join(lines) + "\n"

    def heading(self, title: tuple[str, ...], *below: str) -> float:
        """Write the finding and how it was measured; return the y of the rest."""
        for number, words in enumerate(title):
            self.text(MARGIN, 30 + 22 * number, words, size=16, bold=True)
        y = 30 + 22 * len(title)
        for number, words in enumerate(below):
            self.text(MARGIN, y + 18 * number, words, size=13, color=self.theme.quiet)
        return y + 18 * len(below) - 2


@frozen
class Bar:
    """One bar of a chart.

    Args:
        name: the text before it.
        value: its length.
        shown: the value as text, after it.
        own: whether it is a figure of this library.
    """

    name: str
    value: float
    shown: str
    own: bool


def bars(drawing: Drawing, y: float, rows: list[Bar], left: float, room: float) -> float:
    """Draw a column of bars and return the y of its end.

    A bar that is many times longer than all others is cut, so that the others stay visible, and a text says so.
    """
    theme, lengths = drawing.theme, sorted(row.value for row in rows)
    cut = lengths[-1] > 3 * lengths[-2]
    scale = room / (lengths[-2] * 1.25 if cut else lengths[-1])
    for row in rows:
        drawing.text(left - 8, y + 16, row.name, end=True, bold=row.own)
        width = min(room, row.value * scale)
        drawing.bar(left, y + 2, width, 19, theme.ours if row.own else theme.other)
        if cut and row.value == lengths[-1]:
            x = left + width - 26
            torn = f"M{x},{y} l6,7.7 l-6,7.7 l6,7.7 h7 l-6,-7.7 l6,-7.7 l-6,-7.7 z"
            drawing.parts.append(f'<path d="{torn}" fill="{theme.page}"/>')
        drawing.text(left + width + 6, y + 16, row.shown, bold=row.own)
        y += 29
    if cut:
        longest = max(rows, key=lambda row: row.value)
        drawing.text(MARGIN, y + 14, f"{longest.name}: the bar is cut", size=13, color=theme.quiet)
        y += 20
    return y


def new_drawing(results: Mapping[str, dict[str, Any]], theme: Theme, *parts: str) -> Drawing:
    """Return a drawing of these parts, with a note if the machine was busy."""
    share = max((share for name, share in _background_load.busy(results).items() if name in parts), default=0.0)
    return Drawing(theme, f"Other processes used {100 * share:.0f} % of the machine." if share else "")


def calls(results: Mapping[str, dict[str, Any]], theme: Theme) -> str:
    """Draw the CPU of a call of each client, the cheapest first."""

    def costs(part: str) -> dict[str, dict[str, Any]]:
        found = results[part]["figures"]["calls"] if part in results else []
        return {cost["name"]: cost for cost in found if (cost["loop"], cost["in_flight"]) == ("asyncio", IN_FLIGHT)}

    by = costs("calls")
    cpu = {name: cost["cpu"] for name, cost in by.items()}
    for name, cost in costs("niquests").items():
        # From a separate run, since it replaces a library of another client; scaled by the naive client of that run.
        cpu.setdefault(name, cost["to_naive"] * cpu[rivals.NAIVE])
    title: tuple[str, ...] = (f"A call takes {by[rivals.NAIVE]['ours_to_it']:.2f} of handwritten aiohttp's CPU",)
    if rivals.OFFICIAL in by:
        title = (*title, f"and {by[rivals.OFFICIAL]['ours_to_it']:.2f} of the official SDK's")
    drawing = new_drawing(results, theme, "calls", "niquests")
    y = drawing.heading(title, f"µs of CPU a call, {IN_FLIGHT} in flight, asyncio; all our features on")
    order = sorted(cpu.items(), key=lambda item: item[1])
    y = bars(drawing, y, [Bar(name, us, f"{us:,.0f} µs", name == rivals.OURS) for name, us in order], 198, 190)
    if "niquests" in cpu:
        note = "niquests: from a separate run, by its ratio to aiohttp, naive"
        drawing.text(MARGIN, y + 14, note, size=13, color=theme.quiet)
        y += 20
    return drawing.svg(f"{' '.join(title)}.", y + 10)


def memory(results: Mapping[str, dict[str, Any]], theme: Theme) -> str:
    """Draw the peak memory of bulk runs by their size."""
    figures = results["memory"]["figures"]
    sizes, paces = figures["peak memory, MiB"], figures["codes a second"]
    largest = list(sizes)[-1]
    times = figures["peak memory, most items / 10,000"]
    title = (f"A bulk run of {largest} takes {times:.2f} times", "the memory of one of 10,000")
    drawing = new_drawing(results, theme, "memory")
    y = drawing.heading(title, "peak memory of the whole process, journal on;", "codes sent a second after it")
    rows = [Bar(size, mib, f"{mib:.0f} MiB, {paces[size]:,}/s", own=True) for size, mib in sizes.items()]
    return drawing.svg(f"{' '.join(title)}.", bars(drawing, y, rows, 110, 190) + 10)


NAMES = {
    "ours": rivals.OURS,
    "naive": "retries with backoff and jitter",
    "aiohttp-retry": "aiohttp-retry's exponential backoff",
    "botocore": "botocore's adaptive mode, ported",
    "AIMD": "AIMD: +5/s each second, x 0.7 at a 429",
}


def rates(results: Mapping[str, dict[str, Any]], theme: Theme) -> str:
    """Draw the messages that an account with a changing limit accepted in each second, for each way."""
    found = [one for one in results["rates"]["figures"]["figures"] if one["case"] == "token bucket"]
    course: dict[str, dict[str, list[int]]] = found[0]["course"]
    shares = [one["values"] for one in found if one["name"].startswith("goodput")]
    rejected = [one["values"] for one in found if one["name"].startswith("429s at")]
    least, most = min(values["ours"] for values in shares), max(values["ours"] for values in rejected)
    title = (
        f"In steady state it uses {100 * least:.1f} % of an",
        f"unknown limit, with at most {most:.2f} % answered 429",
    )
    drawing = new_drawing(results, theme, "rates")
    first, second, third = RATES
    y = drawing.heading(
        title,
        f"texts a second; the limit is {first:g}, then {second:g}, then {third:g}",
        "dashed: the limit; line: accepted; filled: answered 429",
    )
    left, right, height = 50, WIDTH - MARGIN, 76
    seconds = len(course["ours"]["accepted"])
    top = max(RATES) * 1.1

    def at(second: float, rate: float) -> tuple[float, float]:
        return left + (right - left) * second / seconds, y + height - height * min(rate, top) / top

    for way, counts in course.items():
        own = way == "ours"
        drawing.text(MARGIN, y + 14, NAMES[way], bold=own)
        used, rejections = min(values[way] for values in shares), max(values[way] for values in rejected)
        note = f"steady: at least {100 * used:.1f} % used, at most {rejections:.1f} % rejected"
        drawing.text(MARGIN, y + 32, note, size=13, color=theme.quiet)
        highest = max(*counts["refused"], *counts["accepted"])
        if highest > top:
            drawing.text(right, y + 14, f"cut: up to {highest:,} a second", size=13, color=theme.quiet, end=True)
        y += 42
        for rate in (0, 100, 200):
            drawing.text(left - 6, at(0, rate)[1] + 4, f"{rate}", size=12, color=theme.quiet, end=True)
        drawing.line([at(0, 0), at(seconds, 0)], theme.quiet, 0.75)
        limit = [at(seconds * (n + step) / 3, rate) for n, rate in enumerate(RATES) for step in (0, 1)]
        drawing.line(limit, theme.limit, 1.5, "5 3")
        rejected_points = [at(n + 0.5, count) for n, count in enumerate(counts["refused"])]
        drawing.area([at(0.5, 0), *rejected_points, at(seconds - 0.5, 0)], theme.limit)
        accepted = [at(n + 0.5, count) for n, count in enumerate(counts["accepted"])]
        drawing.line(accepted, theme.ours if own else theme.text, 1.75)
        y += height + 16
    for second in (0, seconds / 3, 2 * seconds / 3, seconds):
        x = at(second, 0)[0]
        drawing.text(x + (8 if second else 0), y, f"{second:g} s", size=12, color=theme.quiet, end=bool(second))
    return drawing.svg(f"{' '.join(title)}.", y + 14)


CHARTS: dict[str, Callable[[Mapping[str, dict[str, Any]], Theme], str]] = {
    "calls": calls,
    "rates": rates,
    "memory": memory,
}


def draw(results: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the charts of the measured parts by file name."""
    return {
        f"{name}-{theme.name}.svg": make(results, theme)
        for name, make in CHARTS.items()
        if name in results
        for theme in THEMES
    }
