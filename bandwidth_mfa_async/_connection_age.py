"""How long a connection is used, so that a changed DNS record or certificate authority is followed."""

from __future__ import annotations

import random
from typing import Final

MAX_CONNECTION_AGE: Final = 60.0
"""Seconds."""
# Share of it, in both directions, so that connections that were opened together are not all retired together.
_AGE_JITTER: Final = 0.2


def connection_age() -> float:
    """Return the age in seconds at which one connection is retired, between two requests."""
    return MAX_CONNECTION_AGE * (1 + random.uniform(-_AGE_JITTER, _AGE_JITTER))  # noqa: S311 - not a secret
