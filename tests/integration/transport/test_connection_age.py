"""Connections are retired between requests, so that DNS is asked again, and keep nothing of their first call."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from bandwidth_mfa_async import OAuth2ClientCredentials, RetryPolicy
from bandwidth_mfa_async._transport import _pool
from tests.conftest import TO
from tests.support.fault_server import FaultServer, answer, kept
from tests.support.resolver import Resolver

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate, MFAClient
    from bandwidth_mfa_async.testing import ManualClock
    from tests.support.clients import MakeClient

TOKEN = {"access_token": "t", "expires_in": 1}


def forget_names(mfa: MFAClient) -> None:
    """Empty aiohttp's cache of addresses, which has its own idea of time."""
    session = mfa._executor.state.transport._session
    assert session is not None
    assert isinstance(session.connector, _pool.CheckedConnector)
    session.connector.clear_dns_cache()


@pytest.mark.uvloop
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_a_connection_in_steady_use_follows_a_failover(
    make_client: MakeClient,
    server: FaultServer,
    template: CodeTemplate,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    borrowed: bool,
) -> None:
    """A name that points elsewhere now is followed within about a minute; no request is lost on the way."""
    async with FaultServer() as other:
        resolver = Resolver([f"127.0.0.1:{server.port}"], [f"127.0.0.1:{other.port}"])
        monkeypatch.setattr(aiohttp.connector, "DefaultResolver", lambda **_options: resolver)
        async with aiohttp.ClientSession() as session:
            mfa = make_client(
                base_url="http://service.localhost/api/v1", clock=clock, session=session if borrowed else None
            )
            for _ in range(6):
                await mfa.generate_messaging_code(template.to(TO))
                forget_names(mfa)
                clock.tick(9.5)
            assert (len(server.seen), server.accepted_connections, len(other.seen)) == (6, 1, 0)
            clock.tick(15.1)  # 72.1 s in all
            for _ in range(2):
                await mfa.generate_messaging_code(template.to(TO))
            assert (len(server.seen), other.accepted_connections, len(other.seen)) == (6, 1, 2)
            assert resolver.asked == 2
            await mfa.aclose()


async def test_the_token_endpoint_is_followed_too(
    make_client: MakeClient, server: FaultServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, template: Any
) -> None:
    """Tokens are fetched over the same pool."""
    async with FaultServer(default=answer(200, TOKEN)) as first, FaultServer(default=answer(200, TOKEN)) as second:
        resolver = Resolver([f"127.0.0.1:{first.port}"], [f"127.0.0.1:{second.port}"])
        monkeypatch.setattr(aiohttp.connector, "DefaultResolver", lambda **_options: resolver)
        auth = OAuth2ClientCredentials("id", "secret", token_url="http://token.localhost/token")
        mfa = make_client(auth=auth, clock=clock)
        for tokens in ((1, 0), (2, 0), (2, 1)):
            await mfa.generate_messaging_code(template.to(TO))
            assert (len(first.seen), len(second.seen)) == tokens
            forget_names(mfa)
            clock.tick(20.0 if tokens == (1, 0) else 60.0)


async def test_ages_differ(make_client: MakeClient, clock: ManualClock) -> None:
    """Connections that were opened together are not all opened again together."""
    mfa = make_client(clock=clock)
    await mfa.warm_up(20)
    session = mfa._executor.state.transport._session
    assert session is not None
    assert isinstance(session.connector, _pool.CheckedConnector)
    ages = {at - clock.monotonic() for at in session.connector._retire_at.values()}
    assert len(ages) == 20
    assert 48 <= min(ages) < max(ages) <= 72
    assert kept(mfa) == 20


class Value:
    """What a framework keeps in a context variable for the time of a request."""


@pytest.mark.virtual_time
@pytest.mark.uvloop
@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
@pytest.mark.parametrize("auth", ["basic", "oauth2"])
async def test_the_context_of_the_first_call_ends_with_it(
    make_client: MakeClient, server: FaultServer, template: CodeTemplate, auth: str
) -> None:
    """Neither a connection nor a timer or task of ours keeps the context variables of the call that needed it first."""
    variable: contextvars.ContextVar[Value] = contextvars.ContextVar("request")
    options: dict[str, Any] = {"retry": RetryPolicy(timeout=1.0)}
    if auth == "oauth2":
        server.play(answer(200, {"access_token": "t", "expires_in": 3600}))
        options["auth"] = OAuth2ClientCredentials("id", "secret", token_url=f"{server.origin}/token")
    mfa = make_client(**options)
    seen: list[weakref.ref[Value]] = []

    async def call() -> None:
        value = Value()
        seen.append(weakref.ref(value))
        variable.set(value)
        await mfa.generate_messaging_code(template.to(TO))

    context = contextvars.Context()
    await asyncio.get_running_loop().create_task(call(), context=context)
    del context
    await asyncio.sleep(6)  # a loop may keep a cancelled timer, of at most 5 s here, until its time has come
    gc.collect()
    assert kept(mfa) == 1
    assert seen[0]() is None


async def test_a_connection_that_opens_as_its_call_is_cancelled_is_closed(
    make_client: MakeClient, server: FaultServer, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that opens it has ended, and the call that wants it does not get it."""
    opened: list[Any] = []
    real = aiohttp.TCPConnector._create_connection

    async def create(*args: Any) -> Any:
        opened.append(await real(*args))
        call.cancel()
        return opened[-1]

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", create)
    mfa = make_client()
    call = asyncio.ensure_future(mfa.generate_messaging_code(template.to(TO)))
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    assert not opened[0].is_connected()
    assert not server.seen
