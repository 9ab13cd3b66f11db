"""`ThreadedSimulator` runs in its own thread, for sync code and for any event loop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.request
from typing import Any

import pytest

from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.simulator import AccountLimits, Fault, ReceiptPolicy, Simulator, SimulatorStateError
from bandwidth_mfa_async.testing import ThreadedSimulator
from tests.conftest import APPLICATION, FROM, REQUEST, TO
from tests.support.suspensions import every_suspension


@pytest.fixture
def sim():
    with ThreadedSimulator(seed=7) as running:
        yield running


def send(sim: Simulator, **changes: Any) -> dict[str, Any]:
    """Post a request from this thread, with the standard library only."""
    import base64

    login = base64.b64encode(f"{sim.username}:{sim.password}".encode()).decode()
    body = {"to": TO, "from": FROM, "applicationId": APPLICATION, "message": "{CODE}", "digits": 6} | changes
    request = urllib.request.Request(
        f"{sim.base_url}/accounts/{sim.account_id}/code/messaging",
        json.dumps(body).encode(),
        {"Authorization": f"Basic {login}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def test_sync_code_can_use_the_threaded_simulator(sim):
    """Blocking code in this thread, the server in its own."""
    answer = send(sim)
    assert sim.inbox[-1].message_id == answer["messageId"]
    assert sim.last_code(TO) == sim.inbox[-1].text
    assert [record.status for record in sim.requests] == [200]
    sim.clear()
    assert sim.inbox == []


def test_each_event_loop_can_have_its_client(sim):
    """The simulator outlives the event loops of the tests."""

    async def once() -> str:
        async with MFAClient(**sim.client_kwargs()) as client:
            return (await client.generate_messaging_code(REQUEST)).message_id

    assert [asyncio.run(once()) for _ in range(3)] == [message.message_id for message in sim.inbox]


def test_its_state_can_be_changed_from_a_thread_without_a_loop(sim):
    """Limits, receipts, tokens and faults."""
    sim.set_limits(messaging=AccountLimits(rate=5), voice=None)
    assert sim.limits["messaging"].rate == 5
    sim.set_receipts(ReceiptPolicy(delay=60))
    sim.revoke_tokens()
    with pytest.raises(SimulatorStateError, match="tls=True"):
        sim.fail_handshakes()
    sim.faults.script(Fault(status=500))
    with pytest.raises(urllib.error.HTTPError) as caught:
        send(sim)
    caught.value.close()
    assert caught.value.code == 500
    sim.clear()
    assert sim.limits == {"messaging": None, "voice": None}


def test_it_can_refuse_and_accept_connections(sim):
    """`reset` restores the initial state."""
    asyncio.run(sim.refuse_connections())
    with pytest.raises(urllib.error.URLError):
        send(sim)
    sim.reset()
    assert send(sim)
    asyncio.run(sim.refuse_connections())
    asyncio.run(sim.accept_connections())
    assert send(sim)


async def test_a_task_in_another_loop_can_wait_for_a_message(sim):
    """The wait can be cancelled and can time out."""
    async with MFAClient(**sim.client_kwargs()) as client:
        waiting = asyncio.create_task(sim.wait_for_message(TO))
        await client.generate_messaging_code(REQUEST)
        message = await waiting
    assert message is sim.inbox[0]
    cancelled = asyncio.create_task(sim.wait_for_message("+447700900000"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(TimeoutError):
        await sim.wait_for_message("+447700900000", timeout=0.001)


def test_a_manual_clock_can_be_advanced_in_another_thread(clock):
    """Codes expire, and timers run in the simulator's loop."""
    with ThreadedSimulator(clock=clock) as sim:

        async def script() -> None:
            async with MFAClient(**sim.client_kwargs()) as client:
                await client.generate_messaging_code(REQUEST)
                code = sim.last_code(TO)
                clock.tick(179)
                assert (await client.verify_code(to=TO, code=code, scope="login")).valid
                clock.tick(2)
                assert not (await client.verify_code(to=TO, code=code, scope="login")).valid
                sim.faults.script(Fault(delay=60))
                call = asyncio.create_task(client.generate_messaging_code(REQUEST))
                limit = time.monotonic() + 5
                while not clock.pending and time.monotonic() < limit:
                    await asyncio.sleep(0)
                clock.tick(60)
                assert (await call).message_id

        asyncio.run(script())


def test_it_can_be_stopped_and_started_again():
    """No thread remains after a stop; starting it twice is an error."""
    sim = ThreadedSimulator()
    with pytest.raises(SimulatorStateError, match="not running"):
        sim.reset()
    before = threading.active_count()
    for _ in range(2):
        with sim:
            assert threading.active_count() == before + 1
            with pytest.raises(SimulatorStateError, match="running already"):
                sim.open()
            assert send(sim)
        assert threading.active_count() == before
    sim.close()
    assert len(sim.inbox) == 2
    sim.clear()
    assert sim.inbox == []


async def test_it_supports_async_with():
    """The start does not block the event loop."""
    async with ThreadedSimulator() as sim, MFAClient(**sim.client_kwargs()) as client:
        await client.generate_messaging_code(REQUEST)
        assert len(sim.inbox) == 1


def test_an_error_at_the_start_is_raised_in_the_callers_thread():
    """No thread remains."""
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        ThreadedSimulator(taken.getsockname()[1]).open()
    assert threading.active_count() == before


async def test_a_start_can_be_cancelled_at_every_await():
    """No simulator stays running, and it can be started again."""
    sims = []

    def start():
        sims.append(ThreadedSimulator())
        return sims[-1].start()

    ends = set()
    async for suspensions, task in every_suspension(start):
        assert task.cancelled() == suspensions.struck
        ends.add(task.cancelled())
        if task.cancelled():
            assert "not running" in repr(sims[-1])
            await sims[-1].start()
        await sims[-1].stop()
    assert ends == {True, False}
