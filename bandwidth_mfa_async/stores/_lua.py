"""Makes a Redis script of a step's Lua file."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

from .._redis._script import Script
from ._transitions import FORMAT

if TYPE_CHECKING:
    from ._step import Step


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath("lua", f"{name}.lua").read_text("utf-8")


@functools.cache
def script_of(step: Step) -> Script:
    """Return the script that runs a batch of a step; see ``lua/_frame.lua``."""
    prelude = "".join(_read(step.package, name) for name in step.prelude)
    frame = _read("bandwidth_mfa_async.stores", "_frame").replace("%FORMAT%", str(FORMAT))
    return Script(frame.replace("%PRELUDE%", prelude).replace("%STEP%", _read(step.package, step.name)))
