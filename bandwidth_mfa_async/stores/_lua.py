"""Makes Redis scripts of the Lua files of steps."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Final

from .._redis._script import Script
from ._step import STEPS
from ._transitions import FORMAT

if TYPE_CHECKING:
    from ._step import Step

_loaded: Final[set[Step]] = set()


def load_scripts() -> None:
    """Read the Lua files of all steps. Call it outside the event loop."""
    for step in STEPS:
        script_of(frozenset([step]))
    _loaded.update(STEPS)


def is_loaded(step: Step) -> bool:
    """Return whether the Lua file of a step was read."""
    return step in _loaded


@functools.cache
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
