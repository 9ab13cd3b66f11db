"""Rows 40 to 45 of the fault table: cancellations, sessions, loops, threads, processes and clocks."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    ClientStateError,
    Delivery,
    DisconnectedError,
    Limits,
    MFAClient,
    NotSentError,
    RetryPolicy,
    _process,
)
from tests.integration.client.test_cancellation import LastCall
from tests.integration.faults.watch import ACCEPTED, MATRIX, Watch, prepare, send
from tests.support.fault_server import FaultServer, answer, hung_call
from tests.support.suspensions import every_suspension

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

pytestmark = MATRIX

ONCE = RetryPolicy(max_attempts=1)
CANCELLED = (asyncio.CancelledError, None)
REFUSED = (ClientStateError, None)


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_a_call_cancelled_at_every_wait_has_a_correct_outcome(
    server: FaultServer, make_client: MakeClient, watch: Watch, warm: bool
) -> None:
    """It is only cancelled; a call reported as unknown was read, and one reported as not sent was not."""
    last = LastCall()
    ends: set[Delivery | None] = set()
    client: MFAClient

    async def make() -> None:
        await watch.of(send(client), client, server)
        if isinstance(watch.result, asyncio.CancelledError):
            raise watch.result

    client = make_client(hooks=[last], retry=ONCE)
    await prepare(server, client, warm=warm)
    async for suspensions, task in every_suspension(make):
        assert task.cancelled() == suspensions.struck
        if task.cancelled():
            for _ in range(20):  # requests in flight arrive now
                await asyncio.sleep(0)
            assert last.event is not None
            sent = last.event.delivery is Delivery.UNKNOWN
            await watch.shows(outcome=CANCELLED, ledger=(sent, sent), pool=int(not sent and warm), elapsed=0)
            ends.add(last.event.delivery)
        await client.aclose()
        client = make_client(hooks=[last], retry=ONCE)
        await prepare(server, client, warm=warm)
    assert ends == ({Delivery.UNKNOWN} if warm else {Delivery.NOT_SENT, Delivery.UNKNOWN})


async def test_a_session_closed_by_its_owner(
    server: FaultServer, make_client: MakeClient, watch: Watch, warm: bool
) -> None:
    """What was written is unknown, what waited for a connection was not sent, and no call is cancelled."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    client = make_client(session=session, retry=ONCE)
    await prepare(server, client, warm=warm)

    async def both() -> list[Any]:
        written = await hung_call(server, send(client))
        waiting = asyncio.create_task(send(client))
        for _ in range(5):
            await asyncio.sleep(0)
        await session.close()
        return list(await asyncio.gather(written, waiting, return_exceptions=True))

    await watch.of(both(), client, server)
    outcome = {(DisconnectedError, Delivery.UNKNOWN): 1, (NotSentError, Delivery.NOT_SENT): 1}
    await watch.shows(outcome=outcome, ledger=(1, 0), pool=0, elapsed=0)
    another = make_client(session=session)
    await watch.of(send(another), another, server)
    await watch.shows(outcome=REFUSED, ledger=(0, 0), pool=0, elapsed=0)


async def test_use_after_close_is_refused(
    server: FaultServer, make_client: MakeClient, watch: Watch, warm: bool
) -> None:
    """Closed once, or twice concurrently."""
    client = make_client()
    await prepare(server, client, warm=warm)
    await asyncio.gather(client.aclose(), client.aclose())
    await watch.of(send(client), client, server)
    await watch.shows(outcome=REFUSED, ledger=(0, 0), pool=0, elapsed=0)


async def test_a_loop_that_ends_first_cancels_the_call(watch: Watch, warm: bool) -> None:
    """A client that is not closed is a ResourceWarning, as with any session, and its call is cancelled, not lost."""
    seen: list[int] = []

    async def main() -> None:
        server = await FaultServer().__aenter__()  # it ends with the loop as well
        client = MFAClient("9900000", BasicAuth("u", "p"), base_url=server.base_url)
        await prepare(server, client, warm=warm)

        async def call() -> None:
            await watch.of(send(client), client, server)

        task = await hung_call(server, call())
        assert not task.done()

    def run() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with asyncio.Runner(loop_factory=type(loop)) as runner:
                runner.run(main())
            watch.compare(outcome=CANCELLED, ledger=(1, 0), pool=0, elapsed=0)
            del watch.client, watch.server, watch.result
            gc.collect()
        seen.extend("nclosed" in str(warning.message) for warning in caught)

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(run)
    assert any(seen)


@pytest.mark.parametrize("other", ["thread", "process"])
async def test_another_loop_or_process_is_refused(
    server: FaultServer,
    make_client: MakeClient,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    other: str,
    warm: bool,
) -> None:
    """With or without a kept connection, before anything is sent."""
    client = make_client()
    await prepare(server, client, warm=True, keep=warm)
    loop = asyncio.get_running_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=type(loop)) as runner:
            runner.run(watch.of(send(client), client, server))

    if other == "thread":
        await asyncio.to_thread(run)
    else:
        with monkeypatch.context() as forked:
            forked.setattr(_process, "_generation", 99)
            await watch.of(send(client), client, server)
    await watch.shows(outcome=REFUSED, ledger=(0, 0), pool=int(warm), elapsed=0)
    assert ("another event loop" if other == "thread" else "before a fork") in str(watch.result)


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
async def test_a_wall_clock_jump_changes_nothing(
    server: FaultServer,
    make_client: MakeClient,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
    warm: bool,
) -> None:
    """A day forward or back during a call changes no wait, no deadline and no elapsed time."""
    real = time.time
    shift = 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)

    def leap(_server: FaultServer) -> None:
        nonlocal shift
        shift = jump

    client = make_client(limits=Limits(adaptive=False), retry=RetryPolicy(timeout=10.0, wait_initial=0.001))
    await prepare(server, client, warm=warm)
    failing = answer(503, {"error": "x", "requestId": "r"}, delay=2.0, before=leap)
    server.play(failing, answer(429, {}, headers={"Retry-After": "3"}))
    response = await watch.of(send(client), client, server)
    await watch.shows(outcome=ACCEPTED, ledger=(3, 1), pool=1, elapsed=(5.0, 5.6))
    assert shift == jump
    assert response.meta.attempts == 3
    assert abs(response.meta.elapsed - watch.passed) < 0.1
