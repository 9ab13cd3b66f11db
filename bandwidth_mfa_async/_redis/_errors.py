"""Classifies errors of redis-py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def error_text(error: Exception) -> str:
    """Return class and text of an error in lower case, to search for signs. Never show it: it may contain secrets."""
    return f"{type(error).__name__} {error}".lower()


def classify_redis_error(error: Exception, meanings: Sequence[tuple[tuple[str, ...], str]]) -> str | None:
    """Return the first meaning one of whose signs is in the error's text; None if there is none."""
    text = error_text(error)
    return next((meaning for signs, meaning in meanings if any(sign in text for sign in signs)), None)
