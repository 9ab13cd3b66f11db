"""The wording of a report, shared by the terminal and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._formats import count, items, possible_duplicates

if TYPE_CHECKING:
    from ...bulk import JournalReport

MAX_POSITIONS: Final = 20
MAX_SESSIONS: Final = 20
MAX_CAUSES: Final = 30
MIN_POINTS: Final = 3
"""The minimum number of points for a chart."""
MIN_ITEMS_FOR_RATE: Final = 10
"""The minimum number of codes for a rate."""

STATUSES: Final = {
    "accepted": ("accepted", "accepted by the service"),
    "rejected": ("rejected", "rejected by the service; not sent"),
    "not_sent": ("not sent", "never left this machine"),
    "unknown": ("unknown", "no answer; may have been sent"),
    "invalid": ("invalid", "not a valid request; not sent"),
    "sending": ("in flight or interrupted", "sending, without a result yet"),
    "pending": ("pending", "in the input, not sent yet"),
}
"""Each status, in display order, with its name and meaning."""

RESUME: Final = {
    "yes": "yes",
    "no": "no",
    "at_least_once": "only with AT_LEAST_ONCE",
}
_OPTION: Final = "--resend at-least-once"
_MEMBER: Final = "Resend.AT_LEAST_ONCE"
LITERALS: Final = (_OPTION, _MEMBER)
"""Parts of sentences that the user types; a page shows them as code, without a line break."""
_ENDINGS: Final = {
    "finished": "finished",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "in progress",
    "killed": "killed",
    "unfinished": "in progress or killed",
}
_STATES: Final = {
    "finished": "the last run finished",
    "stopped": "the last run was stopped early",
    "failed": "the last run failed",
    "running": "a run is in progress",
    "killed": "the last run was killed",
    "unfinished": "the last run is in progress, or was killed",
}
_CHANNELS: Final = {"messaging": "text messages", "voice": "voice calls"}


def title(report: JournalReport) -> str:
    """Return the run's name, else the journal's."""
    return report.run or report.journal


def channel(report: JournalReport) -> str:
    """Return how the codes were sent."""
    return _CHANNELS.get(report.channel, report.channel)


def ending(name: str) -> str:
    """Return how a session ended."""
    return _ENDINGS[name]


def headline(report: JournalReport) -> str:
    """Return the main sentence of the report."""
    accepted, everything = report.counts.accepted, whole(report)
    if not everything:
        return "This journal has no items yet"
    if accepted == everything:
        return "The code was accepted" if everything == 1 else f"All {count(everything)} codes were accepted"
    if not accepted:
        return "No code was accepted" if everything > 1 else "The code was not accepted"
    return f"{count(accepted)} of {count(everything)} codes were accepted"


def whole(report: JournalReport) -> int:
    """Return the number of items in the journal, and in the part of the input that no run has taken."""
    return report.totals.items + report.totals.not_taken


def meaning(status: str, report: JournalReport) -> str:
    """Return what a status means, and how many accepted items are possible duplicates."""
    text = STATUSES[status][1]
    number, unrecorded = report.possible_duplicates, report.possible_duplicates_unrecorded
    if status == "accepted" and (number or unrecorded):
        return f"{text}; {possible_duplicates(number, unrecorded)}"
    return text


def outcomes(report: JournalReport) -> list[tuple[str, str, int, str]]:
    """Return the name, the title, the number of items and the meaning of each status, in display order."""
    rows = [(name, title, getattr(report.counts, name), meaning(name, report)) for name, (title, _) in STATUSES.items()]
    return [*rows, ("not_taken", "not taken", report.totals.not_taken, "in the input, but no run has read it yet")]


def state(report: JournalReport) -> str:
    """Return the state of the latest session."""
    if not report.sessions:
        return "no run has used it"
    return _STATES[report.sessions[-1].ending]


def next_steps(report: JournalReport) -> list[str]:
    """Return what the user can do next, most urgent first."""
    counts = report.counts
    if not whole(report):
        return ["Start a run with this journal; it records every item of its input."]
    steps: list[str] = []
    retryable = sum(failure.count for failure in report.failures if failure.resume == "yes")
    permanent = sum(failure.count for failure in report.failures if failure.resume == "no")
    if report.running:
        steps.append("The run is in progress: these are its current numbers.")
    elif counts.pending or counts.sending or retryable or report.totals.not_taken:
        parts = [f"{items(counts.pending)} not sent yet"] if counts.pending else []
        parts += [f"{items(report.totals.not_taken)} not taken from the input yet"] if report.totals.not_taken else []
        parts += [f"{items(retryable)} that failed for reasons unrelated to the item"] if retryable else []
        steps.append(
            "Start the run again with the same input and this journal; finished items are skipped."
            + (f" It sends {' and '.join(parts)}." if parts else "")
        )
    if counts.sending and not report.running:
        steps.append(f"{items(counts.sending)} had no result when the run ended: unknown on resume.")
    if counts.unknown:
        steps.append(
            f"{items(counts.unknown)} may or may not have been sent. A resume sends unknown items again, possibly as "
            f"duplicates, only with {_OPTION} (in Python, {_MEMBER})."
        )
    if permanent:
        steps.append(f"{items(permanent)} would fail again: correct the input.")
    return steps or ["Nothing to do."]


def positions(indexes: tuple[int, ...], total: int) -> str:
    """Return the first positions in the input, counted from 0."""
    shown = ", ".join(str(position) for position in indexes[:MAX_POSITIONS])
    more = total - min(len(indexes), MAX_POSITIONS)
    return f"{shown} and {count(more)} more" if more > 0 else shown
