"""Markup in which everything is escaped unless it was made here. No I/O."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = {"meta", "link", "br"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def join(*children: str | None) -> Html:
    """Return children one after another; what is not markup is escaped, None is left out."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children if child is not None))


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """Return an element.

    Args:
        name: the element's name.
        children: what is in it; escaped where it is not markup.
        attributes: ``class_`` is written `class` and ``aria_label`` `aria-label`; None leaves one out.
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
    # Two decimals of a percent are a twentieth of a pixel.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def percent(value: float) -> str:
    """Return a length as a share of the drawing's width."""
    return f"{_value(float(value))}%"
