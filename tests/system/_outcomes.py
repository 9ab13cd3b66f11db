"""The outcome of a code in every place that reports one, and the one rule that compares it with the server's log."""

from __future__ import annotations

import collections
import contextlib
import json
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import attrs

from bandwidth_mfa_async import RequestError
from bandwidth_mfa_async.bulk import JournalReport
from bandwidth_mfa_async.cli._app import app
from tests.system._ledger_server import AT_LEAST_ONCE

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable, Iterator, Mapping

    from bandwidth_mfa_async.bulk import BulkSummary, ItemOutcome
    from bandwidth_mfa_async.worker import CodeOutcome, JobOutcome, JobProgress

NOTHING_WENT_OUT = frozenset({"not_sent", "rejected", "invalid"})
JOURNAL_STATES = ("not_sent", "unknown", "accepted", "rejected", "not_sent", "unknown", "invalid")
"""What the codes in a journal's column `status` say; pending is not sent, and sending after a kill is unknown."""
LEDGER_STATES = dict(
    zip(
        "0123456789ab",
        (
            *("not_sent", "unknown", "accepted", "rejected", "not_sent", "unknown", "invalid", "rejected", "skipped"),
            *("unknown", "accepted", "accepted"),
        ),
        strict=True,
    )
)
"""What the codes in a ledger say; 8 repeats an earlier item."""
_one_command = threading.Lock()  # a command line replaces the streams of the process


@dataclass(frozen=True)
class Outcome:
    """The outcome of one code, as one place reports it.

    Attributes:
        delivery: the value of a `Delivery`; empty if the place has no outcome.
        identifier: the service's id; None if the place does not keep it.
        duplicate: whether the place says that more than one text may have gone out.
    """

    delivery: str
    identifier: str | None = None
    duplicate: bool | None = False


def contradictions(outcome: Outcome, texts: list[str], policy: str, *, gateways: int = 0) -> Iterator[str]:
    """Yield how an outcome contradicts the ids of the texts that went out to its number.

    Args:
        outcome: what a place reports.
        texts: the ids in the server's log.
        policy: the value of a `Resend`.
        gateways: the number of gateways' answers. The service documents its 5xx as not sent, so the default policy
            retries them, and a gateway may have sent the 5xx.
    """
    if not outcome.delivery:
        yield "no outcome"
    if outcome.delivery in NOTHING_WENT_OUT and texts:
        yield f"{outcome.delivery}, and {len(texts)} went out"
    if outcome.delivery == "accepted":
        if not texts or outcome.identifier not in {None, *texts}:
            yield "accepted with an id that is not in the ledger"
        if len(texts) != 1 and not outcome.duplicate:
            yield f"accepted without a warning, and {len(texts)} went out"
    if policy != AT_LEAST_ONCE and len(texts) > 1 + (gateways if policy == "rejected" else 0):
        yield f"{len(texts)} went out under {policy}"


class Places:
    """What all places report of the same codes.

    Attributes:
        outcomes: by the place's name, the outcome of every code, by its number.
        totals: by the place's name, the number of codes by delivery; the places of `outcomes` must agree with it.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, Outcome]] = {}
        self.totals: dict[str, dict[str, int]] = {}

    def check(
        self, texts: Mapping[str, list[str]], policy: str, gateways: Mapping[str, int] | None = None
    ) -> Iterator[str]:
        """Yield every contradiction: of a place with the server's log, and of one place with another."""
        reference_name, reference = next(iter(self.outcomes.items()))
        expected = totals_of(reference.values())
        for place, outcomes in self.outcomes.items():
            for number, outcome in outcomes.items():
                allowed = (gateways or {}).get(number, 0)
                for wrong in contradictions(outcome, texts.get(number, []), policy, gateways=allowed):
                    yield f"{place}, {number}: {wrong}; {outcome}"
            for number, other in reference.items():
                if not agrees(outcomes.get(number, Outcome("")), other):
                    yield f"{place}, {number}: {outcomes.get(number)}, but {reference_name} has {other}"
        for place, totals in self.totals.items():
            wrong_totals = {name: (count, expected[name]) for name, count in totals.items() if count != expected[name]}
            if wrong_totals:
                yield f"{place}: {wrong_totals} (there, and by {reference_name})"


def agrees(one: Outcome, other: Outcome) -> bool:
    """Return whether two places report the same; an id counts only where both keep it."""
    same_id = None in {one.identifier, other.identifier} or one.identifier == other.identifier
    return one.delivery == other.delivery and one.duplicate == other.duplicate and same_id


def totals_of(outcomes: Iterable[Outcome]) -> collections.Counter[str]:
    """Return the number of outcomes by delivery, and of possible duplicates."""
    totals: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        totals[outcome.delivery] += 1
        totals["possible_duplicates"] += bool(outcome.duplicate)
        totals["possible_duplicates_unrecorded"] += outcome.duplicate is None
    return totals


def _totals(counts: Mapping[str, int], *, not_sent: int, unknown: int) -> dict[str, int]:
    names = ("accepted", "rejected", "invalid", "possible_duplicates", "possible_duplicates_unrecorded")
    return {name: counts[name] for name in names} | {"not_sent": not_sent, "unknown": unknown}


# Bulk runs.


def of_item(item: ItemOutcome) -> Outcome:
    """Return the outcome of an item, by an earlier run if it was done before."""
    delivery = item.previous or item.delivery
    if item.response is None:
        return Outcome(delivery.value)
    identifier = getattr(item.response, "message_id", None) or getattr(item.response, "call_id", None)
    return Outcome(delivery.value, identifier, item.response.meta.possible_duplicate)


def journal_rows(path: pathlib.Path, numbers: list[str]) -> dict[str, Outcome]:
    """Read a journal's rows without the library."""
    query = "SELECT position, status, provider_id, possible_duplicate FROM item"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            numbers[position]: Outcome(
                JOURNAL_STATES[status], identifier, (None if flag is None else bool(flag)) if status == 2 else False
            )
            for position, status, identifier, flag in connection.execute(query)
        }


def add_journal(places: Places, path: pathlib.Path, numbers: list[str]) -> None:
    """Add the rows of a journal, its `JournalReport` and what the command line prints of it."""
    places.outcomes["journal"] = journal_rows(path, numbers)
    missing = len(numbers) - len(places.outcomes["journal"])
    for number in numbers:  # what was never read from the input was not sent
        places.outcomes["journal"].setdefault(number, Outcome("not_sent"))
    report = JournalReport.read(path)
    documents = {"JournalReport": _report_counts(report), "report --json": command("report", str(path), "--json")[0]}
    for place, document in documents.items():
        flat = document | document["counts"]
        not_sent = flat["not_sent"] + flat["pending"] + missing
        places.totals[place] = _totals(flat, not_sent=not_sent, unknown=flat["unknown"] + flat["sending"])


def _report_counts(report: JournalReport) -> dict[str, Any]:
    names = ("possible_duplicates", "possible_duplicates_unrecorded")
    return {name: getattr(report, name) for name in names} | {"counts": attrs.asdict(report.counts)}


def summary_totals(summary: BulkSummary | Mapping[str, Any], skipped: Mapping[str, int], items: int) -> dict[str, int]:
    """Return the counts of a run, or of `bulk --json`, with skipped items under their earlier delivery.

    Args:
        summary: the counts.
        skipped: the number of skipped items by their earlier delivery.
        items: the number of items of the input; those without an outcome were not sent.
    """
    found: Any = attrs.asdict(summary) if attrs.has(type(summary)) else summary
    counts = {name: found[name] for name in ("accepted", "rejected", "invalid", "not_sent", "unknown")}
    for name, count in skipped.items():
        counts[name] += count
    counts["not_sent"] += items - sum(counts.values())
    return counts | {name: found[name] for name in ("possible_duplicates", "possible_duplicates_unrecorded")}


def command(*arguments: str) -> list[dict[str, Any]]:
    """Run a command line in this process and return the JSON documents that it prints."""
    from click.testing import CliRunner

    with _one_command:
        result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


# Jobs and single codes.


def of_job_item(item: JobOutcome) -> Outcome:
    return Outcome(item.delivery.value, item.provider_id, item.possible_duplicate)


def of_code(code: CodeOutcome | None) -> Outcome:
    if code is None or code.delivery is None:
        return Outcome("")
    return Outcome(code.delivery.value, code.provider_id, code.possible_duplicate)


def of_error(error: RequestError) -> Outcome:
    return Outcome(error.delivery.value)


def ledger_rows(redis: Any, job: str, numbers: list[str], chunk: int, *, prefix: str) -> dict[str, Outcome]:
    """Read the rows of a job from Redis without the library.

    Args:
        redis: a blocking client.
        job: the job's name.
        numbers: its numbers, in order.
        chunk: the size of its chunks.
        prefix: the prefix of the ledger's keys.
    """
    states = (redis.get(f"{prefix}:{{{job}}}:rows") or b"").decode()
    records: dict[int, tuple[str, str]] = {}
    for number in range(-(-len(numbers) // chunk)):
        for line in (redis.get(f"{prefix}:{{{job}}}:out:{number}") or b"").decode().splitlines():
            index, state, identifier, *_ = line.split(",")
            records[int(index)] = state, identifier
    found = {}
    for index, (number, state) in enumerate(zip(numbers, states, strict=True)):
        recorded, identifier = records.get(index, ("", ""))
        duplicate = state == "b" or (None if state == "2" else False)
        found[number] = Outcome(LEDGER_STATES[state], (recorded == state and identifier) or None, duplicate)
    return found


def code_row(redis: Any, name: str, *, prefix: str) -> Outcome:
    """Read a single code from Redis without the library."""
    fields = {key.decode(): value.decode() for key, value in redis.hgetall(f"{prefix}:{{codes}}:{name}").items()}
    if fields.get("state", "0") in "01":
        return Outcome("")
    delivery = LEDGER_STATES[fields["state"]]
    identifier = json.loads(fields["record"])[0] if fields.get("record") else None
    flag = {"1": True, "0": False}.get(fields.get("duplicate", ""))
    return Outcome(delivery, identifier, flag if delivery == "accepted" else False)


def add_progress(places: Places, progress: JobProgress, url: str, *, prefix: str) -> None:
    """Add the counts of the only job of a ledger, and those that the command line prints of it."""
    (printed,) = command("jobs", "--ledger", url, "--prefix", prefix, "--json")
    for place, found in {"JobProgress": attrs.asdict(progress), "jobs --json": printed}.items():
        not_sent, unknown = found["not_sent"] + found["pending"], found["unknown"] + found["sending"]
        places.totals[place] = _totals(found, not_sent=not_sent, unknown=unknown)
