"""The output of the command `demo`: its progress, and the numbers at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import Delivery
from . import _outcome
from ._demo import run
from ._formats import plural
from ._output import OutputConsole, can_animate
from ._terminal import wrapped

if TYPE_CHECKING:
    from ._demo import Summary

_NEXT_STEP: Final = (
    "next: run `bandwidth-mfa simulate` and export what it prints; your program's MFAClient.from_env() then sends to it"
)


async def show_demo(count: int, seed: int, *, as_json: bool) -> int:
    """Run the demo, print its progress and its result, and return the exit code."""
    console = OutputConsole(stderr=as_json)
    progress = Progress(
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tally]}"),
        TimeElapsedColumn(),
        console=console,
        disable=as_json or not can_animate(console),
    )
    tallies: dict[str, dict[str, int]] = {"send": {}, "verify": {}}
    with progress:
        bars = {
            "send": progress.add_task("sending", total=count, tally=""),
            "verify": progress.add_task("verifying", total=None, tally="", visible=False, start=False),
        }

        def advance(phase: str, outcome: Delivery | bool) -> None:  # noqa: FBT001 - an outcome, not a switch
            """Show one more outcome."""
            word = str(outcome) if isinstance(outcome, Delivery) else ("valid" if outcome else "not valid")
            tally = tallies[phase]
            tally[word] = tally.get(word, 0) + 1
            shown = ", ".join(f"{number} {name}" for name, number in tally.items())
            if not progress.tasks[bars[phase]].started:
                progress.start_task(bars[phase])
            progress.update(bars[phase], advance=1, tally=shown, visible=True)

        summary = await run(count, seed, advance)
        progress.update(bars["verify"], total=summary.valid + summary.invalid)
    if as_json:
        click.echo(_outcome.json_line(_document(summary)))
    else:
        console.print(_table(summary))
        click.echo(wrapped(_NEXT_STEP, 0))
    return _outcome.EXIT_OK


def _document(summary: Summary) -> dict[str, Any]:
    return {
        "accepted": summary.accepted,
        "rejected": summary.rejected,
        "not_sent": summary.not_sent,
        "unknown": summary.unknown,
        "possible_duplicates": summary.possible_duplicates,
        "attempts": summary.attempts,
        "retries": dict(summary.retries),
        "texts": summary.texts,
        "valid": summary.valid,
        "invalid": summary.invalid,
        "per_second": round(summary.per_second, 1),
        "seconds": round(summary.seconds, 2),
    }


def _table(summary: Summary) -> Table:
    table = Table(title="delivery outcomes", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    rows: list[tuple[str, object, str]] = [
        ("accepted", summary.accepted, plural(summary.possible_duplicates, "possible duplicate")),
        ("rejected", summary.rejected, "rejected by the service; nothing was sent"),
        ("not sent", summary.not_sent, "never left this machine"),
        ("unknown", summary.unknown, "request written, no answer; not sent again"),
        ("attempts", summary.attempts, "HTTP requests in total"),
    ]
    rows += [(f"retries after {cause}", number, "") for cause, number in sorted(summary.retries.items())]
    rows += [
        ("texts received", summary.texts, "in the simulator's inbox"),
        ("verified", summary.valid, "correct codes"),
        ("not valid", summary.invalid, "wrong codes, recognised as wrong"),
        ("codes a second", f"{summary.per_second:.0f}", "while sending"),
        ("seconds", f"{summary.seconds:.1f}", "in total"),
    ]
    for name, value, remark in rows:
        table.add_row(name, str(value), remark)
    return table
