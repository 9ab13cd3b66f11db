"""Credentials: Basic's constant header, and one bearer token for all calls."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from bandwidth_mfa_async import (
    AuthenticationError,
    DeadlineExceededError,
    Delivery,
    NotSentError,
    OAuth2ClientCredentials,
    PermissionDeniedError,
    RequestError,
    RetryPolicy,
    ServerError,
)
from bandwidth_mfa_async.telemetry import AttemptEvent
from bandwidth_mfa_async.testing import ManualClock
from tests.conftest import TO
from tests.support.fault_server import Act, FaultServer, answer, refused_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient


def token(value: str = "t1", expires_in: Any = 3600, **options: Any) -> Act:
    body = {"access_token": value, "token_type": "Bearer", "expires_in": expires_in}
    return answer(200, body, **options)


@pytest.fixture
async def token_server() -> AsyncIterator[FaultServer]:
    async with FaultServer(default=token()) as server:
        yield server


@pytest.fixture
def oauth(token_server: FaultServer) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials("client", "hunter2", f"{token_server.origin}/api/v1/oauth2/token")


def used(server: FaultServer) -> list[str]:
    return [seen.headers["authorization"] for seen in server.seen]


async def test_basic_sends_the_rfc_7617_header(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    await make_client().generate_messaging_code(template.to(TO))
    assert used(server) == ["Basic " + base64.b64encode(b"user:pass").decode()]


async def test_the_token_request_has_the_form_of_the_official_sdks(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """Basic with id and secret, and a form with the grant type."""
    await make_client(auth=oauth).generate_messaging_code(template.to(TO))
    (request,) = token_server.seen
    assert request.head.startswith("POST /api/v1/oauth2/token HTTP/1.1")
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"client:hunter2").decode()
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.body == b"grant_type=client_credentials"
    assert used(server) == ["Bearer t1"]


async def test_fifty_concurrent_calls_make_one_token_request(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """The token is fetched once for all waiting calls."""
    client = make_client(auth=oauth)
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(50)))
    assert (len(token_server.seen), len(server.seen)) == (1, 50)


async def test_a_token_is_refreshed_in_the_background_before_it_expires(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """A refresh begins 60 s before expiry; calls use the old token meanwhile."""
    clock = ManualClock()
    client = make_client(auth=oauth, clock=clock)
    await client.generate_messaging_code(template.to(TO))
    clock.tick(3539)
    await client.generate_messaging_code(template.to(TO))
    assert len(token_server.seen) == 1, "61 s remain"
    clock.tick(2)
    hanging = asyncio.Event()
    token_server.play(Act(then="hang", before=lambda _server: hanging.set()))
    for _ in range(3):
        await client.generate_messaging_code(template.to(TO))
    await hanging.wait()
    assert len(token_server.seen) == 2, "one refresh, however many calls"
    assert set(used(server)) == {"Bearer t1"}


async def test_an_expired_token_is_not_sent(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """The call waits for the next one."""
    clock = ManualClock()
    client = make_client(auth=oauth, clock=clock)
    await client.generate_messaging_code(template.to(TO))
    clock.tick(3600)
    token_server.play(token("t2"))
    await client.generate_messaging_code(template.to(TO))
    assert used(server) == ["Bearer t1", "Bearer t2"]


async def test_a_failed_refresh_is_retried_after_a_pause(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """While the token is valid, a failing token endpoint is requested every few seconds, not on every call."""
    clock = ManualClock()
    client = make_client(auth=oauth, clock=clock)
    await client.generate_messaging_code(template.to(TO))
    clock.tick(3550)
    token_server.default = answer(500, b"")
    for _ in range(10):
        await client.generate_messaging_code(template.to(TO))
    assert len(token_server.seen) == 2
    clock.tick(6)
    await client.generate_messaging_code(template.to(TO))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(token_server.seen) == 3
    assert set(used(server)) == {"Bearer t1"}


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_token_is_renewed_once(
    server: FaultServer,
    token_server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    oauth: Any,
    status: int,
) -> None:
    """401 or 403 causes one refresh, which costs no retry. A second rejection is raised. Each attempt has an event."""
    events: list[Any] = []
    hook = SimpleNamespace(on_event=events.append)
    client = make_client(auth=oauth, retry=RetryPolicy(max_attempts=1), hooks=[hook])
    token_server.play(token("old"), token("new"))
    await client.generate_messaging_code(template.to(TO))
    events.clear()
    server.play(answer(status, {"message": "Unauthorized"}))
    response = await client.generate_messaging_code(template.to(TO))
    assert used(server) == ["Bearer old", "Bearer old", "Bearer new"]
    assert (response.meta.attempts, response.meta.credential) == (2, "oauth2")
    attempts = [event for event in events if isinstance(event, AttemptEvent)]
    assert [(event.status, event.retry_in) for event in attempts] == [(status, 0.0), (200, None)]
    server.play(answer(status, b""), answer(status, b""))
    with pytest.raises((AuthenticationError, PermissionDeniedError)) as caught:
        await client.generate_messaging_code(template.to(TO))
    assert (len(server.seen), len(token_server.seen)) == (5, 3)
    assert caught.value.delivery is Delivery.REJECTED


async def test_rejected_tokens_are_not_renewed_at_once(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """A token that never worked is renewed when it is a minute old; until then each call costs one request."""
    clock = ManualClock()
    client = make_client(auth=oauth, clock=clock)
    server.default = answer(403, {"message": "Forbidden"})
    for _ in range(50):
        with pytest.raises(PermissionDeniedError):
            await client.generate_messaging_code(template.to(TO))
    assert (len(server.seen), len(token_server.seen)) == (50, 1)
    clock.tick(60)
    with pytest.raises(PermissionDeniedError):
        await client.generate_messaging_code(template.to(TO))
    assert (len(server.seen), len(token_server.seen)) == (52, 2)


async def test_a_rejection_by_the_token_endpoint_is_remembered_for_five_seconds(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """Each call gets the error with the rest of the pause; the token endpoint is not asked again."""
    clock = ManualClock()
    client = make_client(auth=oauth, clock=clock)
    token_server.default = answer(401, {"error": "invalid_client"})
    for _ in range(50):
        with pytest.raises(AuthenticationError, match="no token") as caught:
            await client.generate_messaging_code(template.to(TO))
    assert (len(server.seen), len(token_server.seen)) == (0, 1)
    assert caught.value.retry_after == pytest.approx(5.0)
    clock.tick(5)
    token_server.default = token()
    await client.generate_messaging_code(template.to(TO))


async def test_a_remembered_rejection_keeps_no_call_alive(
    token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """The number and the text of a call that waited for the token are not kept in memory."""

    class Recipient(str):
        """A number that can be referred to weakly."""

        __slots__ = ("__weakref__",)

    client = make_client(auth=oauth, retry=RetryPolicy(max_attempts=1))
    token_server.default = answer(401, {"error": "invalid_client"})
    kept: list[weakref.ref[Any]] = []

    async def call() -> None:
        number = Recipient(TO)
        kept.append(weakref.ref(number))
        with pytest.raises(AuthenticationError, match="no token"):
            await client.generate_messaging_code(attrs.evolve(template.to(TO), to=number))

    await asyncio.gather(*(call() for _ in range(3)))
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3


@pytest.mark.virtual_time
async def test_a_late_rejection_keeps_the_newer_token(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """Two calls with one old token: the second one rejected uses the token that the first one fetched."""
    client = make_client(auth=oauth)
    token_server.play(token("old"), token("new"))
    await client.generate_messaging_code(template.to(TO))
    server.play(answer(401, {"message": "Unauthorized"}), answer(401, {"message": "Unauthorized"}, delay=1.0))
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(2)))
    assert used(server) == ["Bearer old"] * 3 + ["Bearer new"] * 2
    assert len(token_server.seen) == 2


async def test_a_rejected_password_is_not_retried(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Basic credentials cannot be renewed."""
    server.play(answer(401, {"message": "Unauthorized"}))
    with pytest.raises(AuthenticationError):
        await make_client().generate_messaging_code(template.to(TO))
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("act", "error_type", "attempts"),
    [
        (answer(401, {"error": "invalid_client"}), AuthenticationError, 1),
        (answer(500, b""), ServerError, 3),
        (answer(200, b"<html>"), RequestError, 3),
        (Act(then="fin"), RequestError, 3),
    ],
    ids=["401", "500", "HTML", "disconnected"],
)
async def test_no_token_means_not_sent(
    server: FaultServer,
    token_server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    oauth: Any,
    act: Act,
    error_type: type[RequestError],
    attempts: int,
) -> None:
    """Nothing was sent to the service; transient failures are retried."""
    token_server.default = act
    with pytest.raises(error_type, match="no token") as caught:
        await make_client(auth=oauth).generate_messaging_code(template.to(TO))
    assert (caught.value.delivery, caught.value.attempts) == (Delivery.NOT_SENT, 0)
    assert (len(token_server.seen), len(server.seen)) == (attempts, 0)
    assert "hunter2" not in repr(caught.value)


async def test_concurrent_callers_get_separate_errors(
    token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """Each call stores its own data on its own instance."""
    token_server.default = answer(401, b"")
    client = make_client(auth=oauth)
    results = await asyncio.gather(
        *(client.generate_messaging_code(template.to(TO)) for _ in range(5)), return_exceptions=True
    )
    assert len({id(error) for error in results}) == 5
    assert len(token_server.seen) == 1


async def test_a_cancelled_caller_does_not_cancel_the_token_request(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """The caller that started the fetch may be cancelled; the others still get the token."""
    requested, release = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        requested.set()
        await release.wait()
        body = json.dumps({"access_token": "late", "expires_in": 60}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    slow_server = await asyncio.start_server(slow, "127.0.0.1", 0)
    port = slow_server.sockets[0].getsockname()[1]
    client = make_client(auth=OAuth2ClientCredentials("c", "s", f"http://127.0.0.1:{port}/token"))
    first = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    await requested.wait()
    second = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    release.set()
    await second
    assert used(server) == ["Bearer late"]
    slow_server.close()
    await slow_server.wait_closed()


@pytest.mark.virtual_time
async def test_waiting_for_a_token_ends_at_the_calls_deadline(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    token_server.play(Act(then="hang"))
    client = make_client(auth=oauth)
    with pytest.raises(DeadlineExceededError) as caught:
        await client.generate_messaging_code(template.to(TO), timeout=3.0)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert 3.0 <= caught.value.elapsed < 3.5
    assert not server.seen


async def test_an_unreachable_token_endpoint_is_not_sent(make_client: MakeClient, template: CodeTemplate) -> None:
    auth = OAuth2ClientCredentials("c", "s", f"http://127.0.0.1:{refused_port()}/token")
    with pytest.raises(NotSentError, match="no token"):
        await make_client(auth=auth).generate_messaging_code(template.to(TO))


async def test_a_short_lived_token_is_refreshed_at_half_its_life(
    server: FaultServer, token_server: FaultServer, make_client: MakeClient, template: CodeTemplate, oauth: Any
) -> None:
    """A token of 30 s is not fetched for every call."""
    clock = ManualClock()
    token_server.default = token("short", 30)
    client = make_client(auth=oauth, clock=clock)
    for _ in range(5):
        await client.generate_messaging_code(template.to(TO))
        clock.tick(2)
    assert len(token_server.seen) == 1


async def test_a_token_that_lives_for_a_moment_does_not_cause_a_flood(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Whatever the endpoint says, a token is used for a second, so that a client asks at most twice a second."""
    answers = answer(200, {"access_token": "t", "expires_in": 1e-9})
    async with FaultServer(default=answers) as tokens:
        client = make_client(auth=OAuth2ClientCredentials("c", "s", f"{tokens.origin}/token"))
        for _ in range(50):
            await client.generate_messaging_code(template.to(TO), timeout=2)
        assert len(tokens.seen) <= 10  # one, on a machine that makes 50 calls within half a second
