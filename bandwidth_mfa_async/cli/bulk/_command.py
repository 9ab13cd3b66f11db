"""The command `bulk`: its options, the checks before sending, and its output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import click
from rich.table import Table

from ..._config import Resend, RetryPolicy
from ..._models import CodeTemplate
from ...errors import ConfigurationError, MFAError
from .. import _outcome
from .._files import is_one_of, journal_files
from .._formats import duration
from .._limit_options import limits_from_options
from .._open_client import open_client
from .._output import OutputConsole, quiet_output
from .._signals import SignalHandlers
from ._input_scan import scan_document
from ._options import EPILOG, bulk_options
from ._plan import Plan
from ._rejects import Rejects, RowFiles
from ._result import exit_code, print_more_bad_rows, print_notes, print_result
from ._rows import COLUMNS, RAW, REJECT_COLUMNS
from ._run import send
from ._scan_progress import no_valid_rows, scan_before_send, scan_input
from ._source import InputFile, row_problem

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..._config import Limits
    from ..._validation import Channel
    from ._input_scan import ScanResult
    from ._plan import RunResult
    from ._rows import Format

_RESERVED: Final = frozenset((*COLUMNS[1:], *REJECT_COLUMNS, RAW))
# A dry run without --from checks the template with this sender; it sends nothing.
_PLACEHOLDER_SENDER: Final = "+19195554321"


class _PrintResult(Protocol):
    def __call__(self, *, err: bool) -> None: ...


@click.command(epilog=EPILOG, short_help="Send a code to every number in a file, and record each outcome.")
@bulk_options
def bulk(file: str, dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: FBT001 - click passes flags this way
    """Send a code to every number in FILE, or in standard input for '-', and report the outcomes.

    An invalid row does not stop the run: it is counted, reported with its line, and written to the --rejects file,
    which you can correct and send. A duplicate row is sent once; a second row for a number with another text, scope or
    number of digits is not sent without --allow-repeats.
    """
    command = _dry_run if dry_run else _send
    with SignalHandlers() as signals, quiet_output() as (out, _), contextlib.closing(InputFile(file)) as source:
        try:
            print_result, code = command(source, signals, as_json=as_json, **options)
            print_result(err=False)
            if out.failed:
                print_result(err=True)
        except MFAError as error:
            code = _outcome.fail(error, as_json=as_json)
        except KeyboardInterrupt as interrupt:
            click.echo("; ".join(["stopped", *map(str, interrupt.args)]), err=True)
            code = 128 + signals.number
    sys.exit(code)


def _template(voice: bool, options: dict[str, Any], *, required: bool) -> CodeTemplate:  # noqa: FBT001 - an option
    variable = "BW_VOICE_APPLICATION_ID" if voice else "BW_MESSAGING_APPLICATION_ID"
    application_id = options["application_id"] or os.environ.get(variable)
    missing = [
        name for name, value in (("--from", options["from_"]), ("--application-id", application_id)) if not value
    ]
    if missing and required:
        raise ConfigurationError(f"missing: {', '.join(missing)} (see --help for the environment variables)")
    return CodeTemplate(
        options["from_"] or _PLACEHOLDER_SENDER,
        application_id or "none",
        options["scope"],
        options["message"],
        options["digits"],
    )


def _limits(options: dict[str, Any], channel: str) -> Limits:
    return limits_from_options(
        options["rate"], options["redis"], channel=channel, max_in_flight=options["max_in_flight"]
    )


def _print_scan(path: str, scan: ScanResult, rejects: str | None) -> None:
    """Print the ignored columns and the first bad rows on standard error."""
    print_notes(path, scan.ignored, scan.suspect_lines)
    for row in scan.samples:
        click.echo(row_problem(path, row.line, row.reason), err=True)
    print_more_bad_rows(scan.bad + scan.repeated - len(scan.samples), rejects)


@contextlib.contextmanager
def _open_files(options: dict[str, Any], protected: list[str]) -> Generator[RowFiles]:
    """Open the files for rows; a file that another option names, or that the command reads, is refused."""
    with contextlib.ExitStack() as stack:
        files: list[Rejects | None] = []
        for name in ("rejects", "unknowns"):
            path = options[name]
            files.append(stack.enter_context(Rejects(path, protected, option=f"--{name}")) if path else None)
            protected = [*protected, path] if path else protected
        yield RowFiles(*files)


def _dry_run(
    source: InputFile,
    _signals: SignalHandlers,
    *,
    as_json: bool,
    voice: bool,
    worker: str | None,  # noqa: ARG001 - a dry run sends nothing
    **options: Any,
) -> tuple[_PrintResult, int]:
    channel: Channel = "voice" if voice else "messaging"
    limits = _limits({**options, "redis": None}, channel)
    plan = _plan(source, channel, _template(voice, options, required=False), options)
    rate = limits.voice_rate if voice else limits.rate
    with _open_files({**options, "unknowns": None}, [source.path]) as files:
        scan = scan_input(plan, OutputConsole(stderr=True), count_duplicates=True, rejects=files.rejects)
    _print_scan(source.path, scan, options["rejects"])
    document = scan_document(scan, channel, rate, allow_repeats=plan.allow_repeats)
    code = _outcome.EXIT_FAILED if scan.bad or (scan.repeated and not plan.allow_repeats) else _outcome.EXIT_OK
    return partial(_print_dry_run, scan, document, channel, as_json=as_json), code


def _print_dry_run(scan: ScanResult, document: dict[str, Any], channel: Channel, *, as_json: bool, err: bool) -> None:
    if as_json:
        click.echo(_outcome.json_line(document), err=err)
        return
    each = f"{scan.lightest}" if scan.lightest == scan.heaviest else f"{scan.lightest} to {scan.heaviest}"
    unit = "calls" if channel == "voice" else "segments"
    table = Table(title="contents of the input; nothing was sent", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim", overflow="fold")
    table.add_row("rows", f"{scan.rows:,}", "")
    table.add_row("valid", f"{scan.valid:,}", "can be sent")
    table.add_row("bad", f"{scan.bad:,}", "must be corrected before they can be sent")
    table.add_row("duplicates", f"{scan.duplicates:,}", "equal to an earlier row; sent once")
    if scan.repeated:
        remark = "an earlier row's number with another text; sent only with --allow-repeats"
        table.add_row("repeats", f"{scan.repeated:,}", remark)
    per_text = f", {each} per text" if unit == "segments" else ""
    table.add_row(unit, f"{scan.weight:,}", f"count against the account's rate{per_text}")
    table.add_row("time", duration(document["seconds"]), f"estimate at {document['rate_per_second']:g} a second")
    OutputConsole(stderr=err, plain_width=120).print(table)
    if document["rate_source"] != "--rate":
        click.echo(f"The rate is {document['rate_source']}; set your account's own rate with --rate.", err=err)


def _plan(source: InputFile, channel: Channel, template: CodeTemplate, options: dict[str, Any]) -> Plan:
    for name in ("journal", "rejects", "unknowns"):
        # A script with an unset variable passes "". Without a journal, a second run would send everything again.
        if options[name] == "":
            raise ConfigurationError(f"--{name}: is empty; name a file, or leave the option out")
    column = options["column"].strip()
    if not column or column.lower() in _RESERVED:
        raise ConfigurationError("--column: name the column with the numbers, like 'phone'")
    form: Format = options["form"]
    return Plan(
        input=source,
        form=form,
        template=template,
        channel=channel,
        journal=options["journal"],
        run=options["run"],
        max_in_flight=options["max_in_flight"],
        allow_repeats=options["allow_repeats"],
        column=column,
    )


def _checked(plan: Plan, console: OutputConsole, rejects: Rejects | None) -> Plan:
    """Check the input before anything is sent, and return the plan with what the check found."""
    scan = scan_before_send(plan, console, rejects)
    if scan is None:
        return plan
    _print_scan(plan.path, scan, None if rejects is None else rejects.path)
    return attrs.evolve(plan, checked_rows=scan.rows, repeat_lines=scan.repeat_lines)


def _send(
    source: InputFile, signals: SignalHandlers, *, as_json: bool, voice: bool, worker: str | None, **options: Any
) -> tuple[_PrintResult, int]:
    channel: Channel = "voice" if voice else "messaging"
    if worker is not None:
        return _send_by_workers(source, signals, channel, worker, options, as_json=as_json)
    limits = _limits(options, channel)
    journal = options["journal"]
    if journal and is_one_of(journal, [source.path]):
        raise ConfigurationError(f"--journal: {journal} is the input; name another file")
    plan = _plan(source, channel, _template(voice, options, required=True), options)
    client = open_client(limits=limits, retry=RetryPolicy(resend=Resend(options["resend"].replace("-", "_"))))
    console = OutputConsole(stderr=True)

    async def work(plan: Plan, files: RowFiles) -> RunResult:
        async with client:
            return await send(plan, client, files=files, console=console, signals=signals)

    with _open_files(options, [source.path, *(journal_files(journal) if journal else ())]) as files:
        plan = _checked(plan, console, files.rejects)
        result = asyncio.run(work(plan, files))
    return _result(plan, result, options, as_json=as_json)


def _send_by_workers(  # noqa: PLR0913 - called in one place
    source: InputFile, signals: SignalHandlers, channel: Channel, url: str, options: dict[str, Any], *, as_json: bool
) -> tuple[_PrintResult, int]:
    """Submit the rows to workers, and watch the job.

    Raises:
        ConfigurationError: the ledger's URL is missing, or an option applies only to a run of this process.
    """
    from ...worker import RedisLedger
    from . import _job

    _job.check_options(click.get_current_context())
    url = url or os.environ.get("BW_LEDGER_URL", "")
    if not url:
        raise ConfigurationError("--worker: give the ledger's Redis URL, or set BW_LEDGER_URL")
    plan = _plan(source, channel, _template(channel == "voice", options, required=True), options)
    _job.job_name(plan)
    console = OutputConsole(stderr=True)
    with _open_files(options, [source.path]) as files:
        plan = _checked(plan, console, files.rejects)
        ledger = RedisLedger(url, require_aof=options["require_aof"])
        result = asyncio.run(_job.send(plan, ledger, files=files, console=console, signals=signals))
    return _result(plan, result, options, as_json=as_json, by_workers=True)


def _result(
    plan: Plan, result: RunResult, options: dict[str, Any], *, as_json: bool, by_workers: bool = False
) -> tuple[_PrintResult, int]:
    """Return what prints the outcomes and the next steps, and the exit code."""
    summary = result.summary
    if result.error is None and summary.taken and summary.invalid == summary.taken:
        result.error = no_valid_rows(plan.path, summary.taken, result.samples)
    return partial(print_result, plan, result, options, as_json=as_json, by_workers=by_workers), exit_code(result)
