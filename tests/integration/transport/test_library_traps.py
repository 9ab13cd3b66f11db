"""Behaviours of our libraries that we work around; a failure names the workaround that an upgrade made unnecessary.

Those that we rely on are in test_canaries.
"""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import inspect
import math
import pickle
import ssl
from typing import Any

import aiohttp
import pytest
import tenacity
from aioresponses import aioresponses

from tests.support.fault_server import Act, FaultServer, answer, hung_call, reply, until
from tests.support.virtual_time import VirtualTimeLoop

AIOHTTP = tuple(map(int, aiohttp.__version__.split(".")[:2]))
SINCE_3_14 = pytest.mark.skipif(AIOHTTP < (3, 14), reason="aiohttp does it since 3.14")


@SINCE_3_14
async def test_aioresponses_still_needs_the_patch() -> None:
    """Without the subclass in test_canaries a mocked response is a TypeError. If this fails, remove the subclass."""
    with aioresponses() as mocked:
        mocked.post("http://127.0.0.1/x", status=200)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TypeError, match="stream_writer"):
                await session.post("http://127.0.0.1/x")


async def test_exceptions_do_not_show_whether_the_request_was_written(server: FaultServer) -> None:
    """ServerDisconnectedError occurs with and without a written request; hence `Body.begun`."""
    async with aiohttp.ClientSession() as session:
        server.play(Act(then="fin"), Act(then="fin"))
        kinds = []
        for proxy in (None, server.origin):
            url = "https://mfa.example.com/" if proxy else server.origin
            with pytest.raises(aiohttp.ClientError) as caught:
                await session.post(url, data=b"{}", proxy=proxy)
            kinds.append(type(caught.value))
        assert kinds == [aiohttp.ServerDisconnectedError] * 2
    assert not issubclass(TimeoutError, aiohttp.ClientError)
    assert issubclass(TimeoutError, OSError)
    assert issubclass(aiohttp.ServerTimeoutError, TimeoutError)
    assert issubclass(aiohttp.ConnectionTimeoutError, TimeoutError)

    class Empty(aiohttp.ThreadedResolver):
        async def resolve(self, *_args: Any, **_options: Any) -> list[Any]:
            return []

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Empty())) as session:
        with pytest.raises(RuntimeError):
            await session.post("http://mfa.localhost:1/", data=b"{}")


async def test_aiohttp_takes_unsolicited_bytes_for_a_response() -> None:
    """Bytes on an idle connection become the next response (aiohttp issue 13656); hence our check."""
    release = asyncio.Event()
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.readuntil(b"\r\n\r\n"):
            requests += 1
            await reader.readexactly(2)
            writer.write(reply())
            await writer.drain()
            if requests == 1:
                await release.wait()
                writer.write(reply(200, {"messageId": "FORGED"}))
                await writer.drain()

    def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        task.add_done_callback(lambda done: (done.cancelled() or done.exception(), writer.close()))

    raw = await asyncio.start_server(quietly, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}/"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=b"{}") as response:
            await response.read()
        release.set()
        for _ in range(50):
            await asyncio.sleep(0)
        async with session.post(url, data=b"{}") as response:
            assert b"FORGED" in await response.read(), "fixed upstream: remove the check of `should_close`"
    raw.close()
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "answered",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}",
        reply(headers={"X-Long": "x" * 20_000}),
        reply(headers={f"X-{index}": "x" for index in range(1000)}),
    ],
    ids=["status line", "chunk", "two lengths", "20 KB header", "1000 headers"],
)
async def test_a_malformed_response_looks_like_a_400(server: FaultServer, answered: bytes) -> None:
    """The server sent no such status; hence no status is read from an exception."""
    server.play(Act(answered, then="fin"))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            async with session.post(server.origin, data=b"{}") as response:
                await response.read()
    assert isinstance(caught.value, aiohttp.ClientPayloadError) or getattr(caught.value, "status", None) == 400


async def test_closing_a_session_cancels_waiting_requests(server: FaultServer) -> None:
    """They get a CancelledError without a cancellation of their task; hence we check `cancelling()`."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    cancelled: list[int] = []

    async def ask() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with session.post(server.origin, data=b"{}") as response:
                await response.read()
        except asyncio.CancelledError:
            cancelled.append(task.cancelling())

    holder = await hung_call(server, ask())
    waiting = asyncio.create_task(ask())
    for _ in range(5):
        await asyncio.sleep(0)
    await session.close()
    await asyncio.gather(holder, waiting, return_exceptions=True)
    assert cancelled == [0]


@pytest.mark.parametrize("status", [307, 308])
async def test_aiohttp_redirects_body_and_headers_to_another_origin(server: FaultServer, status: int) -> None:
    """By default; hence `allow_redirects=False`."""
    async with FaultServer() as elsewhere:
        location = {"Location": f"http://localhost:{elsewhere.port}/"}
        server.play(answer(status, b"", headers=location), answer(status, b"", headers=location))
        async with aiohttp.ClientSession() as session:
            async with session.post(server.origin, data=b"{}", headers={"X-Key": "k"}) as response:
                await response.read()
            assert (elsewhere.seen[0].body, elsewhere.seen[0].headers["x-key"]) == (b"{}", "k")
            async with session.post(server.origin, data=b"{}", allow_redirects=False) as response:
                assert response.status == status
        assert len(elsewhere.seen) == 1


@SINCE_3_14
async def test_aiohttp_basic_auth_is_deprecated(server: FaultServer) -> None:
    """And an error where warnings are errors; hence we compute the header, once."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(DeprecationWarning, match="deprecated"):
            await session.post(server.origin, data=b"{}", auth=aiohttp.BasicAuth("u", "p"))
    assert server.seen == []


async def test_tenacity_awaits_our_sleep() -> None:
    """`sleep=` is awaited with the number from `wait`, and `reraise` raises the last error itself."""
    slept: list[float] = []
    errors = [ValueError(str(index)) for index in range(3)]

    async def fail() -> None:
        raise errors[len(slept)]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    retrying = tenacity.AsyncRetrying(
        wait=lambda _state: math.inf, stop=tenacity.stop_after_attempt(3), sleep=sleep, reraise=True
    )
    with pytest.raises(ValueError, match="2") as caught:
        await retrying(fail)
    assert caught.value is errors[2]
    assert slept == [math.inf, math.inf]


async def test_tenacity_measures_delays_in_real_time() -> None:
    """Whatever `sleep=` does; hence our own deadline, on our clock."""
    slept: list[float] = []

    async def fail() -> None:
        raise ValueError("no")

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    stop = tenacity.stop_any(tenacity.stop_after_delay(30.0), tenacity.stop_after_attempt(20))
    with pytest.raises(ValueError, match="no"):
        await tenacity.AsyncRetrying(wait=tenacity.wait_fixed(10.0), stop=stop, sleep=sleep, reraise=True)(fail)
    assert len(slept) == 19, "it counts what was slept: the deadline may be its own"


def test_virtual_time_works_with_real_sockets() -> None:
    """Fifty responses of 20 s each arrive over real connections in hardly any real time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:

        async def main() -> tuple[float, int]:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with FaultServer(default=answer(delay=20.0)) as server, aiohttp.ClientSession() as session:
                for _ in range(50):
                    async with session.post(server.origin, data=b"{}") as response:
                        await response.read()
                return loop.time() - began, len(server.seen)

        passed, answered = runner.run(main())
    assert 1000 <= passed < 1010
    assert answered == 50


async def test_an_expired_connection_is_not_reused(server: FaultServer) -> None:
    """Older than `keepalive_timeout`, it is closed and replaced; younger, it is used."""
    for lifetime, connections in ((0.0001, 2), (60.0, 1)):
        before = server.accepted_connections
        connector = aiohttp.TCPConnector(keepalive_timeout=lifetime)
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(2):
                async with session.post(server.origin, data=b"{}") as response:
                    await response.read()
                began = asyncio.get_running_loop().time()
                await until(lambda began=began: asyncio.get_running_loop().time() - began > 0.0005)  # type: ignore[misc]
        assert server.accepted_connections - before == connections


def test_aiohttp_defaults() -> None:
    """The defaults that we keep or change: proxies of the environment, verification and timeouts."""
    session = inspect.signature(aiohttp.ClientSession.__init__).parameters
    assert session["trust_env"].default is False
    assert session["raise_for_status"].default is False
    assert session["auto_decompress"].default is True
    connector = inspect.signature(aiohttp.TCPConnector.__init__).parameters
    assert connector["ssl"].default is True
    assert aiohttp.ClientTimeout(sock_read=5).total is None, "one that is given drops the default of 300 s"
    timeout = set(inspect.signature(aiohttp.ClientTimeout).parameters)
    assert {"total", "connect", "sock_connect", "sock_read", "ceil_threshold"} <= timeout
    context = ssl.create_default_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_aiohttp_inflates_bodies_by_default(server: FaultServer) -> None:
    """20 KB become 20 MB in `read()`; `json()` accepts an empty body and fails on charsets; hence we use neither."""
    bomb = gzip.compress(bytes(20_000_000))
    server.play(answer(200, bomb, headers={"Content-Encoding": "gzip"}))
    server.play(answer(200, b""), answer(200, {}, headers={"Content-Type": "application/json; charset=hex"}))
    async with aiohttp.ClientSession() as session:
        async with session.post(server.origin, data=b"{}") as response:
            assert len(await response.read()) == 20_000_000
        async with session.post(server.origin, data=b"{}") as response:
            assert await response.json() is None
        async with session.post(server.origin, data=b"{}") as response:
            with pytest.raises(LookupError):
                await response.json()
        server.play(answer(200, b"\xef\xbb\xbf{}"))
        async with session.post(server.origin, data=b"{}") as response:
            with pytest.raises(ValueError, match="BOM"):
                await response.json()
    server.play(answer(200, bomb, headers={"Content-Encoding": "gzip"}))
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(server.origin, data=b"{}") as response,
    ):
        assert await response.read() == bomb


def test_python_parses_odd_numbers() -> None:
    """What `int`, `float` and the mail date parser accept; hence our own pattern for Retry-After."""
    assert [int(text) for text in ("+5", "1_000", "\u0663")] == [5, 1000, 3]
    assert math.isnan(float("nan"))
    assert math.isinf(float("1e999"))
    assert email.utils.parsedate_to_datetime("Sun Nov  6 08:49:37 1994").tzinfo is None
    assert email.utils.parsedate_to_datetime("Sun, 06 Nov 1994 08:49:37 -0000").tzinfo is None


async def test_aiohttp_errors_show_the_credentials(server: FaultServer) -> None:
    """In their `repr`, and they cannot be pickled; hence none is a cause or a context of our errors."""
    server.play(answer(500, b""))
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.origin, data=b"{}", headers={"Authorization": "Basic s3cret"}) as response,
    ):
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            response.raise_for_status()
    assert "s3cret" in repr(caught.value)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever, it does not survive
        pickle.loads(pickle.dumps(caught.value))
