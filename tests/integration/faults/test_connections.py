"""Rows 1 to 9 of the fault table, before there is a connection, so nothing was sent; and rows 11 and 34."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme

from bandwidth_mfa_async import (
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    DisconnectedError,
    MFAClient,
    NotSentError,
    ReadTimeoutError,
    RetryPolicy,
    TLSError,
)
from bandwidth_mfa_async._transport import Body, absolute_url, request_headers
from tests.integration.faults.watch import ACCEPTED, MATRIX, REPEATED, Watch, prepare, send
from tests.support.certificates import serving, trusting
from tests.support.fault_server import Act, FaultServer, full_backlog, hung_call, kept, reply, until
from tests.support.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.clients import MakeClient

pytestmark = MATRIX

PATIENT = RetryPolicy(max_attempts=1, connect_timeout=5.0)
NOT_SENT = (NotSentError, Delivery.NOT_SENT)
TOO_LATE = (ConnectTimeoutError, Delivery.NOT_SENT)


async def left_alone(
    make_client: MakeClient, authority: trustme.CA | None = None, *, warm: bool, **options: Any
) -> tuple[MFAClient, FaultServer]:
    """Make a client of a server that has stopped, after one response if `warm`; its port is free."""
    async with FaultServer(ssl=serving(authority) if authority else None) as server:
        client = make_client(base_url=server.base_url, **options)
        await prepare(server, client, warm=warm)
    await until(lambda: not kept(client))
    return client, server


async def test_connection_refused(make_client: MakeClient, watch: Watch, warm: bool) -> None:
    """Never listening, or gone since: not sent, and retried as often as the policy allows."""
    client, gone = await left_alone(make_client, warm=warm)
    error = await watch.of(send(client), client, gone)
    await watch.shows(outcome=NOT_SENT, ledger=(0, 0), pool=0, elapsed=REPEATED)
    assert (error.attempts, error.retry_stopped_by) == (3, "attempts")


async def test_a_full_accept_queue_ends_with_a_timeout(make_client: MakeClient, watch: Watch, warm: bool) -> None:
    """A connection that is neither accepted nor refused ends with `connect_timeout` or the call's deadline."""
    client, gone = await left_alone(make_client, warm=warm, retry=PATIENT)
    with full_backlog(gone.port):
        await watch.of(send(client), client, gone)
        await watch.shows(outcome=TOO_LATE, ledger=(0, 0), pool=0, elapsed=5.0)
        await watch.of(send(client.with_options(timeout=1.0)), client, gone)
        outcome = (DeadlineExceededError, Delivery.NOT_SENT)
        await watch.shows(outcome=outcome, ledger=(0, 0), pool=0, elapsed=1.0)


async def test_a_full_pool_ends_with_the_connect_timeout(
    server: FaultServer, make_client: MakeClient, watch: Watch, warm: bool
) -> None:
    """With one connection in a borrowed session the second call waits for `connect_timeout`, and was not sent."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        client = make_client(session=session, retry=PATIENT)
        await prepare(server, client, warm=warm)
        holder = await hung_call(server, send(client))
        await watch.of(send(client), client, server)
        holder.cancel()
        await asyncio.wait([holder])
        await watch.shows(outcome=TOO_LATE, ledger=(0, 0), pool=0, elapsed=5.0)
        await watch.serves_again()
        await client.aclose()


@pytest.fixture
async def resolved(server: FaultServer, make_client: MakeClient) -> AsyncIterator[MakeClient]:
    """Make clients of the fault server under a name that the test's own resolver resolves."""
    sessions: list[aiohttp.ClientSession] = []

    def make(resolver: Resolver, **options: Any) -> MFAClient:
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        sessions.append(aiohttp.ClientSession(connector=connector))
        return make_client(base_url=f"http://mfa.localhost:{server.port}/api/v1", session=sessions[-1], **options)

    yield make
    for session in sessions:
        await session.close()


@pytest.mark.parametrize(
    "said",
    [OSError(None, "DNS"), socket.gaierror(socket.EAI_AGAIN, "later"), socket.gaierror(socket.EAI_NONAME, "none"), []],
    ids=["fails", "try again", "no such name", "empty list"],
)
async def test_a_name_that_is_not_resolved_is_not_sent(
    server: FaultServer, resolved: MakeClient, watch: Watch, said: Any, warm: bool
) -> None:
    """An error, or an empty list, which aiohttp turns into a RuntimeError: not sent, and retried."""
    resolver = Resolver(*[["127.0.0.1"]] * warm, said)
    client = resolved(resolver)
    await prepare(server, client, warm=warm, keep=False)
    error = await watch.of(send(client), client, server)
    await watch.shows(outcome=NOT_SENT, ledger=(0, 0), pool=0, elapsed=REPEATED)
    assert (error.attempts, resolver.asked) == (3, warm + 3)
    resolver.answers = [["127.0.0.1"]]
    await watch.serves_again()


async def test_a_resolver_that_hangs_ends_with_the_connect_timeout(
    server: FaultServer, resolved: MakeClient, watch: Watch, warm: bool
) -> None:
    """`connect_timeout` covers name resolution as well."""
    client = resolved(Resolver(*[["127.0.0.1"]] * warm, "hang"), retry=PATIENT)
    await prepare(server, client, warm=warm, keep=False)
    await watch.of(send(client), client, server)
    await watch.shows(outcome=TOO_LATE, ledger=(0, 0), pool=0, elapsed=5.0)
    assert server.accepted_connections == warm


async def test_the_second_address_is_used_if_the_first_is_dead(
    server: FaultServer, resolved: MakeClient, watch: Watch, warm: bool
) -> None:
    """Within the same attempt."""
    client = resolved(Resolver(["127.0.0.2", "127.0.0.1"]))
    await prepare(server, client, warm=warm, keep=False)
    response = await watch.of(send(client), client, server)
    await watch.shows(outcome=ACCEPTED, ledger=(1, 1), pool=1, elapsed=0)
    assert response.meta.attempts == 1


@pytest.mark.parametrize("how", ["untrusted", "self-signed", "wrong host", "expired"])
async def test_an_untrusted_certificate_is_not_sent_and_not_retried(
    make_client: MakeClient, watch: Watch, how: str, warm: bool
) -> None:
    """TLS is verified by default, and the credentials are not written."""
    authority = trustme.CA()
    by_others = how in {"untrusted", "self-signed"}
    client, gone = await left_alone(
        make_client, authority, warm=warm, ssl=None if by_others and not warm else trusting(authority)
    )
    bad = serving(trustme.CA() if by_others else authority, how)
    async with FaultServer(ssl=bad, port=gone.port) as server:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # the server's handshakes
        error = await watch.of(send(client), client, server)
        await watch.shows(outcome=(TLSError, Delivery.NOT_SENT), ledger=(0, 0), pool=0, elapsed=0)
        assert error.attempts == 1
        assert "certificate" in str(error)
        await client.aclose()


@pytest.mark.parametrize(
    ("act", "error", "attempts", "elapsed"),
    [
        (Act(on_accept="rst"), NotSentError, 3, REPEATED),
        (Act(on_accept="fin"), NotSentError, 3, REPEATED),
        (Act(read="nothing", then="hang"), ConnectTimeoutError, 3, (15.0, 15.0 + REPEATED[1])),
        (Act(reply(400, b""), read="nothing", then="hang"), TLSError, 1, 0),
    ],
    ids=["reset", "closed", "hangs", "no TLS"],
)
async def test_a_failed_tls_handshake_is_not_sent(
    make_client: MakeClient, watch: Watch, act: Act, error: type, attempts: int, elapsed: Any, warm: bool
) -> None:
    """A connection that ends before TLS begins is retried; a server that does not speak TLS is not."""
    authority = trustme.CA()
    policy = RetryPolicy(connect_timeout=5.0, wait_initial=0.001, wait_max=0.002)
    client, gone = await left_alone(make_client, authority, warm=warm, ssl=trusting(authority), retry=policy)
    async with FaultServer(port=gone.port) as server:
        server.play(*[act] * attempts)
        failure = await watch.of(send(client), client, server)
        await watch.shows(outcome=(error, Delivery.NOT_SENT), ledger=(0, 0), pool=0, elapsed=elapsed)
        assert (failure.attempts, server.accepted_connections) == (attempts, attempts)
        await client.aclose()


# 11 and 34: a body that is larger than any buffer. No code request is, so use the transport directly.


@pytest.mark.filterwarnings("ignore:Sending a large body directly")
@pytest.mark.parametrize(
    ("act", "error", "elapsed"),
    [
        (Act(read="head", then="rst"), DisconnectedError, 0),
        (Act(read="head", then="fin"), DisconnectedError, 0),
        (Act(read="head", delay=60.0, then="fin"), ReadTimeoutError, 30.0),
    ],
    ids=["11 rst", "11 fin", "34 the server stops reading"],
)
async def test_a_large_body_that_is_not_read_is_unknown(
    server: FaultServer, make_client: MakeClient, watch: Watch, act: Act, error: type, elapsed: float, warm: bool
) -> None:
    """Part of it may have arrived, so the outcome is unknown; the attempt's timeout covers writing."""
    client = make_client()
    await prepare(server, client, warm=warm)
    server.play(act)
    transport, body = client._executor.state.transport, Body(bytes(30_000_000))
    transport.check()
    url, headers = absolute_url(f"{server.base_url}/large"), request_headers()
    call = transport.send(url, headers, body, operation="x", timeout=30.0, connect_timeout=5.0)
    await watch.of(call, client, server)
    await watch.shows(outcome=(error, Delivery.UNKNOWN), ledger=(0, 0), pool=0, elapsed=elapsed)
    assert body.begun
    await watch.serves_again()
