"""Delivery receipts, posted to a receiver on loopback."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from bandwidth_mfa_async.simulator import (
    AccountLimits,
    InvalidOptionError,
    ReceiptPolicy,
    Simulator,
    SimulatorStateError,
)
from tests.integration.simulator.conftest import SEND, TO, ApiClient, until
from tests.support.fault_server import basic_auth

ABROAD = "+447700900000"


class Receiver:
    """Records receipts and responds with the given statuses; None never responds."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], dict]] = []
        self.statuses: list[int | None] = []
        self.login: str | None = None
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.received.append((dict(request.headers), await request.json()))
        if self.login is not None and request.headers.get("Authorization") != self.login:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="receipts"'})
        status = self.statuses.pop(0) if self.statuses else 204
        if status is None:
            await asyncio.get_running_loop().create_future()
        headers = {"Location": "http://example.com/"} if status == 302 else {}
        return web.Response(status=status, headers=headers)


@pytest.fixture
async def receiver():
    handler = Receiver()
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    handler.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mfa/callback"
    yield handler
    await runner.cleanup()


async def test_a_north_american_receipt_is_the_documented_object(api, sim, receiver):
    await api.send(callbackUrl=receiver.url)
    await until(lambda: sim.inbox[0].receipt == "sent")
    [(headers, body)] = receiver.received
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Authorization" not in headers
    assert body == {
        "type": "message-delivered",
        "time": "2025-06-15T15:06:40Z",
        "description": "Message delivered to carrier.",
        "platform": "NorthAmericaSMS",
        "message": {"id": sim.inbox[0].message_id},
    }
    assert sim.inbox[0].receipt_type == "message-delivered"


@pytest.mark.parametrize(
    ("to", "platform", "description", "code"),
    [(TO, "NorthAmericaSMS", "forbidden to country", 4432), (ABROAD, "GlobalSMS", "Undeliverable", 995)],
)
async def test_failed_numbers_get_failed_receipts(api, sim, receiver, to, platform, description, code):
    sim.set_receipts(ReceiptPolicy(failed_numbers={to}))
    await api.send(to=to, callbackUrl=receiver.url)
    await api.send(to="+15550000000", callbackUrl=receiver.url)
    await until(lambda: len(receiver.received) == 2)
    failed = next(body for _, body in receiver.received if body["type"] == "message-failed")
    assert (failed["platform"], failed["description"], failed["errorCode"]) == (platform, description, code)


async def test_failed_share_makes_random_receipts_fail(api, sim, receiver):
    sim.set_receipts(ReceiptPolicy(failed_share=0.5))
    for _ in range(100):
        await api.send(callbackUrl=receiver.url)
    await until(lambda: len(receiver.received) == 100)
    assert sum(body["type"] == "message-failed" for _, body in receiver.received) == pytest.approx(50, abs=20)


async def test_north_american_receipts_are_retried_for_a_day(api, sim, receiver, clock):
    sim.set_receipts(ReceiptPolicy(retry_initial=60, retry_max=7200))
    receiver.statuses = [500, 302, 404]
    await api.send(callbackUrl=receiver.url)
    message = sim.inbox[0]
    for tries, pause in ((1, 60), (2, 120), (3, 240)):
        await until(lambda tries=tries: len(receiver.received) == tries and sim._receipts._timers)
        clock.tick(pause - 0.1)
        assert sim._receipts._timers
        clock.tick(0.1)
    await until(lambda: message.receipt == "sent")
    assert len({json.dumps(body) for _, body in receiver.received}) == 1
    receiver.statuses = [500] * 100
    await api.send(callbackUrl=receiver.url)
    start = clock.monotonic()
    while sim.inbox[1].receipt != "given_up":
        await asyncio.sleep(0)
        if sim._receipts._timers:
            clock.tick(clock.next_timer - clock.monotonic())
    assert 22 * 3600 < clock.monotonic() - start <= 24 * 3600


async def test_international_receipts_are_not_retried(api, sim, receiver):
    receiver.statuses = [500]
    await api.send(to=ABROAD, callbackUrl=receiver.url)
    await until(lambda: sim.inbox[0].receipt == "given_up")
    assert len(receiver.received) == 1


async def test_a_try_ends_after_the_timeout(api, sim, receiver, clock):
    receiver.statuses = [None]
    await api.send(to=ABROAD, callbackUrl=receiver.url)
    await until(lambda: receiver.received)
    clock.tick(10)
    await until(lambda: sim.inbox[0].receipt == "given_up")


async def test_a_closed_port_gives_up_the_receipt(api, sim, unused_tcp_port):
    await api.send(to=ABROAD, callbackUrl=f"http://localhost:{unused_tcp_port}/")
    await until(lambda: sim.inbox[0].receipt == "given_up")


@pytest.mark.parametrize(("password", "receipt"), [("right", "sent"), ("wrong", "retrying")])
async def test_basic_credentials_are_sent_only_after_a_challenge(api, sim, receiver, password, receipt):
    """Bandwidth guides/callbacks: a 401 first, then a second request with credentials."""
    sim.set_receipts(ReceiptPolicy(username="me", password=password))
    receiver.login = basic_auth("me", "right")
    await api.send(callbackUrl=receiver.url)
    await until(lambda: sim.inbox[0].receipt == receipt)
    assert len(receiver.received) == 2
    assert "Authorization" not in receiver.received[0][0]
    assert "Authorization" in receiver.received[1][0]


async def test_duplicates_posts_the_receipt_again(api, sim, receiver):
    sim.set_receipts(ReceiptPolicy(duplicates=2))
    await api.send(callbackUrl=receiver.url)
    await until(lambda: len(receiver.received) == 3)
    assert len({json.dumps(body) for _, body in receiver.received}) == 1


async def test_the_delay_and_the_queue_postpone_the_receipt(api, sim, receiver, clock):
    sim.set_limits(messaging=AccountLimits())
    sim.set_receipts(ReceiptPolicy(delay=2))
    await api.send(callbackUrl=receiver.url)
    await api.send(callbackUrl=receiver.url)
    clock.tick(2)
    await until(lambda: sim.inbox[0].receipt == "sent")
    assert sim.inbox[1].receipt == "pending"
    clock.tick(1)
    await until(lambda: sim.inbox[1].receipt == "sent")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "https://10.0.0.1/",
        "ftp://localhost/",
        "nonsense",
        "http://[",
        "http://localhost.example.com/",
        "",
    ],
)
async def test_receipts_to_other_machines_are_blocked(api, sim, url):
    assert (await api.send(callbackUrl=url))[0] == 200
    assert sim.inbox[0].receipt == "blocked"
    assert sim._receipts._session is None


async def test_a_receipt_can_be_posted_again(api, sim, receiver):
    """From Python and from the control API: after a success, and after it was given up."""
    receiver.statuses = [500]
    await api.send(to=ABROAD, callbackUrl=receiver.url)
    message = sim.inbox[0]
    await until(lambda: message.receipt == "given_up")
    sim.resend_receipt(message)
    await until(lambda: message.receipt == "sent")
    status, body = await api.control("POST", "/receipts", json={"messageId": message.message_id})
    assert (status, body["messageId"]) == (202, message.message_id)
    await until(lambda: len(receiver.received) == 3)
    assert len({document["message"]["id"] for _, document in receiver.received}) == 1


async def test_a_receipt_that_waits_is_posted_at_once_and_only_once(api, sim, receiver, clock):
    sim.set_receipts(ReceiptPolicy(delay=60))
    await api.send(callbackUrl=receiver.url)
    sim.resend_receipt(sim.inbox[0])
    await until(lambda: sim.inbox[0].receipt == "sent")
    clock.tick(60)
    await asyncio.sleep(0)
    assert len(receiver.received) == 1
    assert not sim._receipts._timers


async def test_messages_without_a_receipt_cannot_have_it_posted_again(api, sim):
    await api.send()
    await api.send(callbackUrl="http://example.com/")
    for message, reason in zip(sim.inbox, ("no callbackUrl", "other machines"), strict=True):
        with pytest.raises(SimulatorStateError, match=reason):
            sim.resend_receipt(message)


async def test_calls_have_no_receipts(api, sim, receiver):
    await api.post("voice", SEND | {"callbackUrl": receiver.url})
    assert sim.inbox[0].receipt == "none"


async def test_stop_and_clear_drop_pending_receipts(session, receiver, clock):
    async with Simulator(clock=clock, receipts=ReceiptPolicy(delay=5)) as sim:
        api = ApiClient(session, sim)
        await api.send(callbackUrl=receiver.url)
        sim.clear()
        await api.send(callbackUrl=receiver.url)
        receiver.statuses = [None]
        assert clock.pending == 1
    assert clock.pending == 0
    assert not receiver.received


@pytest.mark.parametrize(
    "options",
    [{"failed_share": 1.5}, {"duplicates": -1}, {"duplicates": 0.5}, {"timeout": 0}, {"delay": "1"}, {"username": "x"}],
)
def test_an_invalid_policy_raises_an_error_that_names_the_option(options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        ReceiptPolicy(**options)
