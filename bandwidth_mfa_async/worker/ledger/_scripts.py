"""The Lua scripts of the ledger, loaded at import."""

from __future__ import annotations

from importlib import resources
from typing import Final

from ..._redis._script import Script

_PACKAGE: Final = __name__.rpartition(".")[0]
_JOB_SCRIPTS: Final = ("plan", "next_chunk", "claim_chunk", "rows")
_CODE_SCRIPTS: Final = ("codes", "stale")
_TIMELESS: Final = ("submit", "release_chunk", "stop", "resume")


def _read(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("lua", f"{name}.lua").read_text("utf-8")


def _with_clock(script: str, *, clock: str, is_job: str) -> Script:
    """Return a script that runs inside ``_clock.lua``; see there."""
    frame = _read("_clock").replace("%CLOCK%", clock).replace("%IS_JOB%", is_job)
    return Script(frame.replace("%SCRIPT%", script))


SCRIPTS: Final = {
    **{name: Script(_read(name)) for name in _TIMELESS},
    **{name: _with_clock(_read(name), clock="KEYS[1]", is_job="true") for name in _JOB_SCRIPTS},
    **{
        name: _with_clock(_read("_lost_codes") + _read(name), clock="KEYS[#KEYS]", is_job="false")
        for name in _CODE_SCRIPTS
    },
}
