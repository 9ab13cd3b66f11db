"""How fast to send, as options of the commands that send; and the `limits` command, which shows what is shared."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import attrs
import click
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import ConfigurationError
from . import _outcome
from ._limit_options import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..limits.shared._redis_limits import RedisLimits
    from ..limits.shared._status import SharedStatus

LIVE_EVERY: Final = 1.0
LINE_EVERY: Final = 5.0
SHOWN_REFUSALS: Final = 6


async def show_limits(shared: RedisLimits, *, once: bool, as_json: bool) -> int:
    """Show what an account's processes share: once, or until interrupted.

    On a terminal a table is kept up to date; elsewhere a line a channel is printed every few seconds.

    Raises:
        ConfigurationError: Redis cannot be reached or refuses us at the beginning; later that is shown, and tried on.
    """
    console = Console()
    statuses = await _statuses(shared)
    if once:
        _print(console, statuses, as_json=as_json, table=True)
        return _outcome.EXIT_OK
    if as_json or not console.is_terminal:
        while True:
            _print(console, statuses, as_json=as_json, table=False)
            await asyncio.sleep(LINE_EVERY)
            try:
                statuses = await _statuses(shared)
            except ConfigurationError as error:
                click.echo(f"error: {error}", err=True)
    with Live(_table(statuses), console=console, auto_refresh=False, screen=False) as live:
        trouble = ""
        while True:
            live.update(_table(statuses, trouble), refresh=True)
            await asyncio.sleep(LIVE_EVERY)
            try:
                statuses, trouble = await _statuses(shared), ""
            except ConfigurationError as error:
                trouble = str(error)


async def _statuses(shared: RedisLimits) -> list[SharedStatus]:
    return [await shared.status(channel) for channel in CHANNELS]


def _print(console: Console, statuses: Sequence[SharedStatus], *, as_json: bool, table: bool) -> None:
    if as_json:
        click.echo(
            _outcome.as_json({status.channel: attrs.asdict(status, value_serializer=_short) for status in statuses})
        )
    elif table:
        console.print(_table(statuses))
    else:
        for status in statuses:
            click.echo(_line(status))


def _short(_instance: object, _attribute: object, value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _rate(rate: float | None) -> str:
    return "no limit" if rate is None else f"{rate:.3g}/s" if rate < 1000 else f"{rate:.0f}/s"


def _line(status: SharedStatus) -> str:
    text = (
        f"{status.channel}: {status.state}, {_rate(status.rate)}, waiting {status.interactive} interactive and "
        f"{status.bulk} bulk, {status.accepted} accepted, {status.refused} refused"
    )
    if status.refusals:
        last = status.refusals[0]
        text += f", last {last.ago:.0f} s ago: {_rate(last.rate_before)} to {_rate(last.rate_after)}"
    return text


def _table(statuses: Sequence[SharedStatus], trouble: str = "") -> Group:
    # A title wider than its table would be broken in two.
    now = Table(title="limits, all processes together", title_justify="left", box=box.SIMPLE_HEAD)
    now.add_column("")
    for status in statuses:
        now.add_column(status.channel, justify="right")
    rows: list[tuple[str, Callable[[SharedStatus], str]]] = [
        ("state", lambda status: f"{status.state} {status.pause:.1f} s" if status.pause else status.state),
        ("rate", lambda status: _rate(status.rate)),
        ("waiting, interactive", lambda status: str(status.interactive)),
        ("waiting, bulk", lambda status: str(status.bulk)),
        ("processes that wait", lambda status: str(status.processes)),
        ("accepted", lambda status: str(status.accepted)),
        ("refused", lambda status: str(status.refused)),
    ]
    for name, show in rows:
        now.add_row(name, *(show(status) for status in statuses))
    last = Table(title="last 429s", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("ago", "channel", "how many", "rate before", "rate after", "asked to wait"):
        last.add_column(name, justify="left" if name == "channel" else "right")
    found = [(refusals, status.channel) for status in statuses for refusals in status.refusals]
    for refusals, channel in sorted(found, key=lambda pair: pair[0].ago)[:SHOWN_REFUSALS]:
        asked = f"{refusals.retry_after:.1f} s" if refusals.retry_after else "-"
        before, after = _rate(refusals.rate_before), _rate(refusals.rate_after)
        last.add_row(_ago(refusals.ago), channel, str(refusals.count), before, after, asked)
    below = last if found else Text("no 429s", style="dim")
    return Group(now, below, Text(trouble, style="red")) if trouble else Group(now, below)


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
