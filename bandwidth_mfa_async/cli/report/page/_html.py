"""Builds the elements of the charts; every string is escaped unless it is markup of this package."""

from __future__ import annotations

from markupsafe import Markup, escape


def join(*children: str | None) -> Markup:
    """Return the children joined; escape strings that are not markup, and leave out None."""
    return Markup().join(child for child in children if child is not None)


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        name: the element's name.
        children: the element's content; strings that are not markup are escaped.
        attributes: ``class_`` becomes `class` and ``aria_label`` becomes `aria-label`; None leaves an attribute out.
    """
    written = Markup().join(
        Markup(' {}="{}"').format(key.removesuffix("_").replace("_", "-"), escape(_value(value)))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, join(*children))


def _value(value: str | float) -> str:
    # A hundredth of a percent of the width is less than a pixel.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def percent(value: float) -> str:
    """Return a length as a percentage of the drawing's width."""
    return f"{_value(float(value))}%"
