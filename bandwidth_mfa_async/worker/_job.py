"""`Job`: a submitted job with its progress, its outcomes, and the operations cancel and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from .._clock import sleep_until
from .._concise import ConciseType
from .._item_state import DELIVERY_OF_LEDGER_STATE, POSSIBLE_DUPLICATE_OF, LedgerState
from .._validation import checked_name
from ..errors import Delivery, LedgerError
from ._coordinator import Coordinator
from .ledger._codec import unpack_keys, unpack_records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from .ledger._ledger import RedisLedger

CANCELLED: Final = "cancelled"
WENT_BACK: Final = "RedisWentBack"
_ACCEPTED: Final[list[LedgerState]] = [
    state for state, delivery in DELIVERY_OF_LEDGER_STATE.items() if delivery is Delivery.ACCEPTED
]


@frozen(kw_only=True)
class JobProgress(metaclass=ConciseType):
    """The counts of a job at one moment.

    Attributes:
        total: items submitted so far.
        complete: whether the whole input is submitted.
        pending: items that are not tried yet, or that wait for another attempt.
        sending: items in flight, or claimed by a worker that died.
        accepted: codes that the service accepted.
        rejected: codes that the service rejected.
        not_sent: codes that were not sent.
        unknown: codes that may have been sent.
        invalid: items that break a rule.
        skipped: items that repeat an earlier item of the input.
        possible_duplicates: accepted items of which another attempt may have been delivered too.
        possible_duplicates_unrecorded: accepted items of which an older version did not record that.
        chunks: chunks submitted.
        chunks_done: chunks of which every item has an outcome.
        ending: ``"finished"``, ``"cancelled"``, the class of the account error that stopped the job,
            ``"RedisWentBack"`` if a worker that survived noticed that Redis lost the newest writes (a resume may send
            codes again that were sent since), or None.
    """

    total: int
    complete: bool
    pending: int
    sending: int
    accepted: int
    rejected: int
    not_sent: int
    unknown: int
    invalid: int
    skipped: int
    possible_duplicates: int
    possible_duplicates_unrecorded: int
    chunks: int
    chunks_done: int
    ending: str | None

    @property
    def done(self) -> int:
        """The number of items that have an outcome."""
        return self.total - self.pending - self.sending


@frozen
class JobOutcome(metaclass=ConciseType):
    """The outcome of one item of a job.

    Attributes:
        index: its position in the input, from 0.
        key: the custom key; empty if there is none. Not part of the `repr`, since it may contain personal data.
        delivery: its delivery; `Delivery.INVALID` for an item that breaks a rule, `Delivery.SKIPPED` for one that
            repeats an earlier item of the input, `Delivery.NOT_SENT` also for one that is not tried yet.
        provider_id: the service's id of an accepted code.
        error: the name of the error's class.
        status: the HTTP status of the response.
        attempts: the number of attempts.
        possible_duplicate: whether the item was accepted and another attempt may have been delivered too; None if it
            was accepted and an older version did not record that.
    """

    index: int
    key: str = field(repr=False)
    delivery: Delivery
    provider_id: str | None = None
    error: str | None = None
    status: int | None = None
    attempts: int = 0
    possible_duplicate: bool | None = False


class Job:
    """A job in the ledger; made by `MFAWorker.submit`, or by name with `MFAWorker.job`.

    Workers send its items whether or not a process watches it.

    Args:
        name: the job's name.
        ledger: the ledger that holds it.
        coordinator: plans the job while it is watched.
    """

    def __init__(self, name: str, ledger: RedisLedger, coordinator: Coordinator) -> None:
        self.name = name
        self._ledger = ledger
        self._coordinator = coordinator

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    async def progress(self) -> JobProgress:
        """Return the counts of the job, in constant time.

        Raises:
            LedgerError: there is no such job, or the ledger cannot be used.
        """
        return _progress(await self._facts())

    async def watch(self, interval: float = 1.0) -> AsyncIterator[JobProgress]:
        """Yield the counts of the job until it has ended, and coordinate the job meanwhile.

        Args:
            interval: seconds between two counts.

        Raises:
            LedgerError: there is no such job, or the ledger cannot be used.
        """
        clock = self._ledger.clock
        while True:
            await self._coordinator.plan(self.name)
            progress = await self.progress()
            yield progress
            if progress.ending is not None:
                return
            await sleep_until(clock, clock.monotonic() + interval)

    async def outcomes(self, *, drain: bool = False) -> AsyncIterator[JobOutcome]:
        """Yield the outcome of each item, in input order. Reads one chunk at a time: memory does not grow.

        Args:
            drain: delete the ids and causes of each chunk when the next one is read, for callers that store them. The
                job must have ended.

        Raises:
            LedgerError: there is no such job, `drain` is set and the job has not ended, or the ledger cannot be used.
        """
        facts = await self._facts()
        if drain and _progress(facts).ending is None:
            raise LedgerError(f"job {self.name!r} has not ended: wait until it has, then drain its outcomes")
        size = int(facts["chunk"])
        async for chunk, states, text, requests in self._ledger.results(self.name, size, int(facts["total"])):
            results = unpack_records(text)
            keys = unpack_keys(requests)
            for position, code in enumerate(states):
                index = chunk * size + position
                state = LedgerState(code)
                result = results.get(index)
                if result is not None and result.state != state:
                    result = None  # the item has moved on since
                yield JobOutcome(
                    index,
                    keys[position] if keys else "",
                    DELIVERY_OF_LEDGER_STATE[state],
                    None if result is None else result.provider_id,
                    None if result is None else result.cause,
                    None if result is None else result.status,
                    0 if result is None else result.attempts,
                    POSSIBLE_DUPLICATE_OF.get(state, False),
                )
            del keys  # crash reporters show local variables, and the next read may fail
            if drain:
                await self._ledger.drop_results(self.name, chunk)

    async def cancel(self) -> None:
        """Begin no more attempts of the job; requests in flight complete. `resume` continues the job.

        Raises:
            LedgerError: there is no such job, or the ledger cannot be used.
        """
        await self._facts()
        await self._ledger.stop(self.name, CANCELLED)

    async def resume(self) -> JobProgress:
        """Continue a cancelled or ended job: try again what was not sent, and keep what is done.

        Raises:
            LedgerError: there is no such job, or the ledger cannot be used.
        """
        if await self._ledger.resume(self.name) < 0:
            raise self._unknown()
        await self._ledger.register(self.name)
        await self._coordinator.plan(self.name)
        return await self.progress()

    async def _facts(self) -> Mapping[str, str]:
        facts = await self._ledger.facts(self.name)
        if not facts:
            raise self._unknown()
        return facts

    def _unknown(self) -> LedgerError:
        return LedgerError(
            f"there is no job {self.name!r} in this ledger: submit it, or correct the name or the prefix"
        )


async def known_jobs(ledger: RedisLedger) -> list[Job]:
    """Return the jobs of a ledger, oldest first, without a broker.

    Jobs of another version are included; their methods raise a `LedgerError` that says so.

    Args:
        ledger: an open ledger.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    coordinator = Coordinator(ledger, _no_queue)
    found: list[Job] = []
    for name in await ledger.jobs(include_ended=True):
        if await ledger.exists(name):
            found.append(Job(name, ledger, coordinator))
        else:
            await ledger.forget(name, include_ended=True)
    return found


def _progress(facts: Mapping[str, str]) -> JobProgress:
    counts: dict[LedgerState, int] = {
        state: int(facts.get(f"s{state.value}", 0)) for state in LedgerState if state is not LedgerState.PENDING
    }
    total, chunks, chunks_done = int(facts["total"]), int(facts["chunks"]), int(facts["chunks_done"])
    complete = facts["closed"] == "1"
    ending: str | None = None
    if complete and chunks_done >= chunks:
        ending = "finished"
    elif facts.get("stopped"):
        ending = facts["stopped"]
    return JobProgress(
        total=total,
        complete=complete,
        # Derived: a stored count would be wrong while a chunk is being sent.
        pending=max(0, total - sum(counts.values())),
        sending=counts[LedgerState.SENDING] + counts[LedgerState.RESENDING],
        accepted=sum(counts[state] for state in _ACCEPTED),
        rejected=counts[LedgerState.REJECTED] + counts[LedgerState.REFUSED],
        not_sent=counts[LedgerState.NOT_SENT],
        unknown=counts[LedgerState.UNKNOWN],
        invalid=counts[LedgerState.INVALID],
        skipped=counts[LedgerState.DUPLICATE],
        possible_duplicates=counts[LedgerState.POSSIBLE_DUPLICATE],
        possible_duplicates_unrecorded=counts[LedgerState.ACCEPTED_UNRECORDED],
        chunks=chunks,
        chunks_done=chunks_done,
        ending=ending,
    )


async def _no_queue(_job: str, _chunk: int) -> None:
    """Send no wake-up message: workers poll the ledger."""


def open_job(ledger: RedisLedger, name: str) -> Job:
    """Return a job by its name, without a broker: workers find its chunks when they poll the ledger.

    Raises:
        ConfigurationError: a job may not have this name.
    """
    return Job(checked_name("name", name), ledger, Coordinator(ledger, _no_queue))
