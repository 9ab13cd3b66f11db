"""Behaviours of our libraries that we rely on; a failure names the one that an upgrade changed.

Those that we work around are in test_library_traps.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import types
from typing import Any, cast

import aiohttp
import attrs
import cattrs
import pytest
import tenacity
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aioresponses import aioresponses
from aioresponses import core as aioresponses_core
from yarl import URL

from bandwidth_mfa_async import BasicAuth, CodeTemplate, MFAClient, RateLimitError, ServerError
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async._transport import Body, _fast_path
from bandwidth_mfa_async._transport._body import current_body
from bandwidth_mfa_async._transport._pool import CheckedConnector, Connector
from tests.conftest import APPLICATION, FROM, TO
from tests.support.fault_server import Act, FaultServer, answer, refused_port


async def test_aiohttp_takes_a_connection_before_it_writes(server: FaultServer) -> None:
    """`Body.begun` proves what was written: nothing precedes the connector's `connect`, which marks the body."""
    connector = CheckedConnector(aiohttp.TCPConnector(), SystemClock())
    handed_over: list[tuple[bool, int]] = []

    def note() -> None:
        handed_over.append((body.begun, len(server.seen)))

    async with aiohttp.ClientSession(connector=cast("aiohttp.BaseConnector", connector)) as session:
        for origin in (f"http://127.0.0.1:{refused_port()}", server.origin):
            body = Body(b"{}", note)
            current_body.set(body)
            if origin == server.origin:
                async with session.post(origin, data=body.value) as response:
                    await response.read()
            else:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await session.post(origin, data=body.value)
            assert body.begun is (origin == server.origin)
    assert handed_over == [(False, 0)]
    assert server.seen[0].body == b"{}"


def test_aiohttp_has_the_internals_that_the_fast_path_uses() -> None:
    """They are not documented. Without them, every request uses the documented path."""
    assert _fast_path._request is aiohttp.ClientSession._request, (
        "this aiohttp lacks something: calls cost twice as much"
    )
    asked_by_a_connector = {"connection_key", "is_ssl", "ssl", "proxy", "proxy_headers", "url", "host", "port"}
    assert asked_by_a_connector <= {*dir(aiohttp.ClientRequest), "url", "proxy", "proxy_headers"}
    assert {"release", "close", "protocol"} <= set(dir(aiohttp.connector.Connection))
    defaults = inspect.signature(ResponseHandler.set_response_params).parameters
    assert defaults["read_timeout"].default is None, "a time that the attempt's own does not know of"
    assert defaults["skip_payload"].default is False


async def test_an_aiohttp_connection_reads_one_response_and_knows_if_it_is_reusable(server: FaultServer) -> None:
    """A message with status and headers, then a stream to its end; only then does the pool take the connection back."""
    connector = aiohttp.TCPConnector()
    request = aiohttp.ClientRequest("POST", URL(server.origin), loop=asyncio.get_running_loop())
    timeout = aiohttp.ClientTimeout(connect=5)
    server.play(answer(headers={"X-Name": "x"}), answer(200, b"x" * 500_000), Act(b"SSH-2.0\r\n\r\n", then="hang"))
    for read_to_its_end in (True, False, None):
        connection = await connector.connect(request, [], timeout)
        protocol = connection.protocol
        assert protocol is not None
        assert protocol.transport is not None
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        protocol.transport.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        if read_to_its_end is None:
            with pytest.raises(HttpProcessingError):
                await protocol.read()
            connection.close()
            continue
        message, stream = await protocol.read()
        assert message.code == 200
        if read_to_its_end:
            assert message.headers["x-name"] == "x"
            assert b"messageId" in await stream.readany()
            assert await stream.readany() == b"", "the end of the response"
        connection.release()
    assert server.accepted_connections == 2, "the first was kept, the second not"
    await connector.close()


async def test_aiohttp_never_repeats_a_post(server: FaultServer) -> None:
    """It retries a PUT on a dead kept-alive connection; it must not retry a POST."""
    async with aiohttp.ClientSession() as session:
        async with session.post(server.origin, data=b"{}") as response:
            await response.read()
        server.play(Act(then="fin"))
        with pytest.raises(aiohttp.ClientError):
            await session.post(server.origin, data=b"{}")
    assert len(server.seen) == 2
    from aiohttp.client import IDEMPOTENT_METHODS

    assert "POST" not in IDEMPOTENT_METHODS


def test_aiohttp_detects_unsolicited_bytes_on_a_connection() -> None:
    """The connector checks `should_close` before it gives out a connection."""
    assert isinstance(inspect.getattr_static(ResponseHandler, "should_close"), property)
    assert "_tail" in inspect.getsource(ResponseHandler.should_close.fget)  # type: ignore[attr-defined]
    parameters = list(inspect.signature(aiohttp.TCPConnector.connect).parameters)
    assert parameters == ["self", "req", "traces", "timeout"]


async def test_aiohttp_has_what_our_connector_overrides() -> None:
    """`Connector` opens connections in an empty context and with its own TLS context through these."""
    for name in ("_create_connection", "_cleanup"):
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (Connector, aiohttp.TCPConnector))
        assert list(ours.parameters) == list(theirs.parameters), name
    assert aiohttp.TCPConnector._create_connection.__module__ == "aiohttp.connector"
    source = inspect.getsource(aiohttp.TCPConnector._get_ssl_context)
    assert "self._ssl" in source, "where a request without a context of its own gets one"
    connector = Connector()
    assert (connector._ssl, connector._cleanup_handle) == (True, None)
    await connector.close()


def test_cattrs_turns_null_into_text() -> None:
    """This is why responses need a strict hook for str."""

    @attrs.frozen
    class Answer:
        message_id: str

    assert cattrs.Converter().structure({"message_id": None}, Answer).message_id == "None"


async def test_tenacity_mixes_up_concurrent_calls() -> None:
    """This is why every call has its own `AsyncRetrying`."""
    shared = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3), reraise=True, wait=tenacity.wait_none())

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    await asyncio.gather(*(shared(fail) for _ in range(5)), return_exceptions=True)
    assert shared.statistics["attempt_number"] != 3


async def test_tenacity_swallows_cancellation_with_a_wide_predicate() -> None:
    """This is why the predicate accepts only our own errors."""
    calls = 0

    async def cancelled() -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    wide = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda _error: True), stop=tenacity.stop_after_attempt(2), reraise=True
    )
    with pytest.raises(asyncio.CancelledError):
        await wide(cancelled)
    assert calls == 2


def test_orjson_and_json_agree_on_our_bodies() -> None:
    """The [speed] extra changes no byte."""
    orjson = pytest.importorskip("orjson")
    document = {"to": TO, "message": 'é "{CODE}" \u2028 \\ /', "digits": 6, "expirationTimeInMinutes": 1.5}
    text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode(document)
    assert orjson.dumps(document) == text.encode()


class _PatchedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know the `stream_writer` that aiohttp 3.14 requires (its issue 289)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
            kwargs.setdefault("stream_writer", types.SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(aioresponses_core, "ClientResponse", _PatchedResponse)
    with aioresponses() as mock:
        yield mock


ENDPOINT = "https://mfa.bandwidth.com/api/v1/accounts/9900000/code/messaging"


@pytest.mark.parametrize(
    ("status", "payload", "error"),
    [
        (200, {"messageId": "m"}, None),
        (429, {"error": "slow down"}, RateLimitError),
        (500, {"error": "Internal Error", "requestId": "r"}, ServerError),
    ],
)
async def test_users_can_mock_aiohttp(mocked: Any, status: int, payload: Any, error: type[Exception] | None) -> None:
    """aioresponses works with our client as with any other."""
    from bandwidth_mfa_async import RetryPolicy

    mocked.post(ENDPOINT, status=status, payload=payload)
    template = CodeTemplate(FROM, APPLICATION)
    async with MFAClient("9900000", BasicAuth("u", "p"), retry=RetryPolicy(max_attempts=1)) as client:
        if error is None:
            assert (await client.generate_messaging_code(template.to(TO))).message_id == "m"
        else:
            with pytest.raises(error):
                await client.generate_messaging_code(template.to(TO))
    ((_, call),) = [(url, calls) for url, calls in mocked.requests.items()]
    assert json.loads(call[0].kwargs["data"])["to"] == TO


async def test_tools_that_replace_a_method_of_the_session_see_plain_types(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VCR.py writes what it sees to a file, and compares bodies; a type of ours would break both."""
    real = aiohttp.ClientSession._request
    seen: list[Any] = []

    async def request(session: Any, method: str, url: Any, **options: Any) -> Any:
        seen.append((method, url, options))
        return await real(session, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", request)
    async with MFAClient("9900000", BasicAuth("u", "p"), base_url=server.base_url) as client:
        await client.generate_messaging_code(CodeTemplate(FROM, APPLICATION).to(TO))
    ((method, url, options),) = seen
    assert (type(method), type(url), type(options["data"])) == (str, URL, bytes)
    assert {(type(name), type(value)) for name, value in options["headers"].items()} == {(str, str)}
    assert options["headers"]["Authorization"] == server.seen[0].headers["authorization"]
    assert options["data"] == server.seen[0].body
