"""The command `bulk`: what it takes, what it checks before anything is sent, and what it prints."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table

from ..._config import Resend, RetryPolicy
from ..._models import DEFAULT_MESSAGE, CodeTemplate
from ...errors import ConfigurationError, Delivery, MFAError, RequestError
from .. import _outcome
from .._files import journal_files
from .._formats import format_duration
from .._limit_options import limit_options, limits_from_options
from .._open_client import open_client
from ._display import per_second, summary_table
from ._input_scan import DuplicateCounter, document_of
from ._plan import Plan
from ._rejects import Rejects
from ._run import SIGNALS, send
from ._scan_progress import checked, nothing_to_send, rows_to_send
from ._source import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._config import Limits
    from ._input_scan import ScanResult
    from ._plan import RunResult
    from ._rows import BadRow, Format

_EPILOG: Final = """
\b
Input: CSV with a column 'to', or a single column of numbers; optional
columns message, scope and digits. Or JSON Lines with the same names.
UTF-8. A file is checked as a whole before the first code is sent;
standard input, of which only one look is possible, is not.
\b
Stopping: SIGINT (Ctrl-C) or SIGTERM takes no more and lets end what is
under way; a second one cuts it. Run the same command with the same
--journal again to go on; nobody is texted twice.
\b
Exit codes: 0 all accepted, now or before; 1 some rejected, not sent or
invalid, or stopped early; 2 bad usage, configuration, input or journal;
3 some unknown. A dry run: 0 all good, 1 some bad, 2 as above.
\b
Credentials come from the environment, as for 'send'.
\b
Examples (with BW_NUMBER and BW_MESSAGING_APPLICATION_ID set):
  bandwidth-mfa bulk numbers.csv --dry-run
  bandwidth-mfa bulk numbers.csv --journal launch.db --rate 60/m
  bandwidth-mfa bulk - --journal launch.db < numbers.txt
  bandwidth-mfa bulk numbers.csv --worker redis://localhost:6379/0
"""
# What a dry run checks a template with when it is not told: it sends nothing.
_NOBODY: Final = "+19195554321"


def bulk_options(command: Any) -> Any:
    """Add the options of `bulk`."""
    options: list[Callable[[Any], Any]] = [
        click.argument("file", type=click.Path(allow_dash=True)),
        click.option("--from", "from_", envvar="BW_NUMBER", show_envvar=True, help="The sender's number, E.164."),
        click.option(
            "--application-id",
            help="The application.  [env var: BW_MESSAGING_APPLICATION_ID, with --voice BW_VOICE_APPLICATION_ID]",
        ),
        click.option("--scope", help="What the codes are for, where a row says nothing else."),
        click.option("--message", default=DEFAULT_MESSAGE, show_default=True, help="The text; must hold {CODE}."),
        click.option("--digits", type=int, default=6, show_default=True, help="The codes' length, 4 to 8."),
        click.option("--voice", is_flag=True, help="Call instead of texting."),
        click.option(
            "--journal",
            type=click.Path(),
            help="Remember every code in this file; where it exists, go on from there.",
        ),
        click.option("--run", default="", metavar="NAME", help="Another name sends to the same numbers again."),
        click.option("--rejects", type=click.Path(), help="Write rows that must be mended to this file, as CSV."),
        click.option(
            "--worker",
            metavar="[URL]",
            is_flag=False,
            flag_value="",
            help="Leave the sending to workers: put the rows into their ledger at URL (or BW_LEDGER_URL), and watch.",
        ),
        limit_options,
        click.option(
            "--max-in-flight",
            type=click.IntRange(1, 10_000),
            default=100,
            show_default=True,
            help="Codes under way at once.",
        ),
        click.option(
            "--resend",
            type=click.Choice([member.value.replace("_", "-") for member in Resend]),
            default="rejected",
            show_default=True,
            help="What is sent again; at-least-once also what is unknown, so that people may get two codes.",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(["auto", "csv", "jsonl"]),
            default="auto",
            show_default=True,
            help="By default what the file's name says, or its first byte.",
        ),
        click.option("--dry-run", is_flag=True, help="Check every row, count, and send nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print one line of JSON at the end."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog=_EPILOG, short_help="Send codes to every number of a file, and remember each.")
@bulk_options
def bulk(file: str, dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: FBT001 - click passes flags so
    """Send codes to every number of FILE, or of standard input for '-', and say what became of each.

    A row that cannot be sent ends nothing: it is counted as invalid, named with its line, and kept in the --rejects
    file, which can be mended and sent. A number that stands there twice gets one code.
    """
    try:
        code = _dry_run(file, as_json=as_json, **options) if dry_run else _bulk(file, as_json=as_json, **options)
    except MFAError as error:
        code = _outcome.fail(error, as_json=as_json)
    except KeyboardInterrupt as interrupt:
        click.echo("; ".join(["stopped", *map(str, interrupt.args)]), err=True)
        code = 130
    sys.exit(code)


def _template(voice: bool, options: dict[str, Any], *, must: bool) -> CodeTemplate:  # noqa: FBT001 - an option
    variable = "BW_VOICE_APPLICATION_ID" if voice else "BW_MESSAGING_APPLICATION_ID"
    application_id = options["application_id"] or os.environ.get(variable)
    missing = [
        name for name, value in (("--from", options["from_"]), ("--application-id", application_id)) if not value
    ]
    if missing and must:
        raise ConfigurationError(f"missing: {', '.join(missing)} (see --help for the environment variables)")
    return CodeTemplate(
        options["from_"] or _NOBODY,
        application_id or "none",
        options["scope"],
        options["message"],
        options["digits"],
    )


def _limits(options: dict[str, Any], channel: str) -> Limits:
    return limits_from_options(
        options["rate"], options["redis"], channel=channel, max_in_flight=options["max_in_flight"]
    )


def _rows(number: int) -> str:
    return "row" if number == 1 else "rows"


def _warn(path: str, samples: list[BadRow], bad: int, ignored: list[str], rejects: str | None) -> None:
    """Say on standard error what was passed over."""
    if ignored:
        more = f" and {len(ignored) - 5} more" if len(ignored) > 5 else ""
        click.echo(f"{name_of(path)}: nothing is done with the columns {', '.join(ignored[:5])}{more}", err=True)
    for row in samples:
        click.echo(f"{name_of(path)}, line {row.line}: {row.reason}", err=True)
    if bad > len(samples):
        where = f"{rejects} has them all" if rejects else "--rejects FILE keeps them all"
        click.echo(f"... and {bad - len(samples):,} more bad {_rows(bad - len(samples))}; {where}", err=True)


def _dry_run(file: str, *, as_json: bool, voice: bool, worker: str | None, **options: Any) -> int:  # noqa: ARG001 - nothing is sent by anybody
    channel = "voice" if voice else "messaging"
    limits = _limits({**options, "redis": None}, channel)
    plan = _plan(file, channel, _template(voice, options, must=False), options)
    rate = limits.voice_rate if voice else limits.rate
    with DuplicateCounter() as repeats:
        if options["rejects"]:
            with Rejects(options["rejects"], [file]) as rejects:
                found = checked(plan, Console(stderr=True), repeats=repeats, rejects=rejects)
        else:
            found = checked(plan, Console(stderr=True), repeats=repeats)
    _warn(file, found.samples, found.bad, found.ignored, options["rejects"])
    document = document_of(found, channel, rate)
    if as_json:
        click.echo(_outcome.as_json(document))
    else:
        _print_dry_run(found, document, channel)
    return _outcome.EXIT_REFUSED if found.bad else _outcome.EXIT_OK


def _print_dry_run(found: ScanResult, document: dict[str, Any], channel: str) -> None:
    each = f"{found.lightest}" if found.lightest == found.heaviest else f"{found.lightest} to {found.heaviest}"
    word = "calls" if channel == "voice" else "segments"
    table = Table(title="what is in the file; nothing was sent", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim", overflow="fold")
    table.add_row("rows", f"{found.rows:,}", "")
    table.add_row("valid", f"{found.valid:,}", "can be sent")
    table.add_row("bad", f"{found.bad:,}", "will not be sent until they are mended")
    table.add_row("duplicates", f"{found.repeats:,}", "ask again for what an earlier row asks for: sent once")
    table.add_row(
        word, f"{found.weight:,}", "what the account's rate counts" + (f", {each} a text" if word == "segments" else "")
    )
    table.add_row("time", format_duration(document["seconds"]), f"about, at {document['rate_per_second']:g} a second")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if document["rate_source"] != "--rate":
        click.echo(f"The rate is {document['rate_source']}; give your account's own with --rate.")


def _plan(file: str, channel: str, template: CodeTemplate, options: dict[str, Any]) -> Plan:
    for name in ("journal", "rejects"):
        # A script whose variable is not set; taken for no journal, the run would be forgotten and sent again.
        if options[name] == "":
            raise ConfigurationError(f"--{name}: is empty; name a file, or leave it out")
    form: Format = options["form"]
    return Plan(
        path=file,
        form=form,
        template=template,
        channel=channel,
        journal=options["journal"],
        run=options["run"],
        max_in_flight=options["max_in_flight"],
    )


def _bulk(file: str, *, as_json: bool, voice: bool, worker: str | None, **options: Any) -> int:
    channel = "voice" if voice else "messaging"
    if worker is not None:
        return _by_workers(file, channel, worker, options, as_json=as_json)
    limits = _limits(options, channel)
    journal = options["journal"]
    if journal and os.path.exists(journal) and os.path.exists(file) and os.path.samefile(journal, file):  # noqa: PTH110, PTH121
        raise ConfigurationError(f"--journal: {journal} is the input; name another file")
    plan = _plan(file, channel, _template(voice, options, must=True), options)
    client = open_client(limits=limits, retry=RetryPolicy(resend=Resend(options["resend"].replace("-", "_"))))
    console = Console(stderr=True)

    async def work(total: int | None, rejects: Rejects | None) -> RunResult:
        async with client:
            return await send(plan, client, total=total, rejects=rejects, console=console)

    def run(rejects: Rejects | None) -> RunResult:
        total = rows_to_send(plan, console, rejects)
        return asyncio.run(work(total, rejects))

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        if options["rejects"]:
            with Rejects(options["rejects"], [file, *(journal_files(journal) if journal else ())]) as rejects:
                done = run(rejects)
        else:
            done = run(None)
        return _conclude(plan, done, options["rejects"], as_json=as_json)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _by_workers(file: str, channel: str, url: str, options: dict[str, Any], *, as_json: bool) -> int:
    """Submit to workers, and watch.

    Raises:
        ConfigurationError: the ledger is not named, or an option is about a run of this process.
    """
    from . import _job

    _job.check_options(click.get_current_context())
    url = url or os.environ.get("BW_LEDGER_URL", "")
    if not url:
        raise ConfigurationError("--worker: name the ledger's Redis, or set BW_LEDGER_URL")
    plan = _plan(file, channel, _template(channel == "voice", options, must=True), options)
    _job.job_name(plan)
    console = Console(stderr=True)

    def run(rejects: Rejects | None) -> RunResult:
        total = rows_to_send(plan, console, rejects)
        return asyncio.run(_job.send(plan, url, total=total, rejects=rejects, console=console))

    if options["rejects"]:
        with Rejects(options["rejects"], [file]) as rejects:
            done = run(rejects)
    else:
        done = run(None)
    return _conclude(plan, done, options["rejects"], as_json=as_json, by_workers=True)


def _conclude(plan: Plan, done: RunResult, rejects: str | None, *, as_json: bool, by_workers: bool = False) -> int:
    """Print what became of all, and how to go on; return the exit code."""
    summary = done.summary
    _warn(plan.path, done.samples, summary.invalid, done.ignored, rejects)
    if done.error is None and summary.taken and summary.invalid == summary.taken:
        done.error = nothing_to_send(plan.path, summary.taken, done.samples)
    code = _exit_code(done)
    if as_json:
        click.echo(_outcome.as_json(_document(done)))
    elif summary.taken:
        table = summary_table(summary, done.previous, requests=not by_workers)
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    if done.error is not None:
        notes = "".join(f"\n  {note}" for note in getattr(done.error, "__notes__", ()))
        click.echo(f"error: {done.error}{notes}", err=True)
    for line in _how_to_go_on(plan, done, rejects, by_workers=by_workers):
        click.echo(line, err=as_json)
    return code


def _how_to_go_on(plan: Plan, done: RunResult, rejects: str | None, *, by_workers: bool) -> list[str]:
    summary = done.summary
    lines: list[str] = []
    if done.rejects:
        lines.append(f"{rejects}: {done.rejects:,} {_rows(done.rejects)} to mend; then send that file")
    if by_workers:
        from . import _job

        return lines + _job.how_to_go_on(done)
    if done.journal is None:
        return lines
    same = "the same command" if plan.journal else f"the same command with --journal {done.journal}"
    if summary.ending != "finished" or summary.not_sent:
        lines.append(f"to go on, run {same} again: what was sent is not sent again")
    if summary.unknown:
        lines.append(
            f"{summary.unknown:,} unknown: they may have their code; to send again all the same, "
            f"run {same} and --resend at-least-once"
        )
    return lines


def _exit_code(done: RunResult) -> int:
    summary, previous = done.summary, done.previous
    if summary.unknown or previous[Delivery.UNKNOWN]:
        return _outcome.EXIT_UNKNOWN
    if done.error is not None and not isinstance(done.error, RequestError):
        return _outcome.EXIT_USAGE
    failed = summary.rejected + summary.not_sent + summary.invalid + previous[Delivery.REJECTED]
    return _outcome.EXIT_REFUSED if failed or done.error or summary.ending != "finished" else _outcome.EXIT_OK


def _document(done: RunResult) -> dict[str, Any]:
    summary = done.summary
    document: dict[str, Any] = {
        "ending": summary.ending,
        "taken": summary.taken,
        "accepted": summary.accepted,
        "rejected": summary.rejected,
        "not_sent": summary.not_sent,
        "unknown": summary.unknown,
        "invalid": summary.invalid,
        "skipped": summary.skipped,
        "skipped_because": {"twice" if was is None else was.value: number for was, number in done.previous.items()},
        "possible_duplicates": summary.possible_duplicates,
        "attempts": summary.attempts,
        "throttled": summary.throttled,
        "per_second": round(per_second(summary), 1),
        "seconds": round(summary.elapsed, 2),
        "rejects": done.rejects,
        "resume_with": done.journal,
        "ignored_columns": done.ignored,
    }
    if done.error is not None:
        document |= {"error": type(done.error).__name__, "detail": str(done.error)}
    return document
