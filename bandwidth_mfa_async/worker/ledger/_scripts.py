"""The Lua scripts of the ledger."""

from __future__ import annotations

from typing import Final

from ..._redis._script import Script

_NAMES: Final = (
    "rows",
    "claim_chunk",
    "release_chunk",
    "plan",
    "next_chunk",
    "submit",
    "stop",
    "resume",
    "codes",
    "stale",
)
SCRIPTS: Final = {name: Script.load(__package__, "lua", f"{name}.lua") for name in _NAMES}
