"""What must not leak and what must not be injected: crash reports, live objects, proxies, users' strings."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import pathlib
import traceback
from typing import Any

import attrs
import pytest
import rich.traceback
import trustme

from bandwidth_mfa_async import (
    BasicAuth,
    BulkSender,
    CodeRequest,
    CodeTemplate,
    ConfigurationError,
    Delivery,
    InvalidRequestError,
    Limits,
    LoggingHook,
    MFAClient,
    MFAError,
    OAuth2ClientCredentials,
    RequestError,
    Resend,
    RetryPolicy,
    SQLiteJournal,
    VerifyCodeRequest,
)
from bandwidth_mfa_async._redaction import Secret
from tests.conftest import APPLICATION, FROM, TO
from tests.integration.test_redaction import FAULTS
from tests.support import certificates
from tests.support.fault_server import Act, FaultServer, answer, refused_port
from tests.support.secrets import SENTINELS, assert_clean, everything

PACKAGE = str(pathlib.Path(__file__).parents[2] / "bandwidth_mfa_async")
BASIC = BasicAuth(SENTINELS["username"], SENTINELS["password"])
TEMPLATE = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"], 8)
POLICY = RetryPolicy(wait_initial=0.0, wait_max=0.0, resend=Resend.AT_LEAST_ONCE)


def our_frames(error: BaseException) -> str:
    """Return what a crash reporter shows of this package's frames: local variables, the error and its causes."""
    shown = []
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        pending += [each.__cause__, each.__context__]
        report = traceback.TracebackException.from_exception(each, capture_locals=True)
        for frame in report.stack:
            if frame.filename.startswith(PACKAGE):
                shown += [f"{frame.name}: {name} = {value}" for name, value in (frame.locals or {}).items()]
    return "\n".join(shown)


def cut_frames(error: BaseException) -> str:
    """Return the same as rich and structlog show it: long text is truncated, then its `repr` is shown."""
    trace = rich.traceback.Traceback.extract(type(error), error, error.__traceback__, show_locals=True)
    frames = [frame for stack in trace.stacks for frame in stack.frames if frame.filename.startswith(PACKAGE)]
    return "\n".join(
        f"{frame.name}: {name} = {node.render()}" for frame in frames for name, node in (frame.locals or {}).items()
    )


async def failing(client: MFAClient, operation: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        if operation == "send":
            await client.generate_messaging_code(TEMPLATE.to(SENTINELS["to"]))
        elif operation == "call":
            await client.generate_voice_code(TEMPLATE.to(SENTINELS["to"]))
        else:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    return caught.value


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ["send", "call", "verify"])
async def test_no_crash_report_shows_a_secret(server: FaultServer, fault: str, operation: str) -> None:
    """The local variables of our frames, which reporters collect, show no credential, number, code or body."""
    server.default = FAULTS[fault]
    async with MFAClient("9900000", BASIC, base_url=server.base_url, retry=POLICY) as client:
        shown = our_frames(await failing(client, operation))
    assert "call = " in shown, "no local variable was looked at"
    assert_clean(shown, fault)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_no_crash_report_shows_a_token(server: FaultServer, status: int) -> None:
    """Nor do those of a token request, or of a request that is rejected while a token is in use."""
    auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
    server.default = answer(status, {"error": "client s3ntinel-client s3ntinel-secret", "message": "s3ntinel-secret"})
    async with MFAClient("9900000", auth, base_url=server.base_url, retry=POLICY) as client:
        assert_clean(our_frames(await failing(client, "verify")), "the token endpoint")
    server.default = answer(status if status != 200 else 502, {"error": "s3ntinel-token"})
    for _ in range(2):
        server.play(answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}), server.default)
    async with MFAClient("9900000", auth, base_url=server.base_url, retry=POLICY) as client:
        assert_clean(our_frames(await failing(client, "verify")), "a refused token")


@pytest.mark.parametrize("auth", ["basic", "token"])
async def test_no_reporter_that_truncates_texts_shows_a_secret(server: FaultServer, auth: str) -> None:
    """Real tokens have a thousand characters, and truncated text is shown up to the cut."""
    long = "s3ntinel-" * 30
    credentials: Any = BasicAuth(SENTINELS["username"], long)
    if auth == "token":
        credentials = OAuth2ClientCredentials(SENTINELS["client_id"], long, f"{server.origin}/token")
        server.play(answer(200, {"access_token": long, "expires_in": 3600}))
    server.default = Act(then="fin")  # so that frames with the headers are in the traceback
    async with MFAClient("9900000", credentials, base_url=server.base_url, retry=POLICY) as client:
        shown = cut_frames(await failing(client, "verify"))
    assert "headers = " in shown, "no credential was looked at"
    assert_clean(shown, "rich")


async def test_a_cancelled_call_shows_no_secret(server: FaultServer) -> None:
    """A task that is shown while it waits, and the traceback of its cancellation."""
    server.default = Act(then="hang")
    async with MFAClient("9900000", BASIC, base_url=server.base_url) as client:
        task = asyncio.create_task(client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"]))
        while not server.seen:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert_clean(our_frames(caught.value), "the cancellation")


def test_a_secret_is_a_normal_string_when_sent() -> None:
    """Only its `repr` hides it."""
    secret = Secret("Basic x")
    assert secret == "Basic x"
    assert f"{secret}" == "Basic x"
    assert repr(secret) == repr(secret[:3]) == repr(secret[0]) == "'***'"
    assert secret[:3] == "Bas"
    assert type(BASIC.header) is Secret


@pytest.mark.parametrize("auth", ["basic", "token"])
async def test_no_live_object_shows_a_secret(
    server: FaultServer, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, auth: str
) -> None:
    """During calls, a bulk run and a close: every existing object of this package."""
    caplog.set_level(logging.DEBUG)
    template = attrs.evolve(TEMPLATE)  # made here, where the test looks
    looked_at: set[str] = set()
    shown: set[str] = set()

    def look(_server: FaultServer | None = None) -> None:
        for thing in gc.get_objects():
            module = getattr(type(thing), "__module__", None)
            if not isinstance(module, str) or not module.startswith("bandwidth_mfa_async"):
                continue
            if module.startswith(("bandwidth_mfa_async.simulator", "bandwidth_mfa_async.testing")):
                continue  # the test put it there
            looked_at.add(type(thing).__name__)
            if isinstance(thing, Secret):
                continue  # code that makes text of it intends to send it
            with contextlib.suppress(AttributeError):  # it is being constructed right now
                shown.add(f"{type(thing).__name__}: {thing!r} {thing}")

    server.default = answer(200, {"messageId": "m", "callId": "c", "valid": True}, before=look)
    credentials: Any = BASIC
    if auth == "token":
        credentials = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/t")
        server.play(answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}, before=look))
    else:
        server.play(answer(429, {"error": SENTINELS["to"]}, before=look))
    client = MFAClient("9900000", credentials, base_url=server.base_url, retry=POLICY, hooks=[LoggingHook()])
    async with client:
        request = template.to(SENTINELS["to"])
        await asyncio.gather(
            client.generate_messaging_code(request),
            client.generate_voice_code(request),
            client.verify_code(VerifyCodeRequest(SENTINELS["to"], SENTINELS["code"])),
        )
        async with BulkSender(client, journal=SQLiteJournal(tmp_path / "run.db", template=TEMPLATE)) as bulk:
            stream = bulk.send([SENTINELS["to"], "x"], template=TEMPLATE)
            outcomes = [outcome async for outcome in stream]
            look()
    look()
    assert len(outcomes) == 2
    for each in shown:
        assert_clean(each, each.partition(":")[0])
    assert {
        "MFAClient",
        "CallExecutor",
        "SharedState",
        "Transport",
        "Call",
        "CodeRequest",
        "CodeTemplate",
        "Body",
    } <= looked_at
    assert {"BulkSender", "OutcomeStream", "ItemOutcome", "SQLiteJournal", "Item"} <= looked_at
    assert_clean(caplog.text + str([record.__dict__ for record in caplog.records]), "the log")


# Where credentials are sent.


async def test_a_proxy_sees_only_the_service_name(template: CodeTemplate) -> None:
    """And its own credentials; ours, numbers and texts are inside TLS."""
    authority = trustme.CA()
    context, trusting = certificates.serving(authority), certificates.trusting(authority)
    heard = bytearray()

    async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter, log: bytearray) -> None:
        while data := await source.read(65_536):
            log += data
            sink.write(data)
        sink.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heard.extend(head)
        port = int(head.split()[1].rpartition(b":")[2])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(relay(reader, far_writer, heard), relay(far_reader, writer, bytearray()))

    async with FaultServer(ssl=context) as server:
        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        client = MFAClient(
            "9900000", BASIC, base_url=server.base_url, ssl=trusting, proxy=f"http://keeper:gatepass@127.0.0.1:{port}"
        )
        async with client:
            await client.generate_messaging_code(TEMPLATE.to(SENTINELS["to"]))
            assert "gatepass" not in repr(client)
        assert "proxy-authorization" not in server.seen[0].headers
        assert server.seen[0].headers["authorization"] == BASIC.header
        proxy.close()
    log = heard.decode("latin-1")
    assert log.startswith(f"CONNECT 127.0.0.1:{server.port} ")
    assert "gatepass" not in log, "Basic credentials are encoded"
    assert "\r\nProxy-Authorization: Basic " in log
    assert "\r\nAuthorization" not in log
    assert_clean(log, "the proxy's log")


async def test_no_error_shows_a_proxys_password() -> None:
    """An unreachable proxy is named without its credentials."""
    proxy = f"http://keeper:s3ntinel-gatepass@127.0.0.1:{refused_port()}"
    async with MFAClient("9", BASIC, proxy=proxy, retry=RetryPolicy(max_attempts=1)) as client:
        error = await failing(client, "send")
    assert_clean(everything(error), "the error")
    assert_clean(our_frames(error), "its frames")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "http://example.com#127.0.0.1",
        "http://example.com/127.0.0.1",
        "http://[::ffff:8.8.8.8]",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://169.254.169.254",
        "http://2130706433",
        "HTTP://example.com",
        "http:example.com",
        "http:\\\\example.com",
        "ftp://127.0.0.1",
        "ws://127.0.0.1",
        "//127.0.0.1",
        "file:///etc/passwd",
    ],
)
def test_plain_http_is_for_loopback_only(origin: str) -> None:
    """A host that only looks like loopback receives no credentials, neither as the service nor for a token."""
    with pytest.raises(ConfigurationError, match="base_url"):
        MFAClient("9900000", BASIC, base_url=origin)
    with pytest.raises(ConfigurationError, match="token_url"):
        OAuth2ClientCredentials("c", "s", origin)


# Injection: what a user's string could add to a request.

ATTACKS = [
    "\r\nX-Injected: 1",
    "\nX-Injected: 1",
    "\rX-Injected: 1",
    "\r\n\r\nPOST /admin HTTP/1.1\r\nHost: x\r\n\r\n",
    " HTTP/1.1\r\nX-Injected: 1",
    "\u010d\u010aX-Injected: 1",  # their last bytes are a line break
    "\u2028X-Injected: 1",
    "\x00",
    "\x0b",
    "\x7f",
    "/../../admin",
    "../admin",
    "/..",
    "%2e%2e/admin",
    "%2F..%2Fadmin",
    "%0d%0aX-Injected: 1",
    "?admin=1",
    "#admin",
    ";admin",
    "\\admin",
    "@example.com",
    '", "admin": "1',
    "\ud800",
]
FIELDS = [
    "account_id",
    "username",
    "password",
    "client_id",
    "client_secret",
    "base_url",
    "token_url",
    "to",
    "from_",
    "application_id",
    "scope",
    "message",
    "callback_url",
    "code",
    "verify_scope",
]


async def requested(server: FaultServer, field: str, attack: str) -> None:
    """Make all calls with one string attacked."""
    values: dict[str, str] = {
        "account_id": "9900000",
        "username": "user",
        "password": "pass",
        "client_id": "client",
        "client_secret": "secret",
        "base_url": server.base_url,
        "token_url": f"{server.origin}/token",
        "to": TO,
        "from_": FROM,
        "application_id": APPLICATION[:8],
        "scope": "s",
        "message": "{CODE}",
        "callback_url": "https://example.com/x",
        "code": "123456",
        "verify_scope": "s",
    }
    values[field] += attack
    auth: Any = BasicAuth(values["username"], values["password"])
    if field in {"client_id", "client_secret", "token_url"}:
        auth = OAuth2ClientCredentials(values["client_id"], values["client_secret"], values["token_url"])
        server.play(answer(200, {"access_token": "t", "expires_in": 60}))
    async with MFAClient(
        values["account_id"],
        auth,
        base_url=values["base_url"],
        retry=RetryPolicy(max_attempts=1),
        limits=Limits(adaptive=False),
    ) as client:
        await client.generate_messaging_code(
            CodeRequest(
                values["to"],
                values["from_"],
                values["application_id"],
                values["scope"],
                values["message"],
                6,
                values["callback_url"],
            )
        )
        await client.verify_code(to=values["to"], code=values["code"], scope=values["verify_scope"])


EXPECTED = {"host", "accept", "accept-encoding", "user-agent", "authorization", "content-type", "content-length"}


@pytest.mark.parametrize("field", FIELDS)
async def test_no_string_can_inject_into_a_request(server: FaultServer, field: str) -> None:
    """It is refused by name before anything is sent, or it arrives as the value it is: same path, same headers."""
    refused = 0
    for attack in ATTACKS:
        server.seen.clear()
        server.script.clear()
        server.default = answer(200, {"messageId": "m", "valid": True})
        connections = server.accepted_connections
        try:
            await requested(server, field, attack)
        except (ConfigurationError, InvalidRequestError) as error:
            refused += 1
            named = str(error).partition(":")[0]
            sent_before = {"code": 1, "verify_scope": 1}.get(field, 0)
            assert len(server.seen) == sent_before, f"{field} {attack!r} was refused too late"
            assert server.accepted_connections - connections == sent_before
            assert named in {field, field.removeprefix("verify_")}, f"{field} {attack!r} is not named"
            continue
        for seen in server.seen:
            assert seen.headers.keys() == EXPECTED, f"{field} {attack!r}"
            assert seen.headers["host"] == f"127.0.0.1:{server.port}"
            method, path, version = seen.head.split("\r\n")[0].split(" ")
            assert (method, version) == ("POST", "HTTP/1.1")
            if field not in {"base_url", "token_url"}:
                assert path in {
                    "/token",
                    "/api/v1/accounts/9900000/code/messaging",
                    "/api/v1/accounts/9900000/code/verify",
                }
        sends = [json.loads(seen.body) for seen in server.seen if b"applicationId" in seen.body]
        assert [set(document) for document in sends] == [
            {"to", "from", "applicationId", "scope", "message", "digits", "callbackUrl"}
        ]
        name = {"application_id": "applicationId", "callback_url": "callbackUrl"}.get(field, field)
        if name in sends[0]:
            assert sends[0][name].endswith(attack)
    if field in {"to", "from_", "code", "account_id"}:
        assert refused == len(ATTACKS)
    if field in {"username", "password", "client_id", "client_secret", "base_url", "token_url", "callback_url"}:
        assert refused >= 8


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "form", ["http://keeper{}:pass@{}", "http://keeper:pass{}@{}", "http://{1}/x{0}", "http://{1}{0}"]
)
async def test_no_proxy_url_can_inject_into_a_request(form: str, attack: str) -> None:
    """It is refused by name, or the proxy gets one CONNECT with a host and credentials and nothing else."""
    async with FaultServer(default=answer(407, b"")) as proxy:
        url = form.format(attack, f"127.0.0.1:{proxy.port}")
        client: MFAClient | None = None
        said = ""
        try:
            client = MFAClient("9", BASIC, proxy=url, retry=RetryPolicy(max_attempts=1))
        except ConfigurationError as error:
            said = str(error)
        if client is None:
            assert said.startswith("proxy: ")
            return
        async with client:
            failure = await failing(client, "send")
        assert failure.delivery is Delivery.NOT_SENT
        for seen in proxy.seen:
            first, *lines = seen.head.rstrip("\r\n").split("\r\n")
            assert first == "CONNECT mfa.bandwidth.com:443 HTTP/1.1"
            assert {line.partition(":")[0].lower() for line in lines} <= EXPECTED - {"authorization"} | {
                "proxy-authorization"
            }
            assert seen.body == b""


def test_errors_of_invalid_strings_do_not_show_them() -> None:
    """Neither the string nor the value that it was attached to."""
    for attack in ATTACKS:
        for make in (
            lambda a: BasicAuth(SENTINELS["username"] + a, "p"),
            lambda a: OAuth2ClientCredentials("c", SENTINELS["client_secret"] + a),
            lambda a: CodeRequest(SENTINELS["to"] + a, FROM, "app"),
            lambda a: VerifyCodeRequest(TO, SENTINELS["code"] + a),
        ):
            with contextlib.suppress(MFAError):
                make(attack)
                continue
            try:
                make(attack)
            except MFAError as error:
                shown = f"{error} {error!r} {error.args}"
                assert_clean(shown, repr(attack))
                assert "X-Injected" not in shown
