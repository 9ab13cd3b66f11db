"""Notices leases that their workers no longer renew, so that a wait for them can be explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class LeaseWatch:
    """Compares the leases of a job from one look to the next; a living worker renews each within a quarter of its time.

    Args:
        seconds: the duration of a lease.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[str, float]] = {}

    def longest_wait(self, leases: Mapping[str, str], now: float) -> float | None:
        """Return the seconds until the last lease that is no longer renewed has ended; None if there is none.

        Args:
            leases: the leases by chunk; the text changes with each renewal.
            now: monotonic time.
        """
        self._seen = {
            chunk: self._seen[chunk] if self._seen.get(chunk, ("", 0.0))[0] == lease else (lease, now)
            for chunk, lease in leases.items()
        }
        unchanged = [now - since for _, since in self._seen.values()]
        waits = [self._seconds - age for age in unchanged if self._seconds / 2 < age < self._seconds]
        return max(waits, default=None)
