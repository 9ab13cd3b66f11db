"""Builds HTML; every string is escaped unless this module created it."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = {"meta", "link", "br"}


class Html(str):
    """A string that is markup and needs no escaping."""

    __slots__ = ()


def join(*children: str | None) -> Html:
    """Return the children joined; escape strings that are not markup, and leave out None."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children if child is not None))


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """Return an element.

    Args:
        name: the element's name.
        children: the element's content; strings that are not markup are escaped.
        attributes: ``class_`` becomes `class` and ``aria_label`` becomes `aria-label`; None leaves an attribute out.
    """
    written = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def _value(value: str | float) -> str:
    # A hundredth of a percent of the width is less than a pixel.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def percent(value: float) -> str:
    """Return a length as a percentage of the drawing's width."""
    return f"{_value(float(value))}%"
