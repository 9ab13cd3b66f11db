"""Makes Redis scripts of the Lua files of steps."""

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
def script_of(steps: frozenset[Step]) -> Script:
    """Return the script that runs a batch of these steps; see ``lua/_frame.lua``."""
    preludes = dict.fromkeys((step.package, name) for step in sorted(steps, key=_by_name) for name in step.prelude)
    bodies = [
        f"steps[{step.name!r}] = function(records, args, now, save, delete)\n{_read(step.package, step.name)}\nend\n"
        for step in sorted(steps, key=_by_name)
    ]
    frame = _read("bandwidth_mfa_async.stores", "_frame").replace("%FORMAT%", str(FORMAT))
    frame = frame.replace("%PRELUDE%", "".join(_read(*prelude) for prelude in preludes))
    return Script(frame.replace("%STEPS%", "".join(bodies)))


def _by_name(step: Step) -> str:
    return step.name
