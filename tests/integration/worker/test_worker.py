"""Workers in this process: single codes and jobs, through taskiq's in-memory broker and a real Redis."""

from __future__ import annotations

import asyncio
import collections
import logging
import math
import threading

import pytest

from bandwidth_mfa_async import (
    BadRequestError,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    LedgerError,
    Limits,
    MFAClient,
    RequestError,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async._items._deduplication import DedupIndex
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


async def passing(clock, ledger, work):
    """Let a manual clock's time pass for as long as something takes, but not while the ledger's Redis is asked.

    Timers more than a second ahead are left alone: what comes before them may need real sockets.
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


async def words(job):
    return [outcome.delivery async for outcome in job.outcomes()]


# Single codes.


async def test_one_code(make_worker, simulator, template):
    """It is awaited for the service's id; the same key again gives the same id and sends nothing."""
    codes = await make_worker()
    message_id = await codes.send_code.kiq(template.to(TO), key="login:42")
    assert message_id == simulator.inbox[0].message_id
    assert await codes.send_code.kiq(template.to(TO), key="login:42") == message_id
    assert len(simulator.inbox) == 1
    outcome = await codes.send_code.outcome("login:42")
    assert (outcome.delivery, outcome.provider_id) == (Delivery.ACCEPTED, message_id)
    assert await codes.send_code.outcome("login:43") is None


async def test_many_ask_for_the_same_code(make_worker, simulator, template):
    """All of them get the id of the one text."""
    codes = await make_worker()
    ids = await asyncio.gather(*(codes.send_code.kiq(template.to(TO), key="login:42") for _ in range(20)))
    assert set(ids) == {simulator.inbox[0].message_id}
    assert len(simulator.inbox) == 1


async def test_the_same_key_with_another_payload(make_worker, template):
    """An error, whatever became of the first."""
    codes = await make_worker()
    await codes.send_code.kiq(template.to(TO), key="login:42")
    with pytest.raises(InvalidRequestError, match="another request"):
        await codes.send_code.kiq(template.to("+19195550000"), key="login:42")


async def test_a_refusal_is_raised_where_the_code_was_asked_for(make_worker, simulator, template):
    """With the data the client's own error has; a refused one is not tried again by itself."""
    codes = await make_worker()
    simulator.faults.script(Fault(status=400, body={"error": "no such number", "requestId": "r-7"}))
    for _ in range(2):
        with pytest.raises(BadRequestError) as caught:
            await codes.send_code.kiq(template.to(TO), key="login:42")
        assert (caught.value.status, caught.value.request_id) == (400, "r-7")
        assert caught.value.delivery is Delivery.REJECTED
    assert not simulator.inbox


async def test_an_unknown_outcome_stays_unknown(make_worker, simulator, template):
    """Asked for again, it is not sent again."""
    codes = await make_worker()
    simulator.faults.script(Fault(drop="after_read"))
    for _ in range(2):
        with pytest.raises(DeliveryUnknownError):
            await codes.send_code.kiq(template.to(TO), key="login:42")
    assert len(simulator.inbox) == 1


async def test_what_was_not_sent_is_sent_when_asked_for_again(make_worker, simulator, template):
    """Under the same key."""
    codes = await make_worker()
    failure = Fault(status=503, body={"error": "Internal Error", "requestId": "r"})
    simulator.faults.script(failure, failure)
    with pytest.raises(RequestError) as caught:
        await codes.send_code.kiq(template.to(TO), key="login:42")
    assert caught.value.delivery is Delivery.REJECTED
    assert await codes.send_code.kiq(template.to(TO), key="login:42") == simulator.inbox[0].message_id


async def test_without_workers_nothing_is_sent_and_that_is_certain(make_worker, simulator, template):
    """The code is taken back when its time is over; a worker that comes later finds nothing to do."""
    clock = ManualClock()
    producer = await make_worker(start=False, broker=LossyBroker(), clock=clock)
    began = clock.monotonic()
    with pytest.raises(RequestError) as caught:
        await passing(clock, producer.ledger, producer.send_code.kiq(template.to(TO), key="login:42", timeout=20))
    assert 20 <= clock.monotonic() - began < 21
    assert caught.value.delivery is Delivery.NOT_SENT
    codes = await make_worker()
    assert (await codes.send_code.outcome("login:42")).delivery is Delivery.NOT_SENT
    await codes.send_code.kiq(template.to("+19195550000"), key="login:43")
    assert [message.to for message in simulator.inbox] == ["+19195550000"]


async def test_a_hint_that_is_lost_delays_a_code_and_no_more(producer, make_worker, simulator, template):
    """Workers look for codes that nobody took."""
    await make_worker()
    message_id = await producer.send_code.kiq(template.to(TO), key="login:42", timeout=20)
    assert message_id == simulator.inbox[0].message_id


async def test_a_queue_that_fails_keeps_nothing_from_being_sent(make_worker, producer, simulator, template, caplog):
    """The ledger has the code before the queue is told."""

    async def broken(_message):
        raise ConnectionError("the queue is away")

    producer.broker.kick = broken
    await make_worker()
    assert await producer.send_code.kiq(template.to(TO), key="login:42", timeout=20)
    job = await producer.submit(numbers(10), name="launch", template=template)
    assert (await finished(job)).accepted == 10
    assert "did not accept a wake-up message" in caplog.text


async def test_a_code_left_to_the_workers(make_worker, simulator, template):
    """Nobody waits; its outcome can be asked for."""
    codes = await make_worker()
    await codes.send_code.enqueue(template.to(TO), key="login:42", channel="messaging")
    while (outcome := await codes.send_code.outcome("login:42")).delivery is None:
        await asyncio.sleep(0.005)
    assert outcome.delivery is Delivery.ACCEPTED


async def test_a_voice_code(make_worker, simulator, template):
    """By call."""
    codes = await make_worker()
    call_id = await codes.send_code.kiq(template.to(TO), key="call:42", channel="voice")
    assert call_id == simulator.inbox[0].message_id
    assert simulator.inbox[0].channel == "voice"


@pytest.mark.parametrize("key", ["", 7, "x" * 513])
async def test_a_bad_key(producer, template, key):
    """Named, before anything is written."""
    with pytest.raises(InvalidRequestError, match="key"):
        await producer.send_code.kiq(template.to(TO), key=key)
    with pytest.raises(InvalidRequestError, match="CodeRequest"):
        await producer.send_code.kiq(TO, key="login:42")


# Jobs.


async def test_a_job(make_worker, simulator, template):
    """Each item of the input has its outcome, in its place: sent, invalid, or in the input twice."""
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


async def test_a_job_submitted_again_is_continued(make_worker, producer, simulator, template):
    """Also one whose submission broke off; nobody is sent to twice."""

    def breaks_off():
        yield from numbers(17)
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="gone"):
        await producer.submit(breaks_off(), name="launch", chunk=5, template=template)
    assert not (await producer.job("launch").progress()).complete
    codes = await make_worker()
    job = await codes.submit(numbers(30), name="launch", chunk=5, template=template)
    await finished(job)
    again = await codes.submit(iter(numbers(30)), name="launch", chunk=5, template=template)
    assert (await finished(again)).accepted == len(simulator.inbox) == 30


@pytest.mark.timeout(60)
async def test_a_submission_cancelled_anywhere_is_continued(make_worker, producer, simulator, template):
    """At each of its waits; the same again completes the job, and nobody is sent to twice in it."""
    jobs = []

    def submission():
        jobs.append(f"launch-{len(jobs)}")
        return producer.submit(numbers(7), name=jobs[-1], chunk=3, template=template)

    async for suspensions, task in every_suspension(submission):
        assert task.cancelled() == suspensions.struck, f"the wait {suspensions.at} swallows a cancellation"
        job = await producer.submit(numbers(7), name=jobs[-1], chunk=3, template=template)
        progress = await job.progress()
        assert (progress.total, progress.chunks, progress.complete, progress.pending) == (7, 3, True, 7)
    assert len(jobs) > 20
    await make_worker()
    for name in jobs:
        assert (await finished(producer.job(name))).accepted == 7
    assert collections.Counter(message.to for message in simulator.inbox) == dict.fromkeys(numbers(7), len(jobs))


class AwaitedLock:
    """A lock that says when somebody has to wait for it."""

    def __init__(self):
        self.awaited = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self):
        if not self._lock.acquire(blocking=False):
            self.awaited.set()
            self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


async def test_keys_of_a_cancelled_submission_are_closed_after_their_thread(monkeypatch):
    """The thread that looks at keys goes on when the submission does not; its file is not closed under it."""
    seen, lock, begun, go_on = DedupIndex(), AwaitedLock(), threading.Event(), threading.Event()
    monkeypatch.setattr(seen, "_lock", lock)

    def keys():
        yield b"1", b""
        begun.set()
        go_on.wait(10)
        yield b"2", b""

    adding = asyncio.ensure_future(asyncio.to_thread(seen.add, keys()))
    await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.ensure_future(asyncio.to_thread(seen.close))
    closing.add_done_callback(lambda _: lock.awaited.set())
    assert await asyncio.to_thread(lock.awaited.wait, 10)
    assert not closing.done()
    go_on.set()
    assert await adding == [LedgerState.PENDING, LedgerState.PENDING]
    await closing


async def test_another_job_under_the_same_name(producer, template):
    """Another template, another chunk size, another input: refused by name, and nothing of it is sent."""
    from attrs import evolve

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


async def test_own_keys_name_the_outcomes(make_worker, template):
    """They outlast the numbers; the same key for another number is invalid."""
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


async def test_cancel_and_resume(make_worker, producer, simulator, template):
    """Nothing more of it begins; what was cancelled waits, and a resume by name goes on with it."""
    job = await producer.submit(numbers(30), name="launch", chunk=5, template=template)
    await job.cancel()
    assert (await finished(job)).ending == "cancelled"
    codes = await make_worker()
    rounds, runtime = [], codes._runtime
    poll_once = runtime._poll_once

    async def counted():
        await poll_once()
        rounds.append(1)

    runtime._poll_once = counted
    async with asyncio.timeout(30):
        while len(rounds) < 3 or runtime._tasks:  # rounds of the watch, which must find nothing to do
            runtime._wake.set()
            await asyncio.sleep(0.001)
    assert not simulator.inbox
    assert set(await words(job)) == {Delivery.NOT_SENT}
    await codes.job("launch").resume()
    assert (await finished(job)).accepted == len(simulator.inbox) == 30


async def test_what_was_refused_for_a_while_is_tried_again_by_a_resume(make_worker, simulator, template):
    """The others stay as they are."""
    failure = Fault(status=503, body={"error": "Internal Error", "requestId": "r"})
    simulator.faults.script(*[failure] * 4)
    codes = await make_worker(retry=RetryPolicy(max_attempts=1))
    job = await codes.submit(numbers(10), name="launch", chunk=5, template=template)
    assert (await finished(job)).rejected == 4
    await job.resume()
    progress = await finished(job)
    assert (progress.accepted, progress.rejected) == (10, 0)
    assert len({message.to for message in simulator.inbox}) == len(simulator.inbox) == 10


async def test_refused_credentials_stop_a_job(make_worker, simulator, template, caplog):
    """Ten in a row, and not ten million; a resume goes on when they are mended."""
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


async def test_outcomes_are_drained_once_they_are_kept_elsewhere(make_worker, redis_server, template):
    """Only of a job that has ended; what became of each stays known, its id does not."""
    codes = await make_worker()
    job = await codes.submit(numbers(20), name="launch", chunk=5, template=template)
    await finished(job)
    drained = [outcome async for outcome in job.outcomes(drain=True)]
    assert all(outcome.provider_id for outcome in drained)
    left = [outcome async for outcome in job.outcomes()]
    assert {(outcome.delivery, outcome.provider_id) for outcome in left} == {(Delivery.ACCEPTED, None)}
    assert [listed.name for listed in await codes.jobs()] == ["launch"]


async def test_an_unknown_job(producer):
    """Named, with what to do."""
    job = producer.job("nothing")
    for call in (job.progress(), job.cancel(), job.resume()):
        with pytest.raises(LedgerError, match="no job 'nothing'"):
            await call
    assert repr(job) == "Job('nothing')"


async def test_a_name_that_is_refused_today_hides_no_job(producer):
    """A ledger may hold one that was let in before; it is listed, and so are the others."""
    for name in ("my list", "launch"):
        await Submission(producer.ledger, name, [], 10, "messaging", None, None).run()
    assert {job.name for job in await producer.jobs()} == {"my list", "launch"}


async def test_nothing_that_anybody_can_see_holds_a_number(make_worker, producer, redis_server, template, caplog):
    """Not the messages, the logs at their loudest, the results; and not the ledger once nothing can be sent again."""
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


# Leases and ends.


async def test_a_worker_frozen_between_its_question_and_its_write(make_worker, simulator, template, monkeypatch):
    """It was told yes, and then stopped for longer than its lease lasts: it must not write."""
    original = Ledger.intent
    granted = []

    async def then_frozen(self, chunk, row, *, resends_unknown):
        letter = await original(self, chunk, row, resends_unknown=resends_unknown)
        if not granted:
            # What the clocks say after a stop: the lease has run out.
            chunk.lease._valid_until = (-math.inf, -math.inf)
        granted.append(letter)
        return letter

    monkeypatch.setattr(Ledger, "intent", then_frozen)
    codes = await make_worker()
    job = await codes.submit(numbers(1), name="launch", template=template)
    progress = await finished(job)
    assert (progress.accepted, progress.unknown) == (1, 0)
    # Asked at least twice under the lease that had run out, and written once, under the next one.
    assert granted == ["1"] * len(granted)
    assert len(granted) >= 2
    assert len(simulator.requests) == 1


async def test_a_chunk_is_taken_over_from_a_dead_worker(make_worker, producer, simulator, redis_server, template):
    """What was under way at its death is unknown, the rest is sent."""
    job = await producer.submit(numbers(10), name="launch", template=template)
    ledger = producer.ledger
    dead = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    assert [await ledger.intent(dead, row, resends_unknown=False) for row in range(3)] == ["1"] * 3
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:leases", 0, f"{dead.lease.fencing_token} 1")
    await make_worker()
    progress = await finished(job)
    assert (progress.accepted, progress.unknown) == (7, 3)
    assert sorted(message.to for message in simulator.inbox) == numbers(10)[3:]
    causes = [outcome.error async for outcome in job.outcomes()]
    assert causes == ["LeaseExpired"] * 3 + [None] * 7


async def test_unknown_ones_are_sent_again_only_where_that_was_chosen(make_worker, producer, redis_server, template):
    """At least once, and perhaps twice."""
    job = await producer.submit(numbers(3), name="launch", template=template)
    ledger = producer.ledger
    dead = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    await ledger.intent(dead, 0, resends_unknown=True)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:leases", 0, f"{dead.lease.fencing_token} 1")
    await make_worker(retry=RetryPolicy(resend=Resend.AT_LEAST_ONCE))
    assert (await finished(job)).accepted == 3


async def test_a_shutdown_waits_for_what_is_under_way(make_worker, producer, simulator, template):
    """The client is closed after it, and nothing is unknown; the rest waits for the next worker."""
    simulator.faults.chance(Fault(delay=0.2), 1.0, operation="messaging")
    codes = await make_worker()
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


async def test_a_shutdown_that_takes_too_long_cuts(make_worker, producer, simulator, template):
    """What was cut is unknown, at once and by name."""
    simulator.faults.chance(Fault(delay=math.inf), 1.0, operation="messaging")
    clock = ManualClock()
    codes = await make_worker(drain_timeout=0.5, clock=clock)

    async def sending(count):
        while (await producer.job("launch").progress()).sending < count:
            await asyncio.sleep(0.001)

    await passing(clock, codes.ledger, codes.submit(numbers(5), name="launch", template=template))
    await passing(clock, codes.ledger, sending(5))
    began = clock.monotonic()
    await passing(clock, codes.ledger, codes.broker.shutdown())
    assert 0.5 <= clock.monotonic() - began < 0.6
    progress = await producer.job("launch").progress()
    assert (progress.unknown, progress.pending, progress.ending) == (5, 0, "finished")


async def test_workers_share_a_job(make_worker, simulator, template):
    """Every one of them takes chunks, and no row goes to two."""
    simulator.faults.chance(Fault(delay=0.01), 1.0, operation="messaging")
    workers = [await make_worker(runs=1) for _ in range(3)]
    job = await workers[0].submit(numbers(600), name="launch", chunk=20, template=template)
    assert (await finished(job)).accepted == len(simulator.inbox) == 600
    facts = await workers[1].ledger.facts("launch")
    assert int(facts["runs"]) == 30


async def test_sign_ins_go_before_chunks(make_worker, producer, simulator, template):
    """A code asked for in the middle of a job does not wait for its end."""
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
def test_wrong_arguments(options, word):
    """Named before any I/O."""
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
async def test_wrong_submissions(producer, options, word):
    """The same."""
    with pytest.raises(ConfigurationError, match=word):
        await producer.submit(**({"requests": [], "name": "launch"} | options))


async def test_a_factory_that_makes_no_client(make_worker, redis_server):
    """Says so at start-up."""
    from taskiq import InMemoryBroker

    broker = InMemoryBroker()
    worker = MFAWorker(broker, ledger=RedisLedger(redis_server.url), client=lambda: 7)
    with pytest.raises(ConfigurationError, match="client"):
        await broker.startup()
    await worker.aclose()


def test_a_job_is_known_by_its_name(redis_server):
    """Nothing is asked for a handle."""
    worker = MFAWorker(LossyBroker(), ledger=redis_server.url, client=MFAClient.from_env)
    assert isinstance(worker.job("launch"), Job)
    assert "127.0.0.1" not in repr(worker)
