"""The share of a machine's CPU that other processes use while figures are measured."""

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
MAX_SHARE = 0.1  # of the time of all cores
MARK = " †"


def _total_seconds() -> float | None:
    if not STAT.exists():
        return None
    user, nice, system, _idle, _waiting, _irq, _softirq, stolen = STAT.read_text().split()[1:9]
    return sum(map(int, (user, nice, system, stolen))) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


@define
class BackgroundLoad:
    """Measures the CPU time of other processes from its creation on.

    Other guests of the hypervisor count as well. Interrupts do not, since the kernel attributes them to no process.
    """

    _began: float = field(factory=time.monotonic)
    _total: float | None = field(factory=_total_seconds)
    _own: float = field(factory=_own_seconds)

    def share(self) -> float | None:
        """Return the share of all cores' time, without that of this process and of its children that have ended.

        None where the system has no ``/proc/stat``.
        """
        total = _total_seconds()
        if total is None or self._total is None:
            return None
        cores = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = (total - self._total) - (_own_seconds() - self._own)
        return round(min(1.0, max(0.0, others / cores)), 3)


def busy(results: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Return the parts that were measured on a busy machine, with the share of other processes."""
    shares = {name: result.get("others") for name, result in results.items()}
    return {name: share for name, share in shares.items() if share is not None and share > MAX_SHARE}


def footnote(results: Mapping[str, dict[str, Any]]) -> str:
    """Return the meaning of the mark, with the shares of the marked parts."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in busy(results).items())
    return f"{MARK.strip()} other processes used more than {100 * MAX_SHARE:.0f} % of the machine's time: {shares}"
