"""The building blocks of the charts; widths are in percent, so that a drawing fits any screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from ._html import join, percent, tag

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from markupsafe import Markup

    from ._scales import Tick

_ROW_HEIGHT: Final = 46
_BAR_HEIGHT: Final = 10


@frozen
class Table:
    """A table that scrolls with touch and keyboard.

    Attributes:
        name: the accessible name.
        heads: the column headers.
        rows: the cells; the first cell of each row is its header.
        numbers: the indexes of right-aligned columns.
    """

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = ()


@frozen
class Figure:
    """A chart with its title and caption.

    Attributes:
        title: its title.
        caption: one or more sentences.
        drawing: the chart; None if there is nothing to draw.
        table: its numbers.
        table_label: what the reader clicks to expand the table; empty for a table that is always visible.
        has_readout: whether the script shows the numbers under the pointer above the drawing.
        class_: its CSS classes.
    """

    title: str
    caption: str
    drawing: Markup | None = None
    table: Table | None = None
    table_label: str = ""
    has_readout: bool = False
    class_: str = "card"


def drawing(height: int, *children: str, name: str, class_: str = "plot") -> Markup:
    """Return a drawing with an accessible name for screen readers."""
    return tag("svg", *children, class_=class_, height=height, role="img", aria_label=name)


def text(label: str, x: float, y: float, *, class_: str = "tick", anchor: str | None = None) -> Markup:
    """Return a text at a percentage of the width and a pixel of the height."""
    return tag("text", label, x=percent(x), y=float(y), class_=class_, text_anchor=anchor)


def grid(ticks: Sequence[tuple[float, str]], top: float) -> Markup:
    """Return the horizontal lines of a plot, with their values on the left."""
    return join(
        *(
            join(
                tag("line", x1="0%", x2="100%", y1=top + y, y2=top + y, class_="base" if place == 0 else "grid"),
                tag("text", label, x=-8, y=top + y + 4, class_="tick", text_anchor="end"),
            )
            for place, (y, label) in enumerate(ticks)
        )
    )


def axis_labels(ticks: Iterable[Tick], y: float) -> Markup:
    """Return the labels under a plot; a narrow screen hides every second one."""
    return join(
        *(
            tag(
                "g",
                tag("line", x1=percent(tick.at), x2=percent(tick.at), y1=y, y2=y + 5, class_="base"),
                text(tick.text, tick.at, y + 19, anchor="middle"),
                class_="second" if place % 2 else None,
            )
            for place, tick in enumerate(ticks)
        )
    )


def bars(rows: Sequence[tuple[str, str, str, int, str]], largest: int) -> Markup:
    """Return horizontal bars, each below its name and number.

    Args:
        rows: for each bar its CSS class, its name, a remark, its number, and the number as text.
        largest: the number of a full bar.
    """
    pieces: list[Markup] = []
    for place, (class_, name, remark, number, label) in enumerate(rows):
        y = place * _ROW_HEIGHT
        remark_ = tag("tspan", f"  {remark}", class_="remark") if remark else None
        pieces += [
            tag("text", name, remark_, x="0%", y=y + 14, class_="name"),
            text(label, 100, y + 14, class_="value", anchor="end"),
            _bar(class_, number, largest, y + 22),
        ]
    return join(*pieces)


def bar(class_: str, number: int, largest: int) -> Markup:
    """Return one bar for a table cell next to its number."""
    return tag(
        "svg", _bar(class_, number, largest, 0), class_="plot full in-cell", height=_BAR_HEIGHT, aria_hidden="true"
    )


def _bar(class_: str, number: int, largest: int, y: int) -> Markup:
    track = tag("rect", x="0%", y=y, width="100%", height=_BAR_HEIGHT, rx=2, class_="track")
    if not number:
        return track
    # A number above zero is always visible.
    width = percent(max(100 * number / largest, 0.4))
    return join(track, tag("rect", x="0%", y=y, width=width, height=_BAR_HEIGHT, rx=2, class_=f"bar {class_}"))


def bars_height(rows: int) -> int:
    """Return the height of a number of bars, in pixels."""
    return max(1, rows * _ROW_HEIGHT - 10)
