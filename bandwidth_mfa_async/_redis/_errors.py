"""Classifies what redis-py raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def error_text(error: Exception) -> str:
    """Return what redis-py raised, in lower case, to look for signs in; nothing of it may be shown."""
    return f"{type(error).__name__} {error}".lower()


def classify_redis_error(error: Exception, meanings: Sequence[tuple[tuple[str, ...], str]]) -> str | None:
    """Return the first meaning of which a sign is in an error; None when there is none."""
    words = error_text(error)
    return next((meaning for signs, meaning in meanings if any(sign in words for sign in signs)), None)
