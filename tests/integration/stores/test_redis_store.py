"""What a `RedisStore` does about a Redis that forgets, hangs, is full, went back in time, or cannot confirm."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import ConfigurationError, Delivery, NotSentError, RedisStore, StoreError
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.stores import KeyStatus
from tests.support.redis_server import RedisServer, server_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGER = "bandwidth_mfa_async.stores"


@pytest.fixture
def servers(tmp_path: Any) -> Iterator[Callable[..., RedisServer]]:
    if server_binary() is None:
        pytest.skip("no redis-server here")
    made: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(RedisServer(folder, *options))
        return made[-1]

    yield start
    for server in made:
        server.kill()


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def claim(store: RedisStore, key: str = "1f", *, seconds: float = 5.0, lease: Lease | None = None) -> Any:
    lease = lease or Lease(store.lease, store.clock)
    return await store.claim(key, "d", lease, begins=True, resends_unknown=False, deadline=soon(seconds))


async def test_without_an_append_only_file_it_is_refused(
    servers: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = servers("--appendonly", "no")
    async with RedisStore(server.url) as store:
        with pytest.raises(ConfigurationError, match=r"the store's Redis has no append-only file.*require_aof=False"):
            await claim(store)
    with caplog.at_level(logging.WARNING, LOGGER):
        async with RedisStore(server.url, require_aof=False) as store:
            assert (await claim(store)).status is KeyStatus.CLAIMED
    assert "no append-only file" in caplog.text


async def test_one_that_evicts_is_refused(servers: Callable[..., RedisServer]) -> None:
    server = servers("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    async with RedisStore(server.url) as store:
        with pytest.raises(StoreError, match="noeviction"):
            await claim(store)


async def test_a_full_one_refuses_new_keys(servers: Callable[..., RedisServer]) -> None:
    server = servers()
    async with RedisStore(server.url) as store:
        assert (await claim(store)).status is KeyStatus.CLAIMED
        with server.client() as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="out of memory"):
            await claim(store, "2f", seconds=0.3)
        with server.client() as client:
            client.config_set("maxmemory", 0)
        assert (await claim(store)).status is KeyStatus.SENDING


async def test_a_claim_does_not_run_after_its_deadline(servers: Callable[..., RedisServer]) -> None:
    """Redis was suspended when it was asked: it may run what it has received, but the caller has said "not sent"."""
    server = servers()
    async with RedisStore(server.url) as store:
        await claim(store)
        server.freeze()
        try:
            with pytest.raises(StoreError) as caught:
                await claim(store, "2f", seconds=0.3)
            # This process knows Redis's clock as well as the time of a round trip allows.
            await asyncio.sleep(0.3)
        finally:
            server.thaw()
        assert (caught.value.delivery, caught.value.retryable) == (Delivery.NOT_SENT, True)
        assert (await store.get("2f", "d", deadline=soon())).status is KeyStatus.ABSENT


async def test_it_goes_on_after_a_restart(servers: Callable[..., RedisServer]) -> None:
    server = servers()
    async with RedisStore(server.url) as store:
        await claim(store)
        server.kill()
        waiting = asyncio.create_task(claim(store, seconds=20.0))
        await asyncio.to_thread(server.start)
        assert (await waiting).status is KeyStatus.SENDING


async def test_one_that_went_back_in_time_is_noticed(
    servers: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """What was not sent before may have been sent since: it is unknown now."""
    server = servers()
    async with RedisStore(server.url) as store:
        lease = Lease(store.lease, store.clock)
        await claim(store, lease=lease)
        await store.settle("1f", "d", lease, Delivery.NOT_SENT, error=NotSentError(), deadline=soon())
        with server.client() as client:
            old = client.hgetall("bandwidth-mfa:store:clock")
            await store.get("1f", "d", deadline=soon())
            while client.hget("bandwidth-mfa:store:clock", "heard") == old[b"heard"]:
                await store.get("1f", "d", deadline=soon())
            client.hset("bandwidth-mfa:store:clock", mapping=old)
        with caplog.at_level(logging.ERROR, LOGGER):
            record = await claim(store)
        assert (record.status, record.delivery) == (KeyStatus.SETTLED, Delivery.UNKNOWN)
        assert "lost the newest of what was written" in caplog.text
        assert (await claim(store, "2f")).status is KeyStatus.CLAIMED


async def test_a_newer_format_is_refused(redis_server: RedisServer) -> None:
    async with RedisStore(redis_server.url) as store:
        await claim(store)
        with redis_server.client() as client:
            client.hset("bandwidth-mfa:store:clock", "reader", 2)
        with pytest.raises(StoreError, match=r"newer.*pip install -U"):
            await claim(store)


async def test_an_intent_that_no_replica_confirms_sends_nothing(servers: Callable[..., RedisServer]) -> None:
    server = servers()
    async with RedisStore(server.url, confirm="replica", timeout=2.0) as store:
        with pytest.raises(StoreError, match="did not confirm"):
            await claim(store, seconds=1.0)
        assert (await store.get("2f", "d", deadline=soon())).status is KeyStatus.ABSENT, "a read is not confirmed"
        replica = servers("--replicaof", "127.0.0.1", str(server.port))
        record = None
        for _ in range(50):
            try:
                record = await claim(store, "3f", seconds=2.0)
                break
            except StoreError:
                continue
        assert record is not None
        assert record.status in {KeyStatus.CLAIMED, KeyStatus.SENDING}
        with replica.client() as client:
            assert client.keys("*k:3f")


async def test_fsync_needs_redis_7_2(servers: Callable[..., RedisServer]) -> None:
    server = servers()
    with server.client() as client:
        version = tuple(map(int, client.info("server")["redis_version"].split(".")[:2]))
    async with RedisStore(server.url, confirm="fsync") as store:
        if version < (7, 2):
            with pytest.raises(ConfigurationError, match=r"'fsync' needs Redis 7\.2"):
                await claim(store)
        else:
            assert (await claim(store)).status is KeyStatus.CLAIMED


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": 5}, "store"),
        ({"url": "http://h"}, "store"),
        ({"prefix": "a b"}, "prefix"),
        ({"timeout": 0}, "timeout"),
        ({"confirm": "yes"}, "confirm"),
        ({"confirm": "replica", "cluster": True}, "confirm"),
        ({"retention": 1}, "retention"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        RedisStore(**({"url": "redis://127.0.0.1/0"} | options))


async def test_more_records_than_a_page_are_counted(redis_server: RedisServer) -> None:
    async with RedisStore(redis_server.url) as store:
        await asyncio.gather(*(claim(store, f"{n:04x}", seconds=30.0) for n in range(1_100)))
        assert await store.counts(deadline=soon(30.0)) == {"k": {"1": 1_100}}
