"""A simulator, its client, and each kind of store, with a clock that moves only when a test advances it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import CodeTemplate, MemoryStore, MFAClient, RetryPolicy
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support.redis_fixtures import common_redis, redis_server
from tests.support.signins import LOGIN, SECRET, Events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bandwidth_mfa_async.stores import Store

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


@pytest.fixture(params=["memory"])
async def any_store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Any) -> AsyncIterator[Store]:
    """Each kind of store."""
    made: Any = MemoryStore(clock=clock, secret=SECRET)
    async with AsyncExitStack() as closing:
        yield await closing.enter_async_context(made)


@pytest.fixture
def make(mfa: MFAClient, store: Store) -> Callable[..., SignIns]:
    """Make sign-ins on one store."""

    def make(template: CodeTemplate = LOGIN, **options: Any) -> SignIns:
        return SignIns(mfa, template, **({"store": store, "guard": Guard()} | options))

    return make
