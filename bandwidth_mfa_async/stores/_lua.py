"""Makes Redis scripts of the Lua files of steps."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Final

from .._redis._script import Script
from ._transitions import FORMAT

if TYPE_CHECKING:
    from ._step import Step


_FRAME: Final = ("bandwidth_mfa_async.stores", "_frame")


@functools.cache
def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath("lua", f"{name}.lua").read_text("utf-8")


def load_scripts(*steps: Step) -> None:
    """Read the Lua files of steps. Call it at import, because a read of a file would block the event loop."""
    for step in steps:
        for name in (step.name, *step.prelude):
            _read(step.package, name)


@functools.cache
def script_of(steps: frozenset[Step]) -> Script:
    """Return the script that runs a batch of these steps; see ``lua/_frame.lua``."""
    blocks: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for step in sorted(steps, key=_by_name):
        blocks.setdefault((step.package, step.prelude), []).append(
            f"steps['{step.name}'] = function(records, args, now, save, delete)\n"
            f"{_read(step.package, step.name)}\nend\n"
        )
    # A block of its own for each prelude: the names in it are no one else's, and do not count as locals of the script.
    text = "".join(
        "do\n" + "".join(_read(package, name) for name in prelude) + "".join(bodies) + "end\n"
        for (package, prelude), bodies in blocks.items()
    )
    frame = _read(*_FRAME).replace("%FORMAT%", str(FORMAT))
    return Script(frame.replace("%STEPS%", text))


def _by_name(step: Step) -> str:
    return step.name


_read(*_FRAME)
