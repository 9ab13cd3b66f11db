"""How Redis is reached and what refuses us: TLS, users, versions; each named, and none a failed send unless asked."""

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
async def tls_in_front(port, certificate):
    """Serve TLS and pass everything on to a plain port: the Redis of the tests is built without TLS."""
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


async def test_tls(redis_server, make_limiter, tmp_path):
    """`rediss://` with the authority in the URL's options: the certificate is checked, and the limit is shared."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with tls_in_front(redis_server.port, authority.issue_cert("localhost", "127.0.0.1")) as port:
        limiter = make_limiter(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}", rate=Rate(50))
        for _ in range(3):
            limiter.accepted(await limiter.acquire())
        assert "without" not in repr(limiter)
        await until(lambda: limiter._task._running is None)
        limiter.abort(lambda: RuntimeError("over"))
        await limiter.aclose()
    with redis_server.client() as client:
        assert float(client.hget("bandwidth-mfa:{9900000}:messaging", "accepted")) == 3


async def test_tls_of_a_stranger(redis_server, make_limiter, caplog):
    """A certificate that nobody vouches for is not spoken to; sends go on."""
    async with tls_in_front(redis_server.port, trustme.CA().issue_cert("127.0.0.1")) as port:
        limiter = make_limiter(f"rediss://127.0.0.1:{port}/0", rate=Rate(50))
        await limiter.acquire()
        assert "without" in repr(limiter)
    assert len(warnings(caplog)) == 1
    with redis_server.client() as client:
        assert client.keys() == []


@pytest.fixture
def users(redis_server):
    """Make a user who may do what the limiter needs and no more, and one who may not run scripts."""
    with redis_server.client() as client:
        commands = ["+evalsha", "+eval", "+time", "+hgetall", "+hmset", "+hset", "+hdel", "+pexpire", "+select"]
        client.acl_setuser(
            "limiter", enabled=True, passwords=["+pass:w0rd"], keys=["bandwidth-mfa:*"], commands=commands
        )
        client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+get"])
        yield f"127.0.0.1:{redis_server.port}"
        client.acl_deluser("limiter", "reader")


async def test_a_user_with_few_rights(users, make_limiter):
    """User and password come through the URL, percent-encoded where they must be; no other commands are needed."""
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
        ("redis://nobody:hunter2@{}/0", "wrong user or password"),
        ("redis://reader:pw@{}/0", "this user may not run"),
        ("redis://{}/99", "no such database"),
    ],
)
async def test_what_refuses_us_is_named(users, make_limiter, caplog, url, reason):
    """By default a line in the log and the send goes on; with `required` an error of the call, every time."""
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


async def test_a_redis_without_room(redis_server, make_limiter, caplog):
    """Named as well: redis-py has an error of its own for it."""
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
async def test_a_redis_of_long_ago(make_limiter, caplog, said):
    """One without scripts, and one whose scripts may not ask for the time, are told that they are too old."""

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


async def test_a_required_redis_that_is_away_is_no_error(own_redis, make_limiter):
    """Only a refusal is: waiting mends the rest."""
    own_redis.kill()
    limiter = make_limiter(own_redis.url, required=True)
    await limiter.acquire()
    assert "without" in repr(limiter)


async def test_a_required_redis_fails_the_send(users, server, make_client, template):
    """The error is a ConfigurationError, and nothing was sent."""
    shared = RedisLimits(f"redis://nobody:x@{users}", key="9900000", required=True)
    client = make_client(limits=Limits(shared=shared))
    with pytest.raises(ConfigurationError, match="wrong user or password"):
        await client.generate_messaging_code(template.to("+19195551234"))
    await client.aclose()


@pytest.mark.parametrize("field", ["rate", "note"])
async def test_status_of_what_is_not_ours(redis_server, field):
    """A hash that somebody else keeps under the name is told, not a traceback."""
    shared = RedisLimits(redis_server.url, key="9900000")
    with redis_server.client() as client:
        client.hset(shared.redis_keys("messaging")[0], field, "5" if field == "rate" else "x")
    with pytest.raises(ConfigurationError, match="holds something else"):
        await shared.status()


async def test_status(redis_server, make_limiter):
    """What all share: the rate, who waits in which lane, and the last refusals with what they led to."""
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
        while (status := await shared.status()).processes < 2:  # both are on their way there
            await asyncio.sleep(0.005)
    assert (status.state, status.interactive, status.bulk, status.processes) == ("paused", 2, 2, 2)
    assert status.accepted == 30
    assert 0 < status.pause <= 0.6
    assert [(entry.count, entry.rate_before, entry.retry_after > 0.5) for entry in status.refusals] == [(1, None, True)]
    assert status.refusals[0].rate_after == status.rate
    await asyncio.gather(*waiting)
    await until(lambda: one._task._running is None and other._task._running is None)
    after = await shared.status()
    assert (after.state, after.interactive, after.bulk, after.processes) == ("holding", 0, 0, 0)
    assert (await shared.status("voice")).state == "unused"
