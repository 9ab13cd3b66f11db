"""Errors of the ledger's Redis: what was refused and what to do, and what a failover costs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
import trustme

from bandwidth_mfa_async import ConfigurationError, LedgerError, Rate
from bandwidth_mfa_async._redis._errors import RedisFault
from bandwidth_mfa_async._redis._fail_fast import FailFastConnection, StoreUnavailableError
from bandwidth_mfa_async.worker import RedisLedger
from tests.integration.limits.test_redis_access import tls_proxy
from tests.integration.worker.test_ledger import filled, states
from tests.support.redis_server import RedisServer


@pytest.fixture
def make_user(redis_server):
    """Return a function that makes a user with these rights, and returns the URL for it."""
    made = []
    with redis_server.client() as client:

        def make(*rights, keys="~bandwidth-mfa:*"):
            name = f"user{len(made)}"
            client.execute_command("ACL", "SETUSER", name, "on", ">pw", keys, *rights)
            made.append(name)
            return f"redis://{name}:pw@127.0.0.1:{redis_server.port}/0"

        yield make
        client.acl_deluser(*made)


JOBS = itertools.count()


async def open_and_use(url, **options):
    name = f"job{next(JOBS)}"
    async with RedisLedger(url, **options) as ledger:
        await filled(ledger, name)
        chunk = await ledger.claim_chunk(name, 0, ledger.new_lease())
        assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"


ALL = ("+@read", "+@write", "+evalsha", "+eval", "+info", "+time")


async def test_the_rights_that_an_error_names_are_enough(make_user):
    await open_and_use(make_user(*ALL))


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (("-evalsha",), "this user may not run EVALSHA there; grant it +@read +@write +evalsha +eval +info +time"),
        (("-eval", "-evalsha"), "this user may not run EVALSHA there; grant it"),
        (("-time",), " there; grant it +@read"),  # Redis before 7.2 does not say which command of a script
    ],
)
async def test_a_command_that_this_user_may_not_run_is_named(make_user, rights, said):
    """Also one that a script runs. The text shows neither the user nor the password."""
    with pytest.raises(LedgerError) as caught:
        await open_and_use(make_user(*ALL, *rights))
    assert said in str(caught.value)
    assert "user0" not in str(caught.value)


async def test_keys_that_this_user_may_not_use_are_named(make_user):
    with pytest.raises(LedgerError, match=r"may not use the keys of the prefix there; grant it .* ~bandwidth-mfa:\*"):
        await open_and_use(make_user(*ALL, keys="~other:*"))


async def test_a_refused_info_is_named_and_counts_as_no_append_only_file(make_user, caplog):
    url = make_user(*ALL, "-info")
    with pytest.raises(ConfigurationError) as caught:
        await open_and_use(url)
    assert "this user may not run INFO there; grant it +info" in str(caught.value)
    assert "require_aof=False" in str(caught.value)
    assert "EVALSHA" not in str(caught.value)
    await open_and_use(url, require_aof=False)
    assert [message for message in caplog.messages if "may not run INFO" in message]


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        ("EVALSHA", "the command EVALSHA is renamed or disabled there"),
        ("HINCRBY", "renamed or disabled there"),
    ],
)
async def test_a_renamed_command_is_named(tmp_path, common_redis, renamed, said):
    """Only a script that cannot run at all may mean that Redis is too old."""
    server = RedisServer(tmp_path, "--rename-command", renamed, f"X{renamed}")
    try:
        with pytest.raises(LedgerError) as caught:
            await open_and_use(server.url)
        assert said in str(caught.value)
        assert ("too old" in str(caught.value)) == (renamed == "EVALSHA")
    finally:
        server.kill()


async def test_a_renamed_info_is_named():
    """And does not mean that Redis is too old."""

    async def serve(reader, writer):
        while await reader.readline():
            writer.write(b"-ERR unknown command 'INFO', with args beginning with: 'memory'\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConfigurationError) as caught:
            await open_and_use(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    assert "the command INFO is renamed or disabled there" in str(caught.value)
    assert "too old" not in str(caught.value)


async def test_a_tls_failure_says_why_and_names_the_setting(redis_server):
    """At the first use at once, for the ledger and for the limits."""
    async with tls_proxy(redis_server.port, trustme.CA().issue_cert("127.0.0.1")) as port:
        with pytest.raises(LedgerError) as caught:
            async with asyncio.timeout(5):
                await open_and_use(f"rediss://127.0.0.1:{port}/0")
        said = str(caught.value)
        assert "certificate" in said
        assert "ssl_ca_certs" in said
        connection = FailFastConnection(f"rediss://127.0.0.1:{port}/0", 2.0)
        with pytest.raises(StoreUnavailableError, match="ssl_ca_certs") as refused:
            await connection.call(lambda client: client.time())
        assert refused.value.refused


class Switch:
    """A port whose connections lead to one of several servers, as a name or an address does that fails over."""

    def __init__(self, target):
        self.target = target
        self.opened = 0

    async def __aenter__(self):
        self._tasks, self._writers = set(), []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.opened += 1
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        self._writers += [writer, to_writer]

        async def copy(source, sink):
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))


@pytest.fixture
def pair(tmp_path, common_redis):
    """Return a primary and its replica."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = RedisServer(tmp_path / "one"), RedisServer(tmp_path / "two")
    follow(two, one)
    yield one, two
    one.kill()
    two.kill()


def follow(server, primary):
    with server.client() as client:
        client.execute_command("REPLICAOF", *(("127.0.0.1", primary.port) if primary else ("NO", "ONE")))


async def in_sync(replica):
    with replica.client() as client:
        async with asyncio.timeout(20):
            while (found := client.info("replication")).get("master_link_status", "up") != "up" or found.get(
                "master_sync_in_progress"
            ):
                await asyncio.sleep(0.02)


def replicated(primary):
    """Wait until the replica has all that was written before."""
    with primary.client() as client:
        client.set("last", 1)  # WAIT looks at the writes of its own connection
        assert client.wait(1, 20_000) == 1


async def test_the_ledger_and_the_limits_follow_a_failover(pair, make_limiter):
    """The old primary still answers, as a read-only replica: its connections are given up."""
    one, two = pair
    await in_sync(two)
    async with Switch(one) as switch:
        limiter = make_limiter(switch.url, rate=Rate(50))
        limiter.accepted(await limiter.acquire())
        async with RedisLedger(switch.url) as ledger:
            await filled(ledger)
            chunk = await ledger.claim_chunk("launch", 0, ledger.new_lease())
            assert await ledger.intent(chunk, 0, resends_unknown=False) == "1"
            await asyncio.to_thread(replicated, one)
            follow(two, None)
            follow(one, two)
            switch.target = two
            async with asyncio.timeout(10):
                assert await ledger.intent(chunk, 1, resends_unknown=False) == "1"
                assert await states(ledger) == "1100"
                for _ in range(3):
                    limiter.accepted(await limiter.acquire())
                while "without" in repr(limiter):
                    await asyncio.sleep(0.05)
                    limiter.accepted(await limiter.acquire())
        limiter.abort(lambda: RuntimeError("over"))
        await limiter.aclose()


async def test_a_required_shared_limit_survives_a_failover(pair, make_limiter):
    """A read-only server is an outage and not a wrong setting."""
    _, two = pair
    await in_sync(two)
    limiter = make_limiter(two.url, rate=Rate(50), required=True)
    limiter.accepted(await limiter.acquire())
    assert "without" in repr(limiter)


def test_every_fault_has_a_text_and_one_kind_of_remedy():
    """Transient faults are retried: after a failover, or with a certificate that was refused, on new connections."""
    for fault in RedisFault:
        assert fault.value
        assert fault.is_transient or fault is RedisFault.TLS or not fault.needs_new_connection
