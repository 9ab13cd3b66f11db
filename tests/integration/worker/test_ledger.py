"""The ledger on a real Redis: leases, intents, outcomes, coordination, and what it does during an outage."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async import ConfigurationError, LedgerError, NotSentError
from bandwidth_mfa_async._item_state import LedgerState
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async._redis import _connection
from bandwidth_mfa_async.testing import ManualClock
from bandwidth_mfa_async.worker import RedisLedger
from bandwidth_mfa_async.worker._coordinator import Coordinator
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from bandwidth_mfa_async.worker.ledger._codec import (
    keys_only,
    pack_record,
    pack_requests,
    unpack_records,
    unpack_requests,
)
from bandwidth_mfa_async.worker.ledger._protocol import VERSION, ClaimReply, Reply
from tests.conftest import APPLICATION, FROM, TO
from tests.support.fault_server import until
from tests.support.redis_server import RedisServer

SIZE = 4


async def filled(ledger, job="launch", chunks=1, size=SIZE):
    """Submit a job with opaque requests, and queue its chunks."""
    await ledger.submit(job, "open", "{}", size, "messaging")
    for chunk in range(chunks):
        await ledger.submit(job, "add", chunk, "0" * size, b"requests", b"digest%02d" % chunk, "", chunk=chunk)
    await ledger.submit(job, "close", chunks)
    await ledger.plan(job, ledger.new_lease(), max_queued_chunks=chunks, requeue_after=60)


def expire_lease(server, job="launch", chunk=0):
    """Expire the lease of a chunk by Redis's clock."""
    with server.client() as client:
        key = f"bandwidth-mfa:{{{job}}}:leases"
        token = client.hget(key, chunk).split()[0]
        client.hset(key, chunk, token + b" 1")


def age_wake_ups(server, seconds, job="launch"):
    """Make the last wake-up messages of all open chunks older by so many seconds, by Redis's clock."""
    with server.client() as client:
        key = f"bandwidth-mfa:{{{job}}}:open"
        for chunk in client.zrange(key, 0, -1):
            client.zincrby(key, -1000 * seconds, chunk)


async def states(ledger, job="launch"):
    found = ""
    facts = await ledger.facts(job)
    async for _, text, _, _ in ledger.results(job, int(facts["chunk"]), int(facts["total"])):
        found += text
    return found


async def fire_next_timer(clock):
    """Advance the clock to the next timer that the ledger waits for."""
    await until(lambda: clock.pending)
    clock.tick(clock.next_timer - clock.monotonic())


async def test_an_item_goes_from_pending_over_sending_to_accepted(ledger):
    """Claim, intent, outcome; the chunk is done when all its items are."""
    await filled(ledger)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    for index in range(SIZE):
        assert await ledger.intent(chunk, index, resends_unknown=False) == "1"
    assert await states(ledger) == "1111"
    for index in range(SIZE):
        ledger.settle(chunk, index, LedgerState.ACCEPTED, pack_record(f"id-{index}", None, 1))
    assert await ledger.release_chunk(chunk, b"") == "done"
    assert await states(ledger) == "aaaa"
    facts = await ledger.facts("launch")
    assert (facts["s1"], facts["sa"], facts["chunks_done"]) == ("0", "4", "1")
    async for _, _, text, requests in ledger.results("launch", SIZE, SIZE):
        assert {index: record.provider_id for index, record in unpack_records(text).items()} == {
            0: "id-0",
            1: "id-1",
            2: "id-2",
            3: "id-3",
        }
        assert requests == b"", "numbers are deleted once no item can be sent again"


async def test_a_valid_lease_excludes_other_workers(ledger):
    """The holder may claim the chunk again under the same fencing token."""
    await filled(ledger)
    lease = ledger.new_lease()
    assert (await ledger.claim_chunk("launch", 0, lease)).states == "0000"
    assert await ledger.claim_chunk("launch", 0, ledger.new_lease()) == "held"
    assert (await ledger.claim_chunk("launch", 0, lease)).states == "0000"


async def test_a_claim_after_an_expired_lease_makes_items_in_flight_unknown(ledger, redis_server):
    """The first worker may begin no attempt; its late answer still settles the unknown item."""
    await filled(ledger)
    first = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    assert await ledger.intent(first, 0, resends_unknown=False) == "1"
    assert await ledger.intent(first, 1, resends_unknown=False) == "1"
    expire_lease(redis_server)
    second = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    assert second.states == "5500"
    assert await ledger.intent(first, 2, resends_unknown=False) == "L"
    assert await ledger.renew("launch", 0, first.lease) == "L"
    assert await ledger.intent(second, 0, resends_unknown=False) == "5"
    ledger.settle(first, 0, LedgerState.ACCEPTED, pack_record("late", None, 1))
    ledger.settle(first, 1, LedgerState.NOT_SENT, pack_record(None, None, 1))
    await ledger.flush()
    assert await states(ledger) == "a400"
    assert await ledger.intent(second, 0, resends_unknown=True) == "a", "accepted is final"


async def test_a_late_rejection_is_ignored_if_unknown_items_are_sent_again(ledger, redis_server):
    """The second attempt may have reached the recipient."""
    await filled(ledger)
    first = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    await ledger.intent(first, 0, resends_unknown=True)
    expire_lease(redis_server)
    second = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    assert await ledger.intent(second, 0, resends_unknown=True) == "9"
    ledger.settle(second, 0, LedgerState.UNKNOWN, pack_record(None, None, 1))
    ledger.settle(first, 0, LedgerState.NOT_SENT, pack_record(None, None, 1))
    await ledger.flush()
    assert await states(ledger) == "5000"


async def test_an_expired_lease_that_no_other_worker_claimed_can_be_renewed(ledger, redis_server):
    """No attempt begins before the renewal."""
    await filled(ledger)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    expire_lease(redis_server)
    assert await ledger.intent(chunk, 0, resends_unknown=False) == "L"
    assert await ledger.renew("launch", 0, chunk.lease) == "K"
    assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"


async def test_a_stopped_job_begins_no_attempt(ledger):
    """Not even under a valid lease, and its chunks cannot be claimed."""
    await filled(ledger, chunks=2)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    await ledger.stop("launch", "cancelled")
    assert await ledger.intent(chunk, 0, resends_unknown=False) == "X"
    assert await ledger.renew("launch", 0, chunk.lease) == "X"
    assert await ledger.claim_chunk("launch", 1, ledger.new_lease()) == "stopped"
    assert await ledger.plan("launch", ledger.new_lease(), max_queued_chunks=4, requeue_after=0) == ("stopped", [])
    assert await ledger.next_chunk("launch") is None
    await ledger.resume("launch")
    assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"


async def test_a_resume_opens_chunks_with_items_that_were_not_sent(ledger):
    """Also items that were rejected for a cause that may pass; other chunks stay done."""
    await filled(ledger, chunks=2)
    for number, ends in enumerate(("aaaa", "a473")):
        chunk = await ledger.claim_chunk("launch", number, ledger.new_lease())
        for index, end in enumerate(ends, start=number * SIZE):
            await ledger.intent(chunk, index, resends_unknown=False)
            ledger.settle(chunk, index, LedgerState(end), pack_record(None, None, 1))
        assert await ledger.release_chunk(chunk, b"") == "done"
    assert (await ledger.plan("launch", ledger.new_lease(), max_queued_chunks=4, requeue_after=0))[0] == "ended"
    assert await ledger.resume("launch") == 1
    again = await ledger.claim_chunk("launch", 1, ledger.new_lease())
    assert (again.states, again.requests) == ("a473", b"requests")
    assert [await ledger.intent(again, index, resends_unknown=False) for index in range(4, 8)] == ["a", "1", "1", "3"]


async def test_the_coordinator_bounds_the_queued_chunks(ledger, redis_server):
    """A chunk that is done makes room; a chunk that no worker has claimed is queued again after a while."""
    await ledger.submit("launch", "open", "{}", 1, "messaging")
    for number in range(10):
        await ledger.submit("launch", "add", number, "0", b"r", b"%08d" % number, "", chunk=number)
    coordinator = ledger.new_lease()
    assert await ledger.plan("launch", coordinator, max_queued_chunks=3, requeue_after=60) == ("going", [0, 1, 2])
    assert await ledger.plan("launch", coordinator, max_queued_chunks=3, requeue_after=60) == ("going", [])
    assert await ledger.plan("launch", ledger.new_lease(), max_queued_chunks=3, requeue_after=60) == ("held", [])
    chunk = await ledger.claim_chunk("launch", 1, ledger.new_lease())
    assert await ledger.next_chunk("launch") == 0
    # Claimed chunks get no wake-up message, unclaimed ones do.
    age_wake_ups(redis_server, 50)
    assert await ledger.plan("launch", coordinator, max_queued_chunks=3, requeue_after=60) == ("going", [])
    age_wake_ups(redis_server, 10)
    assert sorted((await ledger.plan("launch", coordinator, max_queued_chunks=3, requeue_after=60))[1]) == [0, 2]
    assert await ledger.plan("launch", coordinator, max_queued_chunks=3, requeue_after=60) == ("going", [])
    await ledger.intent(chunk, 1, resends_unknown=False)
    ledger.settle(chunk, 1, LedgerState.ACCEPTED, pack_record("id", None, 1))
    assert await ledger.release_chunk(chunk, b"") == "done"
    assert await ledger.plan("launch", coordinator, max_queued_chunks=3, requeue_after=60) == ("going", [3])


async def test_submitting_again_changes_nothing_and_other_input_is_refused(ledger):
    """A digest of the content identifies a chunk."""
    await filled(ledger, chunks=2)
    assert (await ledger.submit("launch", "open", "{}", SIZE, "messaging"))[0] == "known"
    assert await ledger.submit("launch", "add", 1, "0000", b"r", b"digest01", "", chunk=1) == ["known"]
    assert await ledger.submit("launch", "add", 1, "0000", b"r", b"digest99", "", chunk=1) == ["other"]
    assert await ledger.submit("launch", "add", 2, "0000", b"r", b"digest02", "", chunk=2) == ["other"]
    assert await ledger.submit("launch", "close", 3) == ["other"]
    assert (await ledger.facts("launch"))["total"] == "8"


OTHERS = {
    str(VERSION + 1): "'launch' was made by a newer .* upgrade with pip install -U",
    "0": "'launch' was made by an older .* submit the remaining items under another name",
    "x": "holds something else; choose another prefix",
}


@pytest.mark.parametrize(("version", "remedy"), OTHERS.items())
async def test_a_job_of_another_version_is_not_changed(ledger, redis_server, version, remedy):
    """No chunk of it is claimed, and the error names the remedy."""
    await filled(ledger, chunks=2)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:job", "version", version)
        before = {key: client.dump(key) for key in client.scan_iter("bandwidth-mfa:{launch}:*")}
    for call in (
        ledger.claim_chunk("launch", 0, ledger.new_lease()),
        ledger.plan("launch", ledger.new_lease(), max_queued_chunks=1, requeue_after=1),
        ledger.facts("launch"),
        ledger.submit("launch", "open", "{}", SIZE, "messaging"),
        ledger.submit("launch", "add", 2, "0000", b"r", b"digest02", "", chunk=2),
        ledger.submit("launch", "close", 2),
        ledger.resume("launch"),
    ):
        with pytest.raises(LedgerError, match=remedy):
            await call
    with redis_server.client() as client:
        assert {key: client.dump(key) for key in client.scan_iter("bandwidth-mfa:{launch}:*")} == before


async def test_a_key_of_another_application_is_not_changed(ledger, redis_server):
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:job", "title", "x")
        for call in (ledger.submit("launch", "open", "{}", SIZE, "messaging"), ledger.facts("launch")):
            with pytest.raises(LedgerError, match="choose another prefix"):
                await call
        assert client.hgetall("bandwidth-mfa:{launch}:job") == {b"title": b"x"}


async def test_a_worker_skips_jobs_of_a_newer_version_and_logs_each_once(ledger, redis_server, caplog):
    """It continues with the jobs of its own version."""
    for job in ("launch", "next"):
        await filled(ledger, job)
        await ledger.register(job)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:job", "version", VERSION + 1)

    async def wake(_job, _chunk):
        pass

    coordinator = Coordinator(ledger, wake)
    for _ in range(3):
        assert await coordinator.plan_all() == ["next"]
    assert len(caplog.messages) == 1
    assert "newer" in caplog.messages[0]
    assert await ledger.jobs() == ["launch", "next"], "a skipped job must stay in the list"


async def test_a_job_that_is_resumed_while_a_worker_removes_it_stays_in_the_list(ledger, redis_server, monkeypatch):
    await filled(ledger)
    await ledger.register("launch")
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    for index in range(SIZE):
        await ledger.intent(chunk, index, resends_unknown=False)
        ledger.settle(chunk, index, LedgerState.NOT_SENT, pack_record(None, NotSentError("x"), 1))
    assert await ledger.release_chunk(chunk, b"") == "done"
    forget = ledger.forget

    async def late(job):
        monkeypatch.setattr(ledger, "forget", forget)
        assert await ledger.resume(job) == 1
        await ledger.register(job)
        await forget(job)

    async def wake(_job, _chunk):
        pass

    monkeypatch.setattr(ledger, "forget", late)
    coordinator = Coordinator(ledger, wake)
    assert await coordinator.plan_all() == ["launch"]
    assert await ledger.jobs() == ["launch"]


async def test_all_keys_of_a_job_are_in_one_slot_of_a_cluster(ledger, redis_server):
    from redis.crc import key_slot

    await filled(ledger)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    await ledger.intent(chunk, 0, resends_unknown=False)
    ledger.settle(chunk, 0, LedgerState.ACCEPTED, pack_record("id", None, 1))
    await ledger.flush()
    with redis_server.client() as client:
        keys = [key for key in client.scan_iter() if b"{" in key]
    assert len(keys) >= 6
    assert len({key_slot(key) for key in keys}) == 1


async def test_all_keys_of_an_ended_job_expire(redis_server):
    async with RedisLedger(redis_server.url, retention=600) as ledger:
        await filled(ledger)
        chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
        for index in range(SIZE):
            await ledger.intent(chunk, index, resends_unknown=False)
            ledger.settle(chunk, index, LedgerState.NOT_SENT, pack_record(None, None, 1))
        await ledger.release_chunk(chunk, b"")
    with redis_server.client() as client:
        keys = list(client.scan_iter())
        assert len(keys) == 8
        assert all(0 < client.ttl(key) <= (86_400 if b":writer:" in key else 600) for key in keys)


async def test_a_redis_that_evicts_is_refused(tmp_path):
    """The error names the policy, and nothing is written."""
    server = RedisServer(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(LedgerError, match="allkeys-lru"):
            async with RedisLedger(server.url):
                pass
    finally:
        server.kill()


@pytest.mark.parametrize("how", ["no file", "INFO refused"])
async def test_a_redis_without_an_append_only_file_is_refused(tmp_path, caplog, how):
    """It would come back from an old snapshot and have everyone texted again; `require_aof=False` only warns."""
    server = RedisServer(tmp_path, *(("--appendonly", "no") if how == "no file" else ()))
    try:
        url = server.url
        if how == "INFO refused":
            with server.client() as client:
                client.acl_setuser("sdk", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])
            url = url.replace("redis://", "redis://sdk:any@")
        with pytest.raises(ConfigurationError, match="appendonly yes, or pass require_aof=False"):
            async with RedisLedger(url):
                pass
        async with RedisLedger(url, require_aof=False) as ledger:
            await ledger.check()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "start it with appendonly yes" in caplog.text
    finally:
        server.kill()


async def test_a_redis_that_went_back_in_time_stops_the_job(tmp_path, caplog):
    """A worker that survived notices that its own last batch is missing; what the snapshot calls open is not sent."""
    server = RedisServer(tmp_path, "--appendonly", "no", "--dbfilename", "dump.rdb")
    try:
        async with RedisLedger(server.url, require_aof=False) as ledger:
            await filled(ledger)
            chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
            with server.client() as client:
                client.save()
            assert await ledger.intent(chunk, 0, resends_unknown=False) == LedgerState.SENDING
            ledger.settle(chunk, 0, LedgerState.ACCEPTED, "m,,,1")
            await ledger.flush()
            server.kill()
            await asyncio.to_thread(server.start)
            assert await ledger.intent(chunk, 0, resends_unknown=False) == Reply.JOB_STOPPED
            other = await ledger.claim_chunk("launch", 0, ledger.new_lease())
            assert other is ClaimReply.STOPPED
        assert "lost the newest of what was written to it" in caplog.text
    finally:
        server.kill()


async def test_a_demoted_redis_is_left_for_the_new_primary(own_redis, tmp_path):
    """The connection is dropped, so that the name in the URL leads to the new primary; the operation is retried."""
    async with RedisLedger(own_redis.url) as ledger:
        await filled(ledger)
        chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
        with own_redis.client() as client:
            kept = {each["id"] for each in client.client_list() if int(each["id"]) != client.client_id()}
            client.replicaof("127.0.0.1", own_redis.port + 1)
            waiting = asyncio.ensure_future(ledger.intent(chunk, 0, resends_unknown=False))
            await until(lambda: not kept & {each["id"] for each in client.client_list()})
            assert not waiting.done()
            client.replicaof("NO", "ONE")
        assert await asyncio.wait_for(waiting, 5) == LedgerState.SENDING


@pytest.mark.parametrize("command", ["evalsha", "info"])
async def test_a_refused_command_is_named(redis_server, command):
    """With the rights that the ledger needs."""
    with redis_server.client() as client:
        client.acl_setuser("sdk", enabled=True, nopass=True, keys=["*"], commands=["+@all", f"-{command}"])
    try:
        ledger = RedisLedger(redis_server.url.replace("redis://", "redis://sdk:any@"), require_aof=False)
        if command == "info":
            await ledger.check()  # it only cannot know whether there is an append-only file
        else:
            with pytest.raises(LedgerError, match=r"may not run EVALSHA there; grant it \+@read"):
                await filled(ledger)
        await ledger.aclose()
    finally:
        with redis_server.client() as client:
            client.acl_deluser("sdk")


async def test_errors_name_an_unreachable_redis_and_a_wrong_password(tmp_path):
    """They show neither the address nor the password."""
    server = RedisServer(tmp_path, "--requirepass", "right")
    try:
        for url, said in (
            (f"redis://:wrong@127.0.0.1:{server.port}/0", "wrong user or password"),
            (server.url, "wrong user or password"),
        ):
            with pytest.raises(LedgerError, match=said) as caught:
                async with RedisLedger(url):
                    pass
            assert "wrong@" not in str(caught.value)
    finally:
        server.kill()
    ledger = RedisLedger(server.url)
    with pytest.raises(LedgerError, match="cannot be reached"):
        await ledger.check(max_wait=0.1)
    await ledger.aclose()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"url": "http://x"}, "redis://"),
        ({"url": "redis://x/production"}, "redis://"),
        ({"url": "unix://"}, "redis://"),
        ({"url": 7}, "URL"),
        ({"url": "redis://x", "prefix": "a b"}, "prefix"),
        ({"url": "redis://x", "lease": 0}, "lease"),
        ({"url": "redis://x", "retention": float("nan")}, "retention"),
        ({"url": "redis://x", "timeout": True}, "timeout"),
    ],
)
def test_a_wrong_argument_is_named_before_any_io(options, word):
    with pytest.raises(ConfigurationError, match=word):
        RedisLedger(**options)


async def test_operations_wait_for_a_redis_that_restarts(own_redis):
    """Its data is on disk: operations submitted meanwhile run, and none is lost."""
    clock = ManualClock()
    async with RedisLedger(own_redis.url, clock=clock) as ledger:
        await filled(ledger)
        chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
        pending = asyncio.ensure_future(ledger.intent(chunk, 0, resends_unknown=False))
        await fire_next_timer(clock)
        assert await pending == "1"
        own_redis.kill()
        ledger.settle(chunk, 0, LedgerState.ACCEPTED, pack_record("id", None, 1))
        pending = asyncio.ensure_future(ledger.intent(chunk, 1, resends_unknown=False))
        for _ in range(4):  # the batch leaves, and is refused three times
            await fire_next_timer(clock)
        await until(lambda: clock.pending)
        assert not pending.done()
        await asyncio.to_thread(own_redis.start)
        await fire_next_timer(clock)
        assert await pending == "1"
        assert await states(ledger) == "a100"


async def test_operations_wait_for_a_redis_that_is_out_of_memory(redis_server, ledger, monkeypatch, caplog):
    """The outcome is not lost, and the log names the remedy."""
    monkeypatch.setattr(_connection, "_LOG_OUTAGE_AFTER", 0.0)
    await filled(ledger)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            ledger.settle(chunk, 0, LedgerState.ACCEPTED, pack_record("id", None, 1))
            pending = asyncio.ensure_future(ledger.intent(chunk, 1, resends_unknown=False))
            async with asyncio.timeout(10):
                while not caplog.messages:
                    await asyncio.sleep(0.01)
            assert not pending.done()
        finally:
            client.config_set("maxmemory", 0)
    assert await pending == "1"
    assert await states(ledger) == "a100"
    assert "out of memory; raise maxmemory" in caplog.messages[0]


async def test_an_outage_is_logged_once_however_many_operations_wait(own_redis, caplog):
    """After one second, with the remedy, and again when it is over."""
    clock = ManualClock()
    async with RedisLedger(own_redis.url, clock=clock) as ledger:
        await filled(ledger)
        own_redis.kill()
        began = clock.monotonic()
        pending = [asyncio.ensure_future(ledger.facts("launch")) for _ in range(5)]
        await until(lambda: clock.pending == 5)
        for _ in range(8):
            away = clock.monotonic() - began
            assert len(caplog.messages) == (away >= 1.0), f"logged after {away} s"
            clock.tick(clock.next_timer - clock.monotonic())
            await until(lambda: clock.pending == 5)  # each has retried once
        assert clock.monotonic() - began > 2.0
        await asyncio.to_thread(own_redis.start)
        clock.tick(clock.next_timer - clock.monotonic())
        assert {facts["total"] for facts in await asyncio.gather(*pending)} == {"4"}
    outage, recovery = caplog.messages
    assert "cannot be reached: start its Redis, or correct the URL" in outage
    assert recovery == "the ledger can be used again"


async def test_a_late_copy_of_a_batch_does_nothing(ledger):
    """A batch that timed out was sent again; its first copy must not overwrite what later batches wrote."""
    await filled(ledger)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    await ledger.intent(chunk, 0, resends_unknown=False)
    sent = []
    script = ledger.connection.script

    async def recorded(name, keys, arguments, **options):
        sent.append((name, keys, arguments))
        return await script(name, keys, arguments, **options)

    ledger.connection.script = recorded
    ledger.settle(chunk, 0, LedgerState.PENDING, "")
    await ledger.flush()
    assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"
    late, _ = sent
    await script(*late)
    assert await states(ledger) == "1000", "an attempt is in flight"


async def test_closing_the_ledger_ends_the_wait_for_redis_with_an_error(own_redis):
    clock = ManualClock()
    ledger = RedisLedger(own_redis.url, clock=clock)
    await filled(ledger)
    chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
    own_redis.kill()
    pending = asyncio.ensure_future(ledger.intent(chunk, 0, resends_unknown=False))
    await fire_next_timer(clock)  # the batch leaves, and is refused
    await until(lambda: clock.pending)
    assert not pending.done()
    await ledger.aclose()
    with pytest.raises(LedgerError, match="closed"):
        async with asyncio.timeout(10):
            await pending


def test_a_lease_is_valid_for_less_time_than_redis_grants():
    """On both clocks: only one of them advances while a machine is suspended. The wall clock does not matter."""
    clock = ManualClock()
    lease = Lease(10.0, clock)
    assert not lease.is_valid
    lease.renewed_at(lease.now())
    clock.tick(8.9)
    assert lease.is_valid
    clock.tick(0.2)
    assert not lease.is_valid
    lease.renewed_at(lease.now())
    assert lease.is_valid
    clock._wall_offset += 3_600
    assert lease.is_valid
    clock._suspended += 60
    assert not lease.is_valid
    lease.renewed_at(lease.now())
    lease.lost = True
    assert not lease.is_valid


def test_packed_requests_unpack_to_equal_requests(template):
    """With several templates, gaps and custom keys."""
    from attrs import evolve

    requests = [template.to("+19195550001"), None, evolve(template, message="Ünïcode {CODE}").to("+19195550002")]
    packed, digest = pack_requests(requests, ["a", "b", "c"])
    assert unpack_requests(packed) == requests
    assert unpack_requests(keys_only(packed)) == []
    assert len(digest) == 8
    assert pack_requests(requests, ["a", "b", "d"])[1] != digest
    with pytest.raises(LedgerError):
        unpack_requests(b"rubbish")
    assert FROM not in keys_only(packed).decode("latin-1")
    assert APPLICATION not in keys_only(packed).decode("latin-1")


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 1)),
        st.tuples(st.just("expire")),
        st.tuples(st.just("renew"), st.integers(0, 1)),
        st.tuples(st.just("intent"), st.integers(0, 1), st.integers(0, 1)),
        st.tuples(st.just("settle"), st.integers(0, 1), st.integers(0, 1), st.sampled_from("0a345")),
        st.tuples(st.just("release"), st.integers(0, 1)),
        st.tuples(st.just("resume")),
    ),
    min_size=4,
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
async def test_no_item_is_ever_sent_twice(redis_server, operations):  # noqa: PLR0912 - one branch per operation
    """Two workers, any order of operations, leases that expire at any time, true outcomes at any time.

    An attempt begins only if every earlier attempt of its item is known not to have reached the recipient; items that
    the ledger calls accepted were sent, those it calls not sent were not; the counts equal the states of the items.
    """
    redis_server.empty()
    async with RedisLedger(redis_server.url) as ledger:
        await filled(ledger, size=2)
        held = [None, None]
        in_flight = {}  # (worker, index) -> the chunk and the number of the attempt
        reached = {0: [], 1: []}  # whether each attempt reached the recipient; None if unknown
        for kind, *rest in operations:
            if kind == "claim":
                found = await ledger.claim_chunk("launch", 0, ledger.new_lease())
                if not isinstance(found, str):
                    held[rest[0]] = found
            elif kind == "expire":
                with redis_server.client() as client:
                    if client.hexists("bandwidth-mfa:{launch}:leases", 0):
                        expire_lease(redis_server)
            elif kind == "renew" and held[rest[0]]:
                await ledger.renew("launch", 0, held[rest[0]].lease)
            elif kind == "intent" and held[rest[0]] and (rest[0], rest[1]) not in in_flight:
                if await ledger.intent(held[rest[0]], rest[1], resends_unknown=False) == "1":
                    assert all(known is False for known in reached[rest[1]]), (operations, reached)
                    in_flight[rest[0], rest[1]] = (held[rest[0]], len(reached[rest[1]]))
                    reached[rest[1]].append(None)
            elif kind == "settle" and (rest[0], rest[1]) in in_flight:
                worker, index, state = rest
                chunk, attempt = in_flight.pop((worker, index))
                reached[index][attempt] = {"a": True, "5": None}.get(state, False)
                record = "" if state == "0" else pack_record(None, None, 1)
                ledger.settle(chunk, index, LedgerState(state), record)
                await ledger.flush()
            elif kind == "release" and held[rest[0]] and not any(worker == rest[0] for worker, _ in in_flight):
                await ledger.release_chunk(held[rest[0]], b"")
                held[rest[0]] = None
            elif kind == "resume":
                await ledger.resume("launch")
        found = await states(ledger)
        for index, state in enumerate(found):
            if state == "a":
                assert True in reached[index], (operations, found)
            if state in "0347":
                assert True not in reached[index], (operations, found)
                assert None not in reached[index], (operations, found)
        facts = await ledger.facts("launch")
        for state in "1a345":
            assert int(facts.get(f"s{state}", 0)) == found.count(state), (operations, facts)


def test_separators_in_an_id_are_replaced():
    """The service chooses the id."""
    text = f"7,2,{pack_record('a,b' + chr(10) + 'c', None, 2)}\n"
    assert unpack_records(text)[7].provider_id == "a_b_c"


async def test_every_script_runs_in_a_redis_cluster(tmp_path, template):
    server = RedisServer(tmp_path, "--cluster-enabled", "yes")
    try:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                await asyncio.sleep(0.02)
        async with RedisLedger(server.url.removesuffix("/0"), cluster=True) as ledger:
            await filled(ledger, chunks=2)
            await ledger.register("launch")
            assert await ledger.jobs() == ["launch"]
            chunk = await ledger.claim_chunk("launch", await ledger.next_chunk("launch"), ledger.new_lease())
            for index in range(SIZE):
                assert await ledger.intent(chunk, index, resends_unknown=False) == "1"
                ledger.settle(chunk, index, LedgerState.ACCEPTED, pack_record("id", None, 1))
            assert await ledger.release_chunk(chunk, b"") == "done"
            await ledger.stop("launch", "cancelled")
            assert await ledger.resume("launch") == 0
            codes = CodeQueue(ledger)
            assert (
                await codes.put("name", template.to(TO), "messaging", ledger.clock.monotonic() + 60)
            ).delivery is None
            assert await codes.stale(0, 10) == ["name"]
            assert await states(ledger) == "aaaa0000"
    finally:
        server.kill()
