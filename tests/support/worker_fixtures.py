"""Fixtures of the workers' tests: a Redis for tests that break it, and workers that send to a simulator."""

from __future__ import annotations

import pytest
from taskiq import AsyncBroker, InMemoryBroker

from bandwidth_mfa_async import Limits, MFAClient, RetryPolicy
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger, _runtime
from tests.support.redis_server import RedisServer

FAST = Limits(adaptive=False)
QUICK = RetryPolicy(wait_initial=0.001, wait_max=0.002, max_attempts=2)


@pytest.fixture
def own_redis(tmp_path, common_redis):  # common_redis skips without redis-server
    """Return a Redis that persists its data. Tests may kill and suspend it."""
    server = RedisServer(tmp_path)
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
    """Return a function that makes workers with separate brokers and one ledger; all are shut down at the end."""
    # Seconds in production.
    monkeypatch.setattr(_runtime, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(_runtime, "_STALE_CODE_AGE", 0.1)
    brokers = []

    async def make(
        *, start=True, limits=FAST, retry=QUICK, broker=None, lease=30.0, clock=None, client=None, **options
    ):
        broker = broker or InMemoryBroker()
        values = simulator.client_kwargs() | (client or {})
        worker = MFAWorker(
            broker,
            ledger=RedisLedger(redis_server.url, lease=lease, clock=clock),
            client=lambda: MFAClient(**values, limits=limits, retry=retry),
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
async def producer(redis_server, simulator):
    """Return an MFAWorker that only submits; its queue loses every message."""

    def no_client():
        raise AssertionError("a process that only submits needs no client")

    broker = LossyBroker()
    worker = MFAWorker(broker, ledger=RedisLedger(redis_server.url), client=no_client)
    async with worker:
        yield worker


class LossyBroker(AsyncBroker):
    """A queue that records messages and delivers none."""

    def __init__(self):
        super().__init__()
        self.messages = []

    async def kick(self, message):
        self.messages.append(message.message)

    async def listen(self):
        return
        yield
