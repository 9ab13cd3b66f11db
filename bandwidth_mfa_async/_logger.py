"""The name of the package's logger, and the logger that explains waits."""

from __future__ import annotations

import logging
from typing import Final

LOGGER_NAME: Final = "bandwidth_mfa_async"
WAITS: Final = logging.getLogger(f"{LOGGER_NAME}.waits")
"""Explains at level DEBUG why a call, a bulk run or a worker waits.

Log with it only where something does wait: its disabled calls cost little, but the path of a call has none.
"""
