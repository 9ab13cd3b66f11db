"""How a report speaks: numbers, times and sentences, the same in the terminal and on the page. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._formats import count, items

if TYPE_CHECKING:
    from ...bulk import JournalReport

MAX_POSITIONS: Final = 20
MAX_SESSIONS: Final = 20
MAX_CAUSES: Final = 30
MIN_POINTS: Final = 3
"""Fewer make no picture: the words beside them say as much."""
MIN_ITEMS_FOR_RATE: Final = 10
"""Fewer codes have no rate."""

STATUSES: Final = {
    "accepted": ("accepted", "taken and named by the service"),
    "rejected": ("rejected", "refused: nothing was sent"),
    "not_sent": ("not sent", "never left this machine"),
    "unknown": ("unknown", "no answer came: perhaps sent"),
    "invalid": ("invalid", "breaks a rule: not asked for"),
    "sending": ("in flight or interrupted", "under way, without a result yet"),
    "pending": ("pending", "in the input, not sent yet"),
}
"""Each status in the order it is shown, with its name and what it means."""

RESUME: Final = {
    "yes": "yes",
    "no": "no",
    "at_least_once": "only under AT_LEAST_ONCE",
}
_OPTION: Final = "--resend at-least-once"
_MEMBER: Final = "Resend.AT_LEAST_ONCE"
AS_TYPED: Final = (_OPTION, _MEMBER)
"""What a sentence holds as it is typed; a page never breaks it."""
_ENDINGS: Final = {
    "finished": "finished",
    "stopped": "stopped before its end",
    "failed": "ended by an error",
    "running": "under way",
    "killed": "killed",
    "unfinished": "under way or killed",
}
_STATES: Final = {
    "finished": "the last run finished",
    "stopped": "the last run was stopped before its end",
    "failed": "the last run ended by an error",
    "running": "a run is under way",
    "killed": "the last run was killed",
    "unfinished": "the last run is under way, or was killed",
}
_CHANNELS: Final = {"messaging": "text messages", "voice": "voice calls"}


def title(report: JournalReport) -> str:
    """Return what to call the run."""
    return report.run or report.journal


def channel(report: JournalReport) -> str:
    """Return how the codes were sent."""
    return _CHANNELS.get(report.channel, report.channel)


def ending(name: str) -> str:
    """Return how a session ended."""
    return _ENDINGS[name]


def headline(report: JournalReport) -> str:
    """Return the one sentence to read."""
    accepted, everything = report.counts.accepted, report.totals.items
    if not everything:
        return "Nothing is in this journal yet"
    if accepted == everything:
        return "The code was accepted" if everything == 1 else f"All {count(everything)} codes were accepted"
    if not accepted:
        return "No code was accepted" if everything > 1 else "The code was not accepted"
    return f"{count(accepted)} of {count(everything)} codes were accepted"


def state(report: JournalReport) -> str:
    """Return how the latest session stands."""
    if not report.sessions:
        return "nothing was sent with it"
    return _STATES[report.sessions[-1].ending]


def next_steps(report: JournalReport) -> list[str]:
    """Return what a person may want to do, most urgent first."""
    counts = report.counts
    if not report.totals.items:
        return ["A run that uses this journal writes down here what it takes from its input."]
    steps: list[str] = []
    again = sum(failure.count for failure in report.failures if failure.resume == "yes")
    own = sum(failure.count for failure in report.failures if failure.resume == "no")
    if report.running:
        steps.append("The run is under way: these are the numbers of this moment.")
    elif counts.pending or counts.sending or again:
        parts = [f"{items(counts.pending)} not sent yet"] if counts.pending else []
        parts += [f"{items(again)} that failed for a reason not their own"] if again else []
        steps.append(
            "Start the run again with the same input and this journal; what is done is skipped."
            + (f" It tries {' and '.join(parts)}." if parts else "")
        )
    if counts.sending and not report.running:
        steps.append(f"{items(counts.sending)} had no result when the run ended; on resume they become unknown.")
    if counts.unknown:
        steps.append(
            f"{items(counts.unknown)} may have been sent, or not. A resume sends them again, perhaps for a second "
            f"time, only with {_OPTION} (in Python, {_MEMBER})."
        )
    if own:
        steps.append(f"{items(own)} would be refused again as they are: mend them in the input.")
    return steps or ["Nothing is left to do."]


def positions(found: tuple[int, ...], total: int) -> str:
    """Return the first places in the input, counted from 0."""
    shown = ", ".join(str(position) for position in found[:MAX_POSITIONS])
    more = total - min(len(found), MAX_POSITIONS)
    return f"{shown} and {count(more)} more" if more > 0 else shown
