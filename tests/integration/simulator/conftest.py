"""Fixtures: a simulator on a manual clock, and a client that uses plain aiohttp instead of the SDK."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.simulator import Simulator
from tests.support.fault_server import basic_auth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TO = "+19195551234"
SEND = {
    "to": TO,
    "from": "+19195554321",
    "applicationId": "93de2206-9669-4e07-948d-329f4b722ee2",
    "scope": "login",
    "message": "Your {NAME} {SCOPE} code is {CODE}",
    "digits": 6,
}


class ApiClient:
    """Sends requests to a simulator, by default with valid credentials."""

    def __init__(self, session: aiohttp.ClientSession, sim: Simulator) -> None:
        self.session = session
        self.sim = sim
        self.basic = {"Authorization": basic_auth(sim.username, sim.password)}

    async def post(self, name: str, body: Any = None, *, account: str | None = None, **kwargs: Any) -> tuple[int, Any]:
        url = f"{self.sim.base_url}/accounts/{account or self.sim.account_id}/code/{name}"
        kwargs.setdefault("headers", self.basic)
        if body is not None:
            kwargs["json"] = body
        async with self.session.post(url, **kwargs) as response:
            return response.status, await response.json(content_type=None)

    async def send(self, **changes: Any) -> tuple[int, Any]:
        return await self.post("messaging", SEND | changes)

    async def verify(self, code: str, /, minutes: float = 3, **changes: Any) -> tuple[int, Any]:
        body = {"to": TO, "scope": "login", "code": code, "expirationTimeInMinutes": minutes}
        return await self.post("verify", body | changes)

    async def control(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.sim.control_url + path, **kwargs) as response:
            return response.status, await response.json() if response.status != 204 else None


async def until(condition: Callable[[], object]) -> None:
    """Run the event loop until the condition is true; fail after 5 s of real time."""
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit, "the condition did not become true"
        await asyncio.sleep(0)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def sim(clock: ManualClock) -> AsyncIterator[Simulator]:
    async with Simulator(clock=clock, seed=7) as running:
        yield running


@pytest.fixture
def api(session: aiohttp.ClientSession, sim: Simulator) -> ApiClient:
    return ApiClient(session, sim)
