"""A key of `kiq` and an idempotency key of the same account and store are the same key."""

from __future__ import annotations

import asyncio

import pytest

from bandwidth_mfa_async import (
    BadRequestError,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    MFAClient,
    RedisStore,
    Resend,
    RetryPolicy,
    StoreError,
)
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async.simulator import Fault
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from bandwidth_mfa_async.worker.ledger._codec import pack_code
from tests.conftest import TO

KEY = "login:42"
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
async def web(redis_server, simulator):
    """A client of a web process."""
    async with MFAClient(**simulator.client_kwargs(), store=RedisStore(redis_server.url), retry=ONCE) as client:
        yield client


@pytest.fixture
async def send_code(redis_server, make_worker):
    """`send_code` of a worker whose client has the same store, opened by another process."""
    store = RedisStore(redis_server.url)
    worker = await make_worker(client={"store": store}, retry=ONCE)
    yield worker.send_code
    await store.aclose()


async def test_a_call_replays_what_a_worker_sent(web, send_code, simulator, template):
    sent = await send_code.kiq(template.to(TO), key=KEY, timeout=10)
    replayed = await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert replayed.message_id == sent
    assert replayed.meta.replayed
    assert len(simulator.inbox) == 1
    await web.generate_messaging_code(template.to(TO), idempotency_key="login:43")
    assert len(simulator.inbox) == 2


async def test_a_worker_replays_what_a_call_sent(web, send_code, simulator, template):
    sent = await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert await send_code.kiq(template.to(TO), key=KEY, timeout=10) == sent.message_id
    outcome = await send_code.outcome(KEY)
    assert (outcome.delivery, outcome.provider_id) == (Delivery.ACCEPTED, sent.message_id)
    assert outcome.possible_duplicate is False
    assert len(simulator.inbox) == 1


async def test_calls_and_workers_at_the_same_moment_send_one_text(web, send_code, simulator, template):
    simulator.faults.script(Fault(delay=0.05))
    calls = [web.generate_messaging_code(template.to(TO), idempotency_key=KEY) for _ in range(4)]
    codes = [send_code.kiq(template.to(TO), key=KEY, timeout=10) for _ in range(4)]
    ids = await asyncio.gather(*calls, *codes)
    assert {getattr(found, "message_id", found) for found in ids} == {simulator.inbox[0].message_id}
    assert len(simulator.inbox) == 1


async def test_what_is_unknown_to_a_call_is_unknown_to_a_worker(web, send_code, simulator, template):
    simulator.faults.script(Fault(drop="after_read", accepted=True))
    with pytest.raises(DeliveryUnknownError):
        await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    with pytest.raises(DeliveryUnknownError):
        await send_code.kiq(template.to(TO), key=KEY, timeout=10)
    assert (await send_code.outcome(KEY)).delivery is Delivery.UNKNOWN
    assert len(simulator.inbox) == 1


async def test_what_is_unknown_to_a_worker_is_unknown_to_a_call(web, send_code, simulator, template):
    simulator.faults.script(Fault(drop="after_read", accepted=True))
    with pytest.raises(DeliveryUnknownError):
        await send_code.kiq(template.to(TO), key=KEY, timeout=10)
    with pytest.raises(DeliveryUnknownError):
        await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert len(simulator.inbox) == 1


async def test_an_unknown_code_that_is_sent_again_is_a_possible_duplicate_everywhere(
    web, redis_server, make_worker, simulator, template
):
    simulator.faults.script(Fault(drop="after_read", accepted=True))
    with pytest.raises(DeliveryUnknownError):
        await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    store = RedisStore(redis_server.url)
    retry = RetryPolicy(max_attempts=1, resend=Resend.AT_LEAST_ONCE)
    worker = await make_worker(client={"store": store}, retry=retry)
    sent = await worker.send_code.kiq(template.to(TO), key=KEY, timeout=10)
    assert (await worker.send_code.outcome(KEY)).possible_duplicate is True
    replayed = await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert (replayed.message_id, replayed.meta.possible_duplicate) == (sent, True)
    assert len(simulator.inbox) == 2
    await store.aclose()


async def test_what_was_rejected_is_sent_again_by_either(web, send_code, simulator, template):
    simulator.faults.script(Fault(status=400), Fault(status=400))
    with pytest.raises(BadRequestError):
        await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    with pytest.raises(BadRequestError):
        await send_code.kiq(template.to(TO), key=KEY, timeout=10)
    sent = await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert not sent.meta.replayed
    assert len(simulator.inbox) == 1


async def test_the_key_of_another_request_is_refused(web, send_code, simulator, template):
    await web.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    with pytest.raises(InvalidRequestError, match="belongs to another request"):
        await send_code.kiq(template.to("+19195550199"), key=KEY, timeout=10)
    assert len(simulator.inbox) == 1


async def test_a_store_that_cannot_be_used_sends_nothing(make_worker, simulator, template):
    store = RedisStore("redis://127.0.0.1:9", timeout=0.05)
    retry = RetryPolicy(max_attempts=1, timeout=0.5)
    worker = await make_worker(client={"store": store}, retry=retry)
    with pytest.raises(StoreError):
        await worker.send_code.kiq(template.to(TO), key=KEY, timeout=10)
    assert not simulator.inbox


async def test_a_code_that_an_older_version_queued_is_sent_without_the_store(send_code, simulator, template, ledger):
    """Its record does not say how the store knows its key."""
    payload, digest = pack_code(template.to(TO), "messaging")
    name, latest = CodeQueue.name(KEY), 60_000
    prefix = f"{ledger.prefix}:{{codes}}"

    async def queue(client):
        now, _ = await client.time()
        fields = {"state": LedgerState.PENDING.value, "digest": digest, "payload": payload}
        await client.hset(f"{prefix}:{name}", mapping={**fields, "latest": now * 1000 + latest})
        await client.zadd(f"{prefix}:waiting", {name: now * 1000})

    await ledger.connection.call(queue)
    sent = await send_code.kiq(template.to(TO), key=KEY, timeout=10)
    assert [message.message_id for message in simulator.inbox] == [sent]


async def test_the_secret_of_a_settled_code_is_removed(send_code, template, ledger):
    await send_code.kiq(template.to(TO), key=KEY, timeout=10)
    name = f"{ledger.prefix}:{{codes}}:{CodeQueue.name(KEY)}"
    fields = await ledger.connection.call(lambda client: client.hkeys(name))
    assert not {b"payload", b"secret"} & set(fields)
