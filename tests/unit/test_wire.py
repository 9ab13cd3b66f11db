"""Requests are encoded and responses deciphered by pure functions."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from bandwidth_mfa_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CodeRequest,
    CodeTemplate,
    Delivery,
    NotSentError,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
    ResponseDecodeError,
    ServerError,
    VerificationLockedError,
    VerifyCodeRequest,
    _wire,
)
from bandwidth_mfa_async._retry_after import parse_retry_after
from bandwidth_mfa_async._wire import _json

SAMPLES = pathlib.Path(__file__).parents[1] / "samples"
INDEX: dict[str, dict[str, Any]] = json.loads((SAMPLES / "index.json").read_text())
OPERATIONS = {"messaging": _wire.MESSAGING, "voice": _wire.VOICE, "verify": _wire.VERIFY}


@pytest.fixture(params=["orjson", "json"], autouse=True)
def _codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with and without the [speed] extra."""
    _json._encode_without_recipient.cache_clear()
    if request.param == "json":
        monkeypatch.setattr(_json, "orjson", None)
    elif sys.version_info >= (3, 15):
        pytest.importorskip("orjson", reason="it has no wheel for this Python")
    else:
        assert _json.orjson is not None


def decipher(name: str) -> Any:
    entry = INDEX[name]
    answer = _wire.RawResponse(entry["status"], CIMultiDict(), (SAMPLES / name).read_bytes())
    return _wire.decipher(OPERATIONS[entry["operation"]], answer)


@given(
    st.from_regex(r"\+[0-9]{2,15}", fullmatch=True),
    st.one_of(st.none(), st.text('aé"\\ \u2028😀', min_size=1, max_size=25).filter(str.strip)),
    st.one_of(st.none(), st.text('x{}"\\\n€', max_size=40)),
    st.one_of(st.none(), st.integers(4, 8)),
    st.one_of(st.none(), st.just("https://example.com/r?a=1&b=%22")),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_code_request_encodes_to_the_json_of_its_fields(
    to: str, scope: str | None, message: str | None, digits: int | None, callback_url: str | None
) -> None:
    """The encoded part without the recipient is cached; the result is the same, whatever the text contains."""
    text = None if message is None else message + "{CODE}"
    for template in (CodeTemplate(to, "app", scope, text, digits, callback_url),) * 2:
        for number in (to, "+12"):
            request = template.to(number)
            assert request == CodeRequest(number, to, "app", scope, text, digits, callback_url)
            names = {"to": number, "from": to, "applicationId": "app", "scope": scope, "message": text}
            names |= {"digits": digits, "callbackUrl": callback_url}  # type: ignore[dict-item]
            document = {name: value for name, value in names.items() if value is not None}
            assert _wire.encode(request) == json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_2020_request_is_encoded_byte_for_byte() -> None:
    """Four keys, in the order of the page of 2020, and no others."""
    request = CodeRequest(
        "+12345678902",
        "+12345678901",
        "93de2206-9669-4e07-948d-329f4b722ee2",
        scope="scope",
        message=None,
        digits=None,
    )
    assert _wire.encode(request) == (
        b'{"to":"+12345678902","from":"+12345678901",'
        b'"applicationId":"93de2206-9669-4e07-948d-329f4b722ee2","scope":"scope"}'
    )


def test_the_2020_response_spelling_is_accepted() -> None:
    """`MessageId`, as the page spells it, gives `message_id`."""
    assert decipher("seed_page_2020.json").message_id == "1256-adf14asd-52dfa"


def test_a_template_fills_the_fields_that_the_api_requires() -> None:
    """The defaults fill `message` and `digits`; None omits a key."""
    body = json.loads(_wire.encode(CodeTemplate("+12345678901", "app").to("+12345678902")))
    assert body == {
        "to": "+12345678902",
        "from": "+12345678901",
        "applicationId": "app",
        "message": "Your {NAME} {SCOPE} code is {CODE}",
        "digits": 6,
    }


def test_optional_fields_use_the_services_names() -> None:
    """Names are derived once: `callback_url` is `callbackUrl`."""
    request = CodeRequest("+12345678902", "+12345678901", "app", "s", "é {CODE}", 8, "https://example.com/mfa/callback")
    assert json.loads(_wire.encode(request)) == {
        "to": "+12345678902",
        "from": "+12345678901",
        "applicationId": "app",
        "scope": "s",
        "message": "é {CODE}",
        "digits": 8,
        "callbackUrl": "https://example.com/mfa/callback",
    }
    verify = VerifyCodeRequest("+12345678902", "0123", "s", 1.5)
    assert json.loads(_wire.encode(verify)) == {
        "to": "+12345678902",
        "code": "0123",
        "scope": "s",
        "expirationTimeInMinutes": 1.5,
    }


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("messaging_200.json", "message_id", "1589228074636lm4k2je7j7jklbn2"),
        ("messaging_200_uuid.json", "message_id", "9e0df4ca-b18d-40d7-a59f-82fcdf5ae8e6"),
        ("voice_200.json", "call_id", "c-15ac29a2-1331029c-2cb0-4a07-b215-b22865662d85"),
        ("voice_200_seed_spelling.json", "call_id", "c-15ac29a2-1331029c-2cb0-4a07-b215-b22865662d85"),
        ("verify_200_valid.json", "valid", True),
        ("verify_200_invalid.json", "valid", False),
    ],
)
def test_documented_success_responses_are_parsed(name: str, attribute: str, value: object) -> None:
    """Every documented success, from every version of the documentation."""
    assert getattr(decipher(name), attribute) == value


REQUEST_ID = "354cc8a3-6701-461e-8fa7-8671703dd898"


@pytest.mark.parametrize(
    ("name", "error_type", "delivery", "text", "request_id"),
    [
        ("result_200_historic.json", ResponseDecodeError, Delivery.UNKNOWN, None, None),
        (
            "result_400_historic.json",
            BadRequestError,
            Delivery.REJECTED,
            "Invalid request - contact service manager",
            None,
        ),
        (
            "messaging_400.json",
            BadRequestError,
            Delivery.REJECTED,
            "to number is required",
            "abc12312-abcd-1234-abcd-1234abcd1234",
        ),
        (
            "messaging_400_spec.json",
            BadRequestError,
            Delivery.REJECTED,
            "400 Request is malformed or invalid",
            REQUEST_ID,
        ),
        ("unauthorized_401.json", AuthenticationError, Delivery.REJECTED, "Unauthorized", None),
        (
            "forbidden_403_prose.json",
            PermissionDeniedError,
            Delivery.REJECTED,
            "User is not authorized to access this resource with an explicit deny",
            None,
        ),
        ("forbidden_403_spec.json", PermissionDeniedError, Delivery.REJECTED, "Missing Authentication Token", None),
        (
            "verify_429.json",
            VerificationLockedError,
            Delivery.REJECTED,
            "This number has exceeded verification attempts, please wait 2 minutes",
            REQUEST_ID,
        ),
        ("messaging_api_429.json", RateLimitError, Delivery.REJECTED, "The SMS queue for your account is full", None),
        ("voice_api_429.json", RateLimitError, Delivery.REJECTED, "Account call creation rate limit exceeded", None),
        ("internal_500.json", ServerError, Delivery.REJECTED, "Internal Error", REQUEST_ID),
    ],
)
def test_documented_error_responses_map_to_error_classes(
    name: str, error_type: type[RequestError], delivery: Delivery, text: str | None, request_id: str | None
) -> None:
    """Every documented error: its class, delivery, text and request id."""
    with pytest.raises(RequestError) as caught:
        decipher(name)
    error = caught.value
    assert (type(error), error.delivery, error.request_id) == (error_type, delivery, request_id)
    if text is not None:
        assert isinstance(error, APIStatusError)
        assert error.error_text is not None
        assert error.error_text.startswith(text)
        assert text in str(error)


def test_every_sample_is_used_by_a_test() -> None:
    """Each sample file is in the index and appears in a test."""
    source = pathlib.Path(__file__).read_text()
    assert sorted(INDEX) == sorted(path.name for path in SAMPLES.glob("*.json") if path.name != "index.json")
    assert [name for name in INDEX if f'"{name}"' not in source] == []


def test_a_verify_lock_out_reads_the_wait_from_the_error_text() -> None:
    """The documented text gives the wait, because no source shows a header."""
    with pytest.raises(VerificationLockedError) as caught:
        decipher("verify_429.json")
    assert caught.value.retry_after == 120.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"messageId": null}',
        b'{"messageId": ""}',
        b'{"messageId": 7}',
        b'{"messageId": {"a": 1}}',
        b'{"messageId": ["a"]}',
        b'{"messageId": true}',
        b'{"callId": "x"}',
        b'{"messageId": "x"',
        rb'{"messageId": "\ud800"}',
        b"\xff\xfe{",
        b"[" * 60_000,
        b'{"a": 1e999, "b": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_2xx_without_an_id_is_unknown(body: bytes) -> None:
    """Only the documented response is a success; any other 200 leaves the outcome unknown."""
    with pytest.raises(ResponseDecodeError) as caught:
        _wire.decipher(_wire.MESSAGING, _wire.RawResponse(200, CIMultiDict(), body))
    assert caught.value.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize("value", ["a b", "a\x00", "a\r\nb", "\x1b[2J", "a\u2028b", "\u202ea", "é", "x" * 129])
@pytest.mark.parametrize(("operation", "name"), [("messaging", "messageId"), ("voice", "CallId")])
def test_an_id_is_at_most_128_printable_ascii_characters(operation: str, name: str, value: str) -> None:
    """Ids go into journals, ledgers, logs and terminals; with any other id the outcome is unknown."""
    body = json.dumps({name: value}).encode()
    with pytest.raises(ResponseDecodeError) as caught:
        _wire.decipher(OPERATIONS[operation], _wire.RawResponse(200, CIMultiDict(), body))
    assert caught.value.delivery is Delivery.UNKNOWN
    longest = json.dumps({name: "~" * 128}).encode()
    assert _wire.decipher(OPERATIONS[operation], _wire.RawResponse(200, CIMultiDict(), longest))


@pytest.mark.parametrize("value", ["true", 1, 0, None, "false", []])
def test_valid_must_be_a_json_boolean(value: object) -> None:
    """The text "false" is true in Python; accepting it would accept every code."""
    body = json.dumps({"valid": value}).encode()
    with pytest.raises(ResponseDecodeError):
        _wire.decipher(_wire.VERIFY, _wire.RawResponse(200, CIMultiDict(), body))


def test_unknown_keys_are_ignored() -> None:
    """The service may add keys to its responses."""
    body = b'{"messageId": "x", "meta": {"attempts": 9}, "more": [1]}'
    response = _wire.decipher(_wire.MESSAGING, _wire.RawResponse(202, CIMultiDict(), body))
    assert (response.message_id, response.meta.attempts) == ("x", 1)


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "2"}, 2.0),
        ({"Retry-After": "0.2"}, 0.2),
        ({"Retry-After": "\t42 "}, 42.0),
        ({"retry-after": "1000"}, 1000.0),
        ({"Retry-After": "1e9"}, 1e9),
        ({"Retry-After": "1" + "0" * 20}, 1e20),
        ({"Retry-After": "2", "retry-after-ms": "150"}, 0.15),
        ({"Retry-After": "2", "retry-after-ms": "x"}, 2.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT", "Date": DATE}, 10.0),
        ({"Retry-After": "Sunday, 06-Nov-94 08:49:47 GMT", "Date": DATE}, 10.0),
        ({"Retry-After": "Sun Nov  6 08:49:47 1994", "Date": DATE}, 10.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 -0000", "Date": DATE}, 10.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:07 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT"}, 5.0),  # without a Date: our own clock, below
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT", "Date": "rubbish"}, 5.0),
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "+5"}, None),
        ({"Retry-After": "1_000"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "12:00"}, None),
        ({"Retry-After": "Sun, 99 Nov 1994 08:49:47 GMT"}, None),
        ({"Retry-After": "9" * 400}, None),
    ],
)
def test_retry_after_forms_and_precedence(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, then finite seconds, then a date relative to the response's `Date`; invalid values are ignored."""
    now = 784111782.0  # five seconds after DATE
    parsed = parse_retry_after(CIMultiDict(headers), now)
    assert parsed == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kolkata"])
def test_http_dates_do_not_depend_on_the_local_time_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP dates are UTC, whatever the client's time zone."""
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    headers = CIMultiDict({"Retry-After": "Sun Nov  6 08:49:47 1994", "Date": DATE})
    try:
        assert parse_retry_after(headers, 0.0) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_error_that_echoes_the_request_is_scrubbed() -> None:
    """Numbers, codes and credentials that the service repeats do not appear in the error."""
    secrets = ("+19195551234", "19195551234", "s3cret-word", "hunter2")
    body = json.dumps(
        {
            "error": "no +19195551234 or (919) 555-1234 with code 482913 by Basic dXNlcjpwYXNz, hunter2 s3cret-word "
            "https://user:pw@example.com/x",
            "requestId": "19195551234",
        }
    ).encode()
    with pytest.raises(BadRequestError) as caught:
        _wire.decipher(_wire.MESSAGING, _wire.RawResponse(400, CIMultiDict(), body), secrets=lambda: secrets)
    shown = repr(caught.value) + str(caught.value) + repr(caught.value.args)
    for secret in (*secrets, "555", "482913", "dXNlcjpwYXNz", "pw@"):
        assert secret not in shown
    assert caught.value.request_id is None


@pytest.mark.parametrize(
    ("status", "body", "lifetime"),
    [
        (200, {"access_token": "t", "expires_in": 120, "token_type": "Bearer"}, 120.0),
        (200, {"access_token": "t", "expires_in": "120"}, 120.0),
        (200, {"access_token": "t"}, 3600.0),
        (200, {"access_token": "t", "expires_in": 0}, 3600.0),
        (200, {"access_token": "t", "expires_in": None}, 3600.0),
        (200, {"access_token": "t", "expires_in": 1e-9}, 1.0),
        (200, {"access_token": "t", "expires_in": "0.01"}, 1.0),
    ],
)
def test_a_token_without_a_valid_lifetime_lives_an_hour(status: int, body: object, lifetime: float) -> None:
    """Bandwidth's own tool assumes the same."""
    token = _wire.decipher_token(_wire.RawResponse(status, CIMultiDict(), json.dumps(body).encode()))
    assert (token.header, token.lifetime) == ("Bearer t", lifetime)
    assert "Bearer t" not in repr(token)


@pytest.mark.parametrize(
    ("status", "body", "error_type"),
    [
        (200, b"", NotSentError),
        (200, b'{"access_token": "line\\nbreak"}', NotSentError),
        (200, b'{"access_token": ""}', NotSentError),
        (400, b'{"error": "invalid_client"}', BadRequestError),
        (401, b"", AuthenticationError),
        (500, b"", ServerError),
    ],
)
def test_a_failed_token_request_is_not_sent(status: int, body: bytes, error_type: type[RequestError]) -> None:
    """Whatever the token endpoint responds, the code request was not sent."""
    with pytest.raises(RequestError) as caught:
        _wire.decipher_token(_wire.RawResponse(status, CIMultiDict(), body))
    assert (type(caught.value), caught.value.delivery) == (error_type, Delivery.NOT_SENT)
