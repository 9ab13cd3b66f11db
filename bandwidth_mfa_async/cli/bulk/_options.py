"""The options of the command `bulk`, and the end of its help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ..._config import Resend
from ..._models import DEFAULT_MESSAGE
from .._limit_options import limit_options

if TYPE_CHECKING:
    from collections.abc import Callable

EPILOG: Final = """
\b
Input: CSV with a column 'to' (or --column), or a single column of numbers,
whose header may have any name or be missing; optional columns message, scope and digits.
Or JSON Lines with the same names. UTF-8; blank lines are skipped. A file is
checked completely before the first code is sent, and must not change until
the end; standard input is not checked, as it can be read only once.
\b
Stopping: after SIGINT (Ctrl-C), SIGTERM or SIGHUP (except under nohup), no
more codes are started and those in flight finish; a second signal cancels
them. To continue, run the same command with the same --journal again: codes
already sent are skipped. A signal during the check ends the command.
\b
Exit codes: 0 all accepted, now or earlier; 1 some rejected, not sent or
invalid, or stopped early; 2 bad usage, configuration, input or journal;
3 some unknown. A dry run: 0 all rows valid, 1 some bad, 2 as above. Stopped
during the check: 128 and the signal's number, such as 130.
\b
Credentials come from the environment, as for 'send'.
\b
Examples (with BW_NUMBER and BW_MESSAGING_APPLICATION_ID set):
  bandwidth-mfa bulk numbers.csv --dry-run
  bandwidth-mfa bulk numbers.csv --journal launch.db --rate 60/m
  bandwidth-mfa bulk - --journal launch.db < numbers.txt
  bandwidth-mfa bulk numbers.csv --worker redis://localhost:6379/0
"""


def bulk_options(command: Any) -> Any:
    """Add the options of `bulk` to a command."""
    options: list[Callable[[Any], Any]] = [
        click.argument("file", type=click.Path(allow_dash=True)),
        click.option("--from", "from_", envvar="BW_NUMBER", show_envvar=True, help="The sender's number, E.164."),
        click.option(
            "--application-id",
            help="The application.  [env var: BW_MESSAGING_APPLICATION_ID, with --voice BW_VOICE_APPLICATION_ID]",
        ),
        click.option("--scope", help="What the codes are for, unless a row has a scope."),
        click.option("--message", default=DEFAULT_MESSAGE, show_default=True, help="The text; must contain {CODE}."),
        click.option("--digits", type=int, default=6, show_default=True, help="The codes' length, 4 to 8."),
        click.option("--voice", is_flag=True, help="Call instead of texting."),
        click.option(
            "--journal",
            type=click.Path(),
            help="Record every code in this file; if it exists, continue from it.",
        ),
        click.option(
            "--run", default="", metavar="NAME", help="The run's name; another name sends to the same numbers again."
        ),
        click.option("--rejects", type=click.Path(), help="Write rows that need correction to this file, as CSV."),
        click.option("--unknowns", type=click.Path(), help="Write rows with an unknown outcome to this file, as CSV."),
        click.option(
            "--worker",
            metavar="[URL]",
            is_flag=False,
            flag_value="",
            help="Let workers send: submit the rows to their ledger at URL (or BW_LEDGER_URL) and watch the job.",
        ),
        click.option(
            "--require-aof/--no-require-aof",
            default=True,
            help="Whether the ledger's Redis must write an append-only file; without one, a restart can repeat texts.",
        ),
        limit_options,
        click.option(
            "--max-in-flight",
            type=click.IntRange(1, 10_000),
            default=100,
            show_default=True,
            help="The maximum number of codes in flight.",
        ),
        click.option(
            "--resend",
            type=click.Choice([member.value.replace("_", "-") for member in Resend]),
            default="rejected",
            show_default=True,
            help="Which codes are sent again; at-least-once includes unknown ones, so a person may get two codes.",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(["auto", "csv", "jsonl"]),
            default="auto",
            show_default=True,
            help="By default chosen by the file's name, else by its first byte.",
        ),
        click.option(
            "--column", default="to", show_default=True, metavar="NAME", help="The name of the column with the numbers."
        ),
        click.option(
            "--allow-repeats",
            is_flag=True,
            help="Also send a second row for a number if its text, scope or digits differ.",
        ),
        click.option("--dry-run", is_flag=True, help="Check and count all rows, and send nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print one line of JSON at the end."),
    ]
    for option in reversed(options):
        command = option(command)
    return command
