"""What a guard has counted: texts, verified flows and refusals by region and hour."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ._counters import HOUR
from ._flow import READ
from ._stepper import GROUP

if TYPE_CHECKING:
    from ..stores import Store

_SECONDS: Final = 10.0


@frozen
class Conversion:
    """The counts of one region in one hour.

    Attributes:
        region: such as ``"US"``; ``"?"`` where it is not known.
        hour: the beginning of the hour in which the texts were sent, UTC.
        sent: texts and voice calls, those with an unknown outcome included.
        verified: flows whose code was verified, in the hour of their last text.
        refused: attempts that the guard refused, or would have refused if it only observes.
    """

    region: str
    hour: datetime
    sent: int
    verified: int
    refused: int


async def read_conversions(store: Store) -> list[Conversion]:
    """Return the counts of the last 48 hours, by region and hour.

    Raises:
        StoreError: the store cannot be used.
    """
    (regions,) = await _read(store, "r", ["m:guard"])
    names = sorted(json.loads(regions)) if regions else []
    found: list[Conversion] = []
    for name, hours in zip(names, await _read(store, "h", [f"r:{name}" for name in names]), strict=True):
        counts: dict[str, list[int]] = json.loads(hours) if hours else {}
        for hour in sorted(counts, key=int):
            began = datetime.fromtimestamp(int(hour) * HOUR / 1000, UTC)
            found.append(Conversion(name, began, *counts[hour]))
    return found


async def _read(store: Store, field: str, names: list[str]) -> list[str]:
    if not names:
        return []
    deadline = store.clock.monotonic() + _SECONDS
    reply = await store.run(READ, names, [field, len(names)], deadline=deadline, group=GROUP)
    return [str(value) for value in reply[1:]]
