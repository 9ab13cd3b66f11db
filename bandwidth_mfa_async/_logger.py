"""The name of the package's logger."""

from __future__ import annotations

from typing import Final

LOGGER_NAME: Final = "bandwidth_mfa_async"
