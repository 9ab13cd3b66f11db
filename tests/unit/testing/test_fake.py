"""`FakeTransport` under a real client."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from bandwidth_mfa_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    CodeRequest,
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    DeliveryUnknownError,
    DisconnectedError,
    Limits,
    MFAClient,
    NotFoundError,
    NotSentError,
    OAuth2ClientCredentials,
    PermissionDeniedError,
    Rate,
    RateLimitError,
    ReadTimeoutError,
    Resend,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    TLSError,
    VerificationLockedError,
)
from bandwidth_mfa_async.testing import FakeTransport, Outcome
from tests.conftest import APPLICATION, FROM, REQUEST, TO

SECRET_MESSAGE = "the {CODE} is for your eyes only"


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
async def mfa(fake):
    async with fake.client() as client:
        yield client


async def slow(fake, clock, **options):
    """Return a client whose clock only the test advances."""
    return fake.client(clock=clock, **options)


# ---------------------------------------------------------------------------------------------- without a script


async def test_without_a_script_everything_is_accepted(fake, mfa):
    """Ids are unique and have the lengths of the service's ids: 29 and 47 characters."""
    texts = [await mfa.generate_messaging_code(REQUEST) for _ in range(2)]
    calls = [await mfa.generate_voice_code(REQUEST) for _ in range(2)]
    assert [len(sent.message_id) for sent in texts] == [29, 29]
    assert [len(sent.call_id) for sent in calls] == [47, 47]
    assert len({sent.message_id for sent in texts} | {sent.call_id for sent in calls}) == 4
    assert [request.operation for request in fake.sent] == ["messaging", "messaging", "voice", "voice"]


async def test_without_a_script_only_the_configured_code_is_valid(mfa):
    """A test needs no script to accept and to reject a person."""
    assert (await mfa.verify_code(to=TO, code="123456")).valid
    assert not (await mfa.verify_code(to=TO, code="123457")).valid
    other = FakeTransport(code="0000")
    async with other.client() as client:
        assert (await client.verify_code(to=TO, code="0000")).valid


async def test_requests_are_recorded_as_encoded(fake, mfa, clock):
    """With the keys of the HTTP API and without omitted fields."""
    await mfa.generate_messaging_code(REQUEST)
    await mfa.verify_code(to=TO, code="123456", scope="login", expiration_time_in_minutes=5)
    assert fake.sent[0].document == {
        "to": TO,
        "from": FROM,
        "applicationId": APPLICATION,
        "scope": "login",
        "message": REQUEST.message,
        "digits": 6,
    }
    assert fake.requests[1].document == {"to": TO, "code": "123456", "scope": "login", "expirationTimeInMinutes": 5}
    client = await slow(fake, clock)
    await client.generate_voice_code(REQUEST)
    assert fake.sent[-1].time == clock.monotonic()
    await client.aclose()


async def test_the_repr_of_a_request_contains_no_secret(fake, mfa):
    """A failed assertion prints it, so it hides numbers, codes, texts and the path of the callback URL."""
    url = "https://example.com/secret-path"
    await mfa.generate_messaging_code(CodeRequest(TO, FROM, APPLICATION, message=SECRET_MESSAGE, callback_url=url))
    await mfa.verify_code(to=TO, code="98765432")
    shown = f"{fake.requests!r} {fake!r} {fake.requests[0]}"
    for secret in (TO, TO[1:], FROM, "98765432", "eyes only", "secret-path"):
        assert secret not in shown
    assert APPLICATION in shown
    assert repr(fake) == "<FakeTransport 2 requests, 0 outcomes to come>"


# ---------------------------------------------------------------------------------------------- with a script


@pytest.mark.parametrize(
    ("status", "error", "delivery"),
    [
        (400, BadRequestError, Delivery.REJECTED),
        (401, AuthenticationError, Delivery.REJECTED),
        (403, PermissionDeniedError, Delivery.REJECTED),
        (404, NotFoundError, Delivery.REJECTED),
        (418, APIStatusError, Delivery.REJECTED),
        (500, ServerError, Delivery.REJECTED),
        (502, ServerError, Delivery.UNKNOWN),
        (503, ServerError, Delivery.UNKNOWN),
    ],
)
async def test_a_scripted_status_raises_the_error_of_a_real_one(fake, mfa, status, error, delivery):
    """With the documented body, or an empty one as from a gateway."""
    fake.always(Outcome.answer(status))
    with pytest.raises(error) as caught:
        await mfa.generate_messaging_code(REQUEST)
    assert (caught.value.status, caught.value.delivery) == (status, delivery)


async def test_a_verify_lock_out_has_retry_after(fake, mfa):
    """The documented body of a verify's 429 contains the wait."""
    fake.script(Outcome.answer(429), operation="verify")
    with pytest.raises(VerificationLockedError) as caught:
        await mfa.verify_code(to=TO, code="123456")
    assert caught.value.retry_after == 120
    assert fake.pending == 0


async def test_a_response_may_have_any_body_and_headers(fake, mfa):
    """Bytes, text or JSON; header names are case-insensitive."""
    fake.script(
        Outcome.answer(400, {"error": "to is strange", "requestId": "r-1"}),
        Outcome.answer(429, b"{}", headers={"retry-after": 7200}),
        Outcome.answer(200, "<html>"),
        Outcome.answer(200, {"messageId": "mine"}),
    )
    with pytest.raises(BadRequestError, match="to is strange") as bad:
        await mfa.generate_messaging_code(REQUEST)
    assert bad.value.request_id == "r-1"
    with pytest.raises(RateLimitError) as limited:
        await mfa.generate_messaging_code(REQUEST)
    assert (limited.value.retry_after, limited.value.retry_stopped_by) == (7200, "retry_after")


async def test_a_success_may_have_any_id_and_verdict(fake, mfa):
    """An invalid body of a success is a `ResponseDecodeError`."""
    fake.script(Outcome.accepted("mine"), Outcome.answer(200, "<html>"), Outcome.accepted("call"))
    assert (await mfa.generate_messaging_code(REQUEST)).message_id == "mine"
    with pytest.raises(ResponseDecodeError):
        await mfa.generate_messaging_code(REQUEST)
    assert (await mfa.generate_voice_code(REQUEST)).call_id == "call"
    fake.script(Outcome.verified(False), Outcome.verified())
    assert not (await mfa.verify_code(to=TO, code="123456")).valid
    assert (await mfa.verify_code(to=TO, code="1111")).valid


async def test_the_client_retries_scripted_failures(fake, mfa):
    """Without real waiting; the response has the number of attempts."""
    fake.script(Outcome.answer(500), Outcome.not_sent())
    sent = await mfa.generate_messaging_code(REQUEST)
    assert (sent.meta.attempts, sent.meta.possible_duplicate) == (3, False)
    assert [request.written for request in fake.requests] == [True, False, True]
    assert len(fake.sent) == 2


@pytest.mark.parametrize("error", [NotSentError, ConnectTimeoutError, TLSError])
async def test_not_sent_outcomes_are_not_written(fake, mfa, error):
    """The delivery is NOT_SENT, and `sent` does not contain the attempts."""
    fake.always(Outcome.not_sent(error))
    with pytest.raises(error) as caught:
        await mfa.generate_messaging_code(REQUEST)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert fake.sent == []
    assert len(fake.requests) == (1 if error is TLSError else 3)


@pytest.mark.parametrize("error", [DisconnectedError, ReadTimeoutError, ResponseDecodeError, DeliveryUnknownError])
async def test_unknown_outcomes_are_written(fake, mfa, error):
    """They are not repeated by default; a repeated one is a possible duplicate."""
    fake.script(Outcome.unknown(error))
    with pytest.raises(error) as caught:
        await mfa.generate_messaging_code(REQUEST)
    assert caught.value.delivery is Delivery.UNKNOWN
    fake.script(Outcome.unknown(error))
    twice = mfa.with_options(retry=RetryPolicy(wait_initial=0, resend=Resend.AT_LEAST_ONCE))
    assert (await twice.generate_messaging_code(REQUEST)).meta.possible_duplicate
    assert len(fake.sent) == 3


async def test_precedence_of_outcomes(fake, mfa):
    """The script, then the default of the operation, then the default of all operations, then success."""
    fake.script(Outcome.answer(400), operation="voice")
    fake.script(Outcome.answer(404))
    fake.always(Outcome.answer(401))
    fake.always(Outcome.answer(403), operation="verify")
    with pytest.raises(NotFoundError):
        await mfa.generate_messaging_code(REQUEST)
    with pytest.raises(BadRequestError):
        await mfa.generate_voice_code(REQUEST)
    with pytest.raises(PermissionDeniedError):
        await mfa.verify_code(to=TO, code="123456")
    with pytest.raises(AuthenticationError):
        await mfa.generate_voice_code(REQUEST)
    fake.clear()
    assert fake.requests == []
    assert (await mfa.verify_code(to=TO, code="123456")).valid


async def test_an_outcome_may_be_a_function_of_the_request(fake, mfa):
    """It rejects one number and accepts the others."""
    fake.always(lambda sent: Outcome.answer(400) if sent.document["to"] == TO else Outcome.accepted())
    with pytest.raises(BadRequestError):
        await mfa.generate_messaging_code(REQUEST)
    await mfa.generate_messaging_code(CodeRequest("+447700900000", FROM, APPLICATION))


def test_a_script_accepts_only_outcomes_and_functions(fake):
    """A status alone is a TypeError."""
    with pytest.raises(TypeError):
        fake.script(500)
    with pytest.raises(TypeError):
        fake.always(None)


# ---------------------------------------------------------------------------------------------- time


async def test_silence_ends_with_the_attempt_timeout(fake, clock):
    """After 30 s on the client's clock; the request is recorded before."""
    client = await slow(fake, clock)
    fake.script(Outcome.silence())
    call = asyncio.create_task(client.generate_messaging_code(REQUEST))
    await clock.advance(29.9)
    assert not call.done()
    assert len(fake.sent) == 1
    await clock.advance(0.1)
    with pytest.raises(ReadTimeoutError):
        await call
    await client.aclose()


async def test_a_delay_uses_the_clients_clock(fake, clock):
    """Before a response or a failure, and at most until the timeout."""
    client = await slow(fake, clock, retry=RetryPolicy(max_attempts=1, attempt_timeout=10, connect_timeout=3))

    async def timed(outcome):
        fake.script(outcome)
        call = asyncio.create_task(client.generate_messaging_code(REQUEST))
        began = clock.monotonic()
        await clock.advance(0)
        while not call.done():
            await clock.advance(clock.next_timer - clock.monotonic())
        return clock.monotonic() - began, call.exception()

    assert await timed(Outcome.accepted(delay=4)) == (4, None)
    for outcome, seconds, kind in (
        (Outcome.answer(500, delay=5), 5, ServerError),
        (Outcome.unknown(delay=2), 2, DisconnectedError),
        (Outcome.unknown(delay=20), 10, ReadTimeoutError),
        (Outcome.not_sent(delay=2), 2, NotSentError),
        (Outcome.not_sent(delay=4), 3, ConnectTimeoutError),
    ):
        took, error = await timed(outcome)
        assert took == pytest.approx(seconds)
        assert type(error) is kind
    await client.aclose()


async def test_with_a_clock_the_default_retry_policy_applies(fake, clock):
    """The client waits for a `Retry-After`, and the deadline ends the call."""
    client = await slow(fake, clock)
    fake.script(Outcome.answer(503, {"error": "busy"}, headers={"Retry-After": 20}))
    call = asyncio.create_task(client.generate_messaging_code(REQUEST))
    await clock.advance(19.9)
    assert len(fake.sent) == 1
    await clock.advance(5)
    assert (await call).meta.attempts == 2
    fake.script(Outcome.silence())
    late = asyncio.create_task(client.generate_messaging_code(REQUEST, timeout=2))
    await clock.advance(2)
    with pytest.raises((DeadlineExceededError, ReadTimeoutError)):
        await late
    await client.aclose()


async def test_the_clients_limits_apply(fake, clock):
    """With one message per second, three messages take at least two seconds."""
    client = await slow(fake, clock, limits=Limits(rate=Rate(1)))
    calls = [asyncio.create_task(client.generate_messaging_code(REQUEST)) for _ in range(3)]
    while not all(call.done() for call in calls):
        await clock.advance(0.25)
    times = [request.time for request in fake.sent]
    assert times[2] - times[0] >= 1.9
    await client.aclose()


async def test_hooks_receive_the_events_of_every_attempt(fake):
    """The same events as with a real service."""
    events: list[Any] = []

    class Hook:
        def on_event(self, event):
            events.append(event)

    async with fake.client(hooks=[Hook()]) as client:
        fake.script(Outcome.answer(500))
        await client.generate_messaging_code(REQUEST)
    names = [type(event).__name__ for event in events]
    assert names == ["CallStartedEvent", "AttemptEvent", "AttemptEvent", "CallEvent"]
    assert [event.status for event in events[1:3]] == [500, 200]


async def test_concurrent_calls_are_recorded_once_each(fake, mfa):
    """They overlap and have different ids."""
    sent = await asyncio.gather(*(mfa.generate_messaging_code(REQUEST) for _ in range(500)))
    assert len({each.message_id for each in sent}) == len(fake.sent) == 500


# ---------------------------------------------------------------------------------------------- the transport


async def test_bearer_tokens_are_fetched_from_the_fake(fake):
    """Token requests are a separate operation, to which a script for all operations does not apply."""
    auth = OAuth2ClientCredentials("id", "secret")
    async with fake.client(auth=auth) as client:
        await client.generate_messaging_code(REQUEST)
        fake.script(Outcome.answer(403))
        await client.generate_messaging_code(REQUEST)
        operations = [request.operation for request in fake.sent]
        assert operations == ["token", "messaging", "messaging", "token", "messaging"]
        assert fake.sent[0].document == {"grant_type": "client_credentials"}
    fake.script(Outcome.answer(401), operation="token")
    async with fake.client(auth=auth) as client:
        with pytest.raises(AuthenticationError, match="no token"):
            await client.generate_messaging_code(REQUEST)


async def test_attach_replaces_the_transport_of_a_client_and_its_views(fake):
    """Only before the client's first call."""
    client = MFAClient("9900000", OAuth2ClientCredentials("id", "secret"))
    view = client.with_options(timeout=5)
    fake.attach(client)
    await view.generate_messaging_code(REQUEST)
    assert fake.sent[-1].operation == "messaging"
    with pytest.raises(ClientStateError, match="before its first call"):
        FakeTransport().attach(client)
    await client.aclose()
    with pytest.raises(ClientStateError, match="closed"):
        await client.generate_messaging_code(REQUEST)


async def test_closing_the_client_ends_a_silent_attempt(fake, clock):
    """The delivery is unknown, as with the real transport."""
    client = await slow(fake, clock)
    fake.script(Outcome.silence())
    call = asyncio.create_task(client.generate_messaging_code(REQUEST))
    await clock.advance(1)
    closing = asyncio.create_task(client.aclose(drain_timeout=3))
    await clock.advance(3)
    await closing
    with pytest.raises(DisconnectedError, match="closed before the response"):
        await call


async def test_a_cancelled_call_stays_recorded(fake, clock):
    """Its request was written, so the person may get a code."""
    client = await slow(fake, clock)
    fake.script(Outcome.silence())
    call = asyncio.create_task(client.generate_messaging_code(REQUEST))
    await clock.advance(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(fake.sent) == 1
    await client.warm_up(3)
    await client.aclose()


def test_the_client_is_bound_to_its_event_loop(fake):
    """The fake refuses the same mistakes as the real transport."""
    client = fake.client()

    async def use() -> None:
        await client.generate_messaging_code(REQUEST)

    asyncio.run(use())
    with pytest.raises(ClientStateError, match="event loop"):
        asyncio.run(use())


def test_the_fake_transport_has_the_signatures_of_the_real_one():
    """The client calls both in the same way."""
    from bandwidth_mfa_async._transport import Transport
    from bandwidth_mfa_async.testing import _fake

    for name in ("send", "warm_up", "abort", "aclose", "check"):
        real, ours = (inspect.signature(getattr(cls, name)).parameters for cls in (Transport, _fake._ScriptedTransport))
        assert list(real) == list(ours), name
