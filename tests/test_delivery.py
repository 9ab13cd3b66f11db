"""What each fault on the wire means for the message: every row against a real server on loopback."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import pathlib
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trustme

from bandwidth_mfa_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    DeliveryUnknownError,
    DisconnectedError,
    MFAClient,
    NotFoundError,
    NotSentError,
    PermissionDeniedError,
    RateLimitError,
    ReadTimeoutError,
    RequestError,
    Resend,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    TLSError,
    VerificationLockedError,
    _wire,
)

from .conftest import TO
from .support.fault_server import Act, FaultServer, answer, full_backlog, refused_port, reply, taken, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async import CodeTemplate

    MakeClient = Callable[..., MFAClient]

pytestmark = pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)

ONCE = RetryPolicy(max_attempts=1)
QUICK: dict[str, Any] = {"wait_initial": 0.001, "wait_max": 0.002}
OWN_ERROR = {"error": "Internal Error", "requestId": "354cc8a3-6701-461e-8fa7-8671703dd898"}
BOMB = gzip.compress(bytes(100_000_000), 1)


async def send_error(client: MFAClient, template: CodeTemplate, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await client.generate_messaging_code(template.to(TO), **options)
    return caught.value


class Fault(NamedTuple):
    """What the server does, in the words of the notes' table of faults, and what has to come of it."""

    row: int
    name: str
    act: Act
    error: type[RequestError]
    delivery: Delivery
    kept: bool = False  # whether the connection is whole afterwards and serves the next request


def unanswered(row: int, name: str, act: Act) -> Fault:
    return Fault(row, name, act, DisconnectedError, Delivery.UNKNOWN)


def unreadable(row: int, name: str, act: Act, *, kept: bool = True) -> Fault:
    return Fault(row, name, act, ResponseDecodeError, Delivery.UNKNOWN, kept)


def refusal(row: int, status: int, error: type[RequestError] = APIStatusError, body: object = b"") -> Fault:
    return Fault(row, str(status), answer(status, body), error, Delivery.REJECTED, kept=True)


def head(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
CHUNKED = head("Transfer-Encoding: chunked")

FAULTS = [
    unanswered(10, "reset on accept", Act(on_accept="rst")),
    unanswered(10, "closed on accept", Act(on_accept="fin")),
    unanswered(11, "reset after the head", Act(read="head", then="rst")),
    unanswered(11, "closed after the head", Act(read="head", then="fin")),
    unanswered(12, "closed after the request", Act(then="fin", accepted=True)),
    unanswered(12, "reset after the request", Act(then="rst", accepted=True)),
    unanswered(12, "closed after the request, which was not taken", Act(then="fin")),
    unanswered(13, "reset at the first byte", Act(read="byte", then="rst")),
    unanswered(13, "closed at the first byte", Act(read="byte", then="fin")),
    unanswered(14, "half a head, then closed", Act(b"HTTP/1.1 200 OK\r\nContent-Le", then="fin")),
    unanswered(15, "truncated 200", Act(reply(length=500), then="fin", accepted=True)),
    unanswered(15, "reset in a 200", Act(reply(length=500), then="rst", accepted=True)),
    Fault(
        15,
        "400 truncated",
        Act(reply(400, OWN_ERROR, length=900), then="fin"),
        BadRequestError,
        Delivery.REJECTED,
    ),
    unreadable(16, "length too small", Act(reply(length=4), then="hang", accepted=True), kept=False),
    unreadable(16, "two lengths", Act(head("Content-Length: 2", "Content-Length: 4") + b"{}", then="fin"), kept=False),
    unreadable(16, "length -1", Act(head("Content-Length: -1") + b"{}", then="fin"), kept=False),
    unanswered(17, "chunked without an end", Act(CHUNKED + b'5\r\n{"mes\r\n', then="fin", accepted=True)),
    Fault(17, "chunk rubbish", Act(CHUNKED + b"zz\r\n", then="fin"), DeliveryUnknownError, Delivery.UNKNOWN),
    unreadable(17, "not HTTP", Act(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then="fin"), kept=False),
    unreadable(18, "no length, half a document", Act(head() + b'{"messageId": "x', then="fin"), kept=False),
    unreadable(19, "gzip bomb", answer(200, BOMB, headers={"Content-Encoding": "gzip"}), kept=False),
    unreadable(20, "gzip", answer(200, gzip.compress(b'{"messageId": "x"}'), headers={"Content-Encoding": "gzip"})),
    unreadable(20, "gzip cut short", answer(200, gzip.compress(b"{}")[:-4], headers={"Content-Encoding": "gzip"})),
    unreadable(20, "no gzip", answer(200, b'{"messageId": "x"}', headers={"Content-Encoding": "gzip"})),
    unreadable(21, "10 MB", answer(200, b"x" * 10_000_000), kept=False),
    unreadable(22, "200 HTML", answer(200, b"<html>", headers={"Content-Type": "text/html"})),
    unreadable(22, "200 empty", answer(200, b"")),
    unreadable(22, "200 null", answer(200, b"null")),
    unreadable(22, "200 array", answer(200, b"[]")),
    unreadable(22, "200 without an id", answer(200, {})),
    unreadable(22, "200 null id", answer(200, {"messageId": None})),
    unreadable(22, "200 empty id", answer(200, {"messageId": ""})),
    unreadable(22, "200 number id", answer(200, {"messageId": 7})),
    unreadable(22, "200 list id", answer(200, {"messageId": ["x"]})),
    unreadable(22, "200 old error", answer(200, {"result": "Invalid request"})),
    unreadable(23, "200 bad UTF-8", answer(200, b'{"messageId": "\xff"}')),
    unreadable(23, "200 deep", answer(200, b"[" * 60_000)),
    unreadable(23, "200 half a surrogate pair", answer(200, rb'{"messageId": "\ud800"')),
    unreadable(24, "204", Act(b"HTTP/1.1 204 No Content\r\n\r\n", accepted=True)),
    unreadable(
        25,
        "unasked 101",
        Act(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        kept=False,
    ),
    Fault(26, "303", answer(303, b"", headers={"Location": "/x"}), APIStatusError, Delivery.UNKNOWN, kept=True),
    Fault(27, "408 of a gateway", answer(408, b""), APIStatusError, Delivery.UNKNOWN, kept=True),
    refusal(28, 400, BadRequestError, {"error": "to number is required", "requestId": "r"}),
    refusal(28, 401, AuthenticationError, {"message": "Unauthorized"}),
    refusal(28, 403, PermissionDeniedError, {"Message": "explicit deny"}),
    refusal(28, 404, NotFoundError),
    refusal(28, 409, body={}),
    refusal(28, 413),
    Fault(
        28,
        "413 before the body",
        Act(reply(413, b"", headers={"Connection": "close"}), read="head", then="hang"),
        APIStatusError,
        Delivery.REJECTED,
    ),
    refusal(28, 415),
    refusal(28, 417),
    refusal(28, 422, body={}),
    refusal(28, 425),
    refusal(29, 429, RateLimitError, {}),
    Fault(29, "503 of the service", answer(503, OWN_ERROR), ServerError, Delivery.REJECTED, kept=True),
    Fault(29, "503 of a gateway", answer(503, b""), ServerError, Delivery.UNKNOWN, kept=True),
    Fault(30, "500 of the service", answer(500, OWN_ERROR), ServerError, Delivery.REJECTED, kept=True),
    Fault(30, "500 of a gateway", answer(500, b"<html>oops"), ServerError, Delivery.UNKNOWN, kept=True),
    Fault(30, "502", answer(502, OWN_ERROR), ServerError, Delivery.UNKNOWN, kept=True),
    Fault(30, "504", answer(504, b""), ServerError, Delivery.UNKNOWN, kept=True),
    refusal(31, 501, ServerError),
    refusal(31, 505, ServerError),
    refusal(31, 511, ServerError),
    unreadable(35, "20 KB header", answer(headers={"X-Long": "x" * 20_000}), kept=False),
    unreadable(35, "1000 headers", answer(headers={f"X-{i}": "x" for i in range(1000)}), kept=False),
]

# Seconds of real time: far below the 30 of an attempt, far above what a busy machine needs.
AT_ONCE = 5.0

# Each on a new connection and, where the fault does not need one, on a kept one.
FAULT_CASES = [
    pytest.param(fault, warm, id=f"{fault.row} {fault.name}-{'warm' if warm else 'cold'}")
    for fault in FAULTS
    for warm in (False, True)
    if not (warm and fault.act.on_accept)
]


@pytest.mark.uvloop
@pytest.mark.parametrize(("fault", "warm"), FAULT_CASES)
async def test_a_fault_has_one_meaning(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, fault: Fault, warm: bool
) -> None:
    """Error and outcome, what the server counted, and the pool, which hands out whole connections only."""
    client = make_client(retry=ONCE)
    if warm:
        await client.generate_messaging_code(template.to(TO))
    sent, seen = server.sent, len(server.seen)
    server.play(fault.act)
    error = await send_error(client, template)
    assert type(error) is fault.error or (
        fault.error is DeliveryUnknownError and isinstance(error, DeliveryUnknownError)
    )
    assert error.delivery is fault.delivery
    assert (error.attempts, error.operation) == (1, "generate_messaging_code")
    assert error.elapsed < AT_ONCE, "what the server has ended is not waited for"
    await until(lambda: not server.script)
    assert len(server.seen) - seen <= 1, "asked once"
    assert server.sent - sent == fault.act.accepted
    assert not (fault.act.accepted and error.delivery is not Delivery.UNKNOWN), "a text that nobody was told of"
    assert taken(client) == 0
    connections = server.accepted_connections
    response = await client.generate_messaging_code(template.to(TO))
    assert response.message_id == "1589228074636lm4k2je7j7jklbn2"
    assert server.accepted_connections - connections == (not fault.kept)
    await until(lambda: server.open_connections == 1)


# Answers that look like faults and are successes, with the id they bring.
ODD_SUCCESSES: list[tuple[int, str, Act, str]] = [
    (18, "no length, the end of the connection ends it", Act(head() + b'{"messageId": "x"}', then="fin"), "x"),
    (22, "an unknown charset", answer(200, headers={"Content-Type": "application/json; charset=hex"}), ""),
    (22, "text/html around JSON", answer(200, headers={"Content-Type": "text/html"}), ""),
    (23, "a key twice", answer(200, b'{"messageId": "x", "messageId": "y"}'), "y"),
    (25, "100 first", Act(b"HTTP/1.1 100 Continue\r\n\r\n" + reply()), ""),
    (25, "103 first", Act(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + reply()), ""),
    (25, "102 first", Act(b"HTTP/1.1 102 Processing\r\n\r\n" * 5 + reply()), ""),
]


@pytest.mark.uvloop
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    ("act", "message_id"), [row[2:] for row in ODD_SUCCESSES], ids=[f"{row[0]} {row[1]}" for row in ODD_SUCCESSES]
)
async def test_an_odd_success_is_one(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, act: Act, message_id: str, warm: bool
) -> None:
    """The id is read, nothing is asked twice, and the next call gets its own answer."""
    client = make_client()
    for _ in range(warm):
        await client.generate_messaging_code(template.to(TO))
    server.play(act)
    response = await client.generate_messaging_code(template.to(TO))
    assert response.message_id == (message_id or "1589228074636lm4k2je7j7jklbn2")
    assert (response.meta.attempts, response.meta.possible_duplicate) == (1, False)
    assert len(server.seen) == 1 + warm
    assert taken(client) == 0
    assert (await client.generate_messaging_code(template.to(TO))).message_id == "1589228074636lm4k2je7j7jklbn2"


async def accepted_or_not(client: MFAClient, template: CodeTemplate) -> Delivery:
    try:
        response = await client.generate_messaging_code(template.to(TO))
    except ResponseDecodeError as error:
        return error.delivery
    assert response.message_id == "x"
    return Delivery.ACCEPTED


ODD_JSON = ["NaN", "Infinity", "1e999", "9" * 5000, r'"\ud800"']


@pytest.mark.parametrize("faster", [True, False], ids=["orjson", "json"])
@pytest.mark.parametrize("value", ODD_JSON, ids=["NaN", "Infinity", "1e999", "5000 digits", "half a surrogate pair"])
async def test_what_json_readers_differ_on(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    faster: bool,
) -> None:
    """The outcome may be accepted or unknown, but it is one of the two."""
    if not faster:
        monkeypatch.setattr(_wire, "orjson", None)
    server.play(answer(200, b'{"messageId": "x", "n": %s}' % value.encode()))
    outcome = await accepted_or_not(make_client(retry=ONCE), template)
    assert outcome in {Delivery.ACCEPTED, Delivery.UNKNOWN}


@pytest.mark.parametrize("faster", [True, False], ids=["orjson", "json"])
@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-32"])
async def test_other_codings_of_json(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    monkeypatch: pytest.MonkeyPatch,
    coding: str,
    faster: bool,
) -> None:
    """A byte-order mark or UTF-16 is read or unknown, as the reader has it."""
    if not faster:
        monkeypatch.setattr(_wire, "orjson", None)
    server.play(answer(200, '{"messageId": "x"}'.encode(coding)))
    outcome = await accepted_or_not(make_client(retry=ONCE), template)
    assert outcome in {Delivery.ACCEPTED, Delivery.UNKNOWN}


async def test_a_bomb_is_not_inflated(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """100 MB in 436 KB: they are not inflated, and not much more than the first 64 KB is read."""
    import tracemalloc

    client = make_client(retry=ONCE)
    server.play(answer(200, BOMB, headers={"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        await send_error(client, template)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


# Answers that do not come, or never to their end.
NEVER: list[tuple[int, str, Act]] = [
    (33, "no answer", Act(then="hang", accepted=True)),
    (14, "half a head", Act(b"HTTP/1.1 200 OK\r\nContent-", then="hang")),
    (15, "half a body", Act(reply(length=500), then="hang", accepted=True)),
    (32, "a byte every 5 s", Act(reply(), drip=5.0, then="fin", accepted=True)),
    (25, "102 for ever", Act(b"HTTP/1.1 102 Processing\r\n\r\n" * 3, then="hang")),
    (25, "100 for ever", Act(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, then="hang")),
    (18, "a body without length and end", Act(head() + b'{"messageId": "x"}', then="hang", accepted=True)),
]


async def never_answered(
    server: FaultServer, client: MFAClient, template: CodeTemplate, act: Act, *, warm: bool
) -> float:
    """Send, find the outcome unknown and the pool whole, and return how long that took."""
    for _ in range(warm):
        await client.generate_messaging_code(template.to(TO))
    server.play(act)
    loop = asyncio.get_running_loop()
    began = loop.time()
    error = await send_error(client, template)
    passed = loop.time() - began
    assert type(error) is ReadTimeoutError
    assert error.delivery is Delivery.UNKNOWN
    assert error.retry_stopped_by is None, "an unknown outcome is not repeated, so nothing was stopped"
    assert len(server.seen) == 1 + warm
    assert server.sent == warm + act.accepted
    assert taken(client) == 0
    connections = server.accepted_connections
    assert (await client.generate_messaging_code(template.to(TO))).message_id == "1589228074636lm4k2je7j7jklbn2"
    assert server.accepted_connections == connections + 1, "the half-read connection was used again"
    return passed


@pytest.mark.virtual_time
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("act", [row[2] for row in NEVER], ids=[f"{row[0]} {row[1]}" for row in NEVER])
async def test_an_answer_that_does_not_come_is_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, act: Act, warm: bool
) -> None:
    """`attempt_timeout` covers head and body to the last byte; afterwards the outcome is unknown."""
    client = make_client(retry=RetryPolicy(attempt_timeout=30.0))
    assert 30.0 <= await never_answered(server, client, template, act, warm=warm) < 31.0


@pytest.mark.uvloop
async def test_answers_that_do_not_come_in_real_time(make_client: MakeClient, template: CodeTemplate) -> None:
    """The same on loops whose time is real: all of them at once, for one second."""

    async def one(act: Act, warm: bool) -> None:
        async with FaultServer() as server:
            client = make_client(base_url=server.base_url, retry=RetryPolicy(attempt_timeout=1.0))
            assert await never_answered(server, client, template, act, warm=warm) >= 0.99
            await client.aclose()

    await asyncio.gather(*(one(act, warm) for _, _, act in NEVER for warm in (False, True)))


@pytest.mark.virtual_time
async def test_the_deadline_of_the_call_ends_an_attempt(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """An attempt gets no more time than the call has left."""
    client = make_client()
    server.play(Act(then="hang"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    error = await send_error(client, template, timeout=7.0)
    assert (type(error), error.delivery) == (ReadTimeoutError, Delivery.UNKNOWN)
    assert 7.0 <= loop.time() - began < 7.5


@pytest.mark.uvloop
async def test_connection_refused_is_not_sent_and_tried_again(make_client: MakeClient, template: CodeTemplate) -> None:
    """Nobody listens: nothing was sent, so every policy tries again."""
    client = make_client(
        base_url=f"http://127.0.0.1:{refused_port()}/api/v1", retry=RetryPolicy(resend=Resend.NEVER_TWICE, **QUICK)
    )
    error = await send_error(client, template)
    assert (type(error), error.delivery, error.attempts) == (NotSentError, Delivery.NOT_SENT, 3)
    assert error.retry_stopped_by == "attempts"
    assert isinstance(error, ConnectionError)
    assert "gave up after 3 attempts" in error.__notes__[0]


@pytest.mark.virtual_time
async def test_a_connection_that_is_not_made_in_time_is_not_sent(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A full accept queue: `connect_timeout` ends the wait, the request never left."""
    with full_backlog() as port:
        client = make_client(
            base_url=f"http://127.0.0.1:{port}/api/v1", retry=RetryPolicy(max_attempts=1, connect_timeout=5.0)
        )
        error = await send_error(client, template)
        assert (type(error), error.delivery) == (ConnectTimeoutError, Delivery.NOT_SENT)
        assert 5.0 <= error.elapsed < 6.0
        error = await send_error(client, template, timeout=1.0)
        assert (type(error), error.delivery) == (DeadlineExceededError, Delivery.NOT_SENT)
        assert 1.0 <= error.elapsed < 1.5


async def test_a_name_that_does_not_resolve_is_not_sent(
    make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS says no, or an empty list (which aiohttp turns into a RuntimeError): nothing was sent."""
    import socket

    import aiohttp

    client = make_client(base_url="https://mfa.invalid/api/v1", retry=ONCE)
    answers: list[Any] = [socket.gaierror(socket.EAI_NONAME, "no such name"), []]

    async def resolve(*_args: Any, **_kwargs: Any) -> list[Any]:
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise OSError(None, str(said)) from said
        return said  # type: ignore[no-any-return]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    for _ in range(2):
        error = await send_error(client, template)
        assert isinstance(error, NotSentError)
        assert error.delivery is Delivery.NOT_SENT


@pytest.mark.uvloop
@pytest.mark.parametrize("how", ["untrusted", "self-signed", "wrong host", "expired", "not TLS"])
async def test_a_certificate_that_cannot_be_trusted_is_never_retried(
    make_client: MakeClient, template: CodeTemplate, how: str, tmp_path: pathlib.Path
) -> None:
    """TLS is verified by default; a failure is not sent, not retried, and the credentials stay here."""
    import datetime as dt

    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    expired = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if how == "expired" else None
    name = "elsewhere.example" if how == "wrong host" else "127.0.0.1"
    if how == "self-signed":
        pem = tmp_path / "self-signed.pem"
        pem.write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        context.load_cert_chain(pem)
    else:
        authority.issue_cert(name, not_after=expired).configure_cert(context)
    async with FaultServer(ssl=None if how == "not TLS" else context) as server:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # the server's handshakes
        if how == "not TLS":
            server.play(Act(b"HTTP/1.1 400 Bad Request\r\n\r\n", read="nothing", then="hang"))
        client = make_client(
            base_url=f"https://127.0.0.1:{server.port}/api/v1",
            ssl=None if how in {"untrusted", "self-signed"} else trusting,
        )
        error = await send_error(client, template)
        assert (type(error), error.delivery, error.attempts) == (TLSError, Delivery.NOT_SENT, 1)
        assert ("certificate" in str(error)) is (how != "not TLS")
        assert not server.seen
        await client.aclose()


async def test_a_trusted_certificate_works(make_client: MakeClient, template: CodeTemplate) -> None:
    """`ssl=` takes a context with one's own authority; `warm_up` makes the handshake ahead of the call."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with FaultServer(ssl=context) as server:
        client = make_client(base_url=server.base_url, ssl=trusting)
        await client.warm_up(3)
        assert (server.accepted_connections, server.seen) == (3, [])
        await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(3)))
        assert server.accepted_connections == 3
        await client.aclose()


async def test_a_redirect_is_not_followed(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """Neither body nor credentials go to where an answer points."""
    async with FaultServer() as elsewhere:
        for status in (301, 302, 307, 308):
            server.play(answer(status, b"", headers={"Location": f"{elsewhere.base_url}/stolen"}))
            error = await send_error(make_client(), template)
            assert (type(error), error.delivery, error.attempts) == (APIStatusError, Delivery.REJECTED, 1)
        assert elsewhere.accepted_connections == 0


# What an attempt ends with, and after which the default, the careful and the insistent policy send again.
REPEATS: list[tuple[str, Act, str]] = [
    ("429", answer(429, {}), "NRA"),
    ("408", answer(408, b""), "RA"),
    ("425", answer(425, b""), "RA"),
    ("500", answer(500, OWN_ERROR), "RA"),
    ("502", answer(502, b""), "RA"),
    ("503", answer(503, OWN_ERROR), "RA"),
    ("504", answer(504, b""), "RA"),
    ("cut connection", Act(then="fin"), "A"),
    ("truncated 200", Act(reply(length=500), then="fin"), "A"),
    ("200 HTML", answer(200, b"<html>"), "A"),
    ("400", answer(400, OWN_ERROR), ""),
    ("401", answer(401, {"message": "Unauthorized"}), ""),
    ("403", answer(403, {"Message": "explicit deny"}), ""),
    ("404", answer(404, b""), ""),
    ("409", answer(409, b"", headers={"Retry-After": "0"}), ""),
    ("302", answer(302, b"", headers={"Location": "/", "Retry-After": "0"}), ""),
]


@pytest.mark.parametrize("resend", list(Resend))
@pytest.mark.parametrize(("act", "policies"), [row[1:] for row in REPEATS], ids=[row[0] for row in REPEATS])
async def test_what_is_sent_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, act: Act, policies: str, resend: Resend
) -> None:
    """The table of design section 3, row by row and policy by policy."""
    client = make_client(retry=RetryPolicy(resend=resend, **QUICK))
    server.play(act)
    letter = {"NEVER_TWICE": "N", "REJECTED": "R", "AT_LEAST_ONCE": "A"}[resend.name]
    if letter in policies:
        response = await client.generate_messaging_code(template.to(TO))
        assert response.meta.attempts == 2
        unknown = act.then == "fin" or any(word in act.reply[:14] for word in (b"408", b"502", b"504", b"200"))
        assert response.meta.possible_duplicate is unknown
    else:
        error = await send_error(client, template)
        assert error.attempts == 1
        assert error.retry_stopped_by is None
        assert len(server.seen) == 1


async def test_the_worst_attempt_decides(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """One unknown attempt makes the final error unknown, whatever the last one says."""
    client = make_client(retry=RetryPolicy(resend=Resend.AT_LEAST_ONCE, **QUICK))
    server.play(Act(then="fin", accepted=True), answer(400, OWN_ERROR))
    error = await send_error(client, template)
    assert (type(error), error.delivery, error.attempts) == (BadRequestError, Delivery.UNKNOWN, 2)


@pytest.mark.parametrize(
    ("act", "attempts"),
    [
        (answer(500, OWN_ERROR), 2),
        (answer(503, OWN_ERROR), 2),
        (answer(502, b""), 1),
        (answer(504, b""), 1),
        (answer(408, b""), 1),
        (Act(then="fin"), 1),
        (answer(200, b"<html>"), 1),
        (answer(400, OWN_ERROR), 1),
    ],
    ids=["500", "503", "502", "504", "408", "cut", "200 HTML", "400"],
)
async def test_a_verify_is_repeated_on_500_and_503_only(
    server: FaultServer, make_client: MakeClient, act: Act, attempts: int
) -> None:
    """Asking twice may use up the code, so an unknown verify is raised, under every policy."""
    client = make_client(retry=RetryPolicy(resend=Resend.AT_LEAST_ONCE, **QUICK))
    server.default = answer(200, {"valid": True})
    server.play(act)
    if attempts == 1:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=TO, code="123456")
        assert caught.value.attempts == 1
    else:
        answered = await client.verify_code(to=TO, code="123456")
        assert (answered.valid, answered.meta.attempts) == (True, 2)
    assert len(server.seen) == attempts


async def test_a_verify_that_was_not_sent_is_repeated(
    server: FaultServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verify whose connection was refused has not been seen by anybody."""
    port = refused_port()
    client = make_client(base_url=f"http://127.0.0.1:{port}/api/v1")
    with pytest.raises(NotSentError) as caught:
        await client.verify_code(to=TO, code="123456")
    assert caught.value.attempts == 3


@pytest.mark.parametrize(
    ("headers", "text", "retry_after"),
    [
        ({}, "This number has exceeded verification attempts, please wait 2 minutes", 120.0),
        ({"Retry-After": "7"}, "please wait 2 minutes", 7.0),
        ({}, "locked", None),
    ],
)
async def test_a_verify_429_is_a_lock_out(
    server: FaultServer, make_client: MakeClient, headers: dict[str, str], text: str, retry_after: float | None
) -> None:
    """It is raised at once, says how long, and closes no gate for others."""
    client = make_client()
    server.play(answer(429, {"error": text, "requestId": "r"}, headers=headers))
    with pytest.raises(VerificationLockedError) as caught:
        await client.verify_code(to=TO, code="123456")
    assert (caught.value.retry_after, caught.value.attempts, caught.value.delivery) == (
        retry_after,
        1,
        Delivery.REJECTED,
    )
    server.play(answer(200, {"valid": False}))
    assert (await client.verify_code(to="+19195550000", code="123456")).valid is False


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("0.2", 0.2, 0.6),  # the floor is 0.2 s, the backoff after a 429 lies between 0.25 and 0.5 s here
        ("2", 2.0, 2.3),
        ("date", 3.0, 3.4),
        ("-1", 0.25, 0.6),
        ("soon", 0.25, 0.6),
    ],
)
async def test_retry_after_is_a_floor(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, value: str, least: float, most: float
) -> None:
    """A wait the service asks for is kept, with at most 10 % on top; rubbish is ignored."""
    headers = {"Retry-After": value}
    if value == "date":
        # Read against the answer's own Date: this server's clock is ten years slow.
        headers = {
            "Date": email.utils.formatdate(1_400_000_000, usegmt=True),
            "Retry-After": email.utils.formatdate(1_400_000_003, usegmt=True),
        }
    client = make_client(retry=RetryPolicy(wait_initial=0.25))
    server.play(answer(429, {}, headers=headers))
    response = await client.generate_messaging_code(template.to(TO))
    assert response.meta.attempts == 2
    assert least <= response.meta.elapsed <= most
    assert not response.meta.possible_duplicate


@pytest.mark.virtual_time
@pytest.mark.parametrize(("value", "stopped"), [("1e9", "retry_after"), ("61", "retry_after"), ("30", "deadline")])
async def test_a_retry_after_that_is_too_long_is_raised_at_once(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, value: str, stopped: str
) -> None:
    """Longer than `max_retry_after` or than the call's time: the caller learns it now, not then."""
    server.play(answer(429, {}, headers={"Retry-After": value}))
    error = await send_error(make_client(), template, timeout=20.0 if stopped == "deadline" else None)
    assert (type(error), error.retry_stopped_by, error.retry_after) == (RateLimitError, stopped, float(value))
    assert error.elapsed < 0.5


async def test_unasked_bytes_on_a_kept_connection_are_no_answer(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """A second answer after ours is not taken for the answer to the next request."""
    client = make_client()
    server.play(Act(reply() + reply(200, {"messageId": "nobody asked"}), accepted=True))
    first = await client.generate_messaging_code(template.to(TO))
    await asyncio.sleep(0)
    second = await client.generate_messaging_code(template.to(TO))
    assert first.message_id == second.message_id
    assert len(server.seen) == 2
