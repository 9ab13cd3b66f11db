"""Values are checked when they are made, and say nothing of what they hold."""

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
def test_a_bad_value_is_refused_by_name(field: str, value: object) -> None:
    """The error names the field, is a ValueError too, and does not show the value."""
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
def test_a_value_at_its_bound_is_taken(field: str, value: object) -> None:
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
def test_a_bad_verify_is_refused_by_name(field: str, value: object) -> None:
    """The same for verify requests; the code is never shown."""
    good: dict[str, Any] = {"to": TO, "code": "482913"}
    with pytest.raises(InvalidRequestError) as caught:
        VerifyCodeRequest(**(good | {field: value}))
    assert caught.value.field == field
    if field == "code" and value is not None:
        assert str(value).strip() not in str(caught.value)


@pytest.mark.parametrize("minutes", [0.1, 1, 1.5, 15])
def test_a_window_is_up_to_15_minutes(minutes: float) -> None:
    """0 exclusive to 15 inclusive."""
    assert VerifyCodeRequest(TO, "0000", expiration_time_in_minutes=minutes).expiration_time_in_minutes == minutes


@given(st.text(max_size=20))
def test_only_e164_passes(text: str) -> None:
    """Whatever is taken is a plus sign and 2 to 15 ASCII digits."""
    try:
        request = CodeRequest(text, FROM, APPLICATION)
    except InvalidRequestError:
        return
    assert request.to[0] == "+"
    assert set(request.to[1:]) <= set("0123456789")
    assert 3 <= len(request.to) <= 16


def test_a_template_makes_requests() -> None:
    """Everything but the recipient carries over."""
    template = CodeTemplate(FROM, APPLICATION, "login", "{CODE}!", 8, "https://example.com/x")
    request = template.to(TO)
    assert request == CodeRequest(TO, FROM, APPLICATION, "login", "{CODE}!", 8, "https://example.com/x")
    with pytest.raises(InvalidRequestError):
        template.to("nobody")


def test_requests_are_values() -> None:
    """Frozen, equal by content, hashable and picklable."""
    request = CodeRequest(**GOOD)
    assert pickle.loads(pickle.dumps(request)) == request
    assert len({request, CodeRequest(**GOOD)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.to = FROM  # type: ignore[misc]


def test_a_verify_answer_has_no_truth() -> None:
    """`if await mfa.verify_code(...)` would let everyone in, so it raises and says what to use."""
    for valid in (True, False):
        with pytest.raises(TypeError, match=r"\.valid"):
            bool(VerifyCodeResponse(valid))
    assert VerifyCodeResponse(valid=True).valid is True


def test_answers_are_equal_whatever_they_took() -> None:
    """`meta` tells how an answer came about and is no part of what it says."""
    assert MessagingCodeResponse("x") == MessagingCodeResponse("x")
