"""The command `store`, and the options with which other commands use a store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich import box
from rich.table import Table

from .._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState
from ..errors import MFAError
from ._formats import count
from ._limit_options import show_warnings
from ._output import OutputConsole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..stores import Store

_EXAMPLES = """
\b
Examples:
  bandwidth-mfa store --store sqlite:///codes.db
  bandwidth-mfa store --store redis://localhost:6379/0 --json
"""
KINDS: Final = {
    "k": "keys",
    "f": "sign-ins",
    "i": "sign-in keys",
    "a": "guard: tickets",
    "n": "guard: numbers",
    "v": "guard: visitors",
    "p": "guard: prefixes",
    "r": "guard: regions",
    "t": "guard: total",
    "m": "guard: facts",
}
"""The names of the kinds of records; a kind without one is shown as it is stored."""
_UNFINISHED: Final = {
    LedgerState.PENDING: "claimed",
    LedgerState.SENDING: "in_flight",
    LedgerState.RESENDING: "in_flight",
}


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key`` and ``--store`` to a command that sends."""
    command = click.option(
        "--store",
        metavar="URL",
        envvar="BW_STORE_URL",
        show_envvar=True,
        help="Where keys are recorded: sqlite:///codes.db or redis://... Needed by --key.",
    )(command)
    return click.option(
        "--key",
        help="The idempotency key: send once, however often the command runs with it.",
    )(command)


def store_of(url: str) -> Store:
    """Return the store of a URL from the command line.

    Raises:
        ConfigurationError: there is no store of this form.
    """
    from ..stores import store_from_url

    return store_from_url(url, name="--store")


@click.command("store", epilog=_EXAMPLES)
@click.option(
    "--store", "--url", "url", metavar="URL", envvar="BW_STORE_URL", show_envvar=True, required=True, help="The store."
)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds for the whole command.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def show_store(url: str, timeout: float, as_json: bool) -> None:  # noqa: FBT001 - click passes flags this way
    """Count what a store of idempotency keys and sign-ins holds. Reads every record.

    Set the store's URL as BW_STORE_URL rather than on the command line if it contains a password.
    """
    show_warnings()
    try:
        found = asyncio.run(_read(url, timeout))
    except MFAError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(found))
    elif found:
        OutputConsole().print(_table(found))
    else:
        click.echo("the store is empty")


async def _read(url: str, timeout: float) -> dict[str, dict[str, int]]:
    async with contextlib.aclosing(store_of(url)) as store:
        counts = await store.counts(deadline=asyncio.get_running_loop().time() + timeout)
    found: dict[str, dict[str, int]] = {}
    for kind, states in sorted(counts.items()):
        named = found.setdefault(KINDS.get(kind, kind), {})
        for state, number in sorted(states.items()):
            name = _state_name(state) if kind == "k" else state or "records"
            named[name] = named.get(name, 0) + number
    return found


def _state_name(state: str) -> str:
    try:
        known = LedgerState(state)
    except ValueError:
        return state
    return _UNFINISHED.get(known) or DELIVERY_OF_LEDGER_STATE[known].value


def _table(found: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("kind", "state"):
        table.add_column(name)
    table.add_column("records", justify="right")
    for kind, states in found.items():
        for state, number in states.items():
            table.add_row(kind, state, count(number))
    return table
