"""Warns once for each optimisation that this aiohttp is not one that it was written for."""

from __future__ import annotations

import logging
from typing import Final

import aiohttp

from .._logger import LOGGER_NAME

_LOGGER: Final = logging.getLogger(LOGGER_NAME)
_reported: set[str] = set()


def report_difference(difference: Exception, part: str, effect: str) -> None:
    """Log a warning, once in a process for each part.

    Args:
        difference: what the part's probe raised. Only its type is logged.
        part: the part that cannot be used.
        effect: what that means for the user.
    """
    if part not in _reported:
        _reported.add(part)
        _LOGGER.warning(
            "aiohttp %s lacks what %s needs (%s): %s", aiohttp.__version__, part, type(difference).__name__, effect
        )


def add_defect_note(failure: BaseException) -> None:
    """Add to an exception that is no failure of a connection what the user can do about it."""
    failure.add_note(
        f"not a failure of the connection: a bug in bandwidth_mfa_async, or aiohttp {aiohttp.__version__} is "
        "incompatible with it. The request is not repeated. Report it, and use the aiohttp that worked before."
    )
