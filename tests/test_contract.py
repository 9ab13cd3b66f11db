"""The public contract: the names, signatures, defaults and meanings that other programs depend on.

The promised signatures are plain functions below. The code may accept more than they do, never less.
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
import pickle
import tomllib
from typing import TYPE_CHECKING, Any, get_args

import pytest

import bandwidth_mfa_async as mfa
from bandwidth_mfa_async import errors, pytest_plugin, simulator, telemetry, testing, webhooks, worker
from bandwidth_mfa_async._validation import Lane
from bandwidth_mfa_async.cli._app import app

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = tomllib.loads((pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
MESSAGE = "Your {NAME} {SCOPE} code is {CODE}"
ANY = object()
"""A parameter whose default must exist; its value is not promised."""

RETRY, LIMITS = mfa.RetryPolicy(), mfa.Limits()

# fmt: off
SIGNATURES: list[tuple[Any, Callable[..., None]]] = [
    (mfa.MFAClient, lambda account_id, auth, *, base_url="https://mfa.bandwidth.com/api/v1", retry=RETRY,
        limits=LIMITS, hooks=(), session=None, ssl=None, proxy=None: None),
    (mfa.MFAClient.from_env, lambda **overrides: None),
    (mfa.MFAClient.with_options, lambda self, *, retry=ANY, timeout=ANY, limits=ANY, hooks=ANY: None),
    (mfa.MFAClient.generate_messaging_code, lambda self, request, *, timeout=ANY, lane="interactive": None),
    (mfa.MFAClient.generate_voice_code, lambda self, request, *, timeout=ANY, lane="interactive": None),
    (mfa.MFAClient.verify_code, lambda self, request=ANY, *, timeout=ANY, lane="interactive": None),
    (mfa.MFAClient.warm_up, lambda self, n=1: None),
    (mfa.MFAClient.aclose, lambda self: None),
    (mfa.BasicAuth, lambda username, password: None),
    (mfa.OAuth2ClientCredentials, lambda client_id, client_secret, token_url=ANY: None),
    (mfa.CodeRequest, lambda to, from_, application_id, scope=None, message=MESSAGE, digits=6,
        callback_url=None: None),
    (mfa.CodeTemplate, lambda from_, application_id, scope=None, message=MESSAGE, digits=6, callback_url=None: None),
    (mfa.CodeTemplate.to, lambda self, number: None),
    (mfa.VerifyCodeRequest, lambda to, code, scope=None, expiration_time_in_minutes=3: None),
    (mfa.normalize_code, lambda text: None),
    (mfa.ResponseMeta, lambda attempts=ANY, elapsed=ANY, request_id=ANY, possible_duplicate=ANY: None),
    (mfa.RetryPolicy, lambda max_attempts=3, wait_initial=0.5, wait_max=8.0, timeout=60.0, attempt_timeout=30.0,
        connect_timeout=5.0, max_retry_after=60.0, resend=mfa.Resend.REJECTED: None),
    (mfa.Limits, lambda rate=None, voice_rate=None, adaptive=True, max_in_flight=100, shared=None,
        application_name=None: None),
    (mfa.Rate, lambda count, per=1.0: None),
    (mfa.Rate.parse, lambda text: None),
    (mfa.RedisLimits, lambda url, *, key: None),
    (mfa.BulkSender, lambda client, *, journal=None, max_in_flight=None, ordered=False, lane="bulk",
        channel="messaging", drain_timeout=30.0: None),
    (mfa.BulkSender.send, lambda self, requests, *, key=ANY: None),
    (mfa.ItemOutcome, lambda index, key, request, delivery, response=ANY, error=ANY: None),
    (mfa.SQLiteJournal, lambda path: None),
    (mfa.LoggingHook, lambda: None),
    (simulator.Simulator, lambda port=0: None),
    (simulator.Simulator.client_kwargs, lambda self: None),
    (testing.FakeTransport, lambda: None),
    (testing.ManualClock, lambda: None),
    (webhooks.parse_delivery_receipt, lambda body: None),
    (webhooks.DeliveryTracker, lambda: None),
    (webhooks.DeliveryTracker.wait, lambda self, message_id, timeout=ANY: None),
    (telemetry.OpenTelemetryHook, lambda: None),
    (telemetry.Hook.on_event, lambda self, event: None),
    (worker.MFAWorker, lambda broker, *, ledger, client: None),
    (worker.MFAWorker.submit, lambda self, requests, *, name, chunk=500: None),
    (worker.Job.watch, lambda self: None),
    (worker.RedisLedger, lambda url: None),
]
# fmt: on


@pytest.mark.parametrize(
    ("thing", "promised"), SIGNATURES, ids=[getattr(thing, "__qualname__", "") for thing, _ in SIGNATURES]
)
def test_signatures(thing: Any, promised: Callable[..., None]) -> None:
    """Each promised parameter exists, in its position, with its default; every later parameter has a default."""
    actual = inspect.signature(thing).parameters
    expected = inspect.signature(promised).parameters
    positional = [p.name for p in actual.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    in_order = [p.name for p in expected.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional[: len(in_order)] == in_order
    for name, parameter in expected.items():
        assert name in actual
        assert actual[name].kind in {parameter.kind, parameter.POSITIONAL_OR_KEYWORD}
        if parameter.default is ANY:
            assert actual[name].default is not parameter.empty
        else:
            assert actual[name].default == parameter.default, name
    for name in actual.keys() - expected.keys():
        extra = actual[name]
        assert extra.default is not extra.empty or extra.kind is extra.VAR_KEYWORD, f"{name} has become necessary"


# The edges of the tree: each error, its base class among ours, and its built-in base classes.
TREE = """
    ConfigurationError MFAError
    InvalidRequestError MFAError ValueError
    ClientStateError MFAError RuntimeError
    RequestError MFAError
    NotSentError RequestError ConnectionError
    ConnectTimeoutError NotSentError TimeoutError
    TLSError NotSentError
    DeliveryUnknownError RequestError
    ReadTimeoutError DeliveryUnknownError TimeoutError
    DisconnectedError DeliveryUnknownError ConnectionError
    ResponseDecodeError DeliveryUnknownError
    DeadlineExceededError RequestError TimeoutError
    APIStatusError RequestError
    BadRequestError APIStatusError
    AuthenticationError APIStatusError
    PermissionDeniedError APIStatusError
    NotFoundError APIStatusError
    RateLimitError APIStatusError
    VerificationLockedError RateLimitError
    ServerError APIStatusError
"""
BUILTIN = {"ValueError": ValueError, "RuntimeError": RuntimeError, "ConnectionError": ConnectionError}
BUILTIN["TimeoutError"] = TimeoutError


@pytest.mark.parametrize("line", TREE.strip().splitlines(), ids=lambda line: line.split()[0])
def test_the_tree_of_errors(line: str) -> None:
    """A handler of a base class, ours or Python's, catches the classes below it and no others of ours."""
    name, base, *others = line.split()
    error = getattr(errors, name)
    assert issubclass(error, getattr(errors, base))
    promised = {BUILTIN[other] for other in others}
    inherited = {kind for kind in BUILTIN.values() if issubclass(getattr(errors, base), kind)}
    assert {kind for kind in BUILTIN.values() if issubclass(error, kind)} == promised | inherited


DATA = "operation delivery attempts elapsed request_id retry_after retry_stopped_by"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (errors.NotSentError, DATA),
        (errors.DeliveryUnknownError, DATA),
        (errors.DeadlineExceededError, DATA),
        (errors.BadRequestError, f"{DATA} status error_text"),
        (errors.RateLimitError, f"{DATA} status error_text local"),
    ],
)
def test_what_errors_carry(kind: type[errors.RequestError], data: str) -> None:
    """All data are attributes, and survive pickling and a rebuild from `args`."""
    error = kind("what happened", "verify_code", errors.Delivery.REJECTED, 2, 1.5, "id", 3.0, "budget")
    for copy in (pickle.loads(pickle.dumps(error)), type(error)(*error.args)):
        assert type(copy) is kind
        assert {name: getattr(copy, name) for name in data.split()} == {
            name: getattr(error, name) for name in data.split()
        }
        assert (copy.operation, copy.attempts, copy.retry_after) == ("verify_code", 2, 3.0)


def test_members() -> None:
    """Programs compare, store and match the members by name."""
    deliveries = {"ACCEPTED", "REJECTED", "NOT_SENT", "UNKNOWN", "INVALID", "SKIPPED"}
    assert {member.name for member in mfa.Delivery} == deliveries
    assert {member.name for member in mfa.Resend} == {"NEVER_TWICE", "REJECTED", "AT_LEAST_ONCE"}
    assert set(get_args(Lane)) == {"interactive", "bulk"}


def test_responses() -> None:
    """The names of the ids; a verify response has no truth value."""
    assert mfa.MessagingCodeResponse("m").message_id == "m"
    assert mfa.VoiceCodeResponse("c").call_id == "c"
    check = mfa.VerifyCodeResponse(valid=True)
    assert check.valid is True
    with pytest.raises(TypeError, match=r"\.valid"):
        bool(check)
    meta = check.meta
    assert (meta.attempts, meta.request_id, meta.possible_duplicate) == (1, None, False)


@pytest.mark.parametrize("kind", [mfa.CodeRequest, mfa.CodeTemplate, mfa.VerifyCodeRequest, mfa.RetryPolicy])
def test_values_are_frozen(kind: type) -> None:
    """A validated value cannot be changed afterwards."""
    values = {"to": "+19195551234", "from_": "+19195554321", "application_id": "any", "code": "123456"}
    names = inspect.signature(kind).parameters
    value = kind(**{name: text for name, text in values.items() if name in names})
    with pytest.raises(AttributeError):
        setattr(value, next(iter(names)), 1)


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"BW_USERNAME": "u", "BW_PASSWORD": "p"}, mfa.BasicAuth),
        ({"BW_CLIENT_ID": "i", "BW_CLIENT_SECRET": "s"}, mfa.OAuth2ClientCredentials),
        ({"BW_USERNAME": "u", "BW_PASSWORD": "p", "BW_CLIENT_ID": "i", "BW_CLIENT_SECRET": "s"}, mfa.CredentialChain),
        (
            {
                "BW_USERNAME": "u",
                "BW_PASSWORD": "p",
                "BW_CLIENT_ID": "i",
                "BW_CLIENT_SECRET": "s",
                "BW_AUTH": "oauth2",
            },
            mfa.OAuth2ClientCredentials,
        ),
    ],
)
def test_the_environment(variables: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments set these variables; if both kinds are set, both are used unless BW_AUTH selects one."""
    for name in ("BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET", "BW_AUTH", "BW_TOKEN_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BW_ACCOUNT_ID", "9900000")
    monkeypatch.setenv("BW_MFA_URL", "http://127.0.0.1:1/api/v1")
    client = mfa.MFAClient.from_env()
    assert repr(client) == "MFAClient(account_id='9900000', base_url='http://127.0.0.1:1/api/v1')"
    assert type(client._executor.state.auth) is kind


def test_every_missing_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error names all of them, so that an environment can be corrected in one step."""
    for name in ("BW_ACCOUNT_ID", "BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET", "BW_AUTH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(errors.ConfigurationError) as caught:
        mfa.MFAClient.from_env()
    for name in ("BW_ACCOUNT_ID", "BW_USERNAME", "BW_PASSWORD"):
        assert name in str(caught.value)


async def test_the_simulator_as_others_use_it() -> None:
    """The inbox, the names of a message's attributes, and the form of the base URL."""
    login = mfa.CodeTemplate(from_="+19195554321", application_id="any", scope="login")
    async with simulator.Simulator() as sim, mfa.MFAClient(**sim.client_kwargs()) as client:
        assert sim.base_url.startswith("http://127.0.0.1:")
        assert sim.base_url.endswith("/api/v1")
        assert all((sim.account_id, sim.username, sim.password))
        sent = await client.generate_messaging_code(login.to("+19195551234"))
        called = await client.generate_voice_code(login.to("+19195551235"))
        text, call = sim.inbox
        assert (text.to, text.scope, text.channel, text.message_id) == (
            "+19195551234",
            "login",
            "messaging",
            sent.message_id,
        )
        assert (call.channel, call.message_id) == ("voice", called.call_id)
        assert text.code in text.text
        assert (await client.verify_code(to=text.to, code=text.code, scope="login")).valid
        asked = mfa.VerifyCodeRequest(text.to, "0000")
        assert not (await client.verify_code(asked)).valid


async def test_the_body_of_2020() -> None:
    """None omits a key, so that the request of 2020 with its four keys can still be sent."""
    fake = testing.FakeTransport()
    async with fake.client() as client:
        await client.generate_messaging_code(
            mfa.CodeRequest("+19195551234", "+19195554321", "app", scope="scope", message=None, digits=None)
        )
        await client.generate_messaging_code(mfa.CodeRequest("+19195551234", "+19195554321", "app"))
    seed, today = (sent.document for sent in fake.sent)
    assert seed == {"to": "+19195551234", "from": "+19195554321", "applicationId": "app", "scope": "scope"}
    assert today.keys() == {"to", "from", "applicationId", "message", "digits"}


def test_what_an_installation_offers() -> None:
    """Extras, the command and its subcommands, and the plugin have the names that scripts and configurations use."""
    assert {"cli", "redis", "worker", "otel", "speed", "all"} <= PROJECT["optional-dependencies"].keys()
    assert PROJECT["scripts"]["bandwidth-mfa"] == "bandwidth_mfa_async.cli:main"
    assert {"demo", "send", "call", "verify", "bulk", "simulate", "report", "doctor"} <= app.commands.keys()
    plugin = PROJECT["entry-points"]["pytest11"]["bandwidth_mfa_async"]
    assert importlib.import_module(plugin) is pytest_plugin
    for fixture in ("mfa_simulator", "mfa_client"):
        assert hasattr(pytest_plugin, fixture)


def test_webhooks_by_name() -> None:
    """The receipt class, its parser, and one integration for each kind of server."""
    for name in ("DeliveryReceipt", "parse_delivery_receipt", "add_receipt_route", "receipt_asgi_app"):
        assert name in webhooks.__all__
