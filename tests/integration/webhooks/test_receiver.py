"""Delivery receipts are parsed, received once through aiohttp and ASGI, and tracked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import pickle
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async import BasicAuth, CodeRequest, ConfigurationError, MFAClient, MFAError
from bandwidth_mfa_async.simulator import ReceiptPolicy, Simulator
from bandwidth_mfa_async.testing import ManualClock
from bandwidth_mfa_async.webhooks import (
    DeliveryReceipt,
    DeliveryTracker,
    ErrorFamily,
    ReceiptTimeoutError,
    WebhookError,
    add_receipt_route,
    error_family,
    parse_delivery_receipt,
    receipt_asgi_app,
    receipt_handler,
)
from tests.conftest import APPLICATION, FROM, TO
from tests.support import processes

AIOHTTP = tuple(map(int, aiohttp.__version__.split(".")[:2]))
ID = "14762070468292kw2fuqty55yp2b2"
# The four examples of https://dev.bandwidth.com/docs/mfa/webhooks, without their trailing commas.
DELIVERED = {
    "type": "message-delivered",
    "time": "2016-09-14T18:20:16Z",
    "description": "ok",
    "platform": "NorthAmericaSMS",
    "message": {"id": ID},
}
FAILED = DELIVERED | {"type": "message-failed", "description": "forbidden to country", "errorCode": 4432}
FAILED_ABROAD = FAILED | {"description": "Undeliverable", "platform": "GlobalSMS", "errorCode": 995}
PRINTED = """{
    "type"          : "message-delivered",
    "time"          : "2016-09-14T18:20:16Z",
    "description"   : "ok",
    "platform"      : "NorthAmericaSMS",
    "message"       : {
        "id"            : "14762070468292kw2fuqty55yp2b2",
    }
}"""
MAX_BODY = 64 * 1024


def receipt(message_id: str = ID, **changes: Any) -> DeliveryReceipt:
    return parse_delivery_receipt(DELIVERED | {"message": {"id": message_id}} | changes)


async def until(condition) -> None:
    """Run the event loop until a condition is true; fail after five real seconds."""
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit, "the condition did not become true"
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "form", [dict, json.dumps, lambda body: json.dumps(body).encode()], ids=["dict", "str", "bytes"]
)
def test_a_receipt_is_parsed_from_an_object_text_or_bytes(form):
    """The time is aware, and the error code is None on success."""
    assert parse_delivery_receipt(form(FAILED)) == DeliveryReceipt(
        message_id=ID,
        delivered=False,
        type="message-failed",
        time=datetime(2016, 9, 14, 18, 20, 16, tzinfo=UTC),
        description="forbidden to country",
        platform="NorthAmericaSMS",
        error_code=4432,
    )
    assert parse_delivery_receipt(form(DELIVERED)).delivered is True
    assert parse_delivery_receipt(form(DELIVERED)).error_code is None


def test_the_documented_examples_are_not_json():
    """They contain a trailing comma; without it they are valid."""
    with pytest.raises(WebhookError, match="not JSON"):
        parse_delivery_receipt(PRINTED)
    assert parse_delivery_receipt(PRINTED.replace('p2b2",', 'p2b2"')).message_id == ID


def test_an_array_of_one_receipt_is_parsed():
    """With a changed Dashboard URL, North American receipts have the Messaging API's format: an array, more keys."""
    full = FAILED | {"to": TO, "message": {"id": ID, "owner": FROM, "to": [TO], "from": FROM, "text": "Your code is 1"}}
    found = parse_delivery_receipt(json.dumps([full]))
    assert found == parse_delivery_receipt(FAILED)
    assert TO not in repr(found)


BAD = {
    "empty": b"",
    "not utf-8": b'\xff{"type": "message-delivered"}',
    "utf-16": json.dumps(DELIVERED).encode("utf-16"),
    "html": "<html>",
    "null": "null",
    "number": "7",
    "text": '"message-delivered"',
    "empty array": "[]",
    "two": json.dumps([DELIVERED, FAILED]),
    "array in array": json.dumps([[DELIVERED]]),
    "deep": "[" * 100_000,
    "long number": "9" * 10_000,
    "no type": {"message": {"id": ID}},
    "other type": DELIVERED | {"type": "message-sending"},
    "type in capitals": DELIVERED | {"type": "Message-Delivered"},
    "type is a list": DELIVERED | {"type": ["message-delivered"]},
    "no message": {"type": "message-delivered"},
    "message is text": DELIVERED | {"message": ID},
    "message is null": DELIVERED | {"message": None},
    "no id": DELIVERED | {"message": {}},
    "id is a number": DELIVERED | {"message": {"id": 7}},
    "empty id": DELIVERED | {"message": {"id": ""}},
    "id with a line end": DELIVERED | {"message": {"id": f"{ID}\n"}},
    "id with a space": DELIVERED | {"message": {"id": "a b"}},
    "long id": DELIVERED | {"message": {"id": "a" * 129}},
    "id is not ascii": DELIVERED | {"message": {"id": "é"}},
    "None": None,
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_an_invalid_body_raises_a_webhook_error(body):
    """The error quotes nothing of the body and is not chained to the parser's error, which contains it."""
    with pytest.raises(WebhookError) as caught:
        parse_delivery_receipt(body)
    assert isinstance(caught.value, (ValueError, MFAError))
    assert ID not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.one_of(
        _json,
        st.binary(max_size=60),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["message-delivered", "message-failed"])},
            optional={
                "message": st.fixed_dictionaries({"id": _json | st.just(ID)}),
                "time": _json | st.datetimes().map(str),
                "description": _json,
                "platform": _json,
                "errorCode": _json,
            },
        ),
    )
)
def test_every_value_is_a_receipt_or_a_webhook_error(value):
    """No value raises another error, and every parsed receipt has a repr and a hash."""
    with contextlib.suppress(WebhookError):
        found = parse_delivery_receipt(value)
        assert found.time is None or found.time.tzinfo is not None
        assert hash(found) == hash(pickle.loads(pickle.dumps(found)))
        assert repr(found).encode()
        assert (found.description or "").encode() is not None
        assert found.error_family is None or isinstance(found.error_family, ErrorFamily)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2016-09-14T18:20:16.123Z", datetime(2016, 9, 14, 18, 20, 16, 123_000, tzinfo=UTC)),
        ("2016-09-14T20:20:16+02:00", datetime(2016, 9, 14, 18, 20, 16, tzinfo=UTC)),
        ("2016-09-14T18:20:16", None),
        ("2016-09-14", None),
        ("yesterday", None),
        (1_473_877_216, None),
        (None, None),
    ],
)
def test_an_invalid_time_is_none(value, expected):
    """A receipt without a readable, aware time is still valid."""
    assert receipt(time=value).time == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4432, 4432),
        ("4432", 4432),
        (0, 0),
        (True, None),
        (44.5, None),
        ("44x", None),
        (-1, None),
        (10**12, None),
        ([], None),
    ],
)
def test_an_error_code_is_a_whole_number_or_none(value, expected):
    """It is documented as an integer; another type does not make a receipt invalid."""
    assert receipt(type="message-failed", errorCode=value).error_code == expected


def test_the_repr_of_a_receipt_contains_no_number():
    """The description is the service's text and may contain a number; it is bounded."""
    shown = repr(receipt(description=f"no route to {TO}"))
    assert TO not in shown
    assert "no route to ***" in shown
    assert len(receipt(description="x" * 10_000).description or "") == 500


# ---------------------------------------------------------------------------------------------- error codes


@pytest.mark.parametrize(
    ("code", "platform", "expected"),
    [
        (4432, "NorthAmericaSMS", ("north_america", "client", "bandwidth", True)),
        (4001, None, ("north_america", "client", "bandwidth", True)),
        (4720, None, ("north_america", "client", "carrier", True)),
        (4785, None, ("north_america", "client", "carrier", False)),
        (5100, None, ("north_america", "server", "bandwidth", False)),
        (5999, None, ("north_america", "server", "bandwidth", False)),
        (5600, None, ("north_america", "server", "carrier", False)),
        (9902, None, ("north_america", "ambiguous", None, None)),
        (9500, None, ("north_america", "ambiguous", None, None)),
        (995, "GlobalSMS", ("international", None, None, None)),
        (0, None, ("international", None, None, None)),
    ],
)
def test_documented_error_families(code, platform, expected):
    """The family has the party at fault, the reporter, and whether the error is permanent."""
    family = error_family(code, platform)
    assert family is not None
    assert (family.region, family.fault, family.reported_by, family.permanent) == expected


@pytest.mark.parametrize(
    ("code", "platform"),
    [
        (None, None),
        (2, None),
        (995, "NorthAmericaSMS"),
        (4432, "GlobalSMS"),
        (4200, None),
        (6000, None),
        (12_345, None),
        (4432, "Other"),
    ],
)
def test_undocumented_error_codes_have_no_family(code, platform):
    """Also codes that do not belong to the platform."""
    assert error_family(code, platform) is None


def test_the_error_family_of_a_receipt_depends_on_its_platform():
    """The meaning of an international code is the documented text."""
    family = parse_delivery_receipt(FAILED_ABROAD).error_family
    assert family is not None
    assert family.meaning == "Undeliverable"
    assert parse_delivery_receipt(DELIVERED).error_family is None


# ---------------------------------------------------------------------------------------------- endpoints


class Reply:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


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


class ASGIEndpoint:
    """Calls the application like an ASGI server, by the specification."""

    app: Any = None

    async def open(self, on_receipt: Any, **options: Any) -> None:
        self.app = receipt_asgi_app(on_receipt, **options)

    async def __call__(self, body: Any = DELIVERED, method: str = "POST", **headers: str) -> Reply:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if hasattr(body, "__aiter__"):
            parts = [part async for part in body]
        else:
            parts = [body if isinstance(body, bytes) else json.dumps(body).encode()]
            raw.append((b"content-length", str(len(parts[0])).encode()))
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        sent = await self.run([*messages, {"type": "http.request"}], method, raw)
        start, end = sent
        assert start["type"] == "http.response.start"
        assert end == {"type": "http.response.body", "body": end["body"]}
        names = {name.decode().title(): value.decode() for name, value in start["headers"]}
        names = {name.replace("Www-", "WWW-"): value for name, value in names.items()}
        return Reply(start["status"], names, end["body"])

    async def run(self, messages: list[Any], method: str = "POST", headers: Any = ()) -> list[Any]:
        scope = {"type": "http", "asgi": {"version": "3.0"}, "method": method, "path": "/", "headers": list(headers)}
        waiting, sent = list(messages), []

        async def receive() -> Any:
            await asyncio.sleep(0)
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent


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


class Callback:
    """Records the receipts; raises the next of `errors` and waits for `gate`, if they are set."""

    def __init__(self) -> None:
        self.got: list[DeliveryReceipt] = []
        self.errors: list[Exception] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, found: DeliveryReceipt) -> None:
        self.got.append(found)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def callback() -> Callback:
    return Callback()


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
    assert "test_receiver.py" in record.getMessage()
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


@pytest.mark.parametrize(
    "options", [{"auth": ("a", "b")}, {"realm": 'a"b'}, {"realm": "a\r\nb"}, {"remember": 0}, {"remember_for": 0}]
)
@pytest.mark.parametrize("make", [receipt_handler, receipt_asgi_app])
def test_invalid_receiver_options_are_refused(make, options):
    """At construction, not at the first receipt."""
    with pytest.raises(ConfigurationError):
        make(print, **options)


@pytest.mark.parametrize("make", [receipt_handler, receipt_asgi_app])
def test_a_callback_must_be_callable_and_options_known(make):
    """The error names the missing or unknown argument."""
    with pytest.raises(ConfigurationError, match="on_receipt"):
        make(None)
    with pytest.raises(TypeError, match="relm"):
        make(print, relm="x")


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


async def test_after_a_cancelled_handler_the_next_duplicate_is_handled(callback):
    """Servers cancel handlers at a disconnect or a shutdown; the receipt must not stay in progress forever."""
    callback.gate = asyncio.Event()
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    first = asyncio.create_task(endpoint())
    await until(lambda: callback.got)
    second = asyncio.create_task(endpoint())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    callback.gate.set()
    assert (await second).status == 204
    assert len(callback.got) == 2


# ---------------------------------------------------------------------------------------------- ASGI alone


async def test_asgi_a_disconnect_gets_no_response(callback):
    """The incomplete body is not handled."""
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert await endpoint.run(messages) == []
    assert callback.got == []


async def test_asgi_a_body_in_several_messages_is_joined(callback):
    """Servers split bodies at any position."""
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    messages = [
        {"type": "http.request", "body": bytes([byte]), "more_body": True} for byte in json.dumps(FAILED).encode()
    ]
    start, _ = await endpoint.run([*messages, {"type": "http.request", "body": b"", "more_body": False}])
    assert start["status"] == 204
    assert callback.got[0].error_code == 4432


@pytest.mark.parametrize("length", [b"x", b"-1", b"\xb2", b"9" * 30, b""])
async def test_asgi_an_invalid_content_length_is_ignored(callback, length):
    """Servers validate it; here only the received bytes count."""
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    body = {"type": "http.request", "body": json.dumps(DELIVERED).encode()}
    start, _ = await endpoint.run([body], headers=[(b"content-length", length)])
    assert start["status"] == 204


async def test_asgi_other_scopes(callback):
    """Lifespan events are confirmed, a web socket is closed, any other scope is an error."""
    app = receipt_asgi_app(callback)
    sent: list[Any] = []

    async def send(message):
        sent.append(message["type"])

    def receiver(*types):
        waiting = [{"type": kind} for kind in types]

        async def receive():
            return waiting.pop(0)

        return receive

    await app({"type": "lifespan"}, receiver("lifespan.startup", "lifespan.shutdown"), send)
    await app({"type": "websocket"}, receiver("websocket.connect"), send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
    with pytest.raises(ValueError, match="http, not smtp"):
        await app({"type": "smtp"}, receiver(), send)


def test_the_asgi_application_does_not_import_aiohttp():
    """Neither the import of the package nor the application does."""
    code = (
        "import sys; from bandwidth_mfa_async.webhooks import receipt_asgi_app; receipt_asgi_app(print); "
        "sys.exit('aiohttp' in sys.modules)"
    )
    assert processes.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------- from the simulator


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


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


# ---------------------------------------------------------------------------------------------- waiting


@pytest.fixture
def tracker(clock) -> DeliveryTracker:
    return DeliveryTracker(clock=clock)


async def test_a_receipt_may_arrive_before_a_task_waits_for_it(tracker):
    """It may even arrive before the response to the request."""
    tracker(receipt())
    assert await tracker.wait(ID) == receipt()
    assert tracker.get(ID) == receipt()
    assert tracker.get("other") is None


async def test_several_tasks_may_wait_for_one_receipt(tracker, clock):
    """All of them get it, no other task wakes up, and no timer remains."""
    waiters = [asyncio.create_task(tracker.wait(ID)) for _ in range(3)]
    other = asyncio.create_task(tracker.wait("other", timeout=None))
    await asyncio.sleep(0)
    tracker(receipt())
    assert await asyncio.gather(*waiters) == [receipt()] * 3
    assert not other.done()
    other.cancel()
    await asyncio.wait([other])
    assert clock.pending == 0
    assert repr(tracker) == "<DeliveryTracker 1 receipts, 0 waiting>"


async def test_a_timeout_raises_a_receipt_timeout_error(tracker, clock):
    """It has the message id and the timeout, is picklable, and no waiter remains."""
    waiting = asyncio.create_task(tracker.wait(ID, timeout=5))
    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.1)
    with pytest.raises(ReceiptTimeoutError, match=f"message {ID} arrived within 5 s") as caught:
        await waiting
    assert isinstance(caught.value, (TimeoutError, MFAError))
    assert tracker._waiting == {}
    for twin in (pickle.loads(pickle.dumps(caught.value)), type(caught.value)(*caught.value.args)):
        assert (twin.message_id, twin.timeout, str(twin)) == (ID, 5, str(caught.value))
    tracker(receipt())  # a late receipt is still stored
    assert await tracker.wait(ID, timeout=0) == receipt()
    with pytest.raises(ReceiptTimeoutError):
        await tracker.wait("other", timeout=0)


async def test_real_time_is_the_default():
    """Without a clock, the tracker uses the clock of the event loop."""
    with pytest.raises(TimeoutError):
        await DeliveryTracker().wait(ID, timeout=0.001)


async def test_a_cancelled_waiter_does_not_affect_the_others(tracker, clock):
    """It leaves neither a future nor a timer."""
    gone, stays = (asyncio.create_task(tracker.wait(ID)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    tracker(receipt())
    assert await stays == receipt()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (tracker._waiting, clock.pending) == ({}, 0)


async def test_the_number_and_age_of_kept_receipts_are_bounded(clock):
    """The age restarts with a newer receipt of the same message."""
    tracker = DeliveryTracker(max_receipts=2, max_age=60, clock=clock)
    for name in "abc":
        tracker(receipt(name))
    assert [tracker.get(name) is not None for name in "abc"] == [False, True, True]
    clock.tick(30)
    tracker(receipt("b", type="message-failed"))
    clock.tick(30)
    assert tracker.get("c") is None
    found = tracker.get("b")
    assert found is not None
    assert not found.delivered
    clock.tick(30)
    assert tracker.get("b") is None


async def test_a_waiter_gets_a_receipt_that_was_dropped_before_it_resumed(clock):
    """Many other receipts may arrive before the waiting task resumes."""
    tracker = DeliveryTracker(max_receipts=1, clock=clock)
    waiting = asyncio.create_task(tracker.wait(ID))
    await asyncio.sleep(0)
    tracker(receipt())
    for number in range(100):
        tracker(receipt(f"other-{number}"))
    assert await waiting == receipt()


@pytest.mark.parametrize("options", [{"max_receipts": 0}, {"max_age": 0}, {"max_age": float("nan")}])
def test_invalid_bounds_of_a_tracker_are_refused(options):
    """A tracker that keeps nothing cannot work."""
    with pytest.raises(ConfigurationError):
        DeliveryTracker(**options)


def test_a_receipt_is_a_value():
    """It is frozen, comparable and picklable."""
    one = receipt()
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.time is not None
    assert one != receipt(time=(one.time + timedelta(seconds=1)).isoformat())
    with pytest.raises(AttributeError):
        one.delivered = False  # type: ignore[misc]
