"""Calls with an idempotency key, by clients that share a store: one text, and the same id for all."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BadRequestError,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    KeyInFlightError,
    Limits,
    MemoryStore,
    MFAClient,
    NotSentError,
    RedisStore,
    RequestError,
    Resend,
    RetryPolicy,
    ServerError,
    SQLiteStore,
    StoreError,
)
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.stores import KeyStatus
from tests.conftest import TO
from tests.support.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bandwidth_mfa_async import CodeTemplate
    from bandwidth_mfa_async.stores import Store
    from bandwidth_mfa_async.telemetry import Event

KEY = "login:42"
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as sim:
        yield sim


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    if request.param == "memory":
        made: Any = MemoryStore()
    elif request.param == "sqlite":
        made = SQLiteStore(tmp_path / "codes.db")
    else:
        made = RedisStore(request.getfixturevalue("redis_server").url)
    yield made
    await made.aclose()


@pytest.fixture
async def make(sim: Simulator) -> AsyncIterator[Callable[..., MFAClient]]:
    made: list[MFAClient] = []

    def client(store: Store | None, **options: Any) -> MFAClient:
        made.append(MFAClient(**sim.client_kwargs(), store=store, **options))
        return made[-1]

    yield client
    for each in made:
        await each.aclose()


async def test_the_second_call_replays_the_first(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    first, second = make(store), make(store)
    sent = await first.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    again = await second.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert again.message_id == sent.message_id
    assert (sent.meta.replayed, sent.meta.attempts) == (False, 1)
    assert (again.meta.replayed, again.meta.attempts, again.meta.possible_duplicate) == (True, 0, False)
    called = await first.generate_voice_code(template.to(TO), idempotency_key="call:42")
    assert (await second.generate_voice_code(template.to(TO), idempotency_key="call:42")).call_id == called.call_id
    assert len(sim.inbox) == 2


async def test_simultaneous_calls_send_one_text(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    """Ten clicks in two processes; the answer takes a while."""
    clients = [make(store), make(store)]
    sim.faults.script(Fault(delay=0.05), operation="messaging")
    calls = (clients[n % 2].generate_messaging_code(template.to(TO), idempotency_key=KEY) for n in range(10))
    found = await asyncio.gather(*calls)
    assert len(sim.inbox) == 1
    assert {response.message_id for response in found} == {sim.inbox[0].message_id}
    assert sorted(response.meta.replayed for response in found) == [False] + [True] * 9


@pytest.mark.parametrize("status", [400, 500])
async def test_waiting_calls_get_the_rejection_and_later_calls_send(
    status: int, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    store = MemoryStore()
    clients = [make(store, retry=ONCE), make(store, retry=ONCE)]
    sim.faults.script(Fault(status=status, delay=0.05), operation="messaging")
    calls = (client.generate_messaging_code(template.to(TO), idempotency_key=KEY) for client in clients)
    errors = await asyncio.gather(*calls, return_exceptions=True)
    kind = BadRequestError if status == 400 else ServerError
    for error in errors:
        assert isinstance(error, kind)
        assert (error.delivery, error.retryable) == (Delivery.REJECTED, status == 500)
    assert not sim.inbox
    assert not (await clients[0].generate_messaging_code(template.to(TO), idempotency_key=KEY)).meta.replayed
    assert len(sim.inbox) == 1


async def test_a_call_that_is_retried_sends_once(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    """Between the attempts nothing is in flight; the key stays claimed."""
    client = make(store, retry=RetryPolicy(wait_initial=0.01))
    sim.faults.script(Fault(status=500), Fault(status=500), operation="messaging")
    sent = await client.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert (sent.meta.attempts, sent.meta.possible_duplicate) == (3, False)
    assert len(sim.inbox) == 1


async def test_an_unknown_key_is_not_sent_again(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    client = make(store)
    sim.faults.script(Fault(drop="after_read"), operation="messaging")
    for _ in range(2):
        with pytest.raises(DeliveryUnknownError) as caught:
            await client.generate_messaging_code(template.to(TO), idempotency_key=KEY)
        assert (caught.value.delivery, caught.value.retryable) == (Delivery.UNKNOWN, False)
    assert len(sim.inbox) == 1
    resends = make(store, retry=RetryPolicy(resend=Resend.AT_LEAST_ONCE))
    sent = await resends.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert (sent.meta.possible_duplicate, sent.meta.replayed) == (True, False)
    replayed = await client.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert (replayed.message_id, replayed.meta.possible_duplicate) == (sent.message_id, True)
    assert len(sim.inbox) == 2


async def test_another_request_under_the_key_is_refused(
    make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    client = make(MemoryStore())
    await client.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    with pytest.raises(InvalidRequestError) as caught:
        await client.generate_messaging_code(template.to("+19195550000"), idempotency_key=KEY)
    assert caught.value.field == "idempotency_key"
    with pytest.raises(InvalidRequestError):
        await client.generate_voice_code(template.to(TO), idempotency_key=KEY)
    assert len(sim.inbox) == 1


async def test_a_call_in_flight_elsewhere_can_only_be_awaited(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    first, second = make(store), make(store)
    sim.faults.script(Fault(delay=0.5), operation="messaging")
    sending = asyncio.create_task(first.generate_messaging_code(template.to(TO), idempotency_key=KEY))
    while not sim.inbox:
        assert not sending.done(), sending.exception()
        await asyncio.sleep(0.001)
    with pytest.raises(KeyInFlightError) as caught:
        await second.generate_messaging_code(template.to(TO), idempotency_key=KEY, timeout=0.1)
    error = caught.value
    assert (error.delivery, error.retryable, error.attempts) == (Delivery.UNKNOWN, True, 0)
    assert error.retry_after is not None
    assert 0 < error.retry_after <= store.lease
    assert (await second.generate_messaging_code(template.to(TO), idempotency_key=KEY)).meta.replayed
    await sending
    assert len(sim.inbox) == 1


async def test_a_waiter_holds_no_permit_and_withdraws_at_its_deadline(
    make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    """The holder waits for a permit. A waiter that runs out of time sends nothing, and the holder still sends."""
    store = MemoryStore()
    client, other = make(store, limits=Limits(rate="2/s", adaptive=False)), make(store)  # type: ignore[arg-type]
    await client.generate_messaging_code(template.to(TO))
    holder = asyncio.create_task(client.generate_messaging_code(template.to(TO), idempotency_key=KEY))
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as caught:
        await other.generate_messaging_code(template.to(TO), idempotency_key=KEY, timeout=0.1)
    assert (caught.value.delivery, caught.value.retryable) == (Delivery.NOT_SENT, True)
    assert not (await holder).meta.replayed
    assert len(sim.inbox) == 2


async def test_a_replay_needs_no_permit(make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate) -> None:
    client = make(MemoryStore(), limits=Limits(rate="1/h", adaptive=False))  # type: ignore[arg-type]
    sent = await client.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    again = await client.generate_messaging_code(template.to(TO), idempotency_key=KEY, timeout=1.0)
    assert again.message_id == sent.message_id
    with pytest.raises(RequestError) as caught:
        await client.generate_messaging_code(template.to(TO), idempotency_key="other", timeout=0.1)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert len(sim.inbox) == 1


async def test_a_cancelled_call_releases_its_key(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    """Cancelled while it waits for a permit: nothing was sent, and the next call sends."""
    client = make(store, limits=Limits(rate="1/m", adaptive=False))  # type: ignore[arg-type]
    await client.generate_messaging_code(template.to(TO))
    waiting = asyncio.create_task(client.generate_messaging_code(template.to(TO), idempotency_key=KEY))
    while not await store.counts(deadline=asyncio.get_running_loop().time() + 5):
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not (await make(store).generate_messaging_code(template.to(TO), idempotency_key=KEY)).meta.replayed
    assert len(sim.inbox) == 2


async def test_a_call_cancelled_in_flight_is_unknown(
    store: Store, make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    client = make(store)
    sim.faults.script(Fault(delay=math.inf), operation="messaging")
    sending = asyncio.create_task(client.generate_messaging_code(template.to(TO), idempotency_key=KEY))
    while not sim.inbox:
        assert not sending.done(), sending.exception()
        await asyncio.sleep(0.001)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    with pytest.raises(DeliveryUnknownError):
        await make(store).generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert len(sim.inbox) == 1


async def test_without_a_store_a_key_is_refused(make: Callable[..., MFAClient], template: CodeTemplate) -> None:
    with pytest.raises(ConfigurationError, match=r"SQLiteStore.*RedisStore.*MemoryStore.*BW_STORE_URL"):
        await make(None).generate_messaging_code(template.to(TO), idempotency_key=KEY)


@pytest.mark.parametrize("key", ["", "x" * 513, 42, b"login"])
async def test_wrong_keys_are_refused(make: Callable[..., MFAClient], template: CodeTemplate, key: Any) -> None:
    with pytest.raises(InvalidRequestError, match="idempotency_key"):
        await make(MemoryStore()).generate_messaging_code(template.to(TO), idempotency_key=key)


@pytest.mark.parametrize("store", [object(), "redis://127.0.0.1"])
async def test_what_is_not_a_store_is_refused(make: Callable[..., MFAClient], store: Any) -> None:
    with pytest.raises(ConfigurationError, match="store"):
        make(store)


async def test_nothing_is_sent_without_the_store(
    make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    client = make(RedisStore(f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(StoreError) as caught:
        await client.generate_messaging_code(template.to(TO), idempotency_key=KEY, timeout=0.3)
    assert (caught.value.delivery, caught.value.retryable) == (Delivery.NOT_SENT, True)
    assert caught.value.operation == "generate_messaging_code"
    assert caught.value.elapsed < 1.0
    assert not sim.inbox


async def test_not_after(make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate) -> None:
    """Too late, nothing is sent, and the task must not be repeated; a key that was sent is still replayed."""
    client = make(MemoryStore())
    past = datetime.now(UTC) - timedelta(seconds=1)
    for options in ({}, {"idempotency_key": KEY}):
        for not_after in (past, past.timestamp()):
            with pytest.raises(NotSentError) as caught:
                await client.generate_messaging_code(template.to(TO), not_after=not_after, **options)
            assert (caught.value.retryable, caught.value.retry_stopped_by) == (False, "not_after")
    assert not sim.inbox
    later = datetime.now(UTC) + timedelta(minutes=1)
    sent = await client.generate_messaging_code(template.to(TO), not_after=later, idempotency_key=KEY)
    replayed = await client.generate_messaging_code(template.to(TO), not_after=past, idempotency_key=KEY)
    assert (replayed.message_id, replayed.meta.replayed) == (sent.message_id, True)
    await client.generate_voice_code(template.to(TO), not_after=later)
    assert len(sim.inbox) == 2


@pytest.mark.parametrize("value", [datetime(2030, 1, 1), "2030-01-01", True, math.nan])  # noqa: DTZ001 - naive
async def test_not_after_is_an_aware_time(make: Callable[..., MFAClient], template: CodeTemplate, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="not_after"):
        await make(None).generate_messaging_code(template.to(TO), not_after=value)


async def test_the_store_is_closed_with_its_last_client(tmp_path: Any, sim: Simulator, template: CodeTemplate) -> None:
    store = SQLiteStore(tmp_path / "codes.db")
    async with MFAClient(**sim.client_kwargs(), store=store) as first:
        await first.generate_messaging_code(template.to(TO), idempotency_key=KEY)
        async with MFAClient(**sim.client_kwargs(), store=store) as second:
            assert (await second.generate_messaging_code(template.to(TO), idempotency_key=KEY)).meta.replayed
        assert store._handle.get().file is not None
    assert store._handle.get().file is None


async def test_a_replay_has_one_call_event(make: Callable[..., MFAClient], template: CodeTemplate) -> None:
    events: list[Event] = []

    class Hook:
        def on_event(self, event: Event) -> None:
            events.append(event)

    store = MemoryStore()
    await make(store).generate_messaging_code(template.to(TO), idempotency_key=KEY)
    await make(store, hooks=[Hook()]).generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert [type(event).__name__ for event in events] == ["CallStartedEvent", "CallEvent"]
    assert (events[-1].delivery, events[-1].attempts) == (Delivery.ACCEPTED, 0)  # type: ignore[union-attr]


async def test_a_long_call_keeps_its_lease(
    make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    """The text takes longer than the lease: it is renewed, so no other call calls it unknown."""
    store = MemoryStore(lease=1.0)
    sim.faults.script(Fault(delay=1.6), operation="messaging")
    clients = [make(store), make(store)]
    found = await asyncio.gather(
        *(client.generate_messaging_code(template.to(TO), idempotency_key=KEY) for client in clients)
    )
    assert found[0].message_id == found[1].message_id
    assert len(sim.inbox) == 1


async def test_what_the_store_holds_names_no_one(store: Store, make: Callable[..., MFAClient], template: Any) -> None:
    """Digests, ids and outcomes only."""
    await make(store).generate_messaging_code(template.to(TO), idempotency_key=KEY)
    record = await store.get("00", "00", deadline=asyncio.get_running_loop().time() + 5)
    assert record.status is KeyStatus.ABSENT
    assert await store.counts(deadline=asyncio.get_running_loop().time() + 5) == {"k": {"a": 1}}
    if isinstance(store, MemoryStore):
        assert not [text for text in (TO, TO[2:], KEY) if text in repr(store._records)]


async def test_a_store_that_is_lost_while_another_call_sends_makes_no_false_outcome(
    make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of the key may be sent, so a call that waits for it must not say that it was not."""
    store = MemoryStore()
    sim.faults.script(Fault(delay=0.3), operation="messaging")
    sending = asyncio.create_task(make(store).generate_messaging_code(template.to(TO), idempotency_key=KEY))
    while not sim.inbox:
        assert not sending.done(), sending.exception()
        await asyncio.sleep(0.001)

    async def lost(*_: Any, **__: Any) -> Any:
        raise StoreError("the store is lost")

    monkeypatch.setattr(store, "get", lost)
    with pytest.raises(KeyInFlightError) as caught:
        await make(store).generate_messaging_code(template.to(TO), idempotency_key=KEY)
    assert (caught.value.delivery, caught.value.retryable) == (Delivery.UNKNOWN, True)
    await sending


async def test_an_unknown_key_that_another_call_will_send_again_is_not_called_unsent(
    make: Callable[..., MFAClient], sim: Simulator, template: CodeTemplate
) -> None:
    store, again = MemoryStore(), RetryPolicy(max_attempts=1, resend=Resend.AT_LEAST_ONCE)
    limited = make(store, retry=again, limits=Limits(rate="2/s", adaptive=False))  # type: ignore[arg-type]
    sim.faults.script(Fault(drop="after_read", accepted=True), operation="messaging")
    with pytest.raises(DeliveryUnknownError):
        await limited.generate_messaging_code(template.to(TO), idempotency_key=KEY)
    holder = asyncio.create_task(limited.generate_messaging_code(template.to(TO), idempotency_key=KEY))
    while not any("u" in record for record in store._records.values()):  # it holds the key, and waits for a permit
        await asyncio.sleep(0)
    with pytest.raises(KeyInFlightError):
        await make(store, retry=again).generate_messaging_code(template.to(TO), idempotency_key=KEY, timeout=0.1)
    assert (await holder).meta.possible_duplicate
