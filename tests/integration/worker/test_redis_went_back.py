"""A ledger whose Redis goes back to older data."""

from __future__ import annotations

import asyncio
import collections
import logging
import shutil

import pytest
from taskiq import InMemoryBroker

from bandwidth_mfa_async import Limits, MFAClient
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger, _runtime
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from bandwidth_mfa_async.worker.ledger._codec import pack_record
from tests.conftest import TO
from tests.integration.worker.test_ledger import filled, states
from tests.support.redis_server import RedisServer


@pytest.fixture
def snapshot_redis(tmp_path, common_redis):
    """Return a Redis that persists by snapshots only."""
    server = RedisServer(tmp_path, "--appendonly", "no")
    yield server
    server.kill()


def restore(server):
    """Kill a Redis and start it from the snapshot that `save` kept."""
    server.kill()
    shutil.copy(server.directory / "kept.rdb", server.directory / "dump.rdb")
    server.start()


def save(server):
    with server.client() as client:
        client.save()
    shutil.copy(server.directory / "dump.rdb", server.directory / "kept.rdb")


async def test_a_redis_that_went_back_stops_the_job_at_the_first_operation_of_a_survivor(snapshot_redis, caplog):
    """Whichever operation comes first, also of a worker that only polled the job; nothing is sent."""

    async def use(name):
        """Accept two of four items, with a snapshot between them; return the surviving ledger and its chunk."""
        await filled(ledger, name)
        chunk = await ledger.claim_chunk(name, 0, ledger.new_lease())
        assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"
        ledger.settle(chunk, 0, LedgerState.ACCEPTED, pack_record("id", None, 1))
        await ledger.flush()
        return chunk

    ledger, poller = (RedisLedger(snapshot_redis.url, require_aof=False) for _ in range(2))
    async with ledger, poller:
        chunks = {name: await use(name) for name in ("rows", "claim", "next", "plan", "idle", "ended")}
        await asyncio.to_thread(save, snapshot_redis)
        await asyncio.sleep(0.01)
        for chunk in chunks.values():
            assert await ledger.intent(chunk, 1, resends_unknown=False) == "1"
            ledger.settle(chunk, 1, LedgerState.ACCEPTED, pack_record("id", None, 1))
        await ledger.flush()
        for index in (2, 3):
            await ledger.intent(chunks["ended"], index, resends_unknown=False)
            ledger.settle(chunks["ended"], index, LedgerState.ACCEPTED, pack_record("id", None, 1))
        assert await ledger.release_chunk(chunks["ended"], b"") == "done"
        options = {"max_queued_chunks": 4, "requeue_after": 60}
        assert (await ledger.plan("ended", ledger.new_lease(), **options))[0] == "ended"
        await poller.next_chunk("idle")
        await asyncio.to_thread(restore, snapshot_redis)
        assert await states(ledger, "rows") == "a000", "the second acceptance is lost"
        assert await ledger.intent(chunks["rows"], 1, resends_unknown=False) == "X"
        assert await ledger.claim_chunk("claim", 0, ledger.new_lease()) == "stopped"
        assert await ledger.next_chunk("next") is None
        assert (await ledger.plan("plan", ledger.new_lease(), **options))[0] == "stopped"
        assert await poller.claim_chunk("idle", 0, poller.new_lease()) == "stopped"
        assert await ledger.claim_chunk("ended", 0, ledger.new_lease()) == "stopped"
        for name in chunks:
            assert (await ledger.facts(name))["stopped"] == "RedisWentBack"
        # Resumed on purpose, the job continues.
        await ledger.resume("rows")
        assert (await ledger.plan("rows", ledger.new_lease(), **options))[0] != "stopped"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {"rows", "claim", "next", "plan", "idle", "ended"} == {record.args[0] for record in errors}
    assert "compare with the service's records before you resume" in errors[0].getMessage()


async def test_single_codes_are_unknown_after_a_redis_went_back(snapshot_redis, template, caplog):
    """What waits in the restored data may have been sent since."""
    async with RedisLedger(snapshot_redis.url, require_aof=False) as ledger:
        codes = CodeQueue(ledger)
        name, deadline = codes.name("login:42"), ledger.clock.monotonic() + 60
        await codes.put(name, template.to(TO), "messaging", deadline)
        await asyncio.to_thread(save, snapshot_redis)
        await asyncio.sleep(0.01)
        lease = ledger.new_lease()
        await codes.claim(name, lease, resends_unknown=False)
        assert await codes.intent(name, lease, resends_unknown=False, maybe_delivered=False) == "1"
        codes.settle(name, lease, LedgerState.ACCEPTED, "id", None)
        await codes.flush()
        await asyncio.to_thread(restore, snapshot_redis)
        assert await codes.stale(0, 10) == []
        assert await codes.claim(name, ledger.new_lease(), resends_unknown=False) is None
        assert (await codes.read(name, deadline)).delivery == "unknown"
        assert (await codes.put(name, template.to(TO), "messaging", deadline)).delivery == "unknown"
    assert any("may have been sent" in record.getMessage() for record in caplog.records)


async def test_a_job_that_vanished_and_comes_back_under_its_name_is_stopped(redis_server, caplog):
    """A survivor knows that it had not ended. A job that ended may be submitted again."""
    async with RedisLedger(redis_server.url) as ledger:
        await filled(ledger)
        assert await ledger.next_chunk("launch") == 0
        redis_server.empty()
        await asyncio.sleep(1.01)  # Redis notes when a job was made, in seconds
        await filled(ledger)
        assert await ledger.claim_chunk("launch", 0, ledger.new_lease()) == "stopped"
    assert "launch" in caplog.text


async def test_what_is_known_of_jobs_is_bounded(redis_server):
    """A ledger forgets names, and keeps no batcher of a job without operations."""
    async with RedisLedger(redis_server.url) as ledger:
        await filled(ledger)
        chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
        await ledger.intent(chunk, 0, resends_unknown=False)
        await ledger.flush()
        await asyncio.sleep(0)
        assert ledger._items._loops.get().batchers == {}
        for number in range(1_100):
            ledger.timeline._update(f"job{number}", "1", 1, 0.0)
        assert len(ledger.timeline._clocks) == 1_000


async def test_no_text_goes_out_twice_when_redis_comes_back_from_an_old_snapshot(
    snapshot_redis, simulator, template, monkeypatch, caplog
):
    """A job of 400 items, a snapshot, more items, SIGKILL, and a start from the snapshot, under running workers."""
    monkeypatch.setattr(_runtime, "POLL_INTERVAL", 0.05)
    workers = []
    for _ in range(2):
        broker = InMemoryBroker()
        worker = MFAWorker(
            broker,
            ledger=RedisLedger(snapshot_redis.url, require_aof=False),
            client=lambda: MFAClient(**simulator.client_kwargs(), limits=Limits(rate="150/s", max_in_flight=4)),
            share_limits=False,
        )
        await broker.startup()
        workers.append((broker, worker))
    numbers = [f"+1919555{n:04}" for n in range(400)]
    job = await workers[0][1].submit((template.to(number) for number in numbers), name="launch", chunk=20)
    async with asyncio.timeout(40):
        while len(simulator.inbox) < 60:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(save, snapshot_redis)
        while len(simulator.inbox) < 160:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(restore, snapshot_redis)
        while (progress := await job.progress()).ending is None:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    for broker, worker in workers:
        await broker.shutdown()
        await worker.aclose()
    texts = collections.Counter(message.to for message in simulator.inbox)
    assert [number for number, count in texts.items() if count > 1] == []
    assert progress.ending == "RedisWentBack"
    assert "job launch is stopped" in caplog.text
