"""The output of a bulk run at its end: the outcomes, the next steps and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...errors import Delivery, RequestError
from .. import _outcome
from .._output import OutputConsole
from .._terminal import printable
from ._display import per_second, summary_table
from ._source import display_name, row_problem

if TYPE_CHECKING:
    from ._plan import Plan, RunResult


def _rows(number: int) -> str:
    return "row" if number == 1 else "rows"


def print_notes(path: str, ignored: list[str], suspect_lines: list[int]) -> None:
    """Print the ignored columns and the suspect cells of an input on standard error."""
    if ignored:
        more = f" and {len(ignored) - 5} more" if len(ignored) > 5 else ""
        click.echo(f"{display_name(path)}: ignored columns: {', '.join(ignored[:5])}{more}", err=True)
    for line in suspect_lines:
        problem = "a cell of several lines contains lines like rows, which are not sent; is a quote missing?"
        click.echo(row_problem(path, line, problem), err=True)


def print_more_bad_rows(more: int, rejects: str | None) -> None:
    """Print how many bad rows were not shown."""
    if more > 0:
        where = f"all are in {rejects}" if rejects else "--rejects FILE writes all of them to a file"
        click.echo(printable(f"... and {more:,} more bad {_rows(more)}; {where}"), err=True)


def print_result(  # noqa: PLR0913 - made in one place
    plan: Plan, result: RunResult, options: dict[str, Any], *, as_json: bool, by_workers: bool, err: bool
) -> None:
    """Print the outcomes and the next steps.

    Args:
        plan: the run.
        result: its result.
        options: the command's options.
        as_json: whether to print one line of JSON.
        by_workers: whether workers sent the rows.
        err: whether to print on standard error, because standard output failed.
    """
    if plan.checked_rows is None and not err:
        # The rows of a file were reported by the check.
        print_notes(plan.path, result.ignored, result.suspect_lines)
        print_more_bad_rows(result.summary.invalid - len(result.samples), options["rejects"])
    if as_json:
        click.echo(_outcome.json_line(_document(result)), err=err)
    elif result.summary.taken:
        table = summary_table(result.summary, result.previous, requests=not by_workers)
        OutputConsole(stderr=err, plain_width=120).print(table)
    if result.error is not None and not err:
        notes = "".join(f"\n  {note}" for note in getattr(result.error, "__notes__", ()))
        click.echo(printable(f"error: {result.error}{notes}"), err=True)
    for line in _next_steps(plan, result, options, by_workers=by_workers):
        click.echo(printable(line), err=as_json or err)


def _next_steps(plan: Plan, result: RunResult, options: dict[str, Any], *, by_workers: bool) -> list[str]:
    summary = result.summary
    lines: list[str] = []
    if result.repeated:
        lines.append(
            f"{result.repeated:,} {_rows(result.repeated)} not sent: the number has another text already; "
            "--allow-repeats sends such rows as well"
        )
    if result.rejects:
        lines.append(
            f"{options['rejects']}: {result.rejects:,} {_rows(result.rejects)} to correct; then send that file"
        )
    if result.unknowns:
        lines.append(f"{options['unknowns']}: {result.unknowns:,} unknown {_rows(result.unknowns)}")
    if by_workers:
        from . import _job

        return lines + _job.next_steps(result)
    if result.journal is None:
        return lines
    same = "the same command" if plan.journal else f"the same command with --journal {result.journal}"
    if summary.ending != "finished" or summary.not_sent:
        lines.append(f"to continue, run {same} again: codes already sent are skipped")
    if summary.unknown:
        lines.append(
            f"{summary.unknown:,} unknown: may have been sent; to send unknown items again anyway, "
            f"run {same} and --resend at-least-once"
        )
    return lines


def exit_code(result: RunResult) -> int:
    """Return the exit code of a run."""
    summary, previous = result.summary, result.previous
    if summary.unknown or previous[Delivery.UNKNOWN]:
        return _outcome.EXIT_UNKNOWN
    if result.error is not None and not isinstance(result.error, RequestError):
        return _outcome.EXIT_USAGE
    failed = summary.rejected + summary.not_sent + summary.invalid + previous[Delivery.REJECTED]
    return _outcome.EXIT_FAILED if failed or result.error or summary.ending != "finished" else _outcome.EXIT_OK


def _document(result: RunResult) -> dict[str, Any]:
    summary = result.summary
    document: dict[str, Any] = {
        "ending": summary.ending,
        "taken": summary.taken,
        "accepted": summary.accepted,
        "rejected": summary.rejected,
        "not_sent": summary.not_sent,
        "unknown": summary.unknown,
        "invalid": summary.invalid,
        "repeats": result.repeated,
        "skipped": summary.skipped,
        "skipped_because": {
            "twice" if earlier is None else earlier.value: number for earlier, number in result.previous.items()
        },
        "possible_duplicates": summary.possible_duplicates,
        "possible_duplicates_unrecorded": summary.possible_duplicates_unrecorded,
        "attempts": summary.attempts,
        "throttled": summary.throttled,
        "per_second": round(per_second(summary), 1),
        "seconds": round(summary.elapsed, 2),
        "rejects": result.rejects,
        "unknowns": result.unknowns,
        "resume_with": result.journal,
        "ignored_columns": result.ignored,
    }
    if result.error is not None:
        document |= {"error": type(result.error).__name__, "detail": str(result.error)}
    return document
