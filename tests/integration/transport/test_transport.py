"""One attempt on the documented and the fast path: the same request, time limits, proxies and observers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import platform
import ssl
import sys
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme

from bandwidth_mfa_async import (
    CodeRequest,
    ConnectTimeoutError,
    Delivery,
    NotSentError,
    ReadTimeoutError,
    RequestError,
    RetryPolicy,
)
from bandwidth_mfa_async._transport import _fast_path
from bandwidth_mfa_async._transport._deadlines import DeadlineGroup
from tests.conftest import APPLICATION, FROM, TO
from tests.support import certificates, processes
from tests.support.fault_server import Act, FaultServer, answer
from tests.support.tunnel import Tunnel
from tests.support.virtual_time import VirtualTimeLoop, virtual_uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient

ONCE = RetryPolicy(max_attempts=1)

# In a separate process: what ran here before may have freed a large block.
_FAULTS = """
import asyncio, resource
from bandwidth_mfa_async import BasicAuth, CodeTemplate, MFAClient

ANSWER = b'HTTP/1.1 200 OK\\r\\nContent-Length: 17\\r\\n\\r\\n{"messageId":"a"}'

class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(ANSWER)

heap = [bytes(50_000) for _ in range(100)]  # full, whatever was freed before

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with MFAClient("9900000", BasicAuth("user", "pass"), base_url=url) as client:
        for count in (100, 200):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(count):
                await client.generate_messaging_code(CodeTemplate("+19195554321", "app").to("+19195551234"))
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(faults)

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_response_buffers_are_not_mapped_anew() -> None:
    """A buffer that is mapped for each response causes page faults: 800 for these 200 calls and their server."""
    done = processes.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, done.stdout


@pytest.mark.parametrize("force_close", [False, True])
async def test_both_paths_write_the_same_request(
    server: FaultServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, force_close: bool
) -> None:
    """The same path, the same headers once each, the same body, including text beyond ASCII and long text."""
    request = CodeRequest(TO, FROM, APPLICATION, scope="é", message="{CODE} " + "ü€😀" * 600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=force_close)) as session:
        client = make_client(session=session)
        await client.generate_messaging_code(request)
        monkeypatch.setattr(_fast_path, "_request", None)
        await client.generate_messaging_code(request)
        await client.aclose()
    ours, theirs = server.seen
    assert ours.head.split("\r\n")[0] == theirs.head.split("\r\n")[0]
    assert ours.headers == theirs.headers
    assert len(ours.head.split("\r\n")) == len(theirs.head.split("\r\n")) == len(ours.headers) + 3
    assert ours.body == theirs.body


async def test_a_header_with_a_line_break_is_not_written(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Even if it passed the checks of the arguments."""
    client = make_client(retry=ONCE)
    client._executor.state.authorizer._credentials[0]._header = "Basic x\r\nX-Injected: 1"  # type: ignore[attr-defined]
    with pytest.raises(NotSentError):
        await client.generate_messaging_code(template.to(TO))
    assert not server.seen


@pytest.mark.parametrize("how", ["traced", "replaced"])
async def test_tools_that_patch_aiohttp_see_our_requests(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """OpenTelemetry and Sentry trace every session; VCR.py and aioresponses replace a method."""
    seen: list[str] = []
    if how == "traced":
        original = aiohttp.ClientSession.__init__

        async def note(_session: Any, _context: Any, params: aiohttp.TraceRequestStartParams) -> None:
            seen.append(params.method)

        def traced(self: aiohttp.ClientSession, *args: Any, **options: Any) -> None:
            config = aiohttp.TraceConfig()
            config.on_request_start.append(note)
            original(self, *args, trace_configs=[config], **options)

        monkeypatch.setattr(aiohttp.ClientSession, "__init__", traced)
    else:
        request = aiohttp.ClientSession._request

        async def replaced(self: aiohttp.ClientSession, method: str, *args: Any, **options: Any) -> Any:
            seen.append(method)
            return await request(self, method, *args, **options)

        monkeypatch.setattr(aiohttp.ClientSession, "_request", replaced)
    client = make_client()
    assert (await client.generate_messaging_code(template.to(TO))).message_id
    assert seen == ["POST"]
    await client.aclose()


@pytest.mark.virtual_time
async def test_a_cancellation_at_the_moment_of_a_timeout_wins(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """Both in one iteration of the loop: the caller gets a cancelled call, not a timeout."""
    client = make_client(retry=RetryPolicy(attempt_timeout=5.0))
    server.play(Act(then="hang"))
    call = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    while not server.seen:
        await asyncio.sleep(0)
    client._executor.state.transport._deadlines.cancel()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert client._executor.slots.taken == 0


@pytest.mark.virtual_time
async def test_a_timeout_leaves_no_cancellation_behind(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    """The caller's task is not left cancelled; another timeout around the call keeps its own count."""
    client = make_client(retry=RetryPolicy(attempt_timeout=5.0))
    server.play(Act(then="hang"), Act(then="hang"))
    task = asyncio.current_task()
    assert task is not None
    async with asyncio.timeout(60):
        with pytest.raises(ReadTimeoutError):
            await client.generate_messaging_code(template.to(TO))
        assert task.cancelling() == 0
        await asyncio.sleep(1)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(1):
            await client.generate_messaging_code(template.to(TO))
    assert not isinstance(caught.value, RequestError)
    assert task.cancelling() == 0
    assert (await client.generate_messaging_code(template.to(TO))).message_id


async def test_an_attempt_that_ends_stops_its_timer() -> None:
    """Nothing is cancelled afterwards, and two cancellations are undone once."""
    task = asyncio.current_task()
    assert task is not None
    deadlines = DeadlineGroup()
    bucket = deadlines.bucket(0.0)
    attempt = bucket.begin()
    assert bucket.end(attempt) is False
    await asyncio.sleep(0)
    bucket = deadlines.bucket(60.0)
    attempt = bucket.begin()
    deadlines.cancel()
    deadlines.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert bucket.end(attempt) is True
    assert task.cancelling() == 0


@pytest.mark.parametrize("make_loop", [VirtualTimeLoop, virtual_uvloop], ids=["asyncio", "uvloop"])
def test_one_timer_cancels_each_attempt_when_its_time_is_up(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Attempts with two timeouts that began one after the other end when their own time is up, and leave no timer."""
    deadlines = DeadlineGroup()
    ended: list[tuple[str, float, bool]] = []

    async def make(name: str, after: float, seconds: float, takes: float) -> None:
        await asyncio.sleep(after)
        began = asyncio.get_running_loop().time()
        bucket = deadlines.bucket(seconds)
        attempt = bucket.begin()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(takes)
        timed_out = bucket.end(attempt)
        ended.append((name, round(asyncio.get_running_loop().time() - began, 1), timed_out))

    async def main() -> None:
        await asyncio.gather(
            make("first", 0, 10, 99),
            make("done in time", 1, 10, 2),
            make("second", 2, 10, 99),
            make("short", 3, 4, 99),
            make("after all", 30, 10, 99),
        )
        bucket = deadlines.bucket(60)
        assert not bucket.end(bucket.begin())
        scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())  # uvloop has no such list
        assert not [timer for timer in scheduled if not timer.cancelled()]
        assert not deadlines._buckets

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert ended == [
        ("done in time", 2.0, False),
        ("short", 4.0, True),
        ("first", 10.0, True),
        ("second", 10.0, True),
        ("after all", 10.0, True),
    ]


@pytest.mark.parametrize("make_loop", [VirtualTimeLoop, virtual_uvloop], ids=["asyncio", "uvloop"])
def test_a_timer_does_not_keep_the_first_callers_context(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """What a call's context held, such as a web request, is freed when the call has ended, however many follow."""
    deadlines = DeadlineGroup()
    request: contextvars.ContextVar[set[str]] = contextvars.ContextVar("request")

    async def make(after: float, takes: float, held: set[str]) -> None:
        request.set(held)
        await asyncio.sleep(after)
        bucket = deadlines.bucket(10)
        attempt = bucket.begin()
        await asyncio.sleep(takes)
        bucket.end(attempt)

    async def main() -> None:
        held = {"a request"}
        freed = weakref.ref(held)
        first = asyncio.create_task(make(0, 5, held))
        others = [asyncio.create_task(make(4 + 4 * n, 5, set())) for n in range(8)]
        await first
        del first, held
        await asyncio.sleep(20)
        gc.collect()
        assert freed() is None
        await asyncio.gather(*others)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


class EarlyLoop(VirtualTimeLoop):
    """Runs its timers early, as uvloop may."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = 0

    def call_at(self, when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(when - 0.1, *args, **options)


def test_a_timer_that_runs_early_is_not_set_again() -> None:
    """One timer serves many attempts: there are no more timers than moments at which a time is up."""
    deadlines = DeadlineGroup()
    go_on = asyncio.Event()
    timed_out: list[bool] = []

    async def make() -> None:
        bucket = deadlines.bucket(10)
        attempt = bucket.begin()
        with contextlib.suppress(asyncio.CancelledError):
            await go_on.wait()
        timed_out.append(bucket.end(attempt))

    async def main(loop: EarlyLoop) -> None:
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(make()))
            await asyncio.sleep(1)
        timers, loop.timers = loop.timers, 0
        await asyncio.gather(*tasks)
        assert (timers, loop.timers) == (3 + 1, 2)
        assert timed_out == [True] * 3

    with asyncio.Runner(loop_factory=EarlyLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, EarlyLoop)
        runner.run(main(loop))


async def test_closing_cancels_attempts_of_all_timeouts() -> None:
    """Not only those of the first timeout."""
    deadlines = DeadlineGroup()

    async def make(seconds: float) -> bool:
        bucket = deadlines.bucket(seconds)
        attempt = bucket.begin()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return bucket.end(attempt)

    tasks = [asyncio.create_task(make(seconds)) for seconds in (10, 10, 20, 30)]
    await asyncio.sleep(0)
    deadlines.cancel()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [True] * 4


def test_an_attempt_that_ends_late_does_not_affect_later_ones() -> None:
    """Closing still cancels the attempts that began since, and the timer still has them."""
    deadlines = DeadlineGroup()
    timed_out: list[str] = []

    async def make(name: str, go_on: asyncio.Event) -> None:
        bucket = deadlines.bucket(1.0)
        attempt = bucket.begin()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(99)
        await go_on.wait()
        if bucket.end(attempt):
            timed_out.append(name)

    async def main() -> None:
        go_on, at_once = asyncio.Event(), asyncio.Event()
        at_once.set()
        stubborn = asyncio.create_task(make("stubborn", go_on))
        await asyncio.sleep(2)
        await make("late", at_once)
        other = asyncio.create_task(make("other", at_once))
        await asyncio.sleep(0)
        go_on.set()
        await stubborn
        deadlines.cancel()
        await asyncio.wait([other], timeout=0.5)
        assert timed_out == ["late", "stubborn", "other"]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


@pytest.fixture
async def tls_server() -> AsyncIterator[tuple[FaultServer, ssl.SSLContext]]:
    authority = trustme.CA()
    async with FaultServer(ssl=certificates.serving(authority)) as server:
        yield server, certificates.trusting(authority)


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_calls_work_through_a_proxy(
    tls_server: tuple[FaultServer, ssl.SSLContext], make_client: MakeClient, template: CodeTemplate
) -> None:
    """A tunnel, TLS to the service inside it, one connection for several calls; the proxy sees no credentials."""
    server, trusting = tls_server
    proxy = Tunnel(200)
    raw = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    client = make_client(
        base_url=server.base_url, ssl=trusting, proxy=f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    )
    server.play(answer(), answer(500, {"error": "x"}), answer())
    for attempts in (1, 2):
        assert (await client.generate_messaging_code(template.to(TO))).meta.attempts == attempts
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"uthorization" not in proxy.heads[0]
    assert all(seen.head.startswith("POST /api/v1/accounts/") for seen in server.seen)
    await client.aclose()
    raw.close()
    await raw.wait_closed()
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
@pytest.mark.parametrize("status", [407, 502, None])
async def test_a_proxy_without_a_tunnel_is_not_sent(
    tls_server: tuple[FaultServer, ssl.SSLContext], make_client: MakeClient, template: CodeTemplate, status: int | None
) -> None:
    """It refuses, fails or is silent: the request was not written."""
    server, trusting = tls_server
    proxy = Tunnel(status)
    raw = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    client = make_client(
        base_url=server.base_url,
        ssl=trusting,
        proxy=f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}",
        retry=RetryPolicy(max_attempts=1, connect_timeout=5.0),
    )
    with pytest.raises(NotSentError) as caught:
        await client.generate_messaging_code(template.to(TO))
    assert caught.value.delivery is Delivery.NOT_SENT
    assert isinstance(caught.value, ConnectTimeoutError) is (status is None)
    assert not server.seen
    await client.aclose()
    raw.close()
    await raw.wait_closed()
