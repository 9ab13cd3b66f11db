"""Injected faults, over HTTP."""

from __future__ import annotations

import asyncio
import math

import aiohttp
import pytest

from bandwidth_mfa_async.simulator import Fault, InvalidFaultError
from tests.integration.simulator.conftest import SEND, TO, until


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"message": "Unauthorized"}),
        (403, {"Message": "User is not authorized to access this resource with an explicit deny"}),
        (502, {"message": "Internal server error"}),
        (503, {"message": "Service Unavailable"}),
        (504, {"message": "Endpoint request timed out"}),
        (418, {"message": "I'm a Teapot"}),
        (599, {"message": "Unknown"}),
    ],
)
async def test_a_status_has_its_documented_body(api, sim, status, body):
    sim.faults.script(Fault(status=status))
    assert await api.send() == (status, body)
    assert not sim.inbox
    assert (await api.send())[0] == 200


@pytest.mark.parametrize(
    ("name", "text"),
    [("messaging", "The SMS queue"), ("voice", "Account call creation"), ("verify", "This number has exceeded")],
)
async def test_the_text_of_a_429_depends_on_the_operation(api, sim, name, text):
    sim.faults.script(Fault(status=429, headers={"Retry-After": 0.2}))
    url = f"{sim.base_url}/accounts/{sim.account_id}/code/{name}"
    async with api.session.post(url, json=SEND, headers=api.basic) as response:
        assert response.headers["Retry-After"] == "0.2"
        assert (await response.json())["error"].startswith(text)


async def test_a_fault_sets_status_headers_and_body(api, sim):
    sim.faults.script(
        Fault(status=200, body="<html>", headers={"content-type": "text/html"}), Fault(status=200, body=b"")
    )
    url = f"{sim.base_url}/accounts/{sim.account_id}/code/messaging"
    async with api.session.post(url, json=SEND, headers=api.basic) as response:
        assert (response.status, await response.text()) == (200, "<html>")
        assert response.headers.getall("Content-Type") == ["text/html"]
    async with api.session.post(url, json=SEND, headers=api.basic) as response:
        assert (response.status, await response.read()) == (200, b"")
    assert not sim.inbox
    sim.faults.script(Fault(status=200, headers={"X": "y"}))
    assert "messageId" in (await api.send())[1]
    assert len(sim.inbox) == 1


async def test_an_accepted_message_can_get_an_error_status(api, sim):
    """A client that retries this 503 sends a duplicate."""
    sim.faults.script(Fault(status=503, accepted=True))
    assert await api.send() == (503, {"message": "Service Unavailable"})
    assert len(sim.inbox) == 1


@pytest.mark.parametrize(
    ("fault", "arrived", "error"),
    [
        (Fault(drop="before_read"), 0, aiohttp.ClientConnectionError),
        (Fault(drop="after_read"), 1, aiohttp.ServerDisconnectedError),
        (Fault(drop="after_read", accepted=False), 0, aiohttp.ServerDisconnectedError),
        (Fault(drop="half_answer"), 1, aiohttp.ServerDisconnectedError),
        (Fault(truncate=True), 1, aiohttp.ClientPayloadError),
        (Fault(truncate=True, status=200, body="x" * 1000), 1, aiohttp.ClientPayloadError),
        (Fault(drop="half_answer", status=502), 0, aiohttp.ServerDisconnectedError),
    ],
)
async def test_a_dropped_connection_leaves_an_accepted_message_in_the_inbox(api, sim, fault, arrived, error):
    sim.faults.script(fault)
    with pytest.raises(error):
        await api.send()
    assert len(sim.inbox) == arrived
    assert sim.requests[-1].fault is fault
    assert sim.requests[-1].status == (None if fault.drop else 200)
    assert (await api.send())[0] == 200


async def test_a_delay_is_measured_on_the_clock(api, sim, clock):
    sim.faults.script(Fault(delay=30))
    answer = asyncio.create_task(api.send())
    await until(lambda: clock.pending)
    assert len(sim.inbox) == 1
    await clock.advance(29.9)
    assert not answer.done()
    await clock.advance(0.1)
    assert (await answer)[0] == 200


async def test_seconds_per_byte_sends_the_body_byte_by_byte(api, sim, clock):
    sim.faults.script(Fault(seconds_per_byte=1))
    start = clock.monotonic()
    answer = asyncio.create_task(api.send())
    while not answer.done():
        await asyncio.sleep(0)
        if clock.pending:
            clock.tick(1)
    assert (await answer)[1] == {"messageId": sim.inbox[0].message_id}
    assert clock.monotonic() - start == 45


async def test_a_delay_ends_when_the_client_disconnects(api, sim, clock):
    sim.faults.script(Fault(delay=30), Fault(delay=math.inf))
    for _ in range(2):
        answer = asyncio.create_task(api.send())
        await until(lambda: sim._front._delayed)
        answer.cancel()
        await until(lambda: not sim._front._delayed)
        assert clock.pending == 0
    assert (await api.send())[0] == 200


async def test_stop_does_not_wait_for_delayed_responses(api, sim):
    sim.faults.script(Fault(delay=math.inf))
    answer = asyncio.create_task(api.send())
    await until(lambda: sim._front._delayed)
    async with asyncio.timeout(0.3):
        await sim.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await answer


async def test_scripted_faults_apply_in_order_to_matching_requests(api, sim):
    sim.faults.script(Fault(status=500), Fault(status=502), operation="voice")
    sim.faults.script(Fault(status=503), to="+19195550000")
    sim.faults.script(Fault(status=401), operation="token")
    assert (await api.send())[0] == 200
    assert (await api.post("voice", SEND | {"to": "+19195550000"}))[0] == 500
    assert (await api.send(to="+19195550000"))[0] == 503
    assert (await api.post("voice", SEND))[0] == 502
    assert (await api.post("voice", SEND))[0] == 200
    assert len(sim.faults.rules) == 1
    sim.faults.clear()
    assert not sim.faults


async def test_random_faults_use_one_draw_per_response(api, sim):
    """With probabilities of 0.3 and 0.2, half of the responses are normal."""
    sim.faults.chance(Fault(status=429), 0.3)
    sim.faults.chance(Fault(status=503), 0.2, operation="messaging")
    statuses = [(await api.send())[0] for _ in range(400)]
    assert statuses.count(429) == pytest.approx(120, abs=35)
    assert statuses.count(503) == pytest.approx(80, abs=30)
    assert statuses.count(200) == len(sim.inbox)
    assert [record.status for record in sim.requests] == statuses
    assert [record.fault is None for record in sim.requests] == [status == 200 for status in statuses]


async def test_connections_are_refused_until_they_are_accepted_again(api, sim, clock):
    await api.send()
    port = sim.port
    await sim.refuse_connections()
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.send()
    with pytest.raises(aiohttp.ClientConnectorError):
        await api.send()
    await sim.accept_connections()
    assert (await api.send())[0] == 200
    await sim.refuse_connections(5)
    await until(lambda: clock.pending)
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.send()
    await clock.advance(5)
    assert (await api.send())[0] == 200
    assert sim.port == port
    await sim.refuse_connections(5)


@pytest.mark.parametrize(
    "options",
    [
        {"status": 99},
        {"status": 600},
        {"status": True},
        {"status": "500"},
        {"delay": -1},
        {"delay": math.nan},
        {"seconds_per_byte": math.inf},
        {"drop": "sometimes"},
        {"drop": "before_read", "accepted": True},
        {"drop": "before_read", "status": 500},
        {"drop": "after_read", "body": "x"},
        {"drop": "half_answer", "truncate": True},
        {"truncate": True, "seconds_per_byte": 1},
        {"truncate": True, "body": ""},
        {"truncate": True, "status": 204},
        {"headers": {"A b": "c"}},
        {"headers": {"A": "c\r\nX: y"}},
        {"headers": 5},
        {"headers": {"A": []}},
        {"body": object()},
        {"accepted": 1},
        {"truncate": 1},
    ],
)
def test_invalid_values_and_combinations_raise_at_construction(options):
    with pytest.raises(InvalidFaultError):
        Fault(**options)


async def test_invalid_rules_raise(sim):
    fault = Fault(status=500)
    for wrong in (
        lambda: sim.faults.script(fault, operation="call"),
        lambda: sim.faults.script(Fault(drop="before_read"), to=TO),
        lambda: sim.faults.script(fault, operation="token", to=TO),
        lambda: sim.faults.script("500"),
        lambda: sim.faults.script(fault, to=5),
        lambda: sim.faults.chance(fault, 1.1),
        lambda: sim.faults.chance(fault, math.nan),
        lambda: sim.faults.chance(fault, "0.5"),
    ):
        with pytest.raises(InvalidFaultError):
            wrong()
    sim.faults.chance(fault, 0.6)
    sim.faults.chance(fault, 0.4, to=TO)
    with pytest.raises(InvalidFaultError, match="more than 1"):
        sim.faults.chance(fault, 0.1, operation="verify")
    assert len(sim.faults.rules) == 2
