"""The states of a row, a byte each in the ledger, and what they mean to a user. No I/O."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
