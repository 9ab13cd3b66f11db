"""The pieces that every chart is drawn with; widths are percent, so that a drawing fits any screen. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._html import join, percent, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._html import Html
    from ._scales import Tick

_ROW: Final = 46
_THICK: Final = 10


def drawing(height: int, *children: str, name: str, class_: str = "plot") -> Html:
    """Return a drawing with the name that a screen reader says in its place."""
    return tag("svg", *children, class_=class_, height=height, role="img", aria_label=name)


def text(words: str, x: float, y: float, *, class_: str = "tick", anchor: str | None = None) -> Html:
    """Return words at a percent of the width and a pixel of the height."""
    return tag("text", words, x=percent(x), y=float(y), class_=class_, text_anchor=anchor)


def grid(ticks: Sequence[tuple[float, str]], top: float) -> Html:
    """Return the lines across a plot, with their values at its left."""
    return join(
        *(
            join(
                tag("line", x1="0%", x2="100%", y1=top + y, y2=top + y, class_="base" if place == 0 else "grid"),
                tag("text", label, x=-8, y=top + y + 4, class_="tick", text_anchor="end"),
            )
            for place, (y, label) in enumerate(ticks)
        )
    )


def along(ticks: Iterable[Tick], y: float) -> Html:
    """Return the labels under a plot; every second one is left out on a narrow screen."""
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
    """Return horizontal bars, each under its own name and number.

    Args:
        rows: the class that colours it, its name, a remark, its number, and the number in words.
        largest: the number that a whole bar stands for.
    """
    pieces: list[Html] = []
    for place, (class_, name, remark, number, words) in enumerate(rows):
        y = place * _ROW
        remark_ = tag("tspan", f"  {remark}", class_="remark") if remark else None
        pieces += [
            tag("text", name, remark_, x="0%", y=y + 14, class_="name"),
            text(words, 100, y + 14, class_="value", anchor="end"),
            _bar(class_, number, largest, y + 22),
        ]
    return join(*pieces)


def bar(class_: str, number: int, largest: int) -> Html:
    """Return one bar for a table's cell, whose number stands beside it."""
    return tag("svg", _bar(class_, number, largest, 0), class_="plot full in-cell", height=_THICK, aria_hidden="true")


def _bar(class_: str, number: int, largest: int, y: int) -> Html:
    track = tag("rect", x="0%", y=y, width="100%", height=_THICK, rx=2, class_="track")
    if not number:
        return track
    # One in a million is still to be seen.
    wide = percent(max(100 * number / largest, 0.4))
    return join(track, tag("rect", x="0%", y=y, width=wide, height=_THICK, rx=2, class_=f"bar {class_}"))


def bars_height(rows: int) -> int:
    """Return the pixels that so many bars need."""
    return max(1, rows * _ROW - 10)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, name: str, numbers: Sequence[int] = ()) -> Html:
    """Return a table that can be scrolled sideways by finger and by key.

    Args:
        heads: what stands over each column.
        rows: the cells; the first of each row names it.
        name: what the table is called.
        numbers: the columns that are set flush right.
    """

    def side_of(column: int) -> str | None:
        return "number" if column in numbers else None

    head = tag("tr", *(tag("th", words, scope="col", class_=side_of(at)) for at, words in enumerate(heads)))
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


def figure(title: str, explained: str, *children: str | None, class_: str = "card") -> Html:
    """Return a chart's frame: its title, one sentence on what is seen, and what is in it."""
    return tag("figure", tag("figcaption", tag("h2", title), tag("p", explained)), *children, class_=class_)


def folded(words: str, content: Html) -> Html:
    """Return content that is shown on request."""
    return tag("details", tag("summary", words), content)
