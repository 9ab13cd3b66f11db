"""Access to Redis: TLS, users, versions. A rejection is named, and fails no send unless `required` is set."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
import trustme

from bandwidth_mfa_async import ConfigurationError, Limits, RedisLimits
from bandwidth_mfa_async._config import Rate
from tests.integration.limits.test_redis_limits import until
from tests.integration.limits.test_redis_outage import warnings


@contextlib.asynccontextmanager
async def tls_proxy(port, certificate):
    """Serve TLS in front of a plain port, because the tests' Redis is built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    tasks = set()

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_tls_with_a_trusted_certificate_shares_the_limit(redis_server, make_limiter, tmp_path):
    """`rediss://` with the authority in the URL's options verifies the certificate and shares the limit."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with tls_proxy(redis_server.port, authority.issue_cert("localhost", "127.0.0.1")) as port:
        limiter = make_limiter(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}", rate=Rate(50))
        for _ in range(3):
            limiter.accepted(await limiter.acquire())
        assert "without" not in repr(limiter)
        await until(lambda: not limiter._task._running)
        limiter.abort(lambda: RuntimeError("over"))
        await limiter.aclose()
    with redis_server.client() as client:
        assert float(client.hget("bandwidth-mfa:{9900000}:messaging", "accepted")) == 3


async def test_an_untrusted_certificate_receives_no_data(redis_server, make_limiter, caplog):
    """No data is sent to a server with an untrusted certificate; sends continue."""
    async with tls_proxy(redis_server.port, trustme.CA().issue_cert("127.0.0.1")) as port:
        limiter = make_limiter(f"rediss://127.0.0.1:{port}/0", rate=Rate(50))
        await limiter.acquire()
        assert "without" in repr(limiter)
    assert len(warnings(caplog)) == 1
    with redis_server.client() as client:
        assert client.keys() == []


@pytest.fixture
def users(redis_server):
    """Create a user with exactly the rights the limiter needs, and one that may not run scripts."""
    with redis_server.client() as client:
        commands = ["+evalsha", "+eval", "+time", "+hgetall", "+hmset", "+hset", "+hdel", "+pexpire", "+select"]
        client.acl_setuser(
            "limiter", enabled=True, passwords=["+pass:w0rd"], keys=["bandwidth-mfa:*"], commands=commands
        )
        client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+get"])
        yield f"127.0.0.1:{redis_server.port}"
        client.acl_deluser("limiter", "reader")


async def test_a_user_with_minimal_rights_shares_the_limit(users, make_limiter):
    """User and password come from the URL, percent-encoded; no other commands are needed."""
    limiter = make_limiter(f"redis://limiter:pass%3Aw0rd@{users}/0", rate=Rate(50))
    for _ in range(3):
        limiter.accepted(await limiter.acquire())
    assert "without" not in repr(limiter)
    status = await RedisLimits(f"redis://limiter:pass%3Aw0rd@{users}/0", key="9900000").status()
    assert status.rate == 50


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://limiter:hunter2@{}/0", "wrong user or password"),
        ("redis://stranger:hunter2@{}/0", "wrong user or password"),
        ("redis://reader:pw@{}/0", "this user may not run"),
        ("redis://{}/99", "no such database"),
    ],
)
async def test_a_rejection_by_redis_is_named(users, make_limiter, caplog, url, reason):
    """By default Redis's rejection is logged and the send continues; with `required` every call fails."""
    limiter = make_limiter(url.format(users))
    await limiter.acquire()
    assert reason in warnings(caplog)[0]
    strict = make_limiter(url.format(users), required=True)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            await strict.acquire()
    assert "hunter2" not in caplog.text + str(caught.value)
    with pytest.raises(ConfigurationError, match=reason):
        await RedisLimits(url.format(users), key="9900000").status()


async def test_a_redis_out_of_memory_is_named(redis_server, make_limiter, caplog):
    """Out of memory is named too; redis-py has a separate error class for it."""
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            await make_limiter(redis_server.url).acquire()
        finally:
            client.config_set("maxmemory", 0)
    assert "accepts no writes: it is out of memory" in warnings(caplog)[0]


@pytest.mark.parametrize(
    "said",
    [
        "ERR unknown command 'EVALSHA'",
        "ERR Error running script: Write commands not allowed after non deterministic commands",
    ],
)
async def test_a_redis_that_is_too_old_is_named(make_limiter, caplog, said):
    """A Redis without scripts, or whose scripts may not read the time, is reported as too old."""

    async def serve(reader, writer):
        while await reader.readline():
            writer.write(f"-{said}\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        limiter = make_limiter(url)
        await limiter.acquire()
        assert "too old" in warnings(caplog)[0]
        strict = make_limiter(url, required=True)
        with pytest.raises(ConfigurationError, match="too old"):
            await strict.acquire()
        await limiter.aclose()
        await strict.aclose()
    finally:
        server.close()
        await server.wait_closed()


async def test_an_unreachable_required_redis_is_no_error(own_redis, make_limiter):
    """Only a rejection is an error, because an outage ends by itself."""
    own_redis.kill()
    limiter = make_limiter(own_redis.url, required=True)
    await limiter.acquire()
    assert "without" in repr(limiter)


async def test_a_required_redis_that_rejects_the_client_fails_the_send(users, server, make_client, template):
    """The send fails with a ConfigurationError and nothing is sent."""
    shared = RedisLimits(f"redis://stranger:x@{users}", key="9900000", required=True)
    client = make_client(limits=Limits(shared=shared))
    with pytest.raises(ConfigurationError, match="wrong user or password"):
        await client.generate_messaging_code(template.to("+19195551234"))
    await client.aclose()


@pytest.mark.parametrize("field", ["rate", "note"])
async def test_status_reports_a_foreign_hash(redis_server, field):
    """A hash of another program under our key is reported as an error without a traceback."""
    shared = RedisLimits(redis_server.url, key="9900000")
    with redis_server.client() as client:
        client.hset(shared.redis_keys("messaging")[0], field, "5" if field == "rate" else "x")
    with pytest.raises(ConfigurationError, match="holds something else"):
        await shared.status()


async def test_status_shows_rate_waiters_and_rejections(redis_server, make_limiter):
    """The status shows the rate, the waiters of each lane, and the latest rejections with their effect."""
    shared = RedisLimits(redis_server.url, key="9900000")
    assert (await shared.status()).state == "unused"
    one, other = make_limiter(redis_server.url), make_limiter(redis_server.url)
    for _ in range(30):
        one.accepted(await one.acquire())
    one.rejected(await one.acquire(), 0.6)
    await until(lambda: one.epoch == 1)
    waiting = [
        asyncio.create_task(limiter.acquire(2, lane)) for limiter, lane in ((one, "bulk"), (other, "interactive"))
    ]
    async with asyncio.timeout(10):
        while (status := await shared.status()).processes < 2:  # both reports are in flight
            await asyncio.sleep(0.005)
    assert (status.state, status.interactive, status.bulk, status.processes) == ("paused", 2, 2, 2)
    assert status.accepted == 30
    assert 0 < status.pause <= 0.6
    assert [(entry.count, entry.rate_before, entry.retry_after > 0.5) for entry in status.refusals] == [(1, None, True)]
    assert status.refusals[0].rate_after == status.rate
    await asyncio.gather(*waiting)
    await until(lambda: not one._task._running and not other._task._running)
    after = await shared.status()
    assert (after.state, after.interactive, after.bulk, after.processes) == ("holding", 0, 0, 0)
    assert (await shared.status("voice")).state == "unused"
