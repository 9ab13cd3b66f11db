"""Validation of request bodies.

The rules are those of multi-factor-auth.yml 3.1.0 and https://dev.bandwidth.com/docs/mfa. Of the messages only "to
number is required" is documented; the others follow its wording. Unknown keys are ignored, because Bandwidth's own
pages and samples send some (`applicationId` on a verification).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple, cast

from ._responses import MALFORMED_TEXT

DEFAULT_SCOPE: Final = "2FA"
DEFAULT_MESSAGE: Final = "Your {NAME} {SCOPE} code is {CODE}"
DEFAULT_DIGITS: Final = 6
MAX_EXPIRATION: Final = 15

_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")


class SendRequest(NamedTuple):
    """A valid code request."""

    to: str
    from_: str
    application_id: str
    scope: str
    message: str
    digits: int
    callback_url: str | None


class VerifyRequest(NamedTuple):
    """A valid verification."""

    to: str
    scope: str
    code: str
    window: float
    """Seconds."""


class BadRequestError(Exception):
    """The body is invalid; the message is the error text of the 400."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body.

    Raises:
        BadRequestError: the body is not a JSON object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError(MALFORMED_TEXT) from None
    if not isinstance(value, dict):
        raise BadRequestError(MALFORMED_TEXT)
    return cast("dict[str, Any]", value)


def read_recipient(body: bytes) -> str | None:
    """Return the `to` of a body, or None if it is not readable."""
    try:
        to = parse_object(body).get("to")
    except BadRequestError:
        return None
    return to if isinstance(to, str) else None


def read_send(value: dict[str, Any], *, require_message: bool) -> SendRequest:
    """Return a code request.

    Args:
        value: the body.
        require_message: reject a body without `message` or `digits`, as documented since 2020-07-16, instead of
            accepting the four keys of 2020-06.

    Raises:
        BadRequestError: a key is missing, has the wrong type, or is out of range.
    """
    to = _read_number(value, "to")
    from_ = _read_number(value, "from")
    application_id = _read_text(value, "applicationId", 1, 50)
    scope = _read_scope(value, 25)
    message = value.get("message")
    digits = value.get("digits")
    if require_message:
        _require("message", message)
        _require("digits", digits)
    if message is None:
        message = DEFAULT_MESSAGE
    if not isinstance(message, str) or len(message) > 2048:
        raise BadRequestError("message must be text of at most 2048 characters")
    if "{CODE}" not in message:
        raise BadRequestError("message must contain {CODE}")
    if digits is None:
        digits = DEFAULT_DIGITS
    # The spec's type was "number" until 2022, so 6.0 is accepted as 6.
    if isinstance(digits, bool) or not isinstance(digits, (int, float)) or digits not in {4, 5, 6, 7, 8}:
        raise BadRequestError("digits must be a whole number from 4 to 8")
    callback_url = value.get("callbackUrl")
    if callback_url is not None and not isinstance(callback_url, str):
        raise BadRequestError("callbackUrl must be text")
    return SendRequest(to, from_, application_id, scope, message, int(digits), callback_url)


def read_verify(value: dict[str, Any], *, require_expiration: bool) -> VerifyRequest:
    """Return a verification.

    Args:
        value: the body.
        require_expiration: reject a body without `expirationTimeInMinutes`, as documented since 2020-06-23. Before, no
            client sent it (Python SDK 6.2 to 6.5); not known: the window of that time. Here it is the longest one.

    Raises:
        BadRequestError: a key is missing, has the wrong type, or is out of range.
    """
    to = _read_number(value, "to")
    scope = _read_scope(value, None)
    minutes = value.get("expirationTimeInMinutes")
    if minutes is None and not require_expiration:
        minutes = MAX_EXPIRATION
    _require("expirationTimeInMinutes", minutes)
    # The description says "0 exclusive to 15 inclusive"; the schema's minimum of 1 is stricter.
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes <= MAX_EXPIRATION:
        raise BadRequestError("expirationTimeInMinutes must be greater than 0 and at most 15")
    code = _read_text(value, "code", 4, 8)
    return VerifyRequest(to, scope, code, minutes * 60.0)


def _require(name: str, value: object) -> None:
    if value is None:
        msg = f"{name} is required"
        raise BadRequestError(msg)


def _read_number(value: dict[str, Any], name: str) -> str:
    number = value.get(name)
    if number is None or number == "":
        msg = f"{name} number is required"
        raise BadRequestError(msg)
    if not isinstance(number, str) or not _E164.fullmatch(number):
        msg = f"{name} number is invalid"
        raise BadRequestError(msg)
    return number


def _read_text(value: dict[str, Any], name: str, minimum: int, maximum: int) -> str:
    text = value.get(name)
    _require(name, text)
    if not isinstance(text, str) or not minimum <= len(text) <= maximum:
        msg = f"{name} must be text of {minimum} to {maximum} characters"
        raise BadRequestError(msg)
    return text


def _read_scope(value: dict[str, Any], maximum: int | None) -> str:
    scope = value.get("scope")
    if scope is None:
        return DEFAULT_SCOPE
    if not isinstance(scope, str) or (maximum is not None and len(scope) > maximum):
        raise BadRequestError("scope must be text" + ("" if maximum is None else f" of at most {maximum} characters"))
    return scope
