"""Delivery receipts are received once, through aiohttp and ASGI, also from the simulator."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bandwidth_mfa_async import BasicAuth, CodeRequest, MFAClient
from bandwidth_mfa_async.simulator import ReceiptPolicy, Simulator
from bandwidth_mfa_async.testing import ManualClock
from bandwidth_mfa_async.webhooks import DeliveryReceipt, DeliveryTracker, add_receipt_route, parse_delivery_receipt
from tests.conftest import APPLICATION, FROM, TO
from tests.support.webhooks import DELIVERED, FAILED, PRINTED, ASGIEndpoint, Reply, until

AIOHTTP = tuple(map(int, aiohttp.__version__.split(".")[:2]))
MAX_BODY = 64 * 1024


class AiohttpEndpoint:
    """A real server and a real client on loopback."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.runners: list[web.AppRunner] = []
        self.url = ""

    async def open(self, on_receipt: Any, **options: Any) -> None:
        app = web.Application()
        add_receipt_route(app, "/mfa/receipts", on_receipt, **options)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self.runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mfa/receipts"

    async def __call__(self, body: Any = DELIVERED, method: str = "POST", **headers: str) -> Reply:
        data = body if isinstance(body, bytes) or hasattr(body, "__aiter__") else json.dumps(body).encode()
        async with self.session.request(method, self.url, data=data, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture(params=["aiohttp", "asgi"])
async def endpoint(request, session):
    if request.param == "asgi":
        yield ASGIEndpoint()
        return
    opened = AiohttpEndpoint(session)
    yield opened
    for runner in opened.runners:
        await runner.cleanup()


@pytest.fixture
async def route(session):
    opened = AiohttpEndpoint(session)
    yield opened
    for runner in opened.runners:
        await runner.cleanup()


async def test_a_receipt_is_answered_204_after_the_callback(endpoint, callback):
    """The response has no body."""
    await endpoint.open(callback)
    reply = await endpoint()
    assert (reply.status, reply.body) == (204, b"")
    assert callback.got == [parse_delivery_receipt(DELIVERED)]


async def test_the_callback_may_be_a_plain_function(endpoint):
    """It need not be a coroutine function."""
    got: list[DeliveryReceipt] = []
    await endpoint.open(got.append)
    assert (await endpoint()).status == 204
    assert len(got) == 1


@pytest.mark.parametrize("body", [b"", b"{", PRINTED.encode(), b"\xff\xfe", DELIVERED | {"type": TO}, [], "[" * 60_000])
async def test_an_invalid_body_is_answered_400(endpoint, callback, caplog, body):
    """The callback is not called, and neither the response nor the log quotes the body."""
    await endpoint.open(callback)
    reply = await endpoint(body)
    assert reply.status == 400
    assert callback.got == []
    assert TO not in caplog.text
    assert TO.encode() not in reply.body
    assert "refused a delivery receipt" in caplog.text
    assert (await endpoint()).status == 204


async def test_well_formed_events_of_other_types_are_answered_204_and_logged_once(endpoint, callback, caplog):
    """Bandwidth would post them again for a day; the callback gets receipts only."""
    await endpoint.open(callback)
    received = DELIVERED | {"type": "message-received", "to": TO, "message": {"id": "m", "text": "secret", "to": [TO]}}
    for body in (received, [received], DELIVERED | {"type": "message-sending"}, received):
        reply = await endpoint(body)
        assert (reply.status, reply.body) == (204, b"")
    assert callback.got == []
    assert [record.args for record in caplog.records] == [("message-received",), ("message-sending",)]
    assert TO not in caplog.text
    for number in range(100):  # a sender chooses the types
        word = chr(97 + number // 26) + chr(97 + number % 26)
        assert (await endpoint(DELIVERED | {"type": f"made-{word}"})).status == 204
    assert len(caplog.records) == 20
    for kind in (TO, "1919", "message received", "Message-Received", "x" * 65, "", "a-", 7, None, {}):
        assert (await endpoint(DELIVERED | {"type": kind})).status == 400
    assert (await endpoint()).status == 204


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_other_methods_are_answered_405(endpoint, callback, method):
    """The Allow header names POST (RFC 9110, 15.5.6)."""
    await endpoint.open(callback)
    reply = await endpoint(method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert callback.got == []


async def test_a_body_over_64_kib_is_answered_413(endpoint, callback):
    """With and without a Content-Length."""
    await endpoint.open(callback)
    body = json.dumps(DELIVERED).encode()

    async def chunked(size):
        for _ in range(size // 4096):
            yield b" " * 4096

    assert (await endpoint(body.ljust(MAX_BODY))).status == 204
    assert (await endpoint(body.ljust(MAX_BODY + 1))).status == 413
    assert (await endpoint(chunked(MAX_BODY + 4096))).status == 413
    assert len(callback.got) == 1


async def test_a_duplicate_is_answered_204_without_the_callback(endpoint, callback):
    """The platform delivers at least once; the callback runs once for each id and type."""
    await endpoint.open(callback)
    statuses = [(await endpoint(body)).status for body in (DELIVERED, DELIVERED, FAILED, FAILED, DELIVERED)]
    assert statuses == [204] * 5
    assert [found.type for found in callback.got] == ["message-delivered", "message-failed"]


async def test_concurrent_duplicates_call_the_callback_once(endpoint, callback):
    """A duplicate that arrives while the callback runs waits for its end."""
    callback.gate = asyncio.Event()
    await endpoint.open(callback)
    copies = [asyncio.create_task(endpoint()) for _ in range(5)]
    await until(lambda: callback.got)
    await asyncio.sleep(0)
    assert not any(copy.done() for copy in copies)
    callback.gate.set()
    assert [reply.status for reply in await asyncio.gather(*copies)] == [204] * 5
    assert len(callback.got) == 1


async def test_a_receipt_whose_callback_raised_is_handled_again(endpoint, callback, caplog):
    """The sender gets a 500 and retries. The log has the location of the error and not its text."""
    callback.errors = [RuntimeError(f"no route to {TO}")]
    await endpoint.open(callback)
    assert [(await endpoint()).status for _ in range(3)] == [500, 204, 204]
    assert len(callback.got) == 2
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "RuntimeError at " in record.getMessage()
    assert "support/webhooks.py" in record.getMessage()
    assert TO not in caplog.text


async def test_a_waiting_duplicate_calls_the_callback_when_the_first_failed(endpoint, callback):
    """Only the first one is answered 500."""
    callback.gate, callback.errors = asyncio.Event(), [RuntimeError()]
    await endpoint.open(callback)
    copies = [asyncio.create_task(endpoint()) for _ in range(3)]
    await until(lambda: callback.got)
    callback.gate.set()
    assert sorted(reply.status for reply in await asyncio.gather(*copies)) == [204, 204, 500]
    assert len(callback.got) == 2


@pytest.mark.virtual_time
async def test_a_callback_that_does_not_return_is_cancelled(endpoint, caplog):
    """The sender gets a 500 and repeats the receipt; a duplicate that waited calls the callback itself."""
    calls = []

    async def hang(_receipt: DeliveryReceipt) -> None:
        calls.append(asyncio.current_task())
        await asyncio.Event().wait()

    await endpoint.open(hang, callback_timeout=20)
    replies = await asyncio.gather(endpoint(), endpoint())
    assert [reply.status for reply in replies] == [500, 500]
    assert len(calls) == 2
    assert "TimeoutError" in caplog.text


async def test_the_number_of_requests_that_wait_for_a_callback_is_bounded(endpoint, caplog):
    """Above it a receipt is refused with 503, whether it is new or a duplicate, and handled when it is repeated."""
    release = asyncio.Event()
    handled = []

    async def slow(receipt: DeliveryReceipt) -> None:
        handled.append(receipt.message_id)
        await release.wait()

    def of(name: str) -> dict[str, Any]:
        return DELIVERED | {"message": {"id": name}}

    await endpoint.open(slow, max_in_progress=3)
    waiting = [asyncio.create_task(endpoint(of(name))) for name in "abc"]
    await until(lambda: len(handled) == 3)
    for name in "da":
        refused = await endpoint(of(name))
        assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
    assert "3 wait for the callback" in caplog.text
    release.set()
    assert [reply.status for reply in await asyncio.gather(*waiting)] == [204] * 3
    assert (await endpoint(of("d"))).status == 204
    assert sorted(handled) == ["a", "b", "c", "d"]


async def test_the_number_and_age_of_remembered_receipts_are_bounded(endpoint, callback):
    """The age is measured by the given clock."""
    clock = ManualClock()
    await endpoint.open(callback, remember=2, remember_for=60.0, clock=clock)

    async def post(message_id):
        before = len(callback.got)
        assert (await endpoint(DELIVERED | {"message": {"id": message_id}})).status == 204
        return len(callback.got) > before

    assert [await post(name) for name in "abcaac"] == [True, True, True, True, False, False]
    clock.tick(59.9)
    assert not await post("a")
    clock.tick(0.1)
    assert await post("a")


AUTH = BasicAuth("sender", "pass word é:")


def basic(text: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(text.encode()).decode()}"


async def test_a_request_without_credentials_is_challenged(endpoint, callback, caplog):
    """Per Bandwidth's guides/callbacks, the sender authenticates only after a 401 with WWW-Authenticate: Basic."""
    await endpoint.open(callback, auth=AUTH, realm="texts")
    reply = await endpoint()
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Basic realm="texts"')
    assert callback.got == []
    assert caplog.text == ""  # a first challenge is normal and not logged
    assert (await endpoint(Authorization=basic("sender:pass word é:"))).status == 204
    assert (await endpoint(FAILED, Authorization=basic("sender:pass word é:", "bASIC"))).status == 204
    assert len(callback.got) == 2


@pytest.mark.parametrize(
    "header",
    [
        basic("sender:other"),
        basic(""),
        "Basic",
        "Basic ",
        "Bearer x",
        basic("sender:pass word é:", "Bearer"),
        "é",
        "Basic é",
    ],
)
async def test_wrong_credentials_are_answered_401(endpoint, callback, caplog, header):
    """The body is not parsed; the log mentions the refusal without the credentials."""
    await endpoint.open(callback, auth=AUTH)
    reply = await endpoint(b"{", Authorization=header)
    assert reply.status == 401
    assert "WWW-Authenticate" in reply.headers
    assert "wrong credentials" in caplog.text
    assert "pass word" not in caplog.text
    assert callback.got == []


# ---------------------------------------------------------------------------------------------- aiohttp alone


async def test_the_size_limit_applies_to_the_decompressed_body(route, callback):
    """Invalid gzip is answered 400."""
    await route.open(callback)
    gzipped = {"Content-Encoding": "gzip"}
    assert (await route(gzip.compress(json.dumps(DELIVERED).encode()), **gzipped)).status == 204
    # aiohttp before 3.14 itself answers 400 above 32 MiB and closes the connection, so the sender may miss it.
    with contextlib.suppress(*([] if AIOHTTP >= (3, 14) else [aiohttp.ClientConnectionError])):
        bomb = gzip.compress(b" " * 50_000_000)
        assert (await route(bomb, **gzipped, Connection="close")).status in {400, 413}
    # aiohttp cannot reuse such a connection and closes it.
    assert (await route(json.dumps(DELIVERED).encode(), **gzipped, Connection="close")).status == 400
    assert (await route()).status == 204


async def test_an_incomplete_body_is_not_a_receipt(route, callback, caplog):
    """The sender disconnects, and the server continues without an error in the log."""
    await route.open(callback)
    port = int(route.url.split(":")[2].split("/")[0])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /mfa/receipts HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await route()).status == 204
    assert len(callback.got) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# ---------------------------------------------------------------------------------------------- from the simulator


@pytest.fixture
async def sim(clock):
    async with Simulator(clock=clock, seed=7) as running:
        yield running


@pytest.fixture
async def send(sim, route):
    async with MFAClient(**sim.client_kwargs()) as mfa:

        async def send(to: str = TO) -> str:
            sent = await mfa.generate_messaging_code(CodeRequest(to, FROM, APPLICATION, callback_url=route.url))
            return sent.message_id

        yield send


async def test_the_tracker_returns_the_simulators_receipts(sim, send, route, clock):
    """From the request with a callback URL to the result of `wait`, over real HTTP."""
    tracker = DeliveryTracker(clock=clock)
    await route.open(tracker)
    sim.set_receipts(ReceiptPolicy(failed_numbers={"+447700900000"}))
    delivered = await tracker.wait(await send(), timeout=5)
    failed = await tracker.wait(await send("+447700900000"), timeout=5)
    assert delivered.delivered
    assert delivered.time == datetime.fromtimestamp(clock.time(), UTC)
    assert (failed.delivered, failed.platform, failed.error_code) == (False, "GlobalSMS", 995)
    assert failed.error_family is not None
    await until(lambda: [message.receipt for message in sim.inbox] == ["sent", "sent"])


async def test_the_simulators_duplicates_are_handled_once(sim, send, route, callback):
    """The simulator authenticates after the 401 and posts three copies."""
    await route.open(callback, auth=BasicAuth("me", "secret"))
    sim.set_receipts(ReceiptPolicy(username="me", password="secret", duplicates=2))
    await send()
    await until(lambda: sim.inbox[0].receipt == "sent" and not sim._receipts._queue.qsize())
    assert len(callback.got) == 1


async def test_the_simulators_retry_calls_a_failed_callback_again(sim, send, route, callback, clock):
    """A callback whose database was down gets the receipt with the retry."""
    callback.errors = [OSError()]
    await route.open(callback)
    sim.set_receipts(ReceiptPolicy(retry_initial=60))
    await send()
    await until(lambda: sim.inbox[0].receipt == "retrying")
    clock.tick(60)
    await until(lambda: sim.inbox[0].receipt == "sent")
    assert len(callback.got) == 2
