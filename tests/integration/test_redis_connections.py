"""Connections to Redis follow a changed address and a changed authority, and keep nothing of their first caller."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import weakref

import pytest
import trustme

from bandwidth_mfa_async import LedgerError
from bandwidth_mfa_async._redis._connection import Connection
from bandwidth_mfa_async._redis._fail_fast import FailFastConnection, StoreUnavailableError
from bandwidth_mfa_async.testing import ManualClock
from tests.integration.limits.test_redis_access import tls_proxy


@contextlib.asynccontextmanager
async def forwarder(host, port, targets):
    """Forward connections to the last of some ports of 127.0.0.1; yield the own port and the open connections."""
    writers = []

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", targets[-1])
        writers.append(writer)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        writers.remove(writer)

    server = await asyncio.start_server(serve, host, port)
    try:
        yield server.sockets[0].getsockname()[1], writers
    finally:
        server.close()
        for writer in writers:
            writer.close()


@pytest.fixture(params=["patient", "fail fast"])
def connect(request):
    """Return a function that makes a connection of the ledger's kind, or of the limits'."""

    def make(url, clock=None):
        if request.param == "patient":
            return Connection(url, cluster=False, timeout=2.0, clock=clock or ManualClock())
        return FailFastConnection(url, 2.0, clock=clock)

    return make


async def ping(client):
    return await client.ping()


async def drained(writers):
    async with asyncio.timeout(5):
        while writers:
            await asyncio.sleep(0)


async def test_a_connection_in_steady_use_follows_a_failover(redis_server, connect, monkeypatch):
    """A name that points elsewhere now is followed within about a minute, and the old connection is closed."""
    clock = ManualClock()
    addresses = ["127.0.0.1"]
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *args, **options):
        return resolve(addresses[-1] if host == "redis.localhost" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with (
        forwarder("127.0.0.1", 0, [redis_server.port]) as (port, old),
        forwarder("127.0.0.2", port, [redis_server.port]) as (_, new),
    ):
        connection = connect(f"redis://redis.localhost:{port}/0", clock)
        for _ in range(5):
            assert await connection.call(ping)
            clock.tick(9.5)
        addresses.append("127.0.0.2")
        assert await connection.call(ping)
        assert (len(old), len(new)) == (1, 0)
        clock.tick(24.6)  # 72.1 s in all
        for _ in range(2):
            assert await connection.call(ping)
        assert len(new) == 1
        await drained(old)
        await connection.aclose()
        await drained(new)


async def test_an_operation_keeps_its_connection_while_others_get_a_new_one(redis_server):
    """An old connection is retired between operations."""
    clock = ManualClock()
    connection = Connection(redis_server.url, cluster=False, timeout=5.0, clock=clock)
    release = asyncio.Event()
    clients = []

    async def hold(client):
        clients.append(client)
        first = await client.client_id()
        await release.wait()
        return first, await client.client_id()

    async def look(client):
        clients.append(client)
        return await client.client_id()

    held = asyncio.ensure_future(connection.call(hold))
    while not clients:
        await asyncio.sleep(0)
    clock.tick(72.1)
    other = await connection.call(look)
    release.set()
    first, second = await held
    assert first == second != other
    assert clients[0] is not clients[1]
    with redis_server.client() as client:
        async with asyncio.timeout(5):
            while first in {int(each["id"]) for each in client.client_list()}:
                await asyncio.sleep(0.01)
        assert other in {int(each["id"]) for each in client.client_list()}
    await connection.aclose()


@contextlib.asynccontextmanager
async def replaced_certificate(redis_server, path):
    """Yield a TLS port, its open connections, and a function that replaces its certificate.

    The certificate's authority is in the file `path`. The function returns another one, which replaces that file.
    """
    authorities = [trustme.CA(), trustme.CA()]
    authorities[0].cert_pem.write_to_path(str(path))
    async with (
        tls_proxy(redis_server.port, authorities[0].issue_cert("127.0.0.1")) as first,
        tls_proxy(redis_server.port, authorities[1].issue_cert("127.0.0.1")) as second,
    ):
        targets = [first]
        async with forwarder("127.0.0.1", 0, targets) as (port, open_connections):

            def replace():
                targets.append(second)
                return lambda: authorities[1].cert_pem.write_to_path(str(path))

            yield port, open_connections, replace


async def test_a_changed_certificate_authority_is_followed(redis_server, connect, tmp_path):
    """A connection in steady use is replaced by one that the authority of now has certified."""
    path = tmp_path / "ca.pem"
    clock = ManualClock()
    async with replaced_certificate(redis_server, path) as (port, open_connections, replace):
        connection = connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={path}", clock)
        assert await connection.call(ping)
        (before,) = open_connections
        replace()()
        clock.tick(72.1)
        assert await connection.call(ping)
        assert open_connections[-1] is not before
        await connection.aclose()


async def test_a_certificate_that_was_refused_is_checked_with_the_authorities_of_now(redis_server, connect, tmp_path):
    """The file is replaced after the server's certificate, while operations fail."""
    path = tmp_path / "ca.pem"
    clock = ManualClock()
    async with replaced_certificate(redis_server, path) as (port, open_connections, replace):
        connection = connect(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={path}", clock)
        assert await connection.call(ping)
        replace_file = replace()
        for writer in tuple(open_connections):
            writer.close()
        await drained(open_connections)
        if isinstance(connection, FailFastConnection):
            with pytest.raises(StoreUnavailableError, match="certificate"):
                await connection.call(ping)
            replace_file()
            assert await connection.call(ping)
        else:
            pending = asyncio.ensure_future(connection.call(ping, max_wait=30.0))
            async with asyncio.timeout(5):
                while not clock.pending:
                    await asyncio.sleep(0)
            replace_file()
            async with asyncio.timeout(5):
                while not pending.done():  # the first try may find the closed connection, and the second the old file
                    if clock.pending:
                        clock.tick(clock.next_timer - clock.monotonic())
                    await asyncio.sleep(0)
            assert await pending
        await connection.aclose()


async def test_a_certificate_that_was_never_accepted_is_checked_again(redis_server, tmp_path):
    """A wrong setting is an error of the call; the next call reads the corrected file."""
    path = tmp_path / "ca.pem"
    async with replaced_certificate(redis_server, path) as (port, _, replace):
        replace_file = replace()
        connection = Connection(
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={path}", cluster=False, timeout=2.0, clock=ManualClock()
        )
        with pytest.raises(LedgerError, match="certificate"):
            await connection.call(ping)
        replace_file()
        assert await connection.call(ping)
        await connection.aclose()


class Value:
    """What a framework keeps in a context variable for the time of a request."""


@pytest.mark.uvloop
async def test_the_context_of_the_first_caller_ends_with_it(redis_server, connect):
    variable = contextvars.ContextVar("request")
    seen = []
    async with contextlib.aclosing(connect(redis_server.url)) as connection:

        async def call():
            value = Value()
            seen.append(weakref.ref(value))
            variable.set(value)
            assert await connection.call(ping)

        await asyncio.get_running_loop().create_task(call(), context=contextvars.Context())
        await asyncio.sleep(0)
        gc.collect()
        assert seen[0]() is None
