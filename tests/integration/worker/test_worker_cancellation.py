"""Ledger operations cancelled at every await: the job stays intact, and no connection leaks."""

from __future__ import annotations

from typing import ClassVar

import pytest

from bandwidth_mfa_async import Delivery, DisconnectedError, NotSentError, RateLimitError
from bandwidth_mfa_async._client._recorded_call import AttemptRecorder, send
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger, known_jobs
from tests.integration.limits.test_redis_cancellation import connections
from tests.support.suspensions import every_suspension
from tests.support.worker_fixtures import LossyBroker

NUMBERS = [f"+1919555{index:04}" for index in range(7)]


async def first(things):
    async for thing in things:
        return thing
    return None


async def all_of(things):
    return [thing async for thing in things]


CALLS = {
    "Job.cancel": lambda worker: worker.job("launch").cancel(),
    "Job.resume": lambda worker: worker.job("launch").resume(),
    "Job.progress": lambda worker: worker.job("launch").progress(),
    "Job.outcomes": lambda worker: all_of(worker.job("launch").outcomes()),
    "Job.watch": lambda worker: first(worker.job("launch").watch()),
    "MFAWorker.jobs": lambda worker: worker.jobs(),
    "RedisLedger.check": lambda worker: worker.ledger.check(),
    "RedisLedger.leases": lambda worker: worker.ledger.leases("launch"),
    "RedisLedger.flush": lambda worker: worker.ledger.flush(),
    "RedisLedger.next_chunk": lambda worker: worker.ledger.next_chunk("launch"),
    "known_jobs": lambda worker: known_jobs(worker.ledger),
}


@pytest.mark.parametrize("call", CALLS)
async def test_an_operation_cancelled_at_any_await_leaves_the_job_intact(producer, template, call):
    """The same operation succeeds afterwards."""
    job = await producer.submit(NUMBERS, name="launch", chunk=3, template=template)
    ends = set()
    async for suspensions, task in every_suspension(lambda: CALLS[call](producer)):
        assert task.cancelled() == suspensions.struck, f"await {suspensions.at} swallows a cancellation"
        ends.add(task.cancelled() or task.exception())
        if call == "Job.cancel":
            await job.resume()
        progress = await job.progress()
        assert (progress.total, progress.pending, progress.complete, progress.ending) == (7, 7, True, None)
    assert None in ends or False in ends
    assert ends <= {True, False, None}


@pytest.mark.parametrize(("first", "settled"), [(DisconnectedError, []), (NotSentError, [LedgerState.PENDING])])
async def test_an_item_that_may_have_been_sent_is_never_pending_again(first, settled):
    """The worker may be killed between two attempts; the ledger must not say "not sent" then."""

    class Entry:
        is_stopping = False
        maybe_delivered = False
        states: ClassVar[list[LedgerState]] = []

        async def intent(self, *, maybe_delivered):
            return None

        def settle(self, state, provider_id, error, attempts):
            self.states.append(state)

    attempts = AttemptRecorder(Entry())
    await attempts.before_attempt()
    attempts.attempt_failed(first("it failed", "generate_messaging_code"))
    attempts.return_to_pending()
    assert Entry.states == settled


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (RateLimitError(status=429, delivery=Delivery.REJECTED), LedgerState.PENDING),
        (NotSentError("no connection"), LedgerState.PENDING),
        (DisconnectedError("lost"), LedgerState.UNKNOWN),
    ],
)
async def test_an_item_whose_retry_a_stop_prevents_is_left_to_the_next_worker(failure, state, template):
    """Unless it may have been sent."""

    class Entry:
        is_stopping = False
        maybe_delivered = False
        states: ClassVar[list[LedgerState]] = []

        async def intent(self, *, maybe_delivered):
            return None

        def settle(self, state, provider_id, error, attempts):
            self.states.append(state)

    class Executor:
        async def call(self, operation, request, timeout, lane, recorder):
            assert await recorder.before_attempt()
            entry.is_stopping = True
            recorder.attempt_failed(failure)
            assert not recorder.may_retry()
            raise failure

    entry = Entry()
    assert await send(Executor(), "messaging", template.to("+19195550001"), "bulk", entry) is state
    assert Entry.states == [state]


async def test_a_claim_cancelled_at_any_await_changes_no_item(producer, template):
    """The chunk is either held until its lease expires, or free."""
    numbers = [f"+1919555{index:04}" for index in range(12)]
    job = await producer.submit(numbers, name="launch", chunk=1, template=template)
    ledger = producer.ledger
    tried = []

    async def claim_and_release():
        tried.append(len(tried))
        lease = ledger.new_lease()
        await ledger.plan("launch", lease, max_queued_chunks=4, requeue_after=1.0)
        chunk = await ledger.claim_chunk("launch", tried[-1], lease)
        await ledger.release_chunk(chunk, b"")

    async for suspensions, task in every_suspension(claim_and_release):
        assert task.cancelled() == suspensions.struck
        assert task.cancelled() or task.exception() is None
        again = await ledger.claim_chunk("launch", tried[-1], ledger.new_lease())
        assert not isinstance(again, str) or (again == "held" and task.cancelled())
        assert (await job.progress()).pending == len(numbers)


@pytest.mark.parametrize("kind", ["RedisLedger", "MFAWorker"])
async def test_an_opening_cancelled_at_any_await_closes_what_it_opened(redis_server, kind):
    """The broker of an `MFAWorker` included."""
    brokers = []

    async def open_and_close():
        ledger = RedisLedger(redis_server.url)
        if kind == "RedisLedger":
            async with ledger as opened:
                await opened.check()
            return
        brokers.append(Broker())
        async with MFAWorker(brokers[-1], ledger=ledger, client=lambda: None) as worker:
            await worker.jobs()

    async for suspensions, task in every_suspension(open_and_close):
        assert task.cancelled() == suspensions.struck
        assert len(await connections(redis_server)) <= 1, f"await {suspensions.at}"
    assert all(broker.ups == broker.downs for broker in brokers)


class Broker(LossyBroker):
    """Counts how often it was started and shut down."""

    def __init__(self):
        super().__init__()
        self.ups = self.downs = 0

    async def startup(self):
        await super().startup()
        self.ups += 1

    async def shutdown(self):
        self.downs += 1
        await super().shutdown()
