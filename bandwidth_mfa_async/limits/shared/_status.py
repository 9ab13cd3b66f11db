"""The shared state for display: the rate, the waiting processes and the latest rejections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

# A waiting process calls at least every second. One that has not called for this long is gone.
_GONE_AFTER: Final = 3.0
_LISTS: Final = frozenset({"endings", "gaps", "doubtful", "streak", "refused", "held", "turns"})


@frozen(kw_only=True)
class Refusals:
    """The 429s within one second.

    Attributes:
        ago: seconds since the first of them.
        count: how many.
        rate_before: the rate before them in messages (segments) per second; None for unlimited.
        rate_after: the rate after them.
        retry_after: the pause that the service requested, in seconds; 0 for none.
    """

    ago: float
    count: int
    rate_before: float | None
    rate_after: float | None
    retry_after: float


@frozen(kw_only=True)
class SharedStatus:
    """One channel's limit as all processes share it.

    Attributes:
        channel: ``"messaging"`` or ``"voice"``.
        state: ``"unused"``, ``"unlimited"`` until the first rejection, ``"known"`` (a configured rate, no rejection
            yet), ``"paused"``, ``"holding"`` just below the estimated limit, or ``"probing"`` above it.
        rate: messages (segments) per second of all processes together; None for unlimited.
        ceiling: the configured rate; None without one.
        pause: seconds for which nothing may be sent.
        interactive: total weight waiting in the interactive lane of all processes.
        bulk: the same for the bulk lane.
        processes: number of processes with waiters.
        accepted: messages accepted by the service since the state was created.
        refused: messages that it answered with 429.
        epoch: how many times the rate was cut.
        noise: the share of messages that is rejected at any rate; 0 while none is known.
        refusals: the latest rejections, newest first.
    """

    channel: str
    state: str = "unused"
    rate: float | None = None
    ceiling: float | None = None
    pause: float = 0.0
    interactive: int = 0
    bulk: int = 0
    processes: int = 0
    accepted: int = 0
    refused: int = 0
    epoch: int = 0
    noise: float = 0.0
    refusals: tuple[Refusals, ...] = ()


def read_status(channel: str, now: float, state: Mapping[str, str], waiting: Mapping[str, str]) -> SharedStatus:
    """Parse the state that the script stores.

    Args:
        channel: its name.
        now: Redis's own time, in seconds.
        state: the hash of the channel.
        waiting: the hash of the waiting processes.
    """
    if not state:
        return SharedStatus(channel=channel)
    values = {name: float(text) for name, text in state.items() if name not in _LISTS and ":" not in name}
    now += values.get("shift", 0.0)
    interactive = bulk = processes = 0
    for line in waiting.values():
        at, mine, rest = line.split(":")
        if float(at) > now - _GONE_AFTER:
            waits = int(mine) + int(rest) > 0
            interactive, bulk, processes = interactive + int(mine), bulk + int(rest), processes + waits
    ceiling = values["ceiling"]
    return SharedStatus(
        channel=channel,
        state=_state(values, now),
        rate=values["rate"] or None,
        ceiling=ceiling if ceiling < 1e15 else None,
        pause=max(0.0, values["pause_until"] - now),
        interactive=interactive,
        bulk=bulk,
        processes=processes,
        accepted=int(values["accepted"]),
        refused=int(values["refused_count"]),
        epoch=int(values["epoch"]),
        noise=values["noise"],
        refusals=tuple(_refusals(entry, now) for entry in reversed(state["refused"].split(",")) if entry),
    )


def _state(values: Mapping[str, float], now: float) -> str:
    if values["pause_until"] > now:
        return "paused"
    if not values["epoch"]:
        return "known" if values["rate"] else "unlimited"
    return "probing" if values["climbing"] else "holding"


def _refusals(entry: str, now: float) -> Refusals:
    at, count, before, after, asked = (float(value) for value in entry.split(":"))
    return Refusals(
        ago=max(0.0, now - at),
        count=int(count),
        rate_before=before or None,
        rate_after=after or None,
        retry_after=asked,
    )
