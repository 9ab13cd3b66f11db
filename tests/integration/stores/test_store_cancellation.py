"""Calls with a key and operations of a store, cancelled at every await."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import Delivery, MemoryStore, MFAClient, NotSentError, RedisStore, RequestError, SQLiteStore
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.stores import KeyStatus
from bandwidth_mfa_async.stores._transitions import GET
from tests.conftest import TO
from tests.support.suspensions import every_suspension

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate

KINDS = ["memory", "sqlite", "redis"]


def make_store(kind: str, request: Any) -> Any:
    if kind == "memory":
        return MemoryStore()
    if kind == "sqlite":
        return SQLiteStore(request.getfixturevalue("tmp_path") / "codes.db")
    return RedisStore(request.getfixturevalue("redis_server").url, secret="s" * 32)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_keyed_call_cancelled_at_any_await(kind: str, request: Any, template: CodeTemplate) -> None:
    """A text goes out once per key at most, and the key says what is known."""
    number = 0
    async with Simulator() as sim:
        client = MFAClient(**sim.client_kwargs(), store=make_store(kind, request))
        await client.generate_messaging_code(template.to(TO), idempotency_key="warm")

        def call() -> Any:
            request = template.to(f"+1919555{number:04}")
            return client.generate_messaging_code(request, idempotency_key=f"login:{number}")

        async for suspensions, task in every_suspension(call):
            assert task.cancelled() == suspensions.struck, f"await {suspensions.at} swallows a cancellation"
            (sent,) = await asyncio.gather(call(), return_exceptions=True)
            texts = [message.message_id for message in sim.inbox if message.to == f"+1919555{number:04}"]
            assert len(texts) <= 1, f"await {suspensions.at}"
            if isinstance(sent, RequestError):
                assert sent.delivery is Delivery.UNKNOWN
            else:
                assert texts == [sent.message_id]
            number += 1
        await client.aclose()
    assert number > 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "operation", ["claim", "begin", "renew", "settle", "withdraw", "get", "run", "counts", "check", "aclose", "secrets"]
)
async def test_a_store_operation_cancelled_at_any_await(kind: str, operation: str, request: Any) -> None:
    """The store can be used afterwards."""
    store = make_store(kind, request)
    if operation == "check" and kind != "redis":
        pytest.skip("only a Redis is checked")
    lease = Lease(store.lease, store.clock)

    def deadline() -> float:
        return asyncio.get_running_loop().time() + 10

    def call() -> Any:  # noqa: PLR0911 - an operation each
        match operation:
            case "claim":
                return store.claim("1f", "d", lease, begins=True, resends_unknown=False, deadline=deadline())
            case "begin":
                return store.begin("1f", lease, resends_unknown=False, maybe_delivered=False, deadline=deadline())
            case "renew":
                return store.renew("1f", lease, deadline=deadline())
            case "settle":
                return store.settle("1f", "d", lease, Delivery.ACCEPTED, provider_id="id", deadline=deadline())
            case "withdraw":
                return store.withdraw("1f", "d", NotSentError(), deadline=deadline())
            case "get":
                return store.get("1f", "d", deadline=deadline())
            case "run":
                return store.run(GET, ["k:1f"], ["d"], deadline=deadline())
            case "counts":
                return store.counts(deadline=deadline())
            case "secrets":
                return store.secrets(deadline=deadline())
            case "check":
                store._checked = False
                return store.check()
        return store.aclose()

    async for suspensions, task in every_suspension(call):
        assert task.cancelled() == suspensions.struck, f"await {suspensions.at} swallows a cancellation"
        assert task.cancelled() or task.exception() is None
        assert (await store.get("2f", "d", deadline=deadline())).status is KeyStatus.ABSENT
    await store.aclose()
