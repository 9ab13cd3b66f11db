"""Fixtures of the workers' tests: a Redis for tests that break it, and workers that send to a simulator."""

from __future__ import annotations

import pytest
from taskiq import AsyncBroker, InMemoryBroker

from bandwidth_mfa_async import Limits, MFAClient, RetryPolicy
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger, _service
from tests.support.redis_server import RedisServer

FAST = Limits(adaptive=False)
QUICK = RetryPolicy(wait_initial=0.001, wait_max=0.002, max_attempts=2)


@pytest.fixture
def own_redis(tmp_path, common_redis):  # the second for its skip
    """Return a Redis that keeps its data, and may be killed and frozen."""
    server = RedisServer(tmp_path, "--appendonly", "yes")
    yield server
    server.kill()


@pytest.fixture
async def ledger(redis_server):
    async with RedisLedger(redis_server.url) as opened:
        yield opened


@pytest.fixture
async def simulator():
    async with Simulator() as sim:
        yield sim


@pytest.fixture
async def make_worker(redis_server, simulator, monkeypatch):
    """Make workers on brokers of their own that share a ledger; all are shut down at the end."""
    # What waits for a second or two in production is looked at without delay here.
    monkeypatch.setattr(_service, "_ROUND", 0.05)
    monkeypatch.setattr(_service, "_STALE_CODES", 0.1)
    brokers = []

    async def make(*, start=True, limits=FAST, retry=QUICK, broker=None, lease=30.0, clock=None, **options):
        broker = broker or InMemoryBroker()
        worker = MFAWorker(
            broker,
            ledger=RedisLedger(redis_server.url, lease=lease, clock=clock),
            client=lambda: MFAClient(**simulator.client_kwargs(), limits=limits, retry=retry),
            share_limits=False,
            **options,
        )
        brokers.append((broker, worker))
        if start:
            await broker.startup()
        return worker

    yield make
    for broker, worker in brokers:
        await broker.shutdown()
        await worker.aclose()


@pytest.fixture
async def asker(redis_server, simulator):
    """Return an MFAWorker of a process that only asks: its queue loses every message."""

    def no_client():
        raise AssertionError("who asks needs no client")

    broker = LossyBroker()
    worker = MFAWorker(broker, ledger=RedisLedger(redis_server.url), client=no_client)
    async with worker:
        yield worker


class LossyBroker(AsyncBroker):
    """A queue that keeps what it was given and hands out nothing."""

    def __init__(self):
        super().__init__()
        self.messages = []

    async def kick(self, message):
        self.messages.append(message.message)

    async def listen(self):
        return
        yield
