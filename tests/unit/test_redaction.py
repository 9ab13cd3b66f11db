"""No repr, event or error contains a phone number, a code, a text or a credential."""

from __future__ import annotations

import enum
import importlib
import inspect
import pathlib
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
    SQLiteJournal,
    VerifyCodeRequest,
    VerifyCodeResponse,
    _auth,
    _config,
    _credentials,
    _models,
    stores,
    telemetry,
    testing,
    webhooks,
    worker,
)
from bandwidth_mfa_async._redaction import is_id, is_printable, mask_phone, printable, scrub, show_host_only
from bandwidth_mfa_async._wire import _answers, _operations, _token
from bandwidth_mfa_async.limits import ChannelLimiter, Permit, PrioritySemaphore
from bandwidth_mfa_async.telemetry import _events
from tests.support.secrets import SENTINELS, assert_clean


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
        "first": OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"]),
        "second": BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        "probe_after": 300.0,
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
        stores.MemoryStore(secret="s3ntinel" * 4),
        stores.SQLiteStore(path / "codes.db", secret="s3ntinel" * 4),
        stores.RedisStore(redis, secret="s3ntinel" * 4),
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
        "current",
        "delivery",
        "elapsed",
        "error_type",
        "kind",
        "lane",
        "operation",
        "possible_duplicate",
        "previous",
        "purpose",
        "rate",
        "reason",
        "region",
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


# A bidirectional mark and override, zero-width characters, a byte order mark, line and paragraph separators, a
# C1 control, a lone surrogate, a private and an unassigned character, an ideographic blank, and letters and marks that
# are invisible.
INVISIBLE = (
    "\u200e\u202e\u2066\u200b\u200d\u2060\ufeff\u2028\u2029\x85\x1b\x00\ud800\ue000\u0378\u3000\u00a0"
    "\u3164\ufe0f\u034f\u2800\xad"
)


@pytest.mark.parametrize("char", INVISIBLE, ids=ascii)
def test_an_invisible_character_is_not_shown(char: str) -> None:
    """One rule for every text from elsewhere; `scrub` and `printable` apply it."""
    assert not is_printable(f"a{char}b")
    assert printable(f"a{char}{char}b") == scrub(f"a{char}{char}b") == "a b"
    assert printable(f"a{char}b", "?") == "a?b"
    assert not is_id(f"a{char}b")


@pytest.mark.parametrize("text", ["plain text", "Zürich, 東京 and Ελλάδα", "عمان", "👍 done"])
def test_a_visible_text_is_shown_as_it_is(text: str) -> None:
    """Every language and emoji."""
    assert printable(text) == scrub(text) == text
    assert is_printable(text)


@pytest.mark.parametrize(
    "echo",
    [
        "+ 1 - 919 - 555 - 1234",
        "+1 / / 919 / / / / 555 / / / / 1234",
        "1.919.555.1234",
        "(919) 555-1234",
        "9 1 9 ---- 5 5 5 ---- 1 2 3 4",
        "\uff0b\uff11\uff19\uff11\uff19 \uff15\uff15\uff15\uff11\uff12\uff13\uff14",
        "\u0661\u0669\u0661\u0669\u0665\u0665\u0665\u0661\u0662\u0663\u0664",
        "+1\u200b919\u202a555\u20281234",
    ],
)
def test_a_number_is_hidden_whatever_its_separators(echo: str) -> None:
    """No digit of it remains, and the words around it do."""
    shown = scrub(f"no route to {echo} today", ["+19195551234"])
    assert not any(char.isdecimal() for char in shown)
    assert shown.startswith("no route to ")
    assert shown.endswith("*** today")


def test_a_text_is_hidden_in_any_case_and_with_any_white_space() -> None:
    """Also one that is longer than what is shown."""
    secret = "Open the\nvault at noon " + "x" * 5_000
    assert scrub(f"bad text: {secret.upper()}!", [secret]) == "bad text: ***!"
    assert scrub("bad text: open  the vault at noon", ["Open the\nvault at noon"]) == "bad text: ***"


def test_only_the_host_of_a_url_is_shown() -> None:
    """Paths and queries of callback URLs often contain keys."""
    assert show_host_only("https://u:p@example.com:8443/x?y#z") == "'https://example.com:8443/***'"
