"""A simulator, its client, and each kind of store, with a clock that moves only when a test advances it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import CodeTemplate, MemoryStore, MFAClient, RedisStore, RetryPolicy, SQLiteStore
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support.redis_fixtures import common_redis, redis_server
from tests.support.signins import LOGIN, SECRET, Events, WallClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bandwidth_mfa_async.stores import Store

AnyStore = MemoryStore | SQLiteStore | RedisStore

__all__ = ["common_redis", "redis_server"]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def mfa(sim: Simulator, events: Events) -> AsyncIterator[MFAClient]:
    retry = RetryPolicy(max_attempts=1)
    async with MFAClient(**sim.client_kwargs(), hooks=[events], retry=retry) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return MemoryStore(clock=clock, secret=SECRET)


@pytest.fixture
def wall() -> WallClock:
    """A wall clock that moves only when a test advances it; waits and timeouts are real."""
    return WallClock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def made_store(request: pytest.FixtureRequest, wall: WallClock, tmp_path: Any) -> AnyStore:
    """Each kind of store; made outside the event loop, which the search for a file would block."""
    if request.param == "memory":
        return MemoryStore(clock=wall, secret=SECRET)
    if request.param == "sqlite":
        store = SQLiteStore(tmp_path / "store.db", clock=wall, secret=SECRET)
        store._file()
        return store
    return RedisStore(request.getfixturevalue("redis_server").url, clock=wall, secret=SECRET)


@pytest.fixture
async def any_store(made_store: AnyStore) -> AsyncIterator[Store]:
    """Each kind of store."""
    async with made_store:
        yield made_store


@pytest.fixture
def make(mfa: MFAClient, store: Store) -> Callable[..., SignIns]:
    """Make sign-ins on one store."""

    def make(template: CodeTemplate = LOGIN, **options: Any) -> SignIns:
        return SignIns(mfa, template, **({"store": store, "guard": Guard()} | options))

    return make
