"""Single codes and jobs through workers in this process, on taskiq's in-memory broker and a real Redis."""

from __future__ import annotations

import asyncio
import collections
import logging
import math
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve

from bandwidth_mfa_async import (
    BadRequestError,
    BasicAuth,
    ConfigurationError,
    CredentialChain,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    LedgerError,
    Limits,
    MFAClient,
    OAuth2ClientCredentials,
    RequestError,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async._items._deduplication import DedupIndex
from bandwidth_mfa_async._transport import Transport
from bandwidth_mfa_async.simulator import Fault
from bandwidth_mfa_async.testing import ManualClock
from bandwidth_mfa_async.worker import Job, MFAWorker, RedisLedger
from bandwidth_mfa_async.worker._submission import Submission
from bandwidth_mfa_async.worker.ledger._ledger import RedisLedger as Ledger
from tests.conftest import TO
from tests.support.suspensions import every_suspension
from tests.support.worker_fixtures import LossyBroker


def numbers(count):
    return [f"+1919555{n:04}" for n in range(count)]


async def advancing(clock, ledger, work):
    """Advance a manual clock until an awaitable is done, but not while an operation of the ledger is in flight.

    Timers more than a second ahead do not fire: earlier events may need real sockets.
    """
    in_flight, call = [], ledger.connection.call

    async def counted(*arguments, **options):
        in_flight.append(1)
        try:
            return await call(*arguments, **options)
        finally:
            in_flight.pop()

    ledger.connection.call = counted
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(30):
            while not task.done():
                for _ in range(50):
                    await asyncio.sleep(0)
                ahead = clock.next_timer - clock.monotonic() if clock.pending else math.inf
                if ahead <= 1.0 and not in_flight:
                    clock.tick(ahead)
                else:
                    await asyncio.sleep(0.001)
        return await task
    finally:
        ledger.connection.call = call


async def finished(job):
    async for progress in job.watch(0.02):  # noqa: B007 - the last one is wanted
        pass
    return progress


async def deliveries(job):
    return [outcome.delivery async for outcome in job.outcomes()]


# Single codes.


async def test_a_repeated_key_returns_the_same_id_and_sends_nothing(make_worker, simulator, template):
    codes = await make_worker()
    message_id = await codes.send_code.kiq(template.to(TO), key="login:42")
    assert message_id == simulator.inbox[0].message_id
    assert await codes.send_code.kiq(template.to(TO), key="login:42") == message_id
    assert len(simulator.inbox) == 1
    outcome = await codes.send_code.outcome("login:42")
    assert (outcome.delivery, outcome.provider_id) == (Delivery.ACCEPTED, message_id)
    assert await codes.send_code.outcome("login:43") is None


async def test_concurrent_requests_with_one_key_get_the_id_of_one_text(make_worker, simulator, template):
    codes = await make_worker()
    ids = await asyncio.gather(*(codes.send_code.kiq(template.to(TO), key="login:42") for _ in range(20)))
    assert set(ids) == {simulator.inbox[0].message_id}
    assert len(simulator.inbox) == 1


async def test_a_key_of_another_request_is_an_error(make_worker, template):
    """Whatever the outcome of the first request."""
    codes = await make_worker()
    await codes.send_code.kiq(template.to(TO), key="login:42")
    with pytest.raises(InvalidRequestError, match="another request"):
        await codes.send_code.kiq(template.to("+19195550000"), key="login:42")


async def test_a_rejection_is_raised_in_the_requesting_process(make_worker, simulator, template):
    """With the data of the client's own error; a rejected code is not sent again."""
    codes = await make_worker()
    simulator.faults.script(Fault(status=400, body={"error": "no such number", "requestId": "r-7"}))
    for _ in range(2):
        with pytest.raises(BadRequestError) as caught:
            await codes.send_code.kiq(template.to(TO), key="login:42")
        assert (caught.value.status, caught.value.request_id) == (400, "r-7")
        assert caught.value.delivery is Delivery.REJECTED
    assert not simulator.inbox


async def test_an_unknown_code_is_not_sent_again(make_worker, simulator, template):
    """A second request with the same key gets the same error."""
    codes = await make_worker()
    simulator.faults.script(Fault(drop="after_read"))
    for _ in range(2):
        with pytest.raises(DeliveryUnknownError):
            await codes.send_code.kiq(template.to(TO), key="login:42")
    assert len(simulator.inbox) == 1


async def test_a_code_that_was_not_sent_is_sent_by_the_next_request_with_its_key(make_worker, simulator, template):
    codes = await make_worker()
    failure = Fault(status=503, body={"error": "Internal Error", "requestId": "r"})
    simulator.faults.script(failure, failure)
    with pytest.raises(RequestError) as caught:
        await codes.send_code.kiq(template.to(TO), key="login:42")
    assert caught.value.delivery is Delivery.REJECTED
    assert await codes.send_code.kiq(template.to(TO), key="login:42") == simulator.inbox[0].message_id


async def test_a_code_that_no_worker_claims_in_time_is_withdrawn_and_not_sent(make_worker, simulator, template):
    """A worker that starts later does not send it."""
    clock = ManualClock()
    producer = await make_worker(start=False, broker=LossyBroker(), clock=clock)
    began = clock.monotonic()
    with pytest.raises(RequestError) as caught:
        await advancing(clock, producer.ledger, producer.send_code.kiq(template.to(TO), key="login:42", timeout=20))
    assert 19 < clock.monotonic() - began <= 20
    assert caught.value.delivery is Delivery.NOT_SENT
    codes = await make_worker()
    assert (await codes.send_code.outcome("login:42")).delivery is Delivery.NOT_SENT
    await codes.send_code.kiq(template.to("+19195550000"), key="login:43")
    assert [message.to for message in simulator.inbox] == ["+19195550000"]


async def test_a_lost_wake_up_message_only_delays_a_code(producer, make_worker, simulator, template):
    """Workers poll for codes that wait."""
    await make_worker()
    message_id = await producer.send_code.kiq(template.to(TO), key="login:42", timeout=20)
    assert message_id == simulator.inbox[0].message_id


async def test_a_failing_queue_does_not_prevent_sending(make_worker, producer, simulator, template, caplog):
    """The ledger holds the code before the wake-up message is sent."""

    async def broken(_message):
        raise ConnectionError("the queue cannot be reached")

    producer.broker.kick = broken
    await make_worker()
    assert await producer.send_code.kiq(template.to(TO), key="login:42", timeout=20)
    job = await producer.submit(numbers(10), name="launch", template=template)
    assert (await finished(job)).accepted == 10
    assert "did not accept a wake-up message" in caplog.text


async def test_an_enqueued_code_is_sent_and_its_outcome_can_be_read(make_worker, simulator, template):
    codes = await make_worker()
    await codes.send_code.enqueue(template.to(TO), key="login:42", channel="messaging")
    while (outcome := await codes.send_code.outcome("login:42")).delivery is None:
        await asyncio.sleep(0.005)
    assert outcome.delivery is Delivery.ACCEPTED


async def test_a_code_of_the_voice_channel_is_a_call(make_worker, simulator, template):
    codes = await make_worker()
    call_id = await codes.send_code.kiq(template.to(TO), key="call:42", channel="voice")
    assert call_id == simulator.inbox[0].message_id
    assert simulator.inbox[0].channel == "voice"


@pytest.mark.parametrize("key", ["", 7, "x" * 513])
async def test_a_bad_key_is_named_before_anything_is_written(producer, template, key):
    with pytest.raises(InvalidRequestError, match="key"):
        await producer.send_code.kiq(template.to(TO), key=key)
    with pytest.raises(InvalidRequestError, match="CodeRequest"):
        await producer.send_code.kiq(TO, key="login:42")


# Jobs.


async def test_every_item_of_a_job_has_an_outcome_in_input_order(make_worker, simulator, template):
    """Accepted, invalid, or skipped because an earlier item is the same."""
    codes = await make_worker()
    entries = [*numbers(25), "rubbish", numbers(1)[0], 7]
    job = await codes.submit(entries, name="launch", chunk=10, template=template)
    progress = await finished(job)
    assert (progress.total, progress.accepted, progress.invalid, progress.skipped) == (28, 25, 2, 1)
    assert (progress.pending, progress.sending, progress.done, progress.ending) == (0, 0, 28, "finished")
    outcomes = [outcome async for outcome in job.outcomes()]
    assert [outcome.index for outcome in outcomes] == list(range(28))
    ids = {message.to: message.message_id for message in simulator.inbox}
    assert [outcome.provider_id for outcome in outcomes[:25]] == [ids[number] for number in numbers(25)]
    assert [outcome.delivery for outcome in outcomes[25:]] == [Delivery.INVALID, Delivery.SKIPPED, Delivery.INVALID]
    assert outcomes[25].error == "InvalidRequestError"
    assert collections.Counter(message.to for message in simulator.inbox).most_common(1)[0][1] == 1


async def test_submitting_a_job_again_continues_it(make_worker, producer, simulator, template):
    """Also after a submission that failed; no item is sent twice."""

    def failing_source():
        yield from numbers(17)
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="gone"):
        await producer.submit(failing_source(), name="launch", chunk=5, template=template)
    assert not (await producer.job("launch").progress()).complete
    codes = await make_worker()
    job = await codes.submit(numbers(30), name="launch", chunk=5, template=template)
    await finished(job)
    again = await codes.submit(iter(numbers(30)), name="launch", chunk=5, template=template)
    assert (await finished(again)).accepted == len(simulator.inbox) == 30


@pytest.mark.timeout(60)
async def test_a_submission_that_was_cancelled_at_any_await_can_be_continued(
    make_worker, producer, simulator, template
):
    """The same input again completes the job, and no item of it is sent twice."""
    jobs = []

    def submission():
        jobs.append(f"launch-{len(jobs)}")
        return producer.submit(numbers(7), name=jobs[-1], chunk=3, template=template)

    async for suspensions, task in every_suspension(submission):
        assert task.cancelled() == suspensions.struck, f"await {suspensions.at} swallows a cancellation"
        job = await producer.submit(numbers(7), name=jobs[-1], chunk=3, template=template)
        progress = await job.progress()
        assert (progress.total, progress.chunks, progress.complete, progress.pending) == (7, 3, True, 7)
    assert len(jobs) > 20
    await make_worker()
    for name in jobs:
        assert (await finished(producer.job(name))).accepted == 7
    assert collections.Counter(message.to for message in simulator.inbox) == dict.fromkeys(numbers(7), len(jobs))


class AwaitedLock:
    """A lock with an event that is set when a thread has to wait for it."""

    def __init__(self):
        self.awaited = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self):
        if not self._lock.acquire(blocking=False):
            self.awaited.set()
            self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


async def test_the_key_index_of_a_cancelled_submission_is_closed_after_its_thread(monkeypatch):
    """The thread that reads keys outlives a cancelled submission; its file must stay open until it returns."""
    index, lock, begun, proceed = DedupIndex(), AwaitedLock(), threading.Event(), threading.Event()
    monkeypatch.setattr(index, "_lock", lock)

    def keys():
        yield b"1", b""
        begun.set()
        proceed.wait(10)
        yield b"2", b""

    adding = asyncio.ensure_future(asyncio.to_thread(index.add, keys()))
    await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.ensure_future(asyncio.to_thread(index.close))
    closing.add_done_callback(lambda _: lock.awaited.set())
    assert await asyncio.to_thread(lock.awaited.wait, 10)
    assert not closing.done()
    proceed.set()
    assert await adding == [LedgerState.PENDING, LedgerState.PENDING]
    await closing


async def test_the_key_index_is_closed_although_its_closing_is_cancelled():
    """A cancellation comes before a thread was free to close it; a late thread does not open it again."""
    index, proceed = DedupIndex(), threading.Event()
    assert await asyncio.to_thread(index.add, [(b"1", b"")]) == [LedgerState.PENDING]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        loop.set_default_executor(executor)
        busy = loop.run_in_executor(None, proceed.wait, 10)
        closing = asyncio.ensure_future(index.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        proceed.set()
        await busy
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        index._db.execute("SELECT 1")
    with pytest.raises(ValueError, match="closed"):
        index.add([(b"2", b"")])


async def test_other_input_under_the_name_of_a_job_is_refused(producer, template):
    """The error names the difference: the template, the chunk size or the input."""
    await producer.submit(numbers(10), name="launch", chunk=5, template=template)
    other = evolve(template, message="Other {CODE}", scope="other")
    with pytest.raises(LedgerError, match="another message, scope"):
        await producer.submit(numbers(10), name="launch", chunk=5, template=other)
    with pytest.raises(LedgerError, match="another chunk"):
        await producer.submit(numbers(10), name="launch", chunk=6, template=template)
    for entries in (numbers(11), numbers(9), numbers(4), [*numbers(9), "+19195559999"]):
        with pytest.raises(LedgerError, match="another input"):
            await producer.submit(entries, name="launch", chunk=5, template=template)
    assert (await producer.job("launch").progress()).total == 10


async def test_outcomes_contain_the_custom_keys(make_worker, template):
    """They outlive the numbers; an item with the key of another request is invalid."""
    codes = await make_worker()
    keys = {number: f"customer-{place}" for place, number in enumerate(numbers(5))}
    keys[numbers(5)[4]] = "customer-0"
    requests = [template.to(number) for number in numbers(5)]
    job = await codes.submit(requests, name="launch", key=lambda request: keys[request.to])
    await finished(job)
    outcomes = [(outcome.key, outcome.delivery) async for outcome in job.outcomes()]
    assert outcomes == [
        *((f"customer-{place}", Delivery.ACCEPTED) for place in range(4)),
        ("customer-0", Delivery.INVALID),
    ]


async def test_a_cancelled_job_sends_nothing_until_it_is_resumed(make_worker, producer, simulator, template):
    """Also in a worker that starts after the cancellation."""
    job = await producer.submit(numbers(30), name="launch", chunk=5, template=template)
    await job.cancel()
    assert (await finished(job)).ending == "cancelled"
    codes = await make_worker()
    polls, runtime = [], codes._runtime
    poll_once = runtime._poll_once

    async def counted():
        await poll_once()
        polls.append(1)

    runtime._poll_once = counted
    async with asyncio.timeout(30):
        while len(polls) < 3 or runtime._chunk_tasks or runtime._code_tasks:  # polls that must find no work
            runtime._wake.set()
            await asyncio.sleep(0.001)
    assert not simulator.inbox
    assert set(await deliveries(job)) == {Delivery.NOT_SENT}
    await codes.job("launch").resume()
    assert (await finished(job)).accepted == len(simulator.inbox) == 30


async def test_a_resume_sends_again_what_was_rejected_with_a_5xx(make_worker, simulator, template):
    """The other items keep their outcome."""
    failure = Fault(status=503, body={"error": "Internal Error", "requestId": "r"})
    simulator.faults.script(*[failure] * 4)
    codes = await make_worker(retry=RetryPolicy(max_attempts=1))
    job = await codes.submit(numbers(10), name="launch", chunk=5, template=template)
    assert (await finished(job)).rejected == 4
    await job.resume()
    progress = await finished(job)
    assert (progress.accepted, progress.rejected) == (10, 0)
    assert len({message.to for message in simulator.inbox}) == len(simulator.inbox) == 10


async def test_consecutive_account_errors_stop_a_job(make_worker, simulator, template, caplog):
    """A resume continues it once the credentials are correct."""
    simulator.faults.chance(Fault(status=403, body={"Message": "no"}), 1.0, operation="messaging")
    codes = await make_worker(limits=Limits(adaptive=False, max_in_flight=10))
    job = await codes.submit(numbers(500), name="launch", chunk=50, template=template)
    progress = await finished(job)
    assert progress.ending == "PermissionDeniedError"
    assert progress.pending > 300
    assert "PermissionDeniedError" in caplog.text
    simulator.faults.clear()
    await job.resume()
    assert (await finished(job)).accepted == 500


# The credentials, the rejected operations, the status of the rejection, and how the job ends.
REJECTED_CREDENTIALS = {
    "basic": ("messaging", 403, "PermissionDeniedError"),
    "oauth2": ("token", 401, "AuthenticationError"),
    "unknown client": ("token", 400, "BadRequestError"),
    "chain": (None, 401, "AuthenticationError"),
}


@pytest.mark.parametrize("kind", REJECTED_CREDENTIALS)
async def test_ten_account_errors_in_a_row_stop_a_job_whatever_its_chunks(make_worker, simulator, template, kind):
    """As a local bulk run: also if the chunks are smaller than ten, and if the token endpoint rejects the client."""
    operation, status, ending = REJECTED_CREDENTIALS[kind]
    rejection = Fault(status=status, body={"error": "no", "requestId": "r"})
    for each in ("messaging", "token") if operation is None else (operation,):
        simulator.faults.chance(rejection, 1.0, operation=each)
    basic = BasicAuth("user", "wrong")
    oauth2 = OAuth2ClientCredentials("id", "wrong", token_url=simulator.token_url)
    auth = basic if kind == "basic" else CredentialChain(oauth2, basic) if kind == "chain" else oauth2
    codes = await make_worker(limits=Limits(adaptive=False, max_in_flight=2), client={"auth": auth})
    job = await codes.submit(numbers(300), name="launch", chunk=5, template=template)
    progress = await finished(job)
    assert progress.ending == ending
    assert 10 <= progress.rejected + progress.not_sent <= 16, progress
    assert progress.pending > 280
    assert not simulator.inbox


async def test_a_resumed_job_gets_a_new_circuit_breaker(make_worker, simulator, template):
    """Ten further account errors stop it again."""
    simulator.faults.chance(Fault(status=403, body={"Message": "no"}), 1.0, operation="messaging")
    codes = await make_worker(limits=Limits(adaptive=False, max_in_flight=2))
    job = await codes.submit(numbers(300), name="launch", chunk=5, template=template)
    assert (await finished(job)).ending == "PermissionDeniedError"
    seen = len(simulator.requests)
    await job.resume()
    assert (await finished(job)).ending == "PermissionDeniedError"
    assert 10 <= len(simulator.requests) - seen <= 16
    simulator.faults.clear()
    await job.resume()
    assert (await finished(job)).accepted == 300


async def test_drained_outcomes_keep_their_delivery_but_not_their_id(make_worker, redis_server, template):
    codes = await make_worker()
    job = await codes.submit(numbers(20), name="launch", chunk=5, template=template)
    await finished(job)
    drained = [outcome async for outcome in job.outcomes(drain=True)]
    assert all(outcome.provider_id for outcome in drained)
    left = [outcome async for outcome in job.outcomes()]
    assert {(outcome.delivery, outcome.provider_id) for outcome in left} == {(Delivery.ACCEPTED, None)}
    assert [listed.name for listed in await codes.jobs()] == ["launch"]


async def test_an_unknown_job_is_a_named_error(producer):
    job = producer.job("nothing")
    for call in (job.progress(), job.cancel(), job.resume()):
        with pytest.raises(LedgerError, match="no job 'nothing'"):
            await call
    assert repr(job) == "Job('nothing')"


async def test_a_job_whose_name_is_refused_today_is_listed(producer):
    """An earlier version may have allowed the name; the other jobs are listed as well."""
    for name in ("my list", "launch"):
        await Submission(producer.ledger, name, [], 10, "messaging", None, None).run()
    assert {job.name for job in await producer.jobs()} == {"my list", "launch"}


async def test_messages_logs_results_and_the_ledger_contain_no_number(
    make_worker, producer, redis_server, template, caplog
):
    """The logs at level DEBUG; the ledger once no item can be sent again."""
    caplog.set_level(logging.DEBUG)
    codes = await make_worker()
    await codes.send_code.kiq(template.to(TO), key=f"login:{TO}")
    job = await codes.submit(numbers(10), name="launch", template=template)
    await finished(job)
    await producer.send_code.kiq(template.to(numbers(1)[0]), key="login:1", timeout=20)
    shown = caplog.text + repr(job) + repr([outcome async for outcome in job.outcomes()]) + repr(codes)
    shown += repr(producer.broker.messages)
    with redis_server.client() as client:
        for name in client.scan_iter():
            kind = client.type(name)
            value = {b"string": client.get, b"hash": client.hgetall}.get(kind, lambda key: client.zrange(key, 0, -1))
            shown += repr(name) + repr(value(name))
    for number in (TO, *numbers(10), template.from_):
        assert number not in shown
        assert number[1:] not in shown
    assert "{CODE}" not in shown


# Leases and shutdowns.


async def test_a_worker_that_is_suspended_past_its_lease_does_not_write(make_worker, simulator, template, monkeypatch):
    """The suspension begins after the ledger granted the attempt."""
    original = Ledger.intent
    replies = []

    async def intent_then_suspended(self, chunk, index, **options):
        reply = await original(self, chunk, index, **options)
        if not replies:
            # As after a suspension: the lease has expired.
            chunk.lease._valid_until = (-math.inf, -math.inf)
        replies.append(reply)
        return reply

    monkeypatch.setattr(Ledger, "intent", intent_then_suspended)
    codes = await make_worker()
    job = await codes.submit(numbers(1), name="launch", template=template)
    progress = await finished(job)
    assert (progress.accepted, progress.unknown) == (1, 0)
    # The attempt is not repeated under the same lease; the next claim makes the only request.
    assert replies == ["1", "1"]
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("after", [0, 1])
async def test_a_defect_of_ours_leaves_the_work_to_the_next_claim(
    make_worker, simulator, template, monkeypatch, caplog, after
):
    """It is logged. What was not sent is sent by the next claim, and what may have been sent is unknown."""
    original = Transport.send
    failures = []

    async def broken(self, *arguments, **options):
        response = await original(self, *arguments, **options) if after else None
        if len(failures) < 2:
            failures.append(1)
            raise TypeError("a defect")
        return response or await original(self, *arguments, **options)

    monkeypatch.setattr(Transport, "send", broken)
    codes = await make_worker(limits=Limits(adaptive=False, max_in_flight=1), runs=1)
    job = await codes.submit(numbers(2), name="launch", template=template)
    progress = await finished(job)
    assert (progress.accepted, progress.unknown) == ((0, 2) if after else (2, 0))
    assert len(simulator.inbox) == 2
    assert sum(record.exc_info is not None for record in caplog.records) == 2


async def test_a_chunk_of_a_dead_worker_is_sent_by_another(make_worker, producer, simulator, redis_server, template):
    """Its items in flight are unknown."""
    job = await producer.submit(numbers(10), name="launch", template=template)
    ledger = producer.ledger
    dead = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    assert [await ledger.intent(dead, index, resends_unknown=False) for index in range(3)] == ["1"] * 3
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:leases", 0, f"{dead.lease.fencing_token} 1")
    await make_worker()
    progress = await finished(job)
    assert (progress.accepted, progress.unknown) == (7, 3)
    assert sorted(message.to for message in simulator.inbox) == numbers(10)[3:]
    causes = [outcome.error async for outcome in job.outcomes()]
    assert causes == ["LeaseExpired"] * 3 + [None] * 7


async def test_unknown_items_are_sent_again_under_at_least_once(make_worker, producer, redis_server, template):
    job = await producer.submit(numbers(3), name="launch", template=template)
    ledger = producer.ledger
    dead = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    await ledger.intent(dead, 0, resends_unknown=True)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:leases", 0, f"{dead.lease.fencing_token} 1")
    await make_worker(retry=RetryPolicy(resend=Resend.AT_LEAST_ONCE))
    assert (await finished(job)).accepted == 3


async def test_a_shutdown_waits_for_requests_in_flight(make_worker, producer, simulator, template):
    """No item is unknown; the others wait for the next worker."""
    simulator.faults.chance(Fault(delay=0.2), 1.0, operation="messaging")
    codes = await make_worker(limits=Limits(adaptive=False, max_in_flight=10))  # six seconds for all
    job = await codes.submit(numbers(300), name="launch", chunk=100, template=template)
    while not simulator.inbox:
        await asyncio.sleep(0.01)
    await codes.broker.shutdown()
    progress = await producer.job("launch").progress()
    assert (progress.unknown, progress.sending) == (0, 0)
    assert 0 < progress.accepted == len(simulator.inbox) < 300
    simulator.faults.clear()
    await make_worker()
    assert (await finished(producer.job("launch"))).accepted == len(simulator.inbox) == 300
    assert job.name == "launch"


async def test_a_shutdown_cancels_requests_after_the_drain_timeout(make_worker, producer, simulator, template):
    """Their items are unknown at once."""
    simulator.faults.chance(Fault(delay=math.inf), 1.0, operation="messaging")
    clock = ManualClock()
    codes = await make_worker(drain_timeout=0.5, clock=clock)

    async def sending(count):
        while (await producer.job("launch").progress()).sending < count:
            await asyncio.sleep(0.001)

    await advancing(clock, codes.ledger, codes.submit(numbers(5), name="launch", template=template))
    await advancing(clock, codes.ledger, sending(5))
    began = clock.monotonic()
    await advancing(clock, codes.ledger, codes.broker.shutdown())
    assert 0.5 <= clock.monotonic() - began < 0.6
    progress = await producer.job("launch").progress()
    assert (progress.unknown, progress.pending, progress.ending) == (5, 0, "finished")


async def test_workers_share_the_chunks_of_a_job(make_worker, simulator, template):
    """Each chunk is claimed once, and each item is sent once."""
    simulator.faults.chance(Fault(delay=0.01), 1.0, operation="messaging")
    workers = [await make_worker(runs=1) for _ in range(3)]
    job = await workers[0].submit(numbers(600), name="launch", chunk=20, template=template)
    assert (await finished(job)).accepted == len(simulator.inbox) == 600
    facts = await workers[1].ledger.facts("launch")
    assert int(facts["runs"]) == 30


async def test_a_single_code_is_sent_before_the_items_of_a_job(make_worker, producer, simulator, template):
    codes = await make_worker(limits=Limits(rate="100/s", adaptive=False))
    job = await codes.submit(numbers(300), name="launch", template=template)
    while (await job.progress()).accepted < 20:
        await asyncio.sleep(0.01)
    await codes.send_code.kiq(template.to(TO), key="login:42")
    assert (await job.progress()).pending > 100
    await job.cancel()


# Wrong arguments.


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"broker": "redis://x"}, "broker"),
        ({"ledger": 7}, "ledger"),
        ({"client": "user"}, "client"),
        ({"runs": 0}, "runs"),
        ({"max_queued_chunks": True}, "max_queued_chunks"),
        ({"max_chunk_seconds": 0}, "max_chunk_seconds"),
        ({"requeue_after": float("nan")}, "requeue_after"),
        ({"drain_timeout": "1"}, "drain_timeout"),
    ],
)
def test_a_wrong_argument_is_named_before_any_io(options, word):
    right = {"broker": LossyBroker(), "ledger": "redis://localhost", "client": MFAClient.from_env}
    right |= options
    with pytest.raises(ConfigurationError, match=word):
        MFAWorker(right.pop("broker"), **right)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"name": ""}, "name"),
        ({"name": "a{b}"}, "name"),
        ({"chunk": 0}, "chunk"),
        ({"template": "x"}, "template"),
        ({"key": "x"}, "key"),
        ({"channel": "pigeon"}, "channel"),
        ({"requests": "+19195551234"}, "requests"),
    ],
)
async def test_a_wrong_argument_of_submit_is_named(producer, options, word):
    with pytest.raises(ConfigurationError, match=word):
        await producer.submit(**({"requests": [], "name": "launch"} | options))


async def test_a_factory_that_makes_no_client_fails_at_start_up(make_worker, redis_server):
    from taskiq import InMemoryBroker

    broker = InMemoryBroker()
    worker = MFAWorker(broker, ledger=RedisLedger(redis_server.url), client=lambda: 7)
    with pytest.raises(ConfigurationError, match="client"):
        await broker.startup()
    await worker.aclose()


def test_a_job_object_is_made_without_io(redis_server):
    worker = MFAWorker(LossyBroker(), ledger=redis_server.url, client=MFAClient.from_env)
    assert isinstance(worker.job("launch"), Job)
    assert "127.0.0.1" not in repr(worker)
