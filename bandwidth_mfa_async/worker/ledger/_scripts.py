"""The Lua scripts of the ledger, loaded at import."""

from __future__ import annotations

from typing import Final

from ..._redis._script import Script

_PACKAGE: Final = __name__.rpartition(".")[0]
_NAMES: Final = (
    *("submit", "plan", "next_chunk", "claim_chunk", "rows", "release_chunk", "stop", "resume"),
    *("codes", "stale"),
)
SCRIPTS: Final = {name: Script.load(_PACKAGE, "lua", f"{name}.lua") for name in _NAMES}
