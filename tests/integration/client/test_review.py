"""Regression tests for defects found by attacking the client."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multidict import CIMultiDict

from bandwidth_mfa_async import (
    BadRequestError,
    CodeRequest,
    CodeTemplate,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    Limits,
    MFAClient,
    NotSentError,
    OAuth2ClientCredentials,
    RequestError,
    RetryPolicy,
    ServerError,
    VerifyCodeRequest,
    _wire,
)
from bandwidth_mfa_async._redaction import scrub
from bandwidth_mfa_async.telemetry import AttemptEvent, Event
from tests.conftest import APPLICATION, FROM, TO
from tests.support.fault_server import Act, FaultServer, answer, full_backlog, hung_call, refused_port, reply

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

OWN_ERROR = {"error": "Internal Error", "requestId": "r-1"}


@pytest.mark.virtual_time
@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_the_rate_is_kept_after_a_stall(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, lane: Any
) -> None:
    """Calls that wait for a slot do not hoard permits: when the service recovers, sends leave at the rate."""
    arrivals: list[float] = []
    loop = asyncio.get_running_loop()
    server.default = answer()
    server.default.before = lambda _server: arrivals.append(loop.time())
    client = make_client(limits=Limits(rate="20/s", max_in_flight=5))  # type: ignore[arg-type]
    stalled = answer(delay=3.0)
    server.play(*[stalled] * 5)
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO), lane=lane) for _ in range(60)))
    assert len(arrivals) == 55
    for index in range(len(arrivals) - 10):
        # Ten within half a second is the rate; allow one burst of 50 ms and the loop's own timing.
        assert arrivals[index + 10] - arrivals[index] > 0.4


@pytest.mark.virtual_time
async def test_a_bulk_run_on_few_slots_does_not_time_out(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """In the bulk lane the call's time does not pass while the item waits for a slot or the rate."""
    client = make_client(limits=Limits(max_in_flight=1))
    server.default = answer(delay=1.0)
    tasks = (client.generate_messaging_code(template.to(TO), lane="bulk", timeout=3) for _ in range(10))
    assert len(await asyncio.gather(*tasks)) == 10


@pytest.mark.virtual_time
async def test_a_retried_bulk_item_queues_again_without_losing_time(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """After a failure in a deep queue, the item goes to its end and does not time out there."""
    client = make_client(limits=Limits(rate="1/s"))  # type: ignore[arg-type]
    server.play(answer(503, OWN_ERROR))
    tasks = (client.generate_messaging_code(template.to(TO), lane="bulk", timeout=5) for _ in range(20))
    responses = await asyncio.gather(*tasks)
    assert max(response.meta.attempts for response in responses) == 2


@pytest.mark.parametrize("text", ["a." * 32_000, "1 " * 32_000, "+" * 64_000, "basic " * 10_000], ids=str.split)
def test_scrubbing_a_long_error_text_takes_milliseconds(text: str) -> None:
    """Scrubbing 64 KiB does not block the event loop."""
    began = time.process_time()
    scrub(text, ("secret",))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("borrowed", [False, True])
async def test_an_unsolicited_response_is_discarded(
    make_client: MakeClient, template: CodeTemplate, borrowed: bool
) -> None:
    """Also on the connections of a borrowed session."""
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(4096)
        writer.write(reply())
        await writer.drain()
        await release.wait()
        writer.write(reply(200, {"messageId": "FORGED"}))
        await writer.drain()
        await reader.read()
        writer.close()

    raw = await asyncio.start_server(serve, "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}/api/v1"
    async with aiohttp.ClientSession() as session:
        client = make_client(base_url=base_url, session=session if borrowed else None)
        await client.generate_messaging_code(template.to(TO))
        release.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert (await client.generate_messaging_code(template.to(TO))).message_id != "FORGED"
        await client.aclose()
    raw.close()
    await raw.wait_closed()


async def test_not_sent_error_is_never_raised_for_an_unknown_call(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """After a 502 for a message that was sent, a refused connection does not say that sending again is safe."""
    client = make_client(retry=RetryPolicy(max_attempts=2, wait_initial=0.0))

    def stop_listening(server: FaultServer) -> None:
        assert server._server is not None
        server._server.close()

    server.play(Act(reply(502, b"", headers={"Connection": "close"}), accepted=True, then="fin", before=stop_listening))
    with pytest.raises(DeliveryUnknownError) as caught:
        await client.generate_messaging_code(template.to(TO))
    assert (caught.value.delivery, caught.value.attempts) == (Delivery.UNKNOWN, 2)
    assert not isinstance(caught.value, NotSentError)
    assert caught.value.retry_stopped_by == "attempts"


@pytest.mark.parametrize("act", [Act(then="fin"), answer(200, b"<html>")], ids=["cut", "HTML"])
async def test_a_failed_token_request_is_not_a_delivery_unknown_error(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, act: Act
) -> None:
    """However the token request ended, `except DeliveryUnknownError` does not catch it."""
    async with FaultServer(default=act) as tokens:
        client = make_client(auth=OAuth2ClientCredentials("c", "s", f"{tokens.origin}/token"))
        with pytest.raises(NotSentError, match="no token"):
            await client.generate_messaging_code(template.to(TO))


async def test_a_replaced_token_is_scrubbed(server: FaultServer, make_client: MakeClient) -> None:
    """A call's own credentials are secrets even if the client has newer ones."""
    client = make_client(auth=OAuth2ClientCredentials("c", "s", f"{server.origin}/token"))

    def replace(_server: FaultServer) -> None:
        client._executor.state.authorizer._credentials[0]._header = "Bearer another-one"  # type: ignore[attr-defined]

    server.play(
        answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}),
        answer(400, {"error": "who is s3ntinel-token?"}, before=replace),
    )
    with pytest.raises(BadRequestError) as caught:
        await client.verify_code(to=TO, code="123456")
    assert "s3ntinel" not in repr(caught.value) + str(caught.value.args)


@pytest.mark.parametrize(
    "written", ["123/456", "12:34:56", "123,456", "1_2_3_4_5_6", "+1/919/555/1234", "919.555.1234", "(919)5551234"]
)
def test_numbers_with_separators_are_scrubbed(written: str) -> None:
    assert not any(char.isdigit() for char in scrub(f"no {written} here"))


def test_a_request_id_that_contains_the_number_is_dropped() -> None:
    """With or without its country code."""
    for name in ("+19195551234", "19195551234", "9195551234"):
        body = b'{"error": "x", "requestId": "%s"}' % name.encode()
        with pytest.raises(RequestError) as caught:
            _wire.decipher(_wire.MESSAGING, _wire.RawResponse(400, CIMultiDict(), body), secrets=lambda: (TO,))
        assert caught.value.request_id is None


async def test_a_cancelled_close_can_be_repeated(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """However an earlier close ended, the next one closes the pool."""
    client = make_client()
    call = await hung_call(server, client.generate_messaging_code(template.to(TO)))
    closing = asyncio.create_task(client.aclose(drain_timeout=1000))
    await asyncio.sleep(0)
    for task in (closing, call):
        task.cancel()
    await asyncio.wait([closing, call])
    await client.aclose()
    session = client._executor.state.transport._session
    assert session is None or session.closed


@pytest.mark.parametrize("drain_timeout", ["5", None, float("nan"), -1, True])
async def test_an_invalid_drain_timeout_leaves_the_client_usable(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, drain_timeout: Any
) -> None:
    """It is refused before anything is closed."""
    client = make_client()
    await client.generate_messaging_code(template.to(TO))
    with pytest.raises(ConfigurationError, match="drain_timeout"):
        await client.aclose(drain_timeout=drain_timeout)
    await client.generate_messaging_code(template.to(TO))
    await client.aclose()


@pytest.mark.virtual_time
async def test_closing_cancels_a_warm_up(make_client: MakeClient) -> None:
    """A connection that is not established does not delay the close."""
    with full_backlog() as port:
        client = make_client(base_url=f"http://127.0.0.1:{port}/api/v1")
        warming = asyncio.create_task(client.warm_up())
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.aclose(drain_timeout=0.5)
        assert loop.time() - began < 1
        with pytest.raises(NotSentError):
            await warming


async def test_closing_in_a_backoff_emits_each_attempt_once(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The attempt's event was emitted when its backoff began."""
    attempts: list[AttemptEvent] = []

    class Hook:
        def on_event(self, event: Event) -> None:
            if isinstance(event, AttemptEvent):
                attempts.append(event)

    client = make_client(hooks=[Hook()], retry=RetryPolicy(wait_initial=50.0, wait_max=50.0))
    server.play(answer(503, OWN_ERROR))
    call = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    while not attempts:
        await asyncio.sleep(0)
    await client.aclose(drain_timeout=0)
    with pytest.raises(ServerError) as caught:
        await call
    assert caught.value.retry_stopped_by == "closed"
    assert len(attempts) == 1


@pytest.mark.parametrize("lifetime", [b"1" + b"0" * 400, b"1e300", b"Infinity"])
def test_a_huge_token_lifetime_is_capped(lifetime: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An integer too large for a float is still a number of seconds."""
    monkeypatch.setattr(_wire._json, "orjson", None)
    body = b'{"access_token": "t", "expires_in": %s}' % lifetime
    assert _wire.decipher_token(_wire.RawResponse(200, CIMultiDict(), body)).lifetime == 1e9


async def test_a_token_that_arrives_old_is_used_once(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Its lifetime counts from its arrival, so that it is not fetched for ever."""
    async with FaultServer(default=answer(200, {"access_token": "t", "expires_in": 0.001}, delay=0.01)) as tokens:
        client = make_client(auth=OAuth2ClientCredentials("c", "s", f"{tokens.origin}/token"))
        await client.generate_messaging_code(template.to(TO), timeout=5)
        assert len(tokens.seen) <= 3


def test_almost_valid_values_are_refused() -> None:
    """Huge integers, foreign host names and half an IPv6 address are refused by name."""
    with pytest.raises(InvalidRequestError, match="expiration"):
        VerifyCodeRequest(TO, "1234", expiration_time_in_minutes=10**400)
    with pytest.raises(ConfigurationError, match="timeout"):
        RetryPolicy(timeout=10**400)
    with pytest.raises(ConfigurationError, match="application_name"):
        Limits(application_name=5)  # type: ignore[arg-type]
    for url in ("https://exämple.test", "http://[::1]evil.com/"):
        with pytest.raises(ConfigurationError, match="base_url"):
            MFAClient("9900000", OAuth2ClientCredentials("c", "s"), base_url=url)


def test_subclasses_of_values_are_accepted() -> None:
    """A float like NumPy's and a user's subclass of a request are encoded like any other."""

    class Minutes(float):
        pass

    class Mine(CodeRequest):
        pass

    assert b'"expirationTimeInMinutes":1.5' in _wire.encode(
        VerifyCodeRequest(TO, "1234", expiration_time_in_minutes=Minutes(1.5))
    )
    assert _wire.encode(Mine(TO, FROM, APPLICATION)) == _wire.encode(CodeRequest(TO, FROM, APPLICATION))


async def test_an_unreachable_proxy_is_not_sent(template: CodeTemplate) -> None:
    """Nothing is sent through a proxy that cannot connect."""
    from bandwidth_mfa_async import BasicAuth

    proxy = f"http://127.0.0.1:{refused_port()}"
    client = MFAClient("9", BasicAuth("u", "p"), proxy=proxy, retry=RetryPolicy(max_attempts=1))
    async with client:
        with pytest.raises(NotSentError, match="proxy"):
            await client.generate_messaging_code(template.to(TO))


@pytest.mark.parametrize("hooks", [[print], ["x"], [None]])
def test_a_hook_without_on_event_is_refused(hooks: list[Any]) -> None:
    """It is refused, not ignored."""
    with pytest.raises(ConfigurationError, match="on_event"):
        MFAClient("9", OAuth2ClientCredentials("c", "s"), hooks=hooks)
