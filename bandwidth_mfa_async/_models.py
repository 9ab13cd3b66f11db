"""Requests and responses: frozen classes that validate their values at construction.

The field rules are Bandwidth's (https://dev.bandwidth.com/docs/mfa, bandwidth.yml of Bandwidth/python-sdk). Comments
mark the places where its documents disagree.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from attrs import field, fields, frozen

from ._concise import ConciseType
from ._frames import clear_locals, clears_locals, init_clears_locals
from ._redaction import hide, is_printable, mask_phone_repr, show_host_only
from .errors import InvalidRequestError

if TYPE_CHECKING:
    from attrs import Attribute

DEFAULT_MESSAGE: Final = "Your {NAME} {SCOPE} code is {CODE}"

_E164 = re.compile(r"\+[0-9]{2,15}", re.ASCII)
_CODE = re.compile(r"[0-9]{4,8}", re.ASCII)
_MAX_TYPED: Final = 64
_PLACEHOLDER = re.compile(r"\{(?:NAME|SCOPE|CODE)\}")
# Shorter pieces of a message, such as "Your", are ordinary words of an error text.
_MIN_PIECE: Final = 8


def _checked_text(name: str, value: object, *, max_length: int | None = None) -> str:
    """Return a non-empty text that UTF-8 can encode.

    Raises:
        InvalidRequestError: the value breaks a rule; the error names the field and the rule.
    """
    if not isinstance(value, str):
        raise InvalidRequestError(name, f"must be str, not {type(value).__name__}")
    if not value.strip():
        raise InvalidRequestError(name, "must not be empty")
    if max_length is not None and len(value) > max_length:
        raise InvalidRequestError(name, f"must be at most {max_length} characters, not {len(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            pass  # raise outside: the error contains the text
        else:
            return value
        raise InvalidRequestError(name, "must be text that UTF-8 can encode (it holds a lone surrogate)")
    return value


def _check_phone_number(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise InvalidRequestError(attribute.name, f"must be str, not {type(value).__name__}")
    if not _E164.fullmatch(value):
        raise InvalidRequestError(
            attribute.name,
            "must be an E.164 number: '+', country code and number, 2 to 15 digits in all, and nothing else",
        )


def _check_application_id(_instance: object, attribute: Attribute[Any], value: object) -> None:
    _checked_text(attribute.name, value, max_length=50)


def _check_scope(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _checked_text(attribute.name, value, max_length=25)


def _check_message(_instance: object, attribute: Attribute[Any], value: object) -> None:
    # None omits the key. Until July 2020 the service chose the text; today's API requires one.
    if value is None:
        return
    if "{CODE}" not in _checked_text(attribute.name, value, max_length=2048):
        raise InvalidRequestError(attribute.name, "must hold {CODE}, where the service puts the code")


def _check_digits(_instance: object, attribute: Attribute[Any], value: object) -> None:
    # The text of the spec says 2 to 8, its schema 4 to 8. A verify rejects codes shorter than 4.
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 4 <= value <= 8:
        raise InvalidRequestError(attribute.name, "must be a whole number from 4 to 8")


def _check_callback_url(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    url = _checked_text(attribute.name, value, max_length=2048)
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        host, parts = None, None
    if parts is None or not host or parts.scheme not in {"http", "https"} or any(ord(char) <= 32 for char in url):
        raise InvalidRequestError(attribute.name, "must be an http:// or https:// URL that the service can reach")


def _check_code(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise InvalidRequestError(
            attribute.name, f"must be str, not {type(value).__name__}; a code may begin with zeros"
        )
    if not _CODE.fullmatch(value):
        raise InvalidRequestError(attribute.name, "must be 4 to 8 digits, as the person received them")


def _check_minutes(_instance: object, attribute: Attribute[Any], value: object) -> None:
    # This comparison is False for NaN and also works for integers too large for a float.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 15:
        raise InvalidRequestError(attribute.name, "must be a number of minutes greater than 0 and at most 15")


@init_clears_locals
@frozen
class CodeRequest(metaclass=ConciseType):
    """A request to generate a code and send it by text or by voice.

    A field that is None is omitted from the request body. The defaults are what today's API requires. With
    ``scope=...``, ``message=None`` and ``digits=None`` the body has exactly the four keys of the API of 2020.

    Args:
        to: the recipient, E.164: ``+`` and 2 to 15 digits.
        from_: the sender, E.164: a Bandwidth number associated with the application.
        application_id: 1 to 50 characters: a messaging application for texts, a voice application for calls.
        scope: at most 25 characters. The verify request must use the same scope. The service's default is ``"2FA"``.
        message: at most 2048 characters, with ``{CODE}``. The service replaces ``{NAME}`` by the application's name
            and ``{SCOPE}`` by the scope.
        digits: length of the code, 4 to 8.
        callback_url: URL that receives the delivery receipt of a text. Bandwidth documents it in prose only, and for
            messaging only.

    Raises:
        InvalidRequestError: a value breaks a rule; the error names the field and the rule, never the value.
    """

    to: str = field(validator=_check_phone_number, repr=mask_phone_repr)
    from_: str = field(validator=_check_phone_number, repr=mask_phone_repr)
    application_id: str = field(validator=_check_application_id)
    scope: str | None = field(default=None, validator=_check_scope)
    message: str | None = field(default=DEFAULT_MESSAGE, validator=_check_message, repr=hide)
    digits: int | None = field(default=6, validator=_check_digits)
    callback_url: str | None = field(default=None, validator=_check_callback_url, repr=show_host_only)


@init_clears_locals
@frozen
class CodeTemplate(metaclass=ConciseType):
    """All fields of a `CodeRequest` except the recipient.

    Args:
        from_: the sender, E.164: a Bandwidth number associated with the application.
        application_id: 1 to 50 characters: a messaging application for texts, a voice application for calls.
        scope: at most 25 characters. The verify request must use the same scope.
        message: at most 2048 characters, with ``{CODE}``; ``{NAME}`` and ``{SCOPE}`` are replaced too.
        digits: length of the code, 4 to 8.
        callback_url: URL that receives the delivery receipt of a text.

    Raises:
        InvalidRequestError: a value breaks a rule.
    """

    from_: str = field(validator=_check_phone_number, repr=mask_phone_repr)
    application_id: str = field(validator=_check_application_id)
    scope: str | None = field(default=None, validator=_check_scope)
    message: str | None = field(default=DEFAULT_MESSAGE, validator=_check_message, repr=hide)
    digits: int | None = field(default=6, validator=_check_digits)
    callback_url: str | None = field(default=None, validator=_check_callback_url, repr=show_host_only)

    def to(self, number: str) -> CodeRequest:
        """Return the request for one recipient.

        Args:
            number: the recipient, E.164.

        Raises:
            InvalidRequestError: it is not an E.164 number.
        """
        try:
            _check_phone_number(self, _TO_ATTRIBUTE, number)
        except InvalidRequestError as error:
            del number
            clear_locals(error)
            raise
        # Skip the other validators: the template has validated these values, and they are most of a request's cost.
        request = object.__new__(CodeRequest)
        object.__setattr__(request, "to", number)
        for name in _TEMPLATE_FIELDS:
            object.__setattr__(request, name, getattr(self, name))
        return request


_TO_ATTRIBUTE: Final = fields(CodeRequest).to
_TEMPLATE_FIELDS: Final = tuple(item.name for item in fields(CodeTemplate))


@init_clears_locals
@frozen
class VerifyCodeRequest(metaclass=ConciseType):
    """A request to check a code.

    Args:
        to: the number that the code was sent to, E.164.
        code: the code as the person typed it: 4 to 8 digits.
        scope: the scope of the code request, if it had one.
        expiration_time_in_minutes: maximum age of the code, more than 0 and at most 15. The verifier chooses it: the
            service accepts every code that it generated within this time.

    Raises:
        InvalidRequestError: a value breaks a rule; the error never contains the number or the code.
    """

    to: str = field(validator=_check_phone_number, repr=mask_phone_repr)
    code: str = field(validator=_check_code, repr=hide)
    scope: str | None = field(default=None, validator=_check_scope)
    expiration_time_in_minutes: float = field(default=3, validator=_check_minutes)


@clears_locals
def normalize_code(text: str) -> str:
    """Return the code that a person typed: without blanks, dashes and invisible marks, and with ASCII digits.

    People paste a code with a line break, type ``123-456``, or have a keyboard with full-width or Arabic digits. The
    text is put into Unicode's form NFKC, and every decimal digit becomes an ASCII one. Everything else stays: no code
    is guessed out of a sentence, and `VerifyCodeRequest` then refuses the text. `MFAClient.verify_code` does not call
    this itself.

    Args:
        text: what the person typed. A text of more than 64 characters is returned as it is.

    Raises:
        InvalidRequestError: it is not a str.
    """
    if not isinstance(text, str):
        raise InvalidRequestError("code", f"must be str, not {type(text).__name__}; a code may begin with zeros")
    if len(text) > _MAX_TYPED:
        return text
    kept = (char for char in unicodedata.normalize("NFKC", text) if is_printable(char) and not _is_separator(char))
    # Again, because a removed blank may have stood between a letter and its accent.
    joined = unicodedata.normalize("NFKC", "".join(kept))
    return "".join(str(unicodedata.decimal(char, char)) for char in joined)


def _is_separator(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) == "Pd" or char == "\N{MINUS SIGN}"


def secret_values(request: CodeRequest | VerifyCodeRequest) -> tuple[str, ...]:
    """Return the values of a request that must not appear in a text, also as the service may repeat them."""
    if isinstance(request, VerifyCodeRequest):
        return (request.to, request.code, request.scope or "")
    message, url = request.message or "", request.callback_url or ""
    # The service may repeat the text as it sends it: with values in the place of {CODE}, {SCOPE} and {NAME}.
    pieces = (piece.strip() for piece in _PLACEHOLDER.split(message))
    long_pieces = (piece for piece in pieces if len(piece) >= _MIN_PIECE)
    return (request.to, request.from_, message, *long_pieces, request.scope or "", url, url.partition("://")[2])


@frozen
class ResponseMeta(metaclass=ConciseType):
    """Facts about the call that produced a response.

    Attributes:
        attempts: number of HTTP attempts.
        elapsed: seconds from the call to the response, including waits and backoffs.
        request_id: the id that Amazon's gateway gave the request, if the response has the header `x-amzn-requestid`;
            no source shows it on MFA, so expect None. Errors also have the documented `requestId` of their bodies.
        possible_duplicate: the outcome of an earlier attempt is unknown, so the person may get two codes. None if the
            response comes from a journal or a ledger of an older version, which did not record it.
        credential: the kind of credentials that the service accepted, ``"basic"`` or ``"oauth2"``; None where it is
            not recorded.
        replayed: whether an earlier call with the same idempotency key got the id, and this call sent nothing.
    """

    attempts: int = 1
    elapsed: float = 0.0
    request_id: str | None = None
    possible_duplicate: bool | None = False
    credential: Literal["basic", "oauth2"] | None = field(default=None, kw_only=True)
    replayed: bool = field(default=False, kw_only=True)


_DEFAULT_META: Final = ResponseMeta()


@frozen
class MessagingCodeResponse(metaclass=ConciseType):
    """The service accepted a text.

    Attributes:
        message_id: the service's id of the text (29 characters in its own tests). Delivery receipts contain it.
        meta: facts about the call.
    """

    message_id: str
    meta: ResponseMeta = field(default=_DEFAULT_META, eq=False)


@frozen
class VoiceCodeResponse(metaclass=ConciseType):
    """The service accepted a voice call.

    Attributes:
        call_id: the service's id of the voice call (47 characters in its own tests).
        meta: facts about the call.
    """

    call_id: str
    meta: ResponseMeta = field(default=_DEFAULT_META, eq=False)


@frozen
class VerifyCodeResponse(metaclass=ConciseType):
    """The service checked a code. A wrong code is a response, not an error: read `.valid`.

    Attributes:
        valid: whether the code is right.
        meta: facts about the call.
    """

    valid: bool
    meta: ResponseMeta = field(default=_DEFAULT_META, eq=False)

    def __bool__(self) -> NoReturn:
        """Raise: ``if await mfa.verify_code(...)`` would otherwise accept every code.

        Raises:
            TypeError: always.
        """
        msg = "the truth of a VerifyCodeResponse is ambiguous; use .valid, which is False for a wrong code"
        raise TypeError(msg)


_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)


def attach_meta(response: _Response, meta: ResponseMeta) -> _Response:
    """Set the `meta` of a new response in place, before it is returned; `attrs.evolve` costs ten times as much."""
    object.__setattr__(response, "meta", meta)
    return response
