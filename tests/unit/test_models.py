"""Requests and responses validate their values at construction and hide them in errors and reprs."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandwidth_mfa_async import (
    CodeRequest,
    CodeTemplate,
    InvalidRequestError,
    MessagingCodeResponse,
    VerifyCodeRequest,
    VerifyCodeResponse,
    normalize_code,
)
from tests.conftest import APPLICATION, FROM, TO

GOOD: dict[str, Any] = {"to": TO, "from_": FROM, "application_id": APPLICATION}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (field, value)
            for field in ("to", "from_")
            for value in (
                "",
                "19195551234",
                "+1",
                "+1234567890123456",
                TO + "\n",
                " " + TO,
                "+1919555123x",
                "+1 919 555 1234",
                "+١٢٣٤٥٦٧٨",
                "+²³⁴⁵",
                "++1919555",
                "tel:+19195551234",
                None,
                19195551234,
                TO.encode(),
            )
        ],
        ("application_id", ""),
        ("application_id", "   "),
        ("application_id", "x" * 51),
        ("application_id", None),
        ("scope", ""),
        ("scope", "x" * 26),
        ("scope", 7),
        ("message", ""),
        ("message", "no placeholder"),
        ("message", "{code}"),
        ("message", "{CODE}" + "x" * 2043),
        ("message", b"{CODE}"),
        ("message", "{CODE} \ud800"),
        ("digits", 3),
        ("digits", 9),
        ("digits", True),
        ("digits", 6.0),
        ("digits", "6"),
        ("callback_url", ""),
        ("callback_url", "example.com/x"),
        ("callback_url", "ftp://example.com"),
        ("callback_url", "https://"),
        ("callback_url", "https://exa mple.com"),
        ("callback_url", "https://example.com:99999"),
    ],
)
def test_an_invalid_value_raises_an_error_that_names_the_field(field: str, value: object) -> None:
    """The error is also a ValueError and does not contain the value."""
    with pytest.raises(InvalidRequestError) as caught:
        CodeRequest(**(GOOD | {field: value}))
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.field == field
    if field in {"to", "from_"} and isinstance(value, (str, bytes)) and len(value) > 6:
        shown = str(error) + repr(error) + repr(error.args)
        assert str(value).strip() not in shown
    if field != "to":
        with pytest.raises(InvalidRequestError):
            CodeTemplate(**{key: item for key, item in (GOOD | {field: value}).items() if key != "to"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", "+12"),
        ("to", "+123456789012345"),
        ("application_id", "x" * 50),
        ("scope", "x" * 25),
        ("scope", None),
        ("message", "{CODE}" + "x" * 2042),
        ("message", None),
        ("message", "Ваш код {CODE}"),
        ("digits", 4),
        ("digits", 8),
        ("digits", None),
        ("callback_url", "https://example.com:8443/mfa/callback?x=1"),
    ],
)
def test_a_value_at_its_bound_is_valid(field: str, value: object) -> None:
    """The bounds are inclusive."""
    assert getattr(CodeRequest(**(GOOD | {field: value})), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", "5551234"),
        ("code", "12a456"),
        ("code", "123"),
        ("code", "123456789"),
        ("code", "12345\n"),
        ("code", "١٢٣٤"),
        ("code", 123456),
        ("code", None),
        ("scope", "x" * 26),
        ("expiration_time_in_minutes", 0),
        ("expiration_time_in_minutes", -1),
        ("expiration_time_in_minutes", 15.01),
        ("expiration_time_in_minutes", True),
        ("expiration_time_in_minutes", "3"),
        ("expiration_time_in_minutes", float("nan")),
        ("expiration_time_in_minutes", float("inf")),
    ],
)
def test_an_invalid_value_of_a_verify_raises_an_error_that_names_the_field(field: str, value: object) -> None:
    """The error never contains the code."""
    good: dict[str, Any] = {"to": TO, "code": "482913"}
    with pytest.raises(InvalidRequestError) as caught:
        VerifyCodeRequest(**(good | {field: value}))
    assert caught.value.field == field
    if field == "code" and value is not None:
        assert str(value).strip() not in str(caught.value)


@pytest.mark.parametrize("minutes", [0.1, 1, 1.5, 15])
def test_the_expiration_time_is_at_most_15_minutes(minutes: float) -> None:
    """0 is invalid, 15 is valid."""
    assert VerifyCodeRequest(TO, "0000", expiration_time_in_minutes=minutes).expiration_time_in_minutes == minutes


@given(st.text(max_size=20))
def test_only_e164_numbers_are_valid(text: str) -> None:
    """Every valid number is a plus sign and 2 to 15 ASCII digits."""
    try:
        request = CodeRequest(text, FROM, APPLICATION)
    except InvalidRequestError:
        return
    assert request.to[0] == "+"
    assert set(request.to[1:]) <= set("0123456789")
    assert 3 <= len(request.to) <= 16


def test_a_template_makes_requests() -> None:
    """A request has all fields of its template, and the recipient is validated."""
    template = CodeTemplate(FROM, APPLICATION, "login", "{CODE}!", 8, "https://example.com/x")
    request = template.to(TO)
    assert request == CodeRequest(TO, FROM, APPLICATION, "login", "{CODE}!", 8, "https://example.com/x")
    with pytest.raises(InvalidRequestError):
        template.to("no number")


def test_requests_are_values() -> None:
    """They are frozen, hashable, picklable and equal by content."""
    request = CodeRequest(**GOOD)
    assert pickle.loads(pickle.dumps(request)) == request
    assert len({request, CodeRequest(**GOOD)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.to = FROM  # type: ignore[misc]


def test_a_verify_response_has_no_truth_value() -> None:
    """`if await mfa.verify_code(...)` would accept every code, so it raises an error that points to `.valid`."""
    for valid in (True, False):
        with pytest.raises(TypeError, match=r"\.valid"):
            bool(VerifyCodeResponse(valid))
    assert VerifyCodeResponse(valid=True).valid is True


def test_meta_does_not_affect_the_equality_of_responses() -> None:
    """`meta` describes the call, not the response."""
    assert MessagingCodeResponse("x") == MessagingCodeResponse("x")


@pytest.mark.parametrize(
    "typed",
    [
        "042424",
        " 042 424\n",
        "042-424",
        "0 4 2\t4 2 4",
        "042\u2013424",
        "042\u2011424",
        "042\u2212424",
        "\uff10\uff14\uff12\uff14\uff12\uff14",
        "\u0660\u0664\u0662\u0664\u0662\u0664",
        "\u0966\u096a\u0968\u096a\u0968\u096a",
        "\u200e042\u200b424\u202c\ufeff",
        "\u2066042424\u2069",
        "042\u00a0424\u3000",
        "042\u00ad424",
        "\U0001d7d8\U0001d7dc\U0001d7da424",
    ],
    ids=ascii,
)
def test_a_typed_code_is_normalized(typed: str) -> None:
    """Blanks, dashes, invisible marks and foreign digits; leading zeros stay."""
    assert normalize_code(typed) == "042424"
    assert VerifyCodeRequest("+19195551234", normalize_code(typed)).code == "042424"


@pytest.mark.parametrize(
    "typed", ["", " ", "code 042424", "042424.", "042424 or 424242?", "O42424", "042_424", "042\u00bd424", "+042424"]
)
def test_no_code_is_guessed_out_of_a_text(typed: str) -> None:
    """Everything else stays, and the request refuses it."""
    with pytest.raises(InvalidRequestError, match=r"^code:"):
        VerifyCodeRequest("+19195551234", normalize_code(typed))


def test_what_cannot_be_a_typed_code_is_not_normalized() -> None:
    """A long text costs nothing, and a number is refused: its leading zeros are lost."""
    long = "0 " * 1_000_000
    assert normalize_code(long) is long
    with pytest.raises(InvalidRequestError, match=r"^code: must be str, not int"):
        normalize_code(42424)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"^code:"):
        VerifyCodeRequest("+19195551234", "042 424")  # the request itself does not normalize


@given(st.text(max_size=64))
def test_every_digit_becomes_an_ascii_one(text: str) -> None:
    """And no blank or invisible character remains."""
    normal = normalize_code(text)
    assert all(char.isascii() for char in normal if char.isdecimal())
    assert normal.isprintable()
    assert " " not in normal
