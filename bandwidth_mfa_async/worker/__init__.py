"""Many workers on one account: taskiq carries hints, and a ledger in Redis knows what was sent."""

from __future__ import annotations

from ..errors import LedgerError
from ._ledger import RedisLedger

__all__ = ["LedgerError", "RedisLedger"]
