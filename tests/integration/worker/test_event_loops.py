"""One ledger in several event loops, and timeouts that bound a whole call."""

from __future__ import annotations

import asyncio
import pathlib
import sys
import time

import pytest
from taskiq import InMemoryBroker

from bandwidth_mfa_async import LedgerError, MFAClient, RequestError
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from tests.conftest import TO
from tests.support import processes
from tests.support.worker_fixtures import LossyBroker


def worker_of(server, broker=None):
    return MFAWorker(broker or LossyBroker(), ledger=RedisLedger(server.url), client=MFAClient.from_env)


def test_each_asyncio_run_may_use_the_same_worker(redis_server):
    """A caller whose loop ends before its first batch leaves nothing that later loops wait for."""
    done = processes.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.several_loops", redis_server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=pathlib.Path(__file__).parents[3],
    )
    assert done.stdout.split() == ["second", "None", "third", "None"]


async def test_a_batch_of_a_writer_that_redis_knows_better_is_an_error_and_not_a_wait(redis_server, template):
    """Redis answers `[]` to a batch that it takes for a late one; the next batch runs under a new id."""
    ledger = RedisLedger(redis_server.url)
    codes = CodeQueue(ledger)
    deadline = ledger.clock.monotonic() + 10
    await codes.read("some", deadline)
    with redis_server.client() as client:
        client.set(f"bandwidth-mfa:{{codes}}:writer:{ledger.writer.id}", 1_000)
    async with asyncio.timeout(5):
        with pytest.raises(LedgerError, match="another process"):
            await codes.read("some", deadline)
        assert await codes.read("some", deadline) is None
    await ledger.aclose()


@pytest.mark.parametrize("how", ["kiq", "enqueue", "outcome"])
@pytest.mark.parametrize("away", ["killed", "frozen", "killed before the first call"])
async def test_a_timeout_bounds_the_whole_call_while_redis_is_away(own_redis, template, how, away):
    """Also while the ledger is checked, while a batch is retried, and while the queue cannot be reached."""
    codes = worker_of(own_redis)
    if away != "killed before the first call":
        await codes.send_code.outcome("warm")
    own_redis.freeze() if away == "frozen" else own_redis.kill()
    began = time.monotonic()
    try:
        with pytest.raises((LedgerError, RequestError)):
            async with asyncio.timeout(10):
                if how == "kiq":
                    await codes.send_code.kiq(template.to(TO), key="login:42", timeout=0.6)
                elif how == "enqueue":
                    await codes.send_code.enqueue(template.to(TO), key="login:42", timeout=0.6)
                else:
                    await codes.send_code.outcome("login:42", timeout=0.6)
        assert time.monotonic() - began < 1.5
    finally:
        if away == "frozen":
            own_redis.thaw()
        await codes.aclose()


async def test_a_queue_that_hangs_does_not_outlast_the_timeout(redis_server, template):
    """The code is withdrawn in time."""

    class HangingBroker(InMemoryBroker):
        async def kick(self, message):
            await asyncio.sleep(60)

    codes = worker_of(redis_server, HangingBroker())
    began = time.monotonic()
    with pytest.raises(RequestError):
        await codes.send_code.kiq(template.to(TO), key="login:42", timeout=0.6)
    assert time.monotonic() - began < 1.5
    await codes.aclose()


@pytest.mark.parametrize("away", ["killed", "frozen"])
async def test_what_was_asked_for_too_long_ago_is_not_sent(own_redis, make_late_worker, simulator, template, away):
    """Redis comes back after the timeout, with a request that it received in the meantime, or that we still hold."""
    codes = worker_of(own_redis)
    await codes.send_code.outcome("warm")
    own_redis.freeze() if away == "frozen" else own_redis.kill()
    with pytest.raises((LedgerError, RequestError)):
        await codes.send_code.kiq(template.to(TO), key="late", timeout=0.4)
    await asyncio.sleep(0.2)
    if away == "frozen":
        own_redis.thaw()
    else:
        await asyncio.to_thread(own_redis.start)
    worker = await make_late_worker(own_redis)
    await worker.send_code.kiq(template.to("+19195550000"), key="next", timeout=20)
    await codes.send_code.outcome("late")
    assert [message.to for message in simulator.inbox] == ["+19195550000"]
    await codes.aclose()


async def test_a_code_that_waited_too_long_at_a_worker_is_not_sent(redis_server, template, simulator):
    """A worker claims it in time, and asks for its first attempt too late."""
    ledger = RedisLedger(redis_server.url)
    codes = CodeQueue(ledger)
    name = codes.name("login:42")
    await codes.put(name, template.to(TO), "messaging", ledger.clock.monotonic() + 0.2)
    lease = ledger.new_lease()
    assert await codes.claim(name, lease, resends_unknown=False) is not None
    await asyncio.sleep(0.25)
    assert await codes.intent(name, lease, resends_unknown=False, maybe_delivered=False) == "4"
    await ledger.aclose()


@pytest.fixture
async def make_late_worker(simulator, monkeypatch):
    """Return a function that starts a worker on a Redis."""
    from bandwidth_mfa_async.worker import _runtime
    from tests.support.worker_fixtures import FAST, QUICK

    monkeypatch.setattr(_runtime, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(_runtime, "_STALE_CODE_AGE", 0.0)
    started = []

    async def make(server):
        broker = InMemoryBroker()
        worker = MFAWorker(
            broker,
            ledger=RedisLedger(server.url),
            client=lambda: MFAClient(**simulator.client_kwargs(), limits=FAST, retry=QUICK),
            share_limits=False,
        )
        await broker.startup()
        started.append((broker, worker))
        return worker

    yield make
    for broker, worker in started:
        await broker.shutdown()
        await worker.aclose()


@pytest.mark.parametrize("name", ["waiting", "\ud800", "login:42", "", 7])
async def test_a_wake_up_message_that_names_no_code_spoils_no_batch(make_worker, template, simulator, caplog, name):
    """Codes that are claimed in the same batch are sent."""
    worker = await make_worker()
    runtime = worker._runtime
    wrong, sent = await asyncio.gather(
        runtime.send_code(name), worker.send_code.kiq(template.to(TO), key="login:42", timeout=20)
    )
    assert wrong == {"delivery": None}
    assert sent == simulator.inbox[-1].message_id
    assert "names no code" in caplog.text
