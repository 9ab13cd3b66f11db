"""`Job`: many codes as they are submitted to workers: its counts, its outcomes, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from .._clock import sleep_until
from .._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState
from ..errors import LedgerError
from ._coordinator import Coordinator
from .ledger._codec import unpack_keys, unpack_records
from .ledger._ledger import checked_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ..errors import Delivery
    from .ledger._ledger import RedisLedger

CANCELLED: Final = "cancelled"


@frozen(kw_only=True)
class JobProgress:
    """A job's counts at one moment.

    Attributes:
        total: items submitted so far.
        complete: whether all of the input is submitted.
        pending: items nobody has tried yet, or that wait for another try.
        sending: requests under way, or in the hands of a worker that died.
        accepted: codes the service took.
        rejected: codes it refused.
        not_sent: codes that never left.
        unknown: codes of which nobody can say.
        invalid: items that break a rule.
        skipped: items that stand in the input twice.
        chunks: chunks submitted.
        chunks_done: chunks of which every item has its outcome.
        ending: ``"finished"``, ``"cancelled"``, the name of the error that refused every item, or None.
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
    chunks: int
    chunks_done: int
    ending: str | None

    @property
    def done(self) -> int:
        """Items that have their outcome."""
        return self.total - self.pending - self.sending


@frozen
class JobOutcome:
    """What became of one item of a job.

    Attributes:
        index: its place in the input, from 0.
        key: the caller's own key; empty where none was given. Not shown in the `repr`, since it may hold anything.
        delivery: what is known; `Delivery.INVALID` for an item that breaks a rule, `Delivery.SKIPPED` for one that
            stands in the input twice, `Delivery.NOT_SENT` also for one whose turn has not come.
        provider_id: the service's id of an accepted one.
        error: the class of the error, by name.
        status: the HTTP status of the answer.
        attempts: how many there were.
    """

    index: int
    key: str = field(repr=False)
    delivery: Delivery
    provider_id: str | None = None
    error: str | None = None
    status: int | None = None
    attempts: int = 0


class Job:
    """A job in the ledger; made by `MFAWorker.submit`, or by name with `MFAWorker.job`.

    Workers work at it whether or not anybody watches.

    Args:
        name: its name.
        ledger: where it is kept.
        coordinator: plans it while it is watched.
    """

    def __init__(self, name: str, ledger: RedisLedger, coordinator: Coordinator) -> None:
        self.name = name
        self._ledger = ledger
        self._coordinator = coordinator

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    async def progress(self) -> JobProgress:
        """Return its counts; costs the same however large the job.

        Raises:
            LedgerError: there is no such job, or the ledger cannot be used.
        """
        return _progress(await self._facts())

    async def watch(self, interval: float = 1.0) -> AsyncIterator[JobProgress]:
        """Give its counts until it has ended, and coordinate it meanwhile.

        Args:
            interval: seconds from one to the next.

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
        """Give what became of each item, in the order of the input, a chunk at a time: memory does not grow.

        Args:
            drain: forget the ids and causes of each chunk once the next one is asked for, since the caller keeps them.
                Draining is for a job that has ended.

        Raises:
            LedgerError: there is no such job, it has not ended and is to be drained, or the ledger cannot be used.
        """
        facts = await self._facts()
        if drain and _progress(facts).ending is None:
            raise LedgerError(f"job {self.name!r} has not ended: watch it to its end before its outcomes are drained")
        size = int(facts["chunk"])
        async for chunk, states, text, requests in self._ledger.results(self.name, size, int(facts["total"])):
            records = unpack_records(text)
            keys = unpack_keys(requests)
            for place, letter in enumerate(states):
                index = chunk * size + place
                state = LedgerState(letter)
                record = records.get(index)
                known = record if record is not None and record.state == letter else None
                yield JobOutcome(
                    index,
                    keys[place] if keys else "",
                    DELIVERY_OF_LEDGER_STATE[state],
                    None if known is None else known.provider_id,
                    None if known is None else known.cause,
                    None if known is None else known.status,
                    0 if known is None else known.attempts,
                )
            if drain:
                await self._ledger.drop_results(self.name, chunk)

    async def cancel(self) -> None:
        """Begin no more of it; what is under way ends. `resume` lets it go on.

        Raises:
            LedgerError: there is no such job, or the ledger cannot be used.
        """
        await self._facts()
        await self._ledger.stop(self.name, CANCELLED)

    async def resume(self) -> JobProgress:
        """Let it go on, from a cancel or after its end: what was not sent is tried again, what is done stays so.

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
        return LedgerError(f"there is no job {self.name!r} in this ledger: submit it, or mend its name or the prefix")


async def known_jobs(ledger: RedisLedger) -> list[Job]:
    """Return the jobs of a ledger, oldest first, for whoever looks at them and neither sends nor has a queue.

    Those of another version are among them; what is asked of one says so.

    Args:
        ledger: an open one.

    Raises:
        LedgerError: it cannot be used.
    """

    async def no_queue(_job: str, _chunk: int) -> None:
        """Leave it to the workers, who look for work by themselves."""

    coordinator = Coordinator(ledger, no_queue)
    found: list[Job] = []
    for name in await ledger.jobs(include_ended=True):
        if await ledger.exists(name):
            found.append(Job(name, ledger, coordinator))
        else:
            await ledger.forget(name, include_ended=True)
    return found


def _progress(facts: Mapping[str, str]) -> JobProgress:
    counts = {state: int(facts.get(f"s{state.value}", 0)) for state in LedgerState if state is not LedgerState.PENDING}
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
        # Not kept as a number of its own, which would be wrong for as long as a run lasts.
        pending=max(0, total - sum(counts.values())),
        sending=counts[LedgerState.SENDING],
        accepted=counts[LedgerState.ACCEPTED],
        rejected=counts[LedgerState.REJECTED] + counts[LedgerState.REFUSED],
        not_sent=counts[LedgerState.NOT_SENT],
        unknown=counts[LedgerState.UNKNOWN],
        invalid=counts[LedgerState.INVALID],
        skipped=counts[LedgerState.DUPLICATE],
        chunks=chunks,
        chunks_done=chunks_done,
        ending=ending,
    )


async def _no_queue(_job: str, _chunk: int) -> None:
    """Leave a chunk to the workers, which look for work by themselves."""


def open_job(ledger: RedisLedger, name: str) -> Job:
    """Return a job by its name, without a broker: workers find its chunks by themselves.

    Raises:
        ConfigurationError: it can be no job's name.
    """
    return Job(checked_name("name", name), ledger, Coordinator(ledger, _no_queue))
