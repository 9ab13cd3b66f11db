"""The display of the command `limits`: the limits that processes share through Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import attrs
import click
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .._validation import CHANNELS
from ..errors import ConfigurationError
from . import _outcome
from ._output import OutputConsole, can_animate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..limits.shared._redis_limits import RedisLimits
    from ..limits.shared._status import SharedStatus

LIVE_INTERVAL: Final = 1.0
LINE_INTERVAL: Final = 5.0
MAX_REJECTIONS_SHOWN: Final = 6


async def show_limits(shared: RedisLimits, *, once: bool, as_json: bool) -> int:
    """Show the shared limits of an account, once or until interrupted.

    On a terminal, update a table every second; elsewhere, print one line per channel every five seconds.

    Raises:
        ConfigurationError: Redis cannot be reached, or denies access, at the start. Later errors are shown, and the
            next read tries again.
    """
    console = OutputConsole()
    statuses = await _statuses(shared)
    if once:
        _print(console, statuses, as_json=as_json, table=True)
        return _outcome.EXIT_OK
    if as_json or not can_animate(console):
        while True:
            _print(console, statuses, as_json=as_json, table=False)
            await asyncio.sleep(LINE_INTERVAL)
            try:
                statuses = await _statuses(shared)
            except ConfigurationError as error:
                click.echo(f"error: {error}", err=True)
    with Live(_table(statuses), console=console, auto_refresh=False, screen=False) as live:
        problem = ""
        while True:
            live.update(_table(statuses, problem), refresh=True)
            await asyncio.sleep(LIVE_INTERVAL)
            try:
                statuses, problem = await _statuses(shared), ""
            except ConfigurationError as error:
                problem = str(error)


async def _statuses(shared: RedisLimits) -> list[SharedStatus]:
    return [await shared.status(channel) for channel in CHANNELS]


def _print(console: OutputConsole, statuses: Sequence[SharedStatus], *, as_json: bool, table: bool) -> None:
    if as_json:
        click.echo(
            _outcome.json_line({status.channel: attrs.asdict(status, value_serializer=_short) for status in statuses})
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
        f"{status.bulk} bulk, {status.accepted} accepted, {status.refused} rejected"
    )
    if status.refusals:
        last = status.refusals[0]
        text += f", last {last.ago:.0f} s ago: {_rate(last.rate_before)} to {_rate(last.rate_after)}"
    return text


def _table(statuses: Sequence[SharedStatus], problem: str = "") -> Group:
    # Rich wraps a title that is wider than its table, so the title is left-justified.
    now = Table(title="limits, all processes together", title_justify="left", box=box.SIMPLE_HEAD)
    now.add_column("")
    for status in statuses:
        now.add_column(status.channel, justify="right")
    rows: list[tuple[str, Callable[[SharedStatus], str]]] = [
        ("state", lambda status: f"{status.state} {status.pause:.1f} s" if status.pause else status.state),
        ("rate", lambda status: _rate(status.rate)),
        ("waiting, interactive", lambda status: str(status.interactive)),
        ("waiting, bulk", lambda status: str(status.bulk)),
        ("waiting processes", lambda status: str(status.processes)),
        ("accepted", lambda status: str(status.accepted)),
        ("rejected", lambda status: str(status.refused)),
    ]
    for name, show in rows:
        now.add_row(name, *(show(status) for status in statuses))
    last = Table(title="last 429s", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("ago", "channel", "count", "rate before", "rate after", "retry after"):
        last.add_column(name, justify="left" if name == "channel" else "right")
    rejections = [(rejection, status.channel) for status in statuses for rejection in status.refusals]
    for rejection, channel in sorted(rejections, key=lambda pair: pair[0].ago)[:MAX_REJECTIONS_SHOWN]:
        retry_after = f"{rejection.retry_after:.1f} s" if rejection.retry_after else "-"
        before, after = _rate(rejection.rate_before), _rate(rejection.rate_after)
        last.add_row(_ago(rejection.ago), channel, str(rejection.count), before, after, retry_after)
    below = last if rejections else Text("no 429s", style="dim")
    return Group(now, below, Text(problem, style="red")) if problem else Group(now, below)


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
