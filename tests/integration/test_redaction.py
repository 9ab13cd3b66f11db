"""No repr, error, log, event or pickled error contains a phone number, a code, a text or a credential."""

from __future__ import annotations

import asyncio
import enum
import importlib
import inspect
import io
import logging
import pathlib
import pickle
import traceback
from typing import Any

import attrs
import pytest
import rich.pretty
from taskiq import InMemoryBroker

import bandwidth_mfa_async
from bandwidth_mfa_async import (
    BasicAuth,
    BulkSender,
    CodeRequest,
    CodeTemplate,
    Delivery,
    InvalidRequestError,
    ItemOutcome,
    LoggingHook,
    MFAClient,
    MFAError,
    OAuth2ClientCredentials,
    RedisLimits,
    RequestError,
    Resend,
    RetryPolicy,
    SQLiteJournal,
    VerifyCodeRequest,
    VerifyCodeResponse,
    _auth,
    _config,
    _credentials,
    _models,
    telemetry,
    testing,
    webhooks,
    worker,
)
from bandwidth_mfa_async._redaction import mask_phone, scrub, show_host_only
from bandwidth_mfa_async._wire import _answers, _operations, _token
from bandwidth_mfa_async.limits import ChannelLimiter, Permit, PrioritySemaphore
from bandwidth_mfa_async.telemetry import _events
from tests.support.fault_server import Act, FaultServer, answer, refused_port, reply

SENTINELS = {
    "to": "+19998887766",
    "from_": "+18887776655",
    "code": "90817263",
    "message": "s3ntinel-text {CODE}",
    "username": "s3ntinel-user",
    "password": "s3ntinel-password",
    "client_id": "s3ntinel-client",
    "client_secret": "s3ntinel-secret",
    "callback_url": "https://hook:s3ntinel@example.com/s3ntinel?key=s3ntinel",
    "header": "Bearer s3ntinel-token",
    "application_id": "app",
    "scope": "login",
    "message_id": "m-1",
    "call_id": "c-1",
}
# Forbidden texts: the secrets, the numbers without their plus sign, and the base64 of the password in Basic.
FORBIDDEN = ["s3ntinel", "9998887766", "8887776655", "90817263", "czNudGluZWw"]


def assert_clean(shown: str, where: str) -> None:
    for secret in FORBIDDEN:
        assert secret not in shown, f"{secret!r} is shown by {where}: {shown[:300]}"


def everything(error: BaseException) -> str:
    """Return everything that a crash reporter can collect from an error."""
    parts = [str(error), repr(error), repr(error.args), repr(vars(error)), repr(getattr(error, "__notes__", ""))]
    parts.append(repr(pickle.dumps(error)))
    parts += traceback.format_exception(error)
    for chained in (error.__cause__, error.__context__):
        if chained is not None:
            parts += [repr(chained), str(chained), repr(chained.args)]
    return "\n".join(parts)


def attrs_classes() -> list[type]:
    """Return every attrs class of the modules with data classes."""
    modules = (_config, _credentials, _models, _answers, _operations, _token, _auth, _events)
    found = {
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if attrs.has(cls) and cls.__module__ == module.__name__
    }
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", attrs_classes(), ids=lambda cls: cls.__name__)
def test_the_repr_of_a_data_class_contains_no_secret(cls: type) -> None:
    """Each class is built with secrets in every field that can hold one."""
    known = SENTINELS | {
        "digits": 8,
        "valid": True,
        "count": 5,
        "lifetime": 60.0,
        "status": 200,
        "headers": {},
        "body": b"s3ntinel",
        "name": "x",
        "path": "y",
        "response": VerifyCodeResponse,
        "channel": "messaging",
    }
    values: dict[str, Any] = {}
    for field in attrs.fields(cls):
        if field.alias in known:
            values[field.alias] = known[field.alias]
        elif field.default is attrs.NOTHING:
            values[field.alias] = "x"
    instance = cls(**values)
    assert_clean(repr(instance), cls.__name__)
    assert_clean(str(instance), cls.__name__)


def test_the_search_finds_every_data_class() -> None:
    """It finds at least the classes that users hold."""
    names = {cls.__name__ for cls in attrs_classes()}
    assert {"CodeRequest", "CodeTemplate", "VerifyCodeRequest", "BasicAuth", "OAuth2ClientCredentials"} <= names
    assert {"AttemptEvent", "CallEvent", "Token", "RetryPolicy", "Limits"} <= names
    assert {"MessagingCodeResponse", "RawResponse"} <= names


def public_classes() -> dict[str, type]:
    """Return every public class except errors, enumerations, protocols and type helpers."""
    names = ("", ".bulk", ".limits", ".telemetry", ".testing", ".webhooks", ".worker")
    modules = [importlib.import_module(f"bandwidth_mfa_async{name}") for name in names]
    return {
        name: thing
        for module in modules
        for name in module.__all__
        if inspect.isclass(thing := getattr(module, name))
        and not issubclass(thing, (BaseException, enum.Enum, dict))
        and not getattr(thing, "_is_protocol", False)
    }


def public_instances(path: pathlib.Path) -> list[object]:
    """Return an instance of every other public class, with secrets in every argument that accepts them."""
    basic = BasicAuth(SENTINELS["username"], SENTINELS["password"])
    template = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"], 8, SENTINELS["callback_url"])
    request = template.to(SENTINELS["to"])
    redis = "redis://s3ntinel:s3ntinel@127.0.0.1:1/0"
    client = MFAClient("9900000", basic, hooks=[LoggingHook()], proxy="http://s3ntinel:s3ntinel@127.0.0.1:1")
    bulk = BulkSender(client)
    clock = testing.ManualClock()
    workers = worker.MFAWorker(InMemoryBroker(), ledger=redis, client=lambda: client)
    receipt = {
        "description": "to +19998887766, see https://s3ntinel.example",
        "message": {"id": "m", "text": "s3ntinel"},
    }
    return [
        client,
        RedisLimits(redis, key="9900000"),
        SQLiteJournal(path / "run.db", template=template),
        bulk,
        bulk.summary,
        ItemOutcome(0, SENTINELS["to"], request, Delivery.ACCEPTED),
        ChannelLimiter("messaging", rate=None, adaptive=True, clock=clock),
        PrioritySemaphore(1, clock=clock),
        Permit(1, 0, refundable=False),
        LoggingHook(),
        telemetry.OpenTelemetryHook(),
        telemetry.HookList([LoggingHook()]),
        clock,
        testing.FakeTransport(),
        webhooks.DeliveryTracker(),
        webhooks.parse_delivery_receipt(receipt | {"time": "2026-01-01T00:00:00Z", "type": "message-failed"}),
        webhooks.receipt_asgi_app(print, auth=basic),
        webhooks.error_family(4720, "NorthAmericaSMS"),
        workers,
        workers.ledger,
        workers.job("launch"),
        worker.JobOutcome(0, "key", Delivery.ACCEPTED),
        worker.CodeOutcome(Delivery.ACCEPTED),
    ]


async def test_the_repr_of_a_public_class_contains_no_secret(tmp_path: pathlib.Path) -> None:
    """Neither its `repr` nor that of rich, which reads the fields of attrs classes itself."""
    # Excluded: tools for tests, which show their content, and results of runs, which have tests of their own.
    not_here = {"SentRequest", "Outcome", "ThreadedSimulator", "OutcomeStream", "JournalReport", "JobProgress"}
    instances = public_instances(tmp_path)
    seen = {cls.__name__ for cls in attrs_classes()} | {type(instance).__name__ for instance in instances}
    assert set(public_classes()) - seen - not_here == set()
    for instance in instances:
        assert_clean(f"{instance!r} {instance} {rich.pretty.pretty_repr(instance)}", type(instance).__name__)


def test_events_have_no_field_that_could_hold_a_secret() -> None:
    """The names of all fields are in this list."""
    allowed = {
        "attempt",
        "attempts",
        "call_id",
        "cause",
        "channel",
        "delivery",
        "elapsed",
        "error_type",
        "lane",
        "operation",
        "possible_duplicate",
        "rate",
        "request_id",
        "retry_in",
        "retry_stopped_by",
        "seconds",
        "status",
        "url",
        "waited",
    }
    events = [cls for _, cls in inspect.getmembers(telemetry, inspect.isclass) if cls.__name__.endswith("Event")]
    assert {field.name for cls in events for field in attrs.fields(cls)} <= allowed


@pytest.mark.parametrize("field", ["to", "from_", "message", "callback_url", "code"])
def test_the_error_of_an_invalid_value_does_not_contain_it(field: str) -> None:
    """It contains only the field and the rule."""
    bad = SENTINELS[field].replace("{CODE}", "") + "\x00x"
    good: dict[str, Any] = {"to": "+19998887766"}
    with pytest.raises(InvalidRequestError) as caught:
        if field == "code":
            VerifyCodeRequest(**(good | {"code": bad}))
        else:
            CodeRequest(**(good | {"from_": "+18887776655", "application_id": "app"} | {field: bad}))
    # Search only the error itself: the traceback contains the source line of this test.
    assert_clean(str(caught.value) + repr(caught.value) + repr(caught.value.args), field)


ECHO = (
    "number +19998887766 or 19998887766 from (888) 777-6655 code 90817263 user s3ntinel-user password "
    "s3ntinel-password Basic czNudGluZWwtdXNlcjpzM250aW5lbC1wYXNzd29yZA== https://s3ntinel.example/x"
)

FAULTS: dict[str, Act] = {
    "400": answer(400, {"error": ECHO, "requestId": "19998887766"}),
    "401": answer(401, {"message": ECHO}),
    "403": answer(403, {"Message": ECHO}),
    "404": answer(404, {"message": ECHO}),
    "429": answer(429, {"error": ECHO}, headers={"Retry-After": "0"}),
    "500": answer(500, {"error": ECHO, "requestId": "r"}),
    "502": answer(502, ECHO.encode()),
    "302": answer(302, b"", headers={"Location": "https://s3ntinel:s3ntinel@example.com/"}),
    "200 HTML": answer(200, ECHO.encode()),
    "200 echo": answer(200, {"result": ECHO}),
    "not HTTP": Act(ECHO.encode() + b"\r\n\r\n", then="fin"),
    "truncated": Act(reply(200, ECHO.encode(), length=9999), then="fin"),
    "bad header": answer(200, headers={"X-Echo": ECHO + "x" * 9000}),
    "cut": Act(then="fin"),
    "reset": Act(then="rst"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ["send", "call", "verify"])
async def test_no_failure_of_a_call_contains_a_secret(server: FaultServer, fault: str, operation: str) -> None:
    """Error, chain, notes, pickle, traceback, log and events are clean, even if the service echoes the secret."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(mfa_event)s"))
    logger = logging.getLogger("tests.redaction")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers = [handler]
    server.default = FAULTS[fault]
    template = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"])
    async with MFAClient(
        "9900000",
        BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        base_url=server.base_url,
        retry=RetryPolicy(wait_initial=0.0, resend=Resend.AT_LEAST_ONCE),
        hooks=[LoggingHook(logger)],
    ) as client:
        with pytest.raises(RequestError) as caught:
            if operation == "send":
                await client.generate_messaging_code(template.to(SENTINELS["to"]))
            elif operation == "call":
                await client.generate_voice_code(template.to(SENTINELS["to"]))
            else:
                await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
        assert_clean(repr(client), "the client")
    assert_clean(everything(caught.value), fault)
    assert stream.getvalue()
    assert_clean(stream.getvalue(), "the log")


async def test_the_error_of_a_refused_connection_contains_no_secret() -> None:
    """It is not chained to aiohttp's error, which may contain the Authorization header."""
    client = MFAClient(
        "9900000",
        BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        base_url=f"http://127.0.0.1:{refused_port()}/x",
        retry=RetryPolicy(max_attempts=1),
    )
    async with client:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    assert_clean(everything(caught.value), "refused")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_no_failure_of_a_token_request_contains_a_secret(server: FaultServer, status: int) -> None:
    """The token endpoint may echo the client secret."""
    server.default = answer(status, {"error": "client s3ntinel-client s3ntinel-secret", "message": "s3ntinel-secret"})
    auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
    client = MFAClient("9900000", auth, base_url=server.base_url, retry=RetryPolicy(wait_initial=0.0))
    async with client:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    assert_clean(everything(caught.value), "the token endpoint")


async def test_an_echoed_bearer_token_is_scrubbed(server: FaultServer) -> None:
    """A token is a secret like a password."""
    server.play(
        answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}),
        answer(403, {"Message": "no access for s3ntinel-token"}),
        answer(200, {"access_token": "s3ntinel-other", "expires_in": 60}),
        answer(403, {"Message": "no access for s3ntinel-other"}),
    )
    auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
    async with MFAClient("9900000", auth, base_url=server.base_url) as client:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    assert_clean(everything(caught.value), "a refused token")


async def test_asyncio_debug_output_contains_no_secret(server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the name and repr of a task nor the loop's debug log does."""
    asyncio.get_running_loop().set_debug(True)
    with caplog.at_level(logging.DEBUG):
        auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
        server.play(answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}), answer(200, {"valid": True}))
        async with MFAClient("9900000", auth, base_url=server.base_url) as client:
            call = asyncio.create_task(client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"]))
            while not call.done():
                assert_clean("".join(repr(task) for task in asyncio.all_tasks()), "a task")
                await asyncio.sleep(0)
            await call
    assert_clean(caplog.text, "the debug log")


def test_errors_have_no_argument_for_the_request() -> None:
    """An error cannot contain what its class does not accept."""
    for _, cls in inspect.getmembers(bandwidth_mfa_async, inspect.isclass):
        if issubclass(cls, MFAError) and cls.__init__ is not Exception.__init__:
            names = set(inspect.signature(cls.__init__).parameters)
            assert not names & {"request", "body", "headers", "to", "code", "response"}


@pytest.mark.parametrize(
    ("number", "shown"), [("+19998887766", "+***66"), ("+12", "+***"), ("+1234567", "+***67"), ("+123456", "+***")]
)
def test_a_masked_number_shows_at_most_two_digits(number: str, shown: str) -> None:
    """It does not reveal the length."""
    assert mask_phone(number) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("please wait 2 minutes", "please wait 2 minutes"),
        ("call +1 (999) 888-7766 now", "call *** now"),
        ("code 1234", "code ***"),
        ("400 Request is malformed", "400 Request is malformed"),
        ("line\nbreak\x1b[31m", "line break [31m"),
        ("see https://a.b/c?d=e for more", "see *** for more"),
        ("x" * 500, "x" * 199 + "…"),
    ],
)
def test_scrub_keeps_words_and_hides_numbers_and_urls(text: str, shown: str) -> None:
    """The result is one short line."""
    assert scrub(text) == shown


def test_only_the_host_of_a_url_is_shown() -> None:
    """Paths and queries of callback URLs often contain keys."""
    assert show_host_only("https://u:p@example.com:8443/x?y#z") == "'https://example.com:8443/***'"
