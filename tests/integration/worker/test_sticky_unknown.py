"""An unknown outcome in the ledger: it is never forgotten, and an acceptance after it is a possible duplicate."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async import (
    BadRequestError,
    Delivery,
    DeliveryUnknownError,
    NotSentError,
    ReadTimeoutError,
    RequestError,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async.simulator import Fault
from bandwidth_mfa_async.worker import RedisLedger
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from bandwidth_mfa_async.worker.ledger._codec import pack_record
from bandwidth_mfa_async.worker.ledger._protocol import VERSION
from tests.conftest import TO
from tests.integration.worker.test_jobs_command import shown
from tests.integration.worker.test_ledger import expire_lease, filled, states
from tests.integration.worker.test_worker import finished, numbers
from tests.support.fault_server import refused_port

AGAIN = RetryPolicy(resend=Resend.AT_LEAST_ONCE, wait_initial=0.001, wait_max=0.002, max_attempts=2)
# An answer that says that nothing was sent: rejected, rejected for the account, rejected for a cause that may pass.
ANSWERS = {
    "400": Fault(status=400, body={"error": "no such number", "requestId": "r"}),
    "403": Fault(status=403, body={"Message": "no"}),
    "503": Fault(status=503, body={"error": "Internal Error", "requestId": "r"}),
}


def client_of(answer, simulator):
    """Prepare the simulator for an answer; return the options of a client that gets it."""
    if answer == "no connection":
        return {"base_url": f"http://127.0.0.1:{refused_port()}/api/v1"}
    simulator.faults.chance(ANSWERS[answer], 1.0, operation="messaging")
    return {}


async def interrupted_job(producer, redis_server, template, count=1):
    """Return a job whose first item was in flight when its worker died."""
    job = await producer.submit(numbers(count), name="launch", template=template)
    dead = await producer.ledger.claim_chunk("launch", 0, producer.ledger.new_lease())
    assert await producer.ledger.intent(dead, 0, resends_unknown=True) == "1"
    expire_lease(redis_server)
    return job


def later(codes):
    """Return a deadline that does not come."""
    return codes._ledger.clock.monotonic() + 600


async def interrupted_code(producer, template):
    """Return the key of a code that was in flight when its worker died."""
    await producer.send_code.enqueue(template.to(TO), key="login:42")
    codes, lease = producer._codes, producer.ledger.new_lease()
    lease.seconds = 0.001
    name = codes.name("login:42")
    assert await codes.claim(name, lease, resends_unknown=True)
    lease.seconds = 30.0
    assert await codes.renew(name, lease)
    assert (await codes._batchers.get().call(("intent", name, lease.fencing_token, True, False)))[0] == "1"
    lease.seconds = 0.001
    assert await codes.renew(name, lease)
    await asyncio.sleep(0.005)  # Redis's clock
    return name


@pytest.mark.parametrize("answer", [*ANSWERS, "no connection"])
async def test_an_unknown_item_that_is_sent_again_in_vain_stays_unknown(
    producer, make_worker, redis_server, simulator, template, answer
):
    """The service may have taken the first text, whatever it says about the second one."""
    job = await interrupted_job(producer, redis_server, template)
    await make_worker(retry=AGAIN, client=client_of(answer, simulator))
    progress = await finished(job)
    assert (progress.unknown, progress.rejected, progress.not_sent) == (1, 0, 0)
    (outcome,) = [outcome async for outcome in job.outcomes()]
    assert (outcome.delivery, outcome.possible_duplicate) == (Delivery.UNKNOWN, False)
    assert outcome.error not in {None, "LeaseExpired"}, "the last attempt's error is shown"


@pytest.mark.parametrize("answer", [*ANSWERS, "no connection"])
async def test_an_unknown_code_that_is_sent_again_in_vain_stays_unknown(
    producer, make_worker, simulator, template, answer
):
    name = await interrupted_code(producer, template)
    worker = await make_worker(retry=AGAIN, client=client_of(answer, simulator))
    await worker._runtime.send_code(name)
    outcome = await producer.send_code.outcome("login:42")
    assert outcome.delivery is Delivery.UNKNOWN
    assert outcome.error.delivery is Delivery.UNKNOWN
    with pytest.raises(RequestError) as caught:
        await producer.send_code.kiq(template.to(TO), key="login:42")
    assert caught.value.delivery is Delivery.UNKNOWN


async def test_an_unknown_item_that_is_accepted_later_is_a_possible_duplicate(
    producer, make_worker, redis_server, template
):
    """Shown by the outcome and counted by the progress; the other item is none."""
    job = await interrupted_job(producer, redis_server, template, count=2)
    await make_worker(retry=AGAIN)
    progress = await finished(job)
    assert (progress.accepted, progress.possible_duplicates, progress.possible_duplicates_unrecorded) == (2, 1, 0)
    assert [outcome.possible_duplicate async for outcome in job.outcomes()] == [True, False]
    assert [outcome.possible_duplicate async for outcome in job.outcomes(drain=True)] == [True, False]
    assert [outcome.possible_duplicate async for outcome in job.outcomes()] == [True, False], "survives the drain"


async def test_an_unknown_code_that_is_accepted_later_is_a_possible_duplicate(producer, make_worker, template):
    name = await interrupted_code(producer, template)
    worker = await make_worker(retry=AGAIN)
    result = await worker._runtime.send_code(name)
    assert (result["delivery"], result["possible_duplicate"]) == ("accepted", True)
    assert (await producer.send_code.outcome("login:42")).possible_duplicate is True


async def test_a_text_that_was_repeated_after_a_502_is_a_possible_duplicate(
    make_worker, redis_server, simulator, template
):
    """Two texts went out within one call: `outcome`, `JobOutcome`, `JobProgress` and the command `jobs` say so."""
    worker = await make_worker()
    simulator.faults.script(Fault(status=502, body="", accepted=True))
    await worker.send_code.kiq(template.to(TO), key="login:42")
    assert len(simulator.inbox) == 2
    assert (await worker.send_code.outcome("login:42")).possible_duplicate is True
    await worker.send_code.kiq(template.to(TO), key="login:43")
    assert (await worker.send_code.outcome("login:43")).possible_duplicate is False
    simulator.faults.script(Fault(status=502, body="", accepted=True))
    job = await worker.submit(numbers(3), name="launch", template=template)
    progress = await finished(job)
    assert (progress.accepted, progress.possible_duplicates) == (3, 1)
    listed = await shown(redis_server)
    assert listed.output == "launch: finished, 3 of 3 done (3 accepted, 1 possible duplicate)\n"
    document = json.loads((await shown(redis_server, "--json")).output)
    assert (document["possible_duplicates"], document["possible_duplicates_unrecorded"]) == (1, 0)
    assert sorted([outcome.possible_duplicate async for outcome in job.outcomes()]) == [False, False, True]


async def test_only_the_late_answer_of_the_attempt_itself_settles_an_unknown_item(ledger, redis_server):
    """A worker that never sent the item cannot say that it was not sent."""
    await filled(ledger)
    first = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    for index in range(3):
        await ledger.intent(first, index, resends_unknown=False)
    expire_lease(redis_server)
    second = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    for index in range(3):
        ledger.settle(second, index, LedgerState.REJECTED, pack_record(None, BadRequestError("x"), 1))
    await ledger.flush()
    assert await states(ledger) == "5550"
    ledger.settle(first, 0, LedgerState.REJECTED, pack_record(None, BadRequestError("x"), 1))
    ledger.settle(first, 1, LedgerState.PENDING, "")
    ledger.settle(first, 2, LedgerState.UNKNOWN, pack_record(None, ReadTimeoutError("x"), 1))
    ledger.settle(first, 2, LedgerState.NOT_SENT, pack_record(None, NotSentError("x"), 1))
    await ledger.flush()
    assert await states(ledger) == "3450", "what was unknown is never pending, and its own unknown answer is final"


async def test_the_late_rejection_of_a_second_attempt_leaves_an_item_unknown(ledger, redis_server):
    """The first attempt may still have been delivered."""
    await filled(ledger)
    chunks = []
    for reply in "199":
        chunks.append(await ledger.claim_chunk("launch", 0, ledger.new_lease()))
        assert await ledger.intent(chunks[-1], 0, resends_unknown=True) == reply
        expire_lease(redis_server)
    await ledger.claim_chunk("launch", 0, ledger.new_lease())
    for chunk in chunks:
        ledger.settle(chunk, 0, LedgerState.REJECTED, pack_record(None, BadRequestError("x"), 1))
    await ledger.flush()
    assert await states(ledger) == "5000"
    ledger.settle(chunks[0], 0, LedgerState.ACCEPTED, pack_record("id", None, 1))
    await ledger.flush()
    assert await states(ledger) == "b000"


async def test_the_late_rejection_of_a_second_attempt_leaves_a_code_unknown(ledger, redis_server, template):
    world = Codes(ledger, redis_server, template)
    await world.resume()
    leases = []
    for worker in range(3):
        await world.claim(worker)
        leases.append(world.held[worker, 0])
        assert await world.ask(leases[-1], 0, maybe_delivered=False)
        await world.expire()
    await world.claim(3)
    for lease in leases:
        await world.answer(lease, 0, "3")
    assert next(world.states()) == "5"
    # The second code: only the worker whose attempt it was can settle it.
    await world.ask(world.held[3, 1], 1, maybe_delivered=False)
    await world.expire()
    await world.claim(4)
    await world.answer(leases[0], 1, "3")
    assert list(world.states()) == ["5", "5"]
    await world.answer(world.held[3, 1], 1, "3")
    await world.answer(leases[0], 0, "a")
    assert list(world.states()) == ["b", "3"]


async def test_a_code_that_a_worker_of_an_older_version_called_not_sent_is_unknown(ledger, redis_server, template):
    """The older version does not know the field that says that an earlier attempt is unknown."""
    codes, name = CodeQueue(ledger), "0" * 32
    await codes.put(name, template.to(TO), "messaging", later(codes))
    lease = ledger.new_lease()
    await codes.claim(name, lease, resends_unknown=True)
    await codes.intent(name, lease, resends_unknown=True, maybe_delivered=True)
    with redis_server.client() as client:
        key = f"bandwidth-mfa:{{codes}}:{name}"
        client.hset(key, mapping={"state": "4", "record": json.dumps([None, ""])})
    outcome = await codes.read(name, later(codes))
    assert outcome.delivery is Delivery.UNKNOWN
    assert isinstance(outcome.error, DeliveryUnknownError)
    assert (await codes.put(name, template.to(TO), "messaging", later(codes))).delivery is Delivery.UNKNOWN


# A model: what is known of every attempt of one item, and the states of the ledger that agree with it.


class Attempt:
    """One attempt: in flight, or what its worker reported of it."""

    def __init__(self):
        self.outcome = "in flight"


NOT_DELIVERED = "0347"


def allowed_states(attempts, *, resent):
    """Return the states that agree with what is known of an item's attempts.

    Args:
        attempts: its attempts.
        resent: whether one of them began while another one was unknown.
    """
    outcomes = [attempt.outcome for attempt in attempts]
    if "accepted" in outcomes:
        others = [outcome for outcome in outcomes if outcome in {"in flight", "unknown"}]
        return "b" if others or outcomes.count("accepted") > 1 else "ab" if resent else "a"
    if "unknown" in outcomes:
        return "59"
    if "in flight" in outcomes:
        return "59" if resent else "15"  # in flight, or unknown since its lease expired
    return "59" if resent else NOT_DELIVERED


WORKER = ITEM = st.integers(0, 1)
OPERATION = {
    "claim": st.tuples(st.just("claim"), WORKER),
    "expire": st.tuples(st.just("expire")),
    "renew": st.tuples(st.just("renew"), WORKER),
    # A new attempt; the flag says that it may follow an unknown one within the worker's call.
    "intent": st.tuples(st.just("intent"), WORKER, ITEM, st.booleans()),
    "settle": st.tuples(st.just("settle"), WORKER, ITEM, st.sampled_from("0ab3457")),
    "release": st.tuples(st.just("release"), WORKER),
    "resume": st.tuples(st.just("resume")),
}
WEIGHTS = {"claim": 4, "expire": 3, "renew": 1, "intent": 6, "settle": 4, "release": 1, "resume": 1}
OPERATIONS = st.lists(
    st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)]).flatmap(OPERATION.__getitem__),
    min_size=20,
    max_size=60,
)


class World:
    """Two workers and the truth about two items. A subclass says how the ledger is asked."""

    def __init__(self):
        self.attempts = {0: [], 1: []}
        self.resent = {0: False, 1: False}
        self.in_flight = {}  # (worker, item) -> the claim under which the attempt was made, and the attempt
        self.held = {}  # (worker, item) -> a claim

    async def intent(self, worker, item, *, again):
        """Begin an attempt, or the next one of a call whose last attempt is unknown."""
        before = self.in_flight.get((worker, item))
        if before is not None and not again:
            return
        claim = self.held.get((worker, item)) if before is None else before[0]
        if claim is None:
            return
        if before is not None:
            before[1].outcome = "unknown"
        if not await self.ask(claim, item, maybe_delivered=before is not None):
            if before is not None:
                del self.in_flight[worker, item]
                await self.answer(claim, item, "5")
            return
        attempts = self.attempts[item]
        outcomes = {attempt.outcome for attempt in attempts}
        assert "accepted" not in outcomes, "an accepted item is not sent again"
        self.resent[item] = self.resent[item] or bool(outcomes & {"in flight", "unknown"})
        attempts.append(Attempt())
        self.in_flight[worker, item] = (claim, attempts[-1])

    async def settle(self, worker, item, state):
        """Report the outcome of an attempt. The writer forgets earlier attempts; the ledger must not."""
        if (worker, item) not in self.in_flight:
            return
        claim, attempt = self.in_flight.pop((worker, item))
        attempt.outcome = {"a": "accepted", "b": "accepted", "5": "unknown"}.get(state, "not delivered")
        if state == "b":
            # The writer knows of another attempt.
            self.resent[item] = True
            self.attempts[item].insert(0, Attempt())
            self.attempts[item][0].outcome = "unknown"
        await self.answer(claim, item, state)

    def check(self, item, state):
        allowed = allowed_states(self.attempts[item], resent=self.resent[item])
        if not self.attempts[item]:
            allowed = NOT_DELIVERED
        assert state in allowed, (state, allowed, [attempt.outcome for attempt in self.attempts[item]])


class Rows(World):
    def __init__(self, ledger, server):
        super().__init__()
        self.ledger, self.server = ledger, server

    async def ask(self, claim, item, *, maybe_delivered):
        reply = await self.ledger.intent(claim, item, resends_unknown=True, maybe_delivered=maybe_delivered)
        return reply in {"1", "9"}

    async def answer(self, claim, item, state):
        record = "" if state == "0" else pack_record("id" if state in "ab" else None, None, 1)
        self.ledger.settle(claim, item, LedgerState(state), record)
        await self.ledger.flush()

    async def claim(self, worker):
        found = await self.ledger.claim_chunk("launch", 0, self.ledger.new_lease())
        if not isinstance(found, str):
            self.held |= {(worker, 0): found, (worker, 1): found}

    async def expire(self):
        with self.server.client() as client:
            if client.hexists("bandwidth-mfa:{launch}:leases", 0):
                expire_lease(self.server)

    async def renew(self, worker):
        if claim := self.held.get((worker, 0)):
            await self.ledger.renew("launch", 0, claim.lease)

    async def release(self, worker):
        if (claim := self.held.get((worker, 0))) and not any(holder == worker for holder, _ in self.in_flight):
            await self.ledger.release_chunk(claim, b"")
            del self.held[worker, 0], self.held[worker, 1]

    async def resume(self):
        await self.ledger.resume("launch")


class Codes(World):
    """Two single codes; a put takes the place of a resume."""

    def __init__(self, ledger, server, template):
        super().__init__()
        self.ledger, self.server, self.codes, self.template = ledger, server, CodeQueue(ledger), template

    def key(self, item):
        return f"bandwidth-mfa:{{codes}}:{item}"

    async def ask(self, claim, item, *, maybe_delivered):
        options = {"resends_unknown": True, "maybe_delivered": maybe_delivered}
        return await self.codes.intent(str(item), claim, **options) == "1"

    async def answer(self, claim, item, state):
        error = None if state in "0ab" else BadRequestError("x")
        self.codes.settle(str(item), claim, LedgerState(state), "id" if state in "ab" else None, error)
        await self.codes.flush()

    async def claim(self, worker):
        for item in (0, 1):
            lease = self.ledger.new_lease()
            if await self.codes.claim(str(item), lease, resends_unknown=True):
                self.held[worker, item] = lease

    async def expire(self):
        with self.server.client() as client:
            for item in (0, 1):
                if client.hexists(self.key(item), "till"):
                    client.hset(self.key(item), "till", 1)

    async def renew(self, worker):
        for item in (0, 1):
            if lease := self.held.get((worker, item)):
                await self.codes.renew(str(item), lease)

    async def release(self, worker):
        for item in (0, 1):
            if (worker, item) not in self.in_flight:
                self.held.pop((worker, item), None)

    async def resume(self):
        for item in (0, 1):
            await self.codes.put(str(item), self.template.to(TO), "messaging", later(self.codes))

    def states(self):
        with self.server.client() as client:
            for item in (0, 1):
                state, duplicate, earlier = (
                    (found or b"").decode() for found in client.hmget(self.key(item), "state", "duplicate", "earlier")
                )
                if state == "2":
                    yield {"0": "a", "1": "b"}[duplicate]
                else:
                    yield "9" if state == "1" and earlier else state


async def play(world, operations):
    for kind, *rest in operations:
        if kind == "intent":
            worker, item, again = rest
            await world.intent(worker, item, again=again)
        else:
            await getattr(world, kind)(*rest)


RANDOM = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RANDOM
@given(OPERATIONS)
async def test_no_writer_makes_the_ledger_forget_an_unknown_item(redis_server, operations):
    """Two workers, any order, leases that expire at any time, late answers, and writers that forget."""
    redis_server.empty()
    async with RedisLedger(redis_server.url) as ledger:
        await filled(ledger, size=2)
        world = Rows(ledger, redis_server)
        await play(world, operations)
        found = await states(ledger)
        for item, state in enumerate(found):
            world.check(item, state)
        facts = await ledger.facts("launch")
        for state in "13457ab9":
            assert int(facts.get(f"s{state}", 0)) == found.count(state), (operations, facts)


@RANDOM
@given(OPERATIONS)
async def test_no_writer_makes_the_ledger_forget_an_unknown_code(redis_server, template, operations):
    redis_server.empty()
    async with RedisLedger(redis_server.url) as ledger:
        world = Codes(ledger, redis_server, template)
        await world.resume()
        await play(world, operations)
        for item, state in enumerate(world.states()):
            world.check(item, state)


# A ledger of the previous version.

GOLDEN = pathlib.Path(__file__).with_name("golden") / "ledger-1.json"


@pytest.fixture
def old_ledger(redis_server):
    """Fill Redis with a ledger that the code of commit 14a6aa3 (format 1) wrote; every lease of it has expired.

    The job ``launch`` has two chunks of four: the first is done (accepted, accepted, rejected, unknown), of the second
    one item is accepted and one was in flight when its worker died. The single codes are named by their state.
    """
    with redis_server.client() as client:
        for key, (kind, value) in json.loads(GOLDEN.read_text()).items():
            if kind == "string":
                client.set(key, base64.b64decode(value))
            elif kind == "hash":
                client.hset(key, mapping={name: base64.b64decode(text) for name, text in value.items()})
            else:
                client.zadd(key, value)
    return redis_server


async def test_a_job_of_the_previous_version_is_read_and_continued(old_ledger, make_worker, producer):
    """What the old version did not record stays None and is counted; the rest of the job is recorded."""
    job = producer.job("launch")
    before = await job.progress()
    assert (before.accepted, before.possible_duplicates, before.possible_duplicates_unrecorded) == (3, 0, 3)
    assert (before.sending, before.pending) == (1, 2)
    outcomes = [outcome async for outcome in job.outcomes()]
    assert [outcome.possible_duplicate for outcome in outcomes] == [None, None, False, False, None, *[False] * 3]
    await make_worker()
    after = await finished(job)
    assert (after.accepted, after.rejected, after.unknown, after.ending) == (5, 1, 2, "finished")
    assert (after.possible_duplicates, after.possible_duplicates_unrecorded) == (0, 3)
    outcomes = [outcome async for outcome in job.outcomes()]
    assert [outcome.provider_id is not None for outcome in outcomes] == [
        True,
        True,
        *[False] * 2,
        True,
        False,
        True,
        True,
    ]
    assert [outcome.possible_duplicate for outcome in outcomes] == [None, None, False, False, None, *[False] * 3]


async def test_a_job_that_a_new_worker_has_claimed_is_refused_by_an_older_one(old_ledger, ledger):
    """The older version accepts jobs of format 1 only."""
    await ledger.facts("launch")
    await ledger.plan("launch", ledger.new_lease(), max_queued_chunks=1, requeue_after=1)
    with old_ledger.client() as client:
        assert client.hget("bandwidth-mfa:{launch}:job", "version") == b"1", "reading does not change it"
        await ledger.claim_chunk("launch", 1, ledger.new_lease())
        assert int(client.hget("bandwidth-mfa:{launch}:job", "version")) == VERSION > 1


async def test_codes_of_the_previous_version_are_read_and_continued(old_ledger, make_worker, producer, template):
    known = producer.send_code
    accepted = await known.outcome("accepted")
    assert (accepted.delivery, accepted.provider_id, accepted.possible_duplicate) == (Delivery.ACCEPTED, "id-a", None)
    assert [(await known.outcome(key)).delivery for key in ("rejected", "unknown", "sending", "queued")] == [
        Delivery.REJECTED,
        Delivery.UNKNOWN,
        None,
        None,
    ]
    await make_worker()
    request = template.to("+19195550100")
    assert await known.kiq(request, key="accepted") == "id-a"
    assert await known.kiq(request, key="queued")
    assert (await known.outcome("queued")).possible_duplicate is False
    with pytest.raises(DeliveryUnknownError):
        await known.kiq(request, key="sending")
