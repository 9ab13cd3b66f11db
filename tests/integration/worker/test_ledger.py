"""The ledger: who may send a row, what became of it, and that nobody sends on the strength of a lost lease."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async import ConfigurationError, LedgerError, NotSentError
from bandwidth_mfa_async.testing import ManualClock
from bandwidth_mfa_async.worker import RedisLedger, _redis
from bandwidth_mfa_async.worker._codec import keys_only, pack_record, pack_requests, unpack_records, unpack_requests
from bandwidth_mfa_async.worker._codes import CodeBook
from bandwidth_mfa_async.worker._coordinator import Coordinator
from bandwidth_mfa_async.worker._lease import Lease
from bandwidth_mfa_async.worker._states import VERSION, State
from tests.conftest import APPLICATION, FROM, TO
from tests.support.fault_server import until
from tests.support.redis_server import RedisServer

SIZE = 4


async def filled(ledger, job="launch", chunks=1, size=SIZE):
    """Submit a job whose requests nobody looks at, and put its chunks into the window."""
    await ledger.submit(job, "open", "{}", size, "messaging")
    for chunk in range(chunks):
        await ledger.submit(job, "add", chunk, "0" * size, b"requests", b"digest%02d" % chunk, "", chunk=chunk)
    await ledger.submit(job, "close", chunks)
    await ledger.plan(job, ledger.new_lease(), window=chunks, again_after=60)


def run_out(server, job="launch", chunk=0):
    """Let a chunk's lease have run out, by Redis's own clock."""
    with server.client() as client:
        key = f"bandwidth-mfa:{{{job}}}:leases"
        token = client.hget(key, chunk).split()[0]
        client.hset(key, chunk, token + b" 1")


def named_before(server, seconds, job="launch"):
    """Let the chunks of the window have been named so much earlier, by Redis's own clock."""
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


async def next_moment(clock):
    """Move on to the next moment that the ledger waits for."""
    await until(lambda: clock.pending)
    clock.tick(clock.next_timer - clock.monotonic())


async def test_a_row_goes_from_pending_to_accepted(ledger):
    """Taken under a lease, its intent first, its end after; the chunk is done when all its rows are."""
    await filled(ledger)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    for row in range(SIZE):
        assert await ledger.intent(chunk, row, repeats=False) == "1"
    assert await states(ledger) == "1111"
    for row in range(SIZE):
        ledger.settle(chunk, row, State.ACCEPTED, pack_record(f"id-{row}", None, 1), repeats=False)
    assert await ledger.leave(chunk, b"") == "done"
    assert await states(ledger) == "2222"
    facts = await ledger.facts("launch")
    assert (facts["s1"], facts["s2"], facts["chunks_done"]) == ("0", "4", "1")
    async for _, _, text, requests in ledger.results("launch", SIZE, SIZE):
        assert {row: record.provider_id for row, record in unpack_records(text).items()} == {
            0: "id-0",
            1: "id-1",
            2: "id-2",
            3: "id-3",
        }
        assert requests == b"", "no number is kept once nothing can be sent again"


async def test_one_worker_at_a_time(ledger):
    """A living lease keeps everybody else out; taking it again with the same token is its owner's right."""
    await filled(ledger)
    lease = ledger.new_lease()
    assert (await ledger.take("launch", 0, lease)).states == "0000"
    assert await ledger.take("launch", 0, ledger.new_lease()) == "held"
    assert (await ledger.take("launch", 0, lease)).states == "0000"


async def test_a_takeover_makes_what_was_under_way_unknown(ledger, redis_server):
    """The first worker gets no further attempt; the row it was at is unknown, and its late answer settles that."""
    await filled(ledger)
    first = await ledger.take("launch", 0, ledger.new_lease())
    assert await ledger.intent(first, 0, repeats=False) == "1"
    assert await ledger.intent(first, 1, repeats=False) == "1"
    run_out(redis_server)
    second = await ledger.take("launch", 0, ledger.new_lease())
    assert second.states == "5500"
    assert await ledger.intent(first, 2, repeats=False) == "L"
    assert await ledger.renew("launch", 0, first.lease) == "L"
    assert await ledger.intent(second, 0, repeats=False) == "5"
    ledger.settle(first, 0, State.ACCEPTED, pack_record("late", None, 1), repeats=False)
    ledger.settle(first, 1, State.NOT_SENT, pack_record(None, None, 1), repeats=False)
    await ledger.flush()
    assert await states(ledger) == "2400"
    assert await ledger.intent(second, 0, repeats=True) == "2", "nothing leaves accepted"


async def test_a_late_no_says_nothing_where_unknown_rows_are_sent_again(ledger, redis_server):
    """The other attempt may have reached the person."""
    await filled(ledger)
    first = await ledger.take("launch", 0, ledger.new_lease())
    await ledger.intent(first, 0, repeats=True)
    run_out(redis_server)
    second = await ledger.take("launch", 0, ledger.new_lease())
    assert await ledger.intent(second, 0, repeats=True) == "1"
    ledger.settle(second, 0, State.UNKNOWN, pack_record(None, None, 1), repeats=True)
    ledger.settle(first, 0, State.NOT_SENT, pack_record(None, None, 1), repeats=True)
    await ledger.flush()
    assert await states(ledger) == "5000"


async def test_a_lease_that_ran_out_and_that_nobody_took_goes_on(ledger, redis_server):
    """No attempt until it is renewed, and all of them after."""
    await filled(ledger)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    run_out(redis_server)
    assert await ledger.intent(chunk, 0, repeats=False) == "L"
    assert await ledger.renew("launch", 0, chunk.lease) == "K"
    assert await ledger.intent(chunk, 0, repeats=False) == "1"


async def test_a_stopped_job_begins_no_attempt(ledger):
    """Not even under a living lease, and nobody takes a chunk of it."""
    await filled(ledger, chunks=2)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    await ledger.stop("launch", "cancelled")
    assert await ledger.intent(chunk, 0, repeats=False) == "X"
    assert await ledger.renew("launch", 0, chunk.lease) == "X"
    assert await ledger.take("launch", 1, ledger.new_lease()) == "stopped"
    assert await ledger.plan("launch", ledger.new_lease(), window=4, again_after=0) == ("stopped", [])
    assert await ledger.pick("launch") is None
    await ledger.resume("launch")
    assert await ledger.intent(chunk, 0, repeats=False) == "1"


async def test_what_was_not_sent_is_tried_again_by_a_resume(ledger):
    """A chunk with rows that never left, or were refused for a passing cause, is opened again; others stay done."""
    await filled(ledger, chunks=2)
    for number, ends in enumerate(([2, 2, 2, 2], [2, 4, 7, 3])):
        chunk = await ledger.take("launch", number, ledger.new_lease())
        for row, end in enumerate(ends, start=number * SIZE):
            await ledger.intent(chunk, row, repeats=False)
            ledger.settle(chunk, row, State(str(end)), pack_record(None, None, 1), repeats=False)
        assert await ledger.leave(chunk, b"") == "done"
    assert (await ledger.plan("launch", ledger.new_lease(), window=4, again_after=0))[0] == "ended"
    assert await ledger.resume("launch") == 1
    again = await ledger.take("launch", 1, ledger.new_lease())
    assert (again.states, again.requests) == ("2473", b"requests")
    assert [await ledger.intent(again, row, repeats=False) for row in range(4, 8)] == ["2", "1", "1", "3"]


async def test_the_coordinator_keeps_a_window(ledger, redis_server):
    """Never all chunks at once; one that is done makes room; one that nobody works at is named again, in time."""
    await ledger.submit("launch", "open", "{}", 1, "messaging")
    for number in range(10):
        await ledger.submit("launch", "add", number, "0", b"r", b"%08d" % number, "", chunk=number)
    coordinator = ledger.new_lease()
    assert await ledger.plan("launch", coordinator, window=3, again_after=60) == ("going", [0, 1, 2])
    assert await ledger.plan("launch", coordinator, window=3, again_after=60) == ("going", [])
    assert await ledger.plan("launch", ledger.new_lease(), window=3, again_after=60) == ("held", [])
    chunk = await ledger.take("launch", 1, ledger.new_lease())
    assert await ledger.pick("launch") == 0
    # Leased ones are left alone, those that nobody took are named again.
    named_before(redis_server, 50)
    assert await ledger.plan("launch", coordinator, window=3, again_after=60) == ("going", [])
    named_before(redis_server, 10)
    assert sorted((await ledger.plan("launch", coordinator, window=3, again_after=60))[1]) == [0, 2]
    assert await ledger.plan("launch", coordinator, window=3, again_after=60) == ("going", [])
    await ledger.intent(chunk, 1, repeats=False)
    ledger.settle(chunk, 1, State.ACCEPTED, pack_record("id", None, 1), repeats=False)
    assert await ledger.leave(chunk, b"") == "done"
    assert await ledger.plan("launch", coordinator, window=3, again_after=60) == ("going", [3])


async def test_submitting_again_changes_nothing_and_other_input_is_refused(ledger):
    """Chunks are known by a digest of what they hold."""
    await filled(ledger, chunks=2)
    assert (await ledger.submit("launch", "open", "{}", SIZE, "messaging"))[0] == "known"
    assert await ledger.submit("launch", "add", 1, "0000", b"r", b"digest01", "", chunk=1) == ["known"]
    assert await ledger.submit("launch", "add", 1, "0000", b"r", b"digest99", "", chunk=1) == ["other"]
    assert await ledger.submit("launch", "add", 2, "0000", b"r", b"digest02", "", chunk=2) == ["other"]
    assert await ledger.submit("launch", "close", 3) == ["other"]
    assert (await ledger.facts("launch"))["total"] == "8"


OTHERS = {
    str(VERSION + 1): "'launch' was made by a newer .* upgrade with pip install -U",
    str(VERSION - 1): "'launch' was made by an older .* submit what is left under another name",
    "x": "holds something else; choose another prefix",
}


@pytest.mark.parametrize(("version", "remedy"), OTHERS.items())
async def test_another_version_is_left_alone(ledger, redis_server, version, remedy):
    """Nothing of it is taken or changed, and the error names the remedy."""
    await filled(ledger, chunks=2)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:job", "version", version)
        before = {key: client.dump(key) for key in client.scan_iter("bandwidth-mfa:{launch}:*")}
    for call in (
        ledger.take("launch", 0, ledger.new_lease()),
        ledger.plan("launch", ledger.new_lease(), window=1, again_after=1),
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


async def test_a_key_that_somebody_else_keeps(ledger, redis_server):
    """Not written into."""
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:job", "title", "x")
        for call in (ledger.submit("launch", "open", "{}", SIZE, "messaging"), ledger.facts("launch")):
            with pytest.raises(LedgerError, match="choose another prefix"):
                await call
        assert client.hgetall("bandwidth-mfa:{launch}:job") == {b"title": b"x"}


async def test_a_worker_that_is_not_upgraded_yet(ledger, redis_server, caplog):
    """It works at the jobs of its own version, and is told of the others once, not every second."""
    for job in ("launch", "next"):
        await filled(ledger, job)
        await ledger.register(job)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{launch}:job", "version", VERSION + 1)

    async def hint(_job, _chunk):
        pass

    coordinator = Coordinator(ledger, hint)
    for _ in range(3):
        assert await coordinator.round() == ["next"]
    assert len(caplog.messages) == 1
    assert "newer" in caplog.messages[0]
    assert await ledger.jobs() == ["launch", "next"], "it was forgotten"


async def test_a_job_resumed_as_it_is_forgotten(ledger, redis_server, monkeypatch):
    """Workers go on to look after it, though one of them had just seen its end."""
    await filled(ledger)
    await ledger.register("launch")
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    for row in range(SIZE):
        await ledger.intent(chunk, row, repeats=False)
        ledger.settle(chunk, row, State.NOT_SENT, pack_record(None, NotSentError("x"), 1), repeats=False)
    assert await ledger.leave(chunk, b"") == "done"
    forget = ledger.forget

    async def late(job):
        monkeypatch.setattr(ledger, "forget", forget)
        assert await ledger.resume(job) == 1
        await ledger.register(job)
        await forget(job)

    async def hint(_job, _chunk):
        pass

    monkeypatch.setattr(ledger, "forget", late)
    coordinator = Coordinator(ledger, hint)
    assert await coordinator.round() == ["launch"]
    assert await ledger.jobs() == ["launch"]


async def test_all_keys_of_a_job_are_on_one_node(ledger, redis_server):
    """The same slot of a cluster for each of them."""
    from redis.crc import key_slot

    await filled(ledger)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    await ledger.intent(chunk, 0, repeats=False)
    ledger.settle(chunk, 0, State.ACCEPTED, pack_record("id", None, 1), repeats=False)
    await ledger.flush()
    with redis_server.client() as client:
        keys = [key for key in client.scan_iter() if b"{" in key]
    assert len(keys) >= 6
    assert len({key_slot(key) for key in keys}) == 1


async def test_everything_of_an_ended_job_expires(redis_server):
    """Nothing is left behind for ever."""
    async with RedisLedger(redis_server.url, keep=600) as ledger:
        await filled(ledger)
        chunk = await ledger.take("launch", 0, ledger.new_lease())
        for row in range(SIZE):
            await ledger.intent(chunk, row, repeats=False)
            ledger.settle(chunk, row, State.NOT_SENT, pack_record(None, None, 1), repeats=False)
        await ledger.leave(chunk, b"")
    with redis_server.client() as client:
        keys = list(client.scan_iter())
        assert len(keys) == 8
        assert all(0 < client.ttl(key) <= (3600 if b":writer:" in key else 600) for key in keys)


async def test_a_redis_that_evicts_is_refused(tmp_path):
    """By name, and before anything is written."""
    server = RedisServer(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(LedgerError, match="allkeys-lru"):
            async with RedisLedger(server.url):
                pass
    finally:
        server.kill()


async def test_no_redis_and_a_wrong_password(tmp_path):
    """Named errors that show neither address nor password."""
    server = RedisServer(tmp_path, "--requirepass", "right")
    try:
        for url, said in (
            (f"redis://:wrong@127.0.0.1:{server.port}/0", "wrong password"),
            (server.url, "wrong password"),
        ):
            with pytest.raises(LedgerError, match=said) as caught:
                async with RedisLedger(url):
                    pass
            assert "wrong@" not in str(caught.value)
    finally:
        server.kill()
    ledger = RedisLedger(server.url)
    with pytest.raises(LedgerError, match="cannot be reached"):
        await ledger.check(patience=0.1)
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
        ({"url": "redis://x", "keep": float("nan")}, "keep"),
        ({"url": "redis://x", "timeout": True}, "timeout"),
    ],
)
def test_wrong_arguments(options, word):
    """Named before any I/O."""
    with pytest.raises(ConfigurationError, match=word):
        RedisLedger(**options)


async def test_a_redis_that_restarts_is_waited_for(own_redis):
    """With its data on disk, what was told meanwhile arrives and nothing is forgotten."""
    clock = ManualClock()
    async with RedisLedger(own_redis.url, clock=clock) as ledger:
        await filled(ledger)
        chunk = await ledger.take("launch", 0, ledger.new_lease())
        asked = asyncio.ensure_future(ledger.intent(chunk, 0, repeats=False))
        await next_moment(clock)
        assert await asked == "1"
        own_redis.kill()
        ledger.settle(chunk, 0, State.ACCEPTED, pack_record("id", None, 1), repeats=False)
        asked = asyncio.ensure_future(ledger.intent(chunk, 1, repeats=False))
        for _ in range(4):  # the batch leaves, and is refused three times
            await next_moment(clock)
        await until(lambda: clock.pending)
        assert not asked.done()
        await asyncio.to_thread(own_redis.start)
        await next_moment(clock)
        assert await asked == "1"
        assert await states(ledger) == "2100"


async def test_a_redis_without_room_is_waited_for(redis_server, ledger, monkeypatch, caplog):
    """An outcome is not lost for it, and the log names the remedy."""
    monkeypatch.setattr(_redis, "_QUIET", 0.0)
    await filled(ledger)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    assert await ledger.intent(chunk, 0, repeats=False) == "1"
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            ledger.settle(chunk, 0, State.ACCEPTED, pack_record("id", None, 1), repeats=False)
            asked = asyncio.ensure_future(ledger.intent(chunk, 1, repeats=False))
            async with asyncio.timeout(10):
                while not caplog.messages:
                    await asyncio.sleep(0.01)
            assert not asked.done()
        finally:
            client.config_set("maxmemory", 0)
    assert await asked == "1"
    assert await states(ledger) == "2100"
    assert "out of memory; raise maxmemory" in caplog.messages[0]


async def test_a_wait_for_redis_is_told_of_once(own_redis, caplog):
    """Its beginning with what to do, once Redis has been away for a second, and its end, however many wait."""
    clock = ManualClock()
    async with RedisLedger(own_redis.url, clock=clock) as ledger:
        await filled(ledger)
        own_redis.kill()
        began = clock.monotonic()
        asked = [asyncio.ensure_future(ledger.facts("launch")) for _ in range(5)]
        await until(lambda: clock.pending == 5)
        for _ in range(8):
            away = clock.monotonic() - began
            assert len(caplog.messages) == (away >= 1.0), f"a moment's absence is nobody's concern: {away}"
            clock.tick(clock.next_timer - clock.monotonic())
            await until(lambda: clock.pending == 5)  # each has asked once more
        assert clock.monotonic() - began > 2.0
        await asyncio.to_thread(own_redis.start)
        clock.tick(clock.next_timer - clock.monotonic())
        assert {facts["total"] for facts in await asyncio.gather(*asked)} == {"4"}
    told, ended = caplog.messages
    assert "cannot be reached: start its Redis, or mend the URL" in told
    assert ended == "the ledger can be used again"


async def test_a_batch_that_comes_late_does_nothing(ledger):
    """One that was given up, sent again, and then arrives on its old connection must not undo what came after it."""
    await filled(ledger)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    await ledger.intent(chunk, 0, repeats=False)
    sent = []
    script = ledger.connection.script

    async def noted(name, keys, arguments, **options):
        sent.append((name, keys, arguments))
        return await script(name, keys, arguments, **options)

    ledger.connection.script = noted
    ledger.settle(chunk, 0, State.PENDING, "", repeats=False)
    await ledger.flush()
    assert await ledger.intent(chunk, 0, repeats=False) == "1"
    late, _ = sent
    await script(*late)
    assert await states(ledger) == "1000", "an attempt is under way"


async def test_closing_ends_the_wait_for_redis(own_redis):
    """With an error that says that nothing is known of the operation."""
    clock = ManualClock()
    ledger = RedisLedger(own_redis.url, clock=clock)
    await filled(ledger)
    chunk = await ledger.take("launch", 0, ledger.new_lease())
    own_redis.kill()
    asked = asyncio.ensure_future(ledger.intent(chunk, 0, repeats=False))
    await next_moment(clock)  # the batch leaves, and is refused
    await until(lambda: clock.pending)
    assert not asked.done()
    await ledger.aclose()
    with pytest.raises(LedgerError, match="closed"):
        async with asyncio.timeout(10):
            await asked


def test_a_lease_is_believed_for_less_time_than_it_lasts():
    """On both clocks: a stopped process sees the one move on, a machine that slept perhaps only the other."""
    clock = ManualClock()
    lease = Lease(10.0, clock)
    with pytest.raises(NotSentError):
        lease.check()
    lease.granted(lease.asked())
    clock.tick(8.9)
    lease.check()
    clock.tick(0.2)
    assert not lease.holds
    lease.granted(lease.asked())
    lease.check()
    clock._wall_offset += 60
    assert not lease.holds
    lease.granted(lease.asked())
    lease.lost = True
    assert not lease.holds


def test_requests_come_back_as_they_were(template):
    """With several templates, gaps and the caller's keys."""
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
        st.tuples(st.just("take"), st.integers(0, 1)),
        st.tuples(st.just("run out")),
        st.tuples(st.just("renew"), st.integers(0, 1)),
        st.tuples(st.just("intent"), st.integers(0, 1), st.integers(0, 1)),
        st.tuples(st.just("end"), st.integers(0, 1), st.integers(0, 1), st.sampled_from("02345")),
        st.tuples(st.just("leave"), st.integers(0, 1)),
        st.tuples(st.just("again")),
    ),
    min_size=4,
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
async def test_no_row_is_ever_sent_twice(redis_server, operations):  # noqa: PLR0912 - a branch an operation
    """Two workers in any order, leases running out at any moment, answers at any time, the true ones.

    An attempt is granted only when every earlier one of its row is known to have reached nobody; what the ledger calls
    accepted was, what it calls not sent was not; the counts are those of the rows.
    """
    redis_server.empty()
    async with RedisLedger(redis_server.url) as ledger:
        await filled(ledger, size=2)
        held = [None, None]
        under_way = {}  # (worker, row) -> the chunk it was granted under
        reached = {0: [], 1: []}  # what is true of each row's attempts: True, False, None while nobody can know
        for kind, *rest in operations:
            if kind == "take":
                found = await ledger.take("launch", 0, ledger.new_lease())
                if not isinstance(found, str):
                    held[rest[0]] = found
            elif kind == "run out":
                with redis_server.client() as client:
                    if client.hexists("bandwidth-mfa:{launch}:leases", 0):
                        run_out(redis_server)
            elif kind == "renew" and held[rest[0]]:
                await ledger.renew("launch", 0, held[rest[0]].lease)
            elif kind == "intent" and held[rest[0]] and (rest[0], rest[1]) not in under_way:
                if await ledger.intent(held[rest[0]], rest[1], repeats=False) == "1":
                    assert all(known is False for known in reached[rest[1]]), (operations, reached)
                    under_way[rest[0], rest[1]] = (held[rest[0]], len(reached[rest[1]]))
                    reached[rest[1]].append(None)
            elif kind == "end" and (rest[0], rest[1]) in under_way:
                worker, row, state = rest
                chunk, attempt = under_way.pop((worker, row))
                reached[row][attempt] = {"2": True, "5": None}.get(state, False)
                record = "" if state == "0" else pack_record(None, None, 1)
                ledger.settle(chunk, row, State(state), record, repeats=False)
                await ledger.flush()
            elif kind == "leave" and held[rest[0]] and not any(worker == rest[0] for worker, _ in under_way):
                await ledger.leave(held[rest[0]], b"")
                held[rest[0]] = None
            elif kind == "again":
                await ledger.resume("launch")
        found = await states(ledger)
        for row, state in enumerate(found):
            if state == "2":
                assert True in reached[row], (operations, found)
            if state in "0347":
                assert True not in reached[row], (operations, found)
                assert None not in reached[row], (operations, found)
        facts = await ledger.facts("launch")
        for state in "12345":
            assert int(facts.get(f"s{state}", 0)) == found.count(state), (operations, facts)


def test_what_is_kept_of_an_outcome_holds_no_separators():
    """An id is the service's word, and may be anything."""
    text = f"7,2,{pack_record('a,b' + chr(10) + 'c', None, 2)}\n"
    assert unpack_records(text)[7].provider_id == "a_b_c"


async def test_a_ledger_in_a_cluster(tmp_path, template):
    """Every script runs where its job's keys are."""
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
            chunk = await ledger.take("launch", await ledger.pick("launch"), ledger.new_lease())
            for row in range(SIZE):
                assert await ledger.intent(chunk, row, repeats=False) == "1"
                ledger.settle(chunk, row, State.ACCEPTED, pack_record("id", None, 1), repeats=False)
            assert await ledger.leave(chunk, b"") == "done"
            await ledger.stop("launch", "cancelled")
            assert await ledger.resume("launch") == 0
            codes = CodeBook(ledger)
            assert (await codes.put("name", template.to(TO), "messaging", 60)).delivery is None
            assert await codes.stale(0, 10) == ["name"]
            assert await states(ledger) == "22220000"
    finally:
        server.kill()
