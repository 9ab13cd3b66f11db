"""The Lua scripts of the ledger."""

from __future__ import annotations

from typing import Final

from ..._redis._script import Script

_NAMES: Final = ("rows", "take", "leave", "plan", "pick", "submit", "stop", "resume", "codes", "stale")
assert __package__ is not None  # noqa: S101 - an imported module has one
SCRIPTS: Final = {name: Script.load(__package__, "lua", f"{name}.lua") for name in _NAMES}
