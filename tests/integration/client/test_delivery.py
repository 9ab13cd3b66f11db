"""Faults on the wire: what is sent again, what a verify repeats, and how the call's deadline ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme

from bandwidth_mfa_async import (
    BadRequestError,
    Delivery,
    DeliveryUnknownError,
    DisconnectedError,
    MFAClient,
    NotSentError,
    ReadTimeoutError,
    RequestError,
    Resend,
    RetryPolicy,
    VerificationLockedError,
)
from tests.conftest import TO
from tests.integration.faults.answers import BOMB, OWN_ERROR
from tests.support import certificates
from tests.support.fault_server import Act, FaultServer, answer, refused_port, reply
from tests.support.resolver import Resolver

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient

pytestmark = pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)

ONCE = RetryPolicy(max_attempts=1)
QUICK: dict[str, Any] = {"wait_initial": 0.001, "wait_max": 0.002}


async def send_error(client: MFAClient, template: CodeTemplate, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await client.generate_messaging_code(template.to(TO), **options)
    return caught.value


async def test_a_compressed_bomb_is_not_inflated(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """100 MB in 436 KB: not inflated, and not much more than the first 64 KB is read."""
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
async def test_an_attempt_times_out_on_real_loops(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Where time cannot be skipped, too."""
    server.play(Act(then="hang"))
    error = await send_error(make_client(retry=RetryPolicy(attempt_timeout=0.1)), template)
    assert (type(error), error.delivery) == (ReadTimeoutError, Delivery.UNKNOWN)
    assert error.elapsed > 0.09


@pytest.mark.uvloop
async def test_connection_refused_is_not_sent_and_retried(make_client: MakeClient, template: CodeTemplate) -> None:
    """Nothing was sent, so every policy retries."""
    client = make_client(
        base_url=f"http://127.0.0.1:{refused_port()}/api/v1", retry=RetryPolicy(resend=Resend.NEVER_TWICE, **QUICK)
    )
    error = await send_error(client, template)
    assert (type(error), error.delivery, error.attempts) == (NotSentError, Delivery.NOT_SENT, 3)
    assert error.retry_stopped_by == "attempts"
    assert isinstance(error, ConnectionError)
    assert "gave up after 3 attempts" in error.__notes__[0]


async def test_a_trusted_certificate_works(make_client: MakeClient, template: CodeTemplate) -> None:
    """`ssl=` accepts a context with one's own authority; `warm_up` makes the handshake ahead of the call."""
    authority = trustme.CA()
    async with FaultServer(ssl=certificates.serving(authority)) as server:
        client = make_client(base_url=server.base_url, ssl=certificates.trusting(authority))
        await client.warm_up(3)
        assert (server.accepted_connections, server.seen) == (3, [])
        await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(3)))
        assert server.accepted_connections == 3
        await client.aclose()


# How an attempt ends, and which policies send again after it: N(EVER_TWICE), R(EJECTED), A(T_LEAST_ONCE).
REPEATS: list[tuple[str, Act, str]] = [
    ("429", answer(429, {}), "NRA"),
    ("408", answer(408, b""), "RA"),
    ("425", answer(425, b""), "RA"),
    ("500", answer(500, OWN_ERROR), "RA"),
    ("502", answer(502, b""), "RA"),
    ("503", answer(503, OWN_ERROR), "RA"),
    ("504", answer(504, b""), "RA"),
    ("lost connection", Act(then="fin"), "A"),
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
async def test_which_outcomes_are_sent_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, act: Act, policies: str, resend: Resend
) -> None:
    """Which errors are retried, error by error and policy by policy."""
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


async def test_one_unknown_attempt_makes_the_call_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Whatever the last attempt says."""
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
    ids=["500", "503", "502", "504", "408", "disconnected", "200 HTML", "400"],
)
async def test_a_verify_is_retried_only_on_500_and_503(
    server: FaultServer, make_client: MakeClient, act: Act, attempts: int
) -> None:
    """A second request may use up the code, so an unknown verify is raised under every policy."""
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


async def test_a_verify_that_was_not_sent_is_retried(
    server: FaultServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has not seen a verify whose connection was refused."""
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
async def test_a_429_on_verify_is_a_lock_out(
    server: FaultServer, make_client: MakeClient, headers: dict[str, str], text: str, retry_after: float | None
) -> None:
    """It is raised immediately with the wait, and pauses no other call."""
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
async def test_not_sent_error_is_not_raised_after_an_unknown_attempt(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The first attempt was disconnected, the second not sent: a handler of NotSentError must not send again."""
    server.play(Act(then="fin", accepted=True))
    connector = aiohttp.TCPConnector(resolver=Resolver(["127.0.0.1"], "hang"), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = make_client(
            base_url=f"http://mfa.localhost:{server.port}/api/v1",
            session=session,
            retry=RetryPolicy(max_attempts=2, resend=Resend.AT_LEAST_ONCE, **QUICK),
        )
        error = await send_error(client, template)
        await client.aclose()
    assert type(error) is DeliveryUnknownError
    assert (error.delivery, error.attempts, error.retry_stopped_by) == (Delivery.UNKNOWN, 2, "attempts")


@pytest.mark.virtual_time
async def test_a_response_interrupted_by_close_is_not_a_timeout(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Its head had arrived. The error is a lost connection, since no timeout expired."""
    server.play(Act(reply(length=500), then="hang", accepted=True))
    client = make_client(retry=ONCE)
    call = asyncio.ensure_future(send_error(client, template))
    await asyncio.sleep(1.0)
    await client.aclose(drain_timeout=0)
    assert isinstance(await call, DisconnectedError)
