"""The command `conversions`: what share of the texts of sign-ins was verified, by region and hour."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING

import attrs
import click
from rich import box
from rich.table import Table

from ..errors import MFAError
from ._formats import count, share
from ._limit_options import show_warnings
from ._output import OutputConsole

if TYPE_CHECKING:
    from ..signin._conversions import Conversion

_EXAMPLES = """
\b
Examples:
  bandwidth-mfa conversions --store sqlite:///codes.db
  bandwidth-mfa conversions --store redis://localhost:6379/0 --json
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--store",
    "url",
    metavar="URL",
    envvar="BW_STORE_URL",
    show_envvar=True,
    required=True,
    help="The store of the sign-ins.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per region and hour.")
def conversions(url: str, as_json: bool) -> None:  # noqa: FBT001 - click passes flags this way
    """Show how many texts of sign-ins were verified, by region and hour, for the last 48 hours.

    Many texts and few verified codes in one region are the sign of SMS pumping. Set the store's URL as BW_STORE_URL
    rather than on the command line if it contains a password.
    """
    show_warnings()
    try:
        found = asyncio.run(_read(url))
    except MFAError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if as_json:
        for each in found:
            click.echo(json.dumps(attrs.asdict(each) | {"hour": each.hour.isoformat()}))
    elif found:
        OutputConsole().print(_table(found))
    else:
        click.echo("no texts of sign-ins in the last 48 hours")


async def _read(url: str) -> list[Conversion]:
    from ..signin._conversions import read_conversions
    from ..stores import store_from_url

    async with contextlib.aclosing(store_from_url(url, name="--store")) as store:
        return await read_conversions(store)


def _table(found: list[Conversion]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("region")
    table.add_column("hour (UTC)")
    for name in ("sent", "verified", "share", "refused"):
        table.add_column(name, justify="right")
    for each in found:
        numbers = (count(each.sent), count(each.verified), share(each.verified, each.sent), count(each.refused))
        table.add_row(each.region, f"{each.hour:%Y-%m-%d %H:%M}", *numbers)
    return table
