"""Whether a machine was busy with something else while figures were measured on it."""

from __future__ import annotations

import os
import pathlib
import resource
import time
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Mapping

STAT = pathlib.Path("/proc/stat")
BUSY = 0.1  # of all cores' time
MARK = " †"


def _taken() -> float | None:
    if not STAT.exists():
        return None
    user, nice, system, _idle, _waiting, _irq, _softirq, stolen = STAT.read_text().split()[1:9]
    return sum(map(int, (user, nice, system, stolen))) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


@define
class Others:
    """What everybody else takes of the machine's time, from now on.

    A hypervisor's other guests count as well; what the kernel does in interrupts is told of nobody, so it does not.
    """

    _began: float = field(factory=time.monotonic)
    _taken: float | None = field(factory=_taken)
    _own: float = field(factory=_own)

    def share(self) -> float | None:
        """Return the share of all cores' time, without that of this process and of its children that have ended.

        None where the system does not tell.
        """
        taken = _taken()
        if taken is None or self._taken is None:
            return None
        cores = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = (taken - self._taken) - (_own() - self._own)
        return round(min(1.0, max(0.0, others / cores)), 3)


def busy(results: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Return the parts that were measured on a busy machine, and how busy it was."""
    shares = {name: result.get("others") for name, result in results.items()}
    return {name: share for name, share in shares.items() if share is not None and share > BUSY}


def told(results: Mapping[str, dict[str, Any]]) -> str:
    """Return what the mark means, for those parts that bear it."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in busy(results).items())
    return f"{MARK.strip()} measured while others took more than {100 * BUSY:.0f} % of the machine's time: {shares}"
