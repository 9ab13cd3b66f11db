"""Every row of the project's table of faults has a test: which one, and those of connections, proxies and loops."""

from __future__ import annotations

import ast
import asyncio
import gc
import pathlib
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from bandwidth_mfa_async import (
    BasicAuth,
    ClientStateError,
    CodeTemplate,
    ConnectTimeoutError,
    DeadlineExceededError,
    Delivery,
    DisconnectedError,
    Limits,
    MFAClient,
    NotSentError,
    ReadTimeoutError,
    RequestError,
    RetryPolicy,
    TLSError,
)
from bandwidth_mfa_async._transport import Body, Transport, absolute_url, request_headers

from .conftest import APPLICATION, FROM, TO
from .support.fault_server import Act, FaultServer, answer, full_backlog, hung_call, refused_port, reply, taken, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    MakeClient = Callable[..., MFAClient]

ROOT = pathlib.Path(__file__).parent
ONCE = RetryPolicy(max_attempts=1)

# The rows in the order of the table, and the tests of each.
ROWS: dict[int, tuple[str, str]] = {
    1: ("connection refused", "test_fault_matrix::test_nobody_listens"),
    2: ("connect timeout", "test_fault_matrix::test_a_full_accept_queue"),
    3: ("wait for the pool", "test_fault_matrix::test_a_full_pool"),
    4: ("DNS fails", "test_fault_matrix::test_a_name_that_is_not_resolved"),
    5: ("DNS gives an empty list", "test_fault_matrix::test_a_name_that_is_not_resolved"),
    6: ("DNS hangs", "test_fault_matrix::test_a_resolver_that_hangs"),
    7: ("one of two addresses is dead", "test_fault_matrix::test_one_address_of_two_is_dead"),
    8: (
        "a certificate that cannot be trusted",
        "test_delivery::test_a_certificate_that_cannot_be_trusted_is_never_retried",
    ),
    9: ("a handshake that fails or hangs", "test_fault_matrix::test_a_handshake_that_is_cut"),
    10: ("cut right after accept", "test_delivery::test_a_fault_has_one_meaning"),
    11: ("cut after the head, with a large body", "test_fault_matrix::test_a_large_body_that_is_not_read"),
    12: ("cut after the request", "test_delivery::test_a_fault_has_one_meaning"),
    13: ("a kept connection dies as it is used", "test_delivery::test_a_fault_has_one_meaning"),
    14: ("half a head", "test_delivery::test_an_answer_that_does_not_come_is_unknown"),
    15: ("half a body", "test_delivery::test_an_answer_that_does_not_come_is_unknown"),
    16: ("wrong lengths", "test_delivery::test_a_fault_has_one_meaning"),
    17: ("not HTTP", "test_delivery::test_a_fault_has_one_meaning"),
    18: ("no length", "test_delivery::test_an_odd_success_is_one"),
    19: ("a gzip bomb", "test_delivery::test_a_bomb_is_not_inflated"),
    20: ("bad gzip", "test_delivery::test_a_fault_has_one_meaning"),
    21: ("10 MB", "test_delivery::test_a_fault_has_one_meaning"),
    22: ("a 200 without an id", "test_delivery::test_a_fault_has_one_meaning"),
    23: ("odd JSON", "test_delivery::test_what_json_readers_differ_on"),
    24: ("204", "test_delivery::test_a_fault_has_one_meaning"),
    25: ("1xx", "test_delivery::test_an_odd_success_is_one"),
    26: ("redirects", "test_delivery::test_a_redirect_is_not_followed"),
    27: ("408", "test_delivery::test_a_fault_has_one_meaning"),
    28: ("4xx", "test_delivery::test_a_fault_has_one_meaning"),
    29: ("429 and Retry-After", "test_delivery::test_retry_after_is_a_floor"),
    30: ("500, 502, 504", "test_delivery::test_a_fault_has_one_meaning"),
    31: ("501, 505, 511", "test_delivery::test_a_fault_has_one_meaning"),
    32: ("a byte now and then", "test_delivery::test_an_answer_that_does_not_come_is_unknown"),
    33: ("no answer", "test_delivery::test_an_answer_that_does_not_come_is_unknown"),
    34: ("the server stops reading", "test_fault_matrix::test_a_large_body_that_is_not_read"),
    35: ("headers too large", "test_delivery::test_a_fault_has_one_meaning"),
    36: ("an answer nobody asked for", "test_review::test_an_unasked_answer_is_nobodys"),
    37: ("a proxy that makes no connection", "test_fault_matrix::test_a_proxy_that_refuses"),
    38: ("a proxy for plain http", "test_config::test_a_proxy_needs_https"),
    39: ("proxies of the environment", "test_fault_matrix::test_proxies_of_the_environment_are_not_used"),
    40: ("cancellation", "test_cancellation::test_cancelled_at_every_step"),
    41: ("the session is closed under a call", "test_fault_matrix::test_a_session_closed_by_its_owner"),
    42: ("use after close", "test_client::test_aclose_is_idempotent_and_final"),
    43: ("the loop ends first", "test_fault_matrix::test_a_loop_that_ends_first"),
    44: ("another loop, thread or process", "test_fault_matrix::test_another_thread"),
    45: ("the wall clock jumps", "test_fault_matrix::test_the_wall_clock_jumps"),
    46: ("SIGTERM in a bulk run", "test_benchmarks::test_bulk_kills"),
    47: ("kill -9 in a bulk run", "test_benchmarks::test_bulk_kills"),
    48: ("a torn journal", "bulk/test_journal_states::crash"),
    49: ("a full disk", "bulk/test_journal::test_a_full_disk"),
    50: ("a number twice", "bulk/test_journal::test_a_repeat_in_the_input_is_sent_once"),
    51: ("odd CSV", "test_bulk_rows::test_a_bad_row_ends_nothing"),
    52: ("a quote that is not closed", "test_bulk_rows::test_files_that_cannot_be_read"),
    53: ("ten million rows", "test_benchmarks::test_bulk"),
    54: ("line breaks in headers", "test_config::test_bad_credentials"),
    55: ("a path in an id", "test_config::test_bad_account_id"),
    56: ("secrets in errors", "test_redaction::test_no_failure_shows_a_secret"),
}


def test_no_row_is_missing() -> None:
    """56 rows, and each names a test that is there."""
    assert sorted(ROWS) == list(range(1, 57))
    for row, (fault, test) in ROWS.items():
        module, _, name = test.partition("::")
        tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
        found = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        assert name in found, f"row {row}, {fault}: {test} is not there"


def test_the_wires_rows_are_what_they_say() -> None:
    """The rows that are cases of one table in test_delivery are there under their numbers."""
    from .test_delivery import FAULTS, NEVER, ODD_SUCCESSES

    here = {fault.row for fault in FAULTS} | {row[0] for row in NEVER} | {row[0] for row in ODD_SUCCESSES}
    assert {row for row, (_, test) in ROWS.items() if test.endswith("one_meaning")} <= here
    assert {14, 15, 18, 25, 32, 33} <= {row[0] for row in NEVER}


async def refused(client: MFAClient, kind: type[RequestError] = NotSentError, **options: Any) -> RequestError:
    """Send, and return the error of a code that never left, after a look at what it left behind."""
    with pytest.raises(RequestError) as caught:
        await client.generate_messaging_code(CodeTemplate(FROM, APPLICATION).to(TO), **options)
    error = caught.value
    assert (type(error), error.delivery) == (kind, Delivery.NOT_SENT)
    assert taken(client) == 0
    assert client._caller.slots.taken == 0
    return error


# 1 to 9: before there is a connection.


@pytest.mark.uvloop
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_nobody_listens(make_client: MakeClient, template: CodeTemplate, warm: bool) -> None:
    """Never there or gone since: not sent, and tried as often as the policy says."""
    async with FaultServer() as gone:
        client = make_client(base_url=gone.base_url)
        for _ in range(warm):
            await client.generate_messaging_code(template.to(TO))
    await until(lambda: gone.open_connections == 0)
    error = await refused(client)
    assert (error.attempts, error.retry_stopped_by) == (3, "attempts")
    assert gone.sent == warm


@pytest.mark.uvloop
async def test_a_full_accept_queue(make_client: MakeClient) -> None:
    """A connection that is neither made nor refused ends with `connect_timeout` or with the call's own time."""
    with full_backlog() as port:
        base_url = f"http://127.0.0.1:{port}/api/v1"
        client = make_client(base_url=base_url, retry=RetryPolicy(max_attempts=1, connect_timeout=0.1))
        assert (await refused(client, ConnectTimeoutError)).elapsed > 0.09
        client = make_client(base_url=base_url, retry=ONCE)
        assert (await refused(client, DeadlineExceededError, timeout=0.1)).elapsed > 0.09


@pytest.mark.virtual_time
async def test_a_full_pool(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """With one connection in a borrowed session the second call waits for `connect_timeout`, and was not sent."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        client = make_client(session=session, retry=RetryPolicy(max_attempts=1, connect_timeout=5.0))
        holder = await hung_call(server, client.generate_messaging_code(template.to(TO)))
        with pytest.raises(ConnectTimeoutError) as caught:
            await client.generate_messaging_code(template.to(TO))
        assert caught.value.delivery is Delivery.NOT_SENT
        assert 5.0 <= caught.value.elapsed < 6.0
        assert len(server.seen) == 1
        holder.cancel()
        await asyncio.wait([holder])
        assert (await client.generate_messaging_code(template.to(TO))).message_id
        await client.aclose()


class Resolver(AbstractResolver):
    """Says what it is told to."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        self.asked += 1
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if said == "hang":
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in said
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
async def resolved(server: FaultServer, make_client: MakeClient) -> AsyncIterator[Callable[..., MFAClient]]:
    """Make clients of the fault server under a name that a resolver of the test's own resolves."""
    sessions: list[aiohttp.ClientSession] = []

    def make(resolver: Resolver, **options: Any) -> MFAClient:
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        sessions.append(aiohttp.ClientSession(connector=connector))
        return make_client(base_url=f"http://mfa.localhost:{server.port}/api/v1", session=sessions[-1], **options)

    yield make
    for session in sessions:
        await session.close()


@pytest.mark.uvloop
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    "said",
    [OSError(None, "DNS"), socket.gaierror(socket.EAI_AGAIN, "later"), socket.gaierror(socket.EAI_NONAME, "none"), []],
    ids=["fails", "try again", "no such name", "empty list"],
)
async def test_a_name_that_is_not_resolved(
    server: FaultServer, resolved: Callable[..., MFAClient], template: CodeTemplate, said: Any, warm: bool
) -> None:
    """An error, or an empty list, which aiohttp makes a RuntimeError: not sent, and asked again."""
    resolver = Resolver(*[["127.0.0.1"]] * warm, said)
    client = resolved(resolver)
    if warm:
        server.play(answer(headers={"Connection": "close"}))
        await client.generate_messaging_code(template.to(TO))
    assert (await refused(client)).attempts == 3
    assert resolver.asked == warm + 3
    assert server.sent == warm
    resolver.answers = [["127.0.0.1"]]
    assert (await client.generate_messaging_code(template.to(TO))).message_id


@pytest.mark.virtual_time
async def test_a_resolver_that_hangs(server: FaultServer, resolved: Callable[..., MFAClient]) -> None:
    """`connect_timeout` covers the name as well."""
    client = resolved(Resolver("hang"), retry=RetryPolicy(max_attempts=1, connect_timeout=5.0))
    assert 5.0 <= (await refused(client, ConnectTimeoutError)).elapsed < 6.0
    assert server.accepted_connections == 0


@pytest.mark.uvloop
async def test_one_address_of_two_is_dead(
    server: FaultServer, resolved: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The other one is used, within the one attempt."""
    response = await resolved(Resolver(["127.0.0.2", "127.0.0.1"])).generate_messaging_code(template.to(TO))
    assert response.meta.attempts == 1


@pytest.mark.uvloop
@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_handshake_that_is_cut(server: FaultServer, make_client: MakeClient, how: str) -> None:
    """A connection that ends before TLS is spoken is no broken certificate: tried again, and not sent."""
    client = make_client(base_url=f"https://127.0.0.1:{server.port}/api/v1")
    server.play(*[Act(on_accept=how)] * 3)
    assert (await refused(client)).attempts == 3
    assert server.accepted_connections == 3
    assert server.seen == []


@pytest.mark.uvloop
async def test_a_server_that_speaks_no_tls(server: FaultServer, make_client: MakeClient) -> None:
    """It is not tried again, and nothing but a handshake has left."""
    client = make_client(base_url=f"https://127.0.0.1:{server.port}/api/v1")
    server.play(Act(reply(400, b""), read="nothing", then="hang"))
    assert (await refused(client, TLSError)).attempts == 1
    assert server.seen == []


@pytest.mark.virtual_time
async def test_a_handshake_that_hangs(server: FaultServer, make_client: MakeClient) -> None:
    """`connect_timeout` covers the handshake."""
    client = make_client(
        base_url=f"https://127.0.0.1:{server.port}/api/v1", retry=RetryPolicy(max_attempts=1, connect_timeout=5.0)
    )
    server.play(Act(read="nothing", then="hang"))
    assert 5.0 <= (await refused(client, ConnectTimeoutError)).elapsed < 6.0


# 11 and 34: a body that is larger than any buffer. None of ours is, so it is the transport that is asked.


@pytest.mark.virtual_time
@pytest.mark.filterwarnings("ignore:Sending a large body directly")
@pytest.mark.parametrize("then", ["rst", "fin", "hang"])
async def test_a_large_body_that_is_not_read(server: FaultServer, then: str) -> None:
    """Cut or never read, part of it is on the way, so the outcome is unknown; the attempt's time covers writing."""
    transport, body = Transport(), Body(bytes(30_000_000))
    transport.check()
    release = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        writer.close()

    stalled = await asyncio.start_server(stall, "127.0.0.1", 0)
    port = stalled.sockets[0].getsockname()[1] if then == "hang" else server.port
    server.play(Act(read="head", then=then))
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(RequestError) as caught:
        await transport.send(
            absolute_url(f"http://127.0.0.1:{port}/"),
            request_headers(),
            body,
            operation="x",
            timeout=30.0,
            connect_timeout=5.0,
        )
    assert body.begun
    assert caught.value.delivery is Delivery.UNKNOWN
    if then == "hang":
        assert type(caught.value) is ReadTimeoutError
        assert 30.0 <= loop.time() - began < 31.0
    else:
        assert type(caught.value) is DisconnectedError
    release.set()
    await transport.aclose()
    stalled.close()


# 37 and 39: proxies.


@pytest.mark.uvloop
@pytest.mark.parametrize(
    "act",
    [
        answer(407, b"", headers={"Proxy-Authenticate": "Basic"}),
        answer(502, b"<html>"),
        Act(then="fin"),
        Act(then="rst"),
        Act(b"SSH-2.0\r\n\r\n", then="fin"),
        Act(on_accept="rst"),
    ],
    ids=["407", "502", "closed", "reset", "no HTTP", "reset on accept"],
)
async def test_a_proxy_that_refuses(server: FaultServer, make_client: MakeClient, act: Act) -> None:
    """Whatever it says to CONNECT, the request has not left; it sees the service's name and no credentials."""
    server.default = act
    server.play(*[act] * 3)
    client = make_client(base_url="https://mfa.example.com/api/v1", proxy=server.origin)
    assert (await refused(client)).attempts == 3
    for seen in server.seen:
        assert seen.head.startswith("CONNECT mfa.example.com:443 ")
        assert "authorization" not in seen.head.lower()
        assert seen.body == b""


@pytest.mark.virtual_time
async def test_a_proxy_that_hangs(server: FaultServer, make_client: MakeClient) -> None:
    """`connect_timeout` covers the proxy's part."""
    server.play(Act(then="hang"))
    client = make_client(
        base_url="https://mfa.example.com/api/v1",
        proxy=server.origin,
        retry=RetryPolicy(max_attempts=1, connect_timeout=5.0),
    )
    assert 5.0 <= (await refused(client, ConnectTimeoutError)).elapsed < 6.0


async def test_proxies_of_the_environment_are_not_used(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that was set for something else gets no credentials."""
    async with FaultServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        assert (await make_client().generate_messaging_code(template.to(TO))).message_id
        await refused(make_client(base_url=f"https://127.0.0.1:{refused_port()}", retry=ONCE))
        assert proxy.accepted_connections == 0


# 41 to 45: sessions, loops, threads and clocks.


@pytest.mark.uvloop
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_a_session_closed_by_its_owner(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, warm: bool
) -> None:
    """What was written is unknown, what waited for a connection was not sent, and nobody is cancelled."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    client = make_client(session=session, retry=ONCE)
    for _ in range(warm):
        await client.generate_messaging_code(template.to(TO))
    written = await hung_call(server, client.generate_messaging_code(template.to(TO)))
    waiting = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    for _ in range(5):
        await asyncio.sleep(0)
    await session.close()
    first, second = await asyncio.gather(written, waiting, return_exceptions=True)
    assert isinstance(first, DisconnectedError)
    assert isinstance(second, NotSentError)
    assert (first.delivery, second.delivery) == (Delivery.UNKNOWN, Delivery.NOT_SENT)
    assert len(server.seen) == 1 + warm
    with pytest.raises(ClientStateError):
        await make_client(session=session).generate_messaging_code(template.to(TO))


def test_a_loop_that_ends_first() -> None:
    """A client that nobody closed is a ResourceWarning, as with any session, and its call is cancelled, not lost."""
    ended: list[type[BaseException]] = []

    async def call(client: MFAClient) -> None:
        try:
            await client.generate_messaging_code(CodeTemplate(FROM, APPLICATION).to(TO))
        except BaseException as error:
            ended.append(type(error))
            raise

    async def main() -> None:
        server = await FaultServer().__aenter__()  # it ends with the loop as well
        client = MFAClient("9900000", BasicAuth("u", "p"), base_url=server.base_url)
        task = await hung_call(server, call(client))
        assert not task.done()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert any("nclosed" in str(warning.message) for warning in seen)
    assert ended == [asyncio.CancelledError]


async def test_another_thread(server: FaultServer, make_client: MakeClient, template: CodeTemplate) -> None:
    """A loop in another thread is another loop; it is told so before anything is sent."""
    client = make_client()
    await client.generate_messaging_code(template.to(TO))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(client.generate_messaging_code(template.to(TO)))
        except ClientStateError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "another event loop" in str(errors[0])
    assert len(server.seen) == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
async def test_the_wall_clock_jumps(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """A day forward or back in the middle of a call changes no wait, no deadline and no elapsed time."""
    real = time.time
    shift = 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)

    def leap(_server: FaultServer) -> None:
        nonlocal shift
        shift = jump

    failing = answer(503, {"error": "x", "requestId": "r"}, delay=2.0, before=leap)
    server.play(failing, answer(429, {}, headers={"Retry-After": "3"}))
    client = make_client(limits=Limits(adaptive=False), retry=RetryPolicy(wait_initial=0.001, wait_max=0.002))
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await client.generate_messaging_code(template.to(TO), timeout=10)
    assert response.meta.attempts == 3
    assert 5.0 <= loop.time() - began < 5.6
    assert abs(response.meta.elapsed - (loop.time() - began)) < 0.1
