"""The building blocks of the charts; widths are in percent, so that a drawing fits any screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._html import join, percent, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._html import Html
    from ._scales import Tick

_ROW_HEIGHT: Final = 46
_BAR_HEIGHT: Final = 10


def drawing(height: int, *children: str, name: str, class_: str = "plot") -> Html:
    """Return a drawing with an accessible name for screen readers."""
    return tag("svg", *children, class_=class_, height=height, role="img", aria_label=name)


def text(label: str, x: float, y: float, *, class_: str = "tick", anchor: str | None = None) -> Html:
    """Return a text at a percentage of the width and a pixel of the height."""
    return tag("text", label, x=percent(x), y=float(y), class_=class_, text_anchor=anchor)


def grid(ticks: Sequence[tuple[float, str]], top: float) -> Html:
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


def axis_labels(ticks: Iterable[Tick], y: float) -> Html:
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


def bars(rows: Sequence[tuple[str, str, str, int, str]], largest: int) -> Html:
    """Return horizontal bars, each below its name and number.

    Args:
        rows: for each bar its CSS class, its name, a remark, its number, and the number as text.
        largest: the number of a full bar.
    """
    pieces: list[Html] = []
    for place, (class_, name, remark, number, label) in enumerate(rows):
        y = place * _ROW_HEIGHT
        remark_ = tag("tspan", f"  {remark}", class_="remark") if remark else None
        pieces += [
            tag("text", name, remark_, x="0%", y=y + 14, class_="name"),
            text(label, 100, y + 14, class_="value", anchor="end"),
            _bar(class_, number, largest, y + 22),
        ]
    return join(*pieces)


def bar(class_: str, number: int, largest: int) -> Html:
    """Return one bar for a table cell next to its number."""
    return tag(
        "svg", _bar(class_, number, largest, 0), class_="plot full in-cell", height=_BAR_HEIGHT, aria_hidden="true"
    )


def _bar(class_: str, number: int, largest: int, y: int) -> Html:
    track = tag("rect", x="0%", y=y, width="100%", height=_BAR_HEIGHT, rx=2, class_="track")
    if not number:
        return track
    # A number above zero is always visible.
    width = percent(max(100 * number / largest, 0.4))
    return join(track, tag("rect", x="0%", y=y, width=width, height=_BAR_HEIGHT, rx=2, class_=f"bar {class_}"))


def bars_height(rows: int) -> int:
    """Return the height of a number of bars, in pixels."""
    return max(1, rows * _ROW_HEIGHT - 10)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, name: str, numbers: Sequence[int] = ()) -> Html:
    """Return a table that scrolls with touch and keyboard.

    Args:
        heads: the column headers.
        rows: the cells; the first cell of each row is its header.
        name: the accessible name.
        numbers: the indexes of right-aligned columns.
    """

    def side_of(column: int) -> str | None:
        return "number" if column in numbers else None

    head = tag("tr", *(tag("th", label, scope="col", class_=side_of(at)) for at, label in enumerate(heads)))
    body = (
        tag(
            "tr",
            *(
                tag("th", cell, scope="row", class_=side_of(at)) if not at else tag("td", cell, class_=side_of(at))
                for at, cell in enumerate(row)
            ),
        )
        for row in rows
    )
    filled = tag("table", tag("thead", head), tag("tbody", *body), aria_label=name)
    return tag("div", filled, class_="scroll", role="region", aria_label=name, tabindex=0)


def figure(title: str, caption: str, *children: str | None, class_: str = "card") -> Html:
    """Return a chart with its title and caption."""
    return tag("figure", tag("figcaption", tag("h2", title), tag("p", caption)), *children, class_=class_)


def details(label: str, content: Html) -> Html:
    """Return content that the reader can expand."""
    return tag("details", tag("summary", label), content)
