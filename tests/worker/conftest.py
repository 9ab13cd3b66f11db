"""Fixtures of the workers' tests: one Redis for all, and one of its own for tests that break it."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async.worker import RedisLedger

from .redis_server import LedgerRedis


@pytest.fixture(scope="session")
def common_ledger_redis(tmp_path_factory):
    server = LedgerRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_server(common_ledger_redis):
    """Return a Redis that is empty and must not be broken."""
    common_ledger_redis.empty()
    return common_ledger_redis


@pytest.fixture
def own_redis(tmp_path):
    """Return a Redis that keeps its data, and may be killed and frozen."""
    server = LedgerRedis(tmp_path, "--appendonly", "yes")
    yield server
    server.kill()


@pytest.fixture
async def ledger(redis_server):
    async with RedisLedger(redis_server.url) as opened:
        yield opened
