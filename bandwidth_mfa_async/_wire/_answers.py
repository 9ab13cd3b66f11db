"""What the service expects and what its answers mean: JSON, statuses, headers. No I/O.

`encode` and `decipher` are pure functions over the table of operations; whoever moves the bytes knows none of this.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeGuard, TypeVar, cast

import cattrs
from attrs import define, field, fields, frozen, has
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from .._models import (
    CodeRequest,
    MessagingCodeResponse,
    VerifyCodeRequest,
    VerifyCodeResponse,
    VoiceCodeResponse,
)
from .._redaction import Secret, scrub
from .._retry_after import parse_retry_after, seconds, wait_in_words
from .._version import __version__
from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    Delivery,
    DisconnectedError,
    NotFoundError,
    NotSentError,
    PermissionDeniedError,
    RateLimitError,
    ReadTimeoutError,
    ResponseDecodeError,
    ServerError,
    VerificationLockedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..errors import RequestError

    Secrets: TypeAlias = Callable[[], Iterable[str]]

try:
    import orjson as _orjson
except ImportError:  # the [speed] extra is not installed
    orjson: Any = None
else:
    orjson = _orjson

USER_AGENT: Final = f"bandwidth-mfa-async/{__version__}"

Flaw: TypeAlias = Literal["timeout", "disconnected", "too large", "encoded"]
"""Why an answer's body is not whole or not readable."""

_Request = TypeVar("_Request", CodeRequest, VerifyCodeRequest)
_Response = TypeVar("_Response", MessagingCodeResponse, VoiceCodeResponse, VerifyCodeResponse)


# ---------------------------------------------------------------------------------------------- operations


@frozen
class Operation(Generic[_Request, _Response]):
    """One thing the service does.

    Attributes:
        name: the client method, used in errors and events.
        path: what follows ``/accounts/{accountId}/``.
        response: the class of a successful answer.
        channel: whose rate it counts against; None for a verify, which sends nothing.
    """

    name: str
    path: str
    response: type[_Response]
    channel: Literal["messaging", "voice"] | None

    @property
    def sends(self) -> bool:
        """Whether a success reaches a person, so that a repeat may too."""
        return self.channel is not None


# https://dev.bandwidth.com/apis/multi-factor-auth - unchanged since 2020-05-29
MESSAGING: Final = Operation[CodeRequest, MessagingCodeResponse](
    "generate_messaging_code", "code/messaging", MessagingCodeResponse, "messaging"
)
VOICE: Final = Operation[CodeRequest, VoiceCodeResponse](
    "generate_voice_code", "code/voice", VoiceCodeResponse, "voice"
)
VERIFY: Final = Operation[VerifyCodeRequest, VerifyCodeResponse]("verify_code", "code/verify", VerifyCodeResponse, None)

OPERATIONS: Final = (MESSAGING, VOICE, VERIFY)


# ---------------------------------------------------------------------------------------------- JSON


def json_name(name: str) -> str:
    """Return the service's name for a field: ``from_`` is ``from``, ``application_id`` is ``applicationId``."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _only(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _type: Any) -> Any:
        # cattrs' own hook would turn null into the text 'None' and 7 into '7'.
        if not isinstance(value, kind) or value == "":
            msg = f"must be a non-empty {kind.__name__}"
            raise TypeError(msg)
        if isinstance(value, str):
            value.encode()  # half a surrogate pair, which json takes, fits into no journal, ledger or request
        return value

    return structure


def _unstructure_factory(cls: type, converter: cattrs.Converter) -> Callable[[Any], dict[str, Any]]:
    names: dict[str, Any] = {item.name: override(rename=json_name(item.name)) for item in fields(cls)}
    every: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(cls, converter, **names)

    def unstructure(instance: Any) -> dict[str, Any]:
        return {key: value for key, value in every(instance).items() if value is not None}

    return unstructure


def _structure_factory(cls: type, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    wanted = [item for item in fields(cls) if item.name != "meta"]
    names: dict[str, Any] = {item.name: override(rename=json_name(item.name)) for item in wanted}
    names["meta"] = override(omit=True)
    every = cast("Callable[[Any, Any], Any]", make_dict_structure_fn(cls, converter, **names))
    # The page of 2020 spells the ids MessageId and CallId; no capture shows it was ever sent so, and both are read.
    capitals = [
        (json_name(item.name), json_name(item.name)[0].upper() + json_name(item.name)[1:])
        for item in wanted
        if item.name.endswith("_id")
    ]

    def structure(value: Any, kind: Any) -> Any:
        if not _is_object(value):
            raise TypeError("must be a JSON object")
        for name, capital in capitals:
            if name not in value and capital in value:
                value = {**value, name: value[capital]}
        return every(value, kind)

    return structure


def configure_converter(converter: cattrs.Converter) -> None:
    """Teach a converter the service's JSON: its names, no keys for None, no coercion of answers."""

    def unstructure_factory(cls: type) -> Callable[[Any], dict[str, Any]]:
        return _unstructure_factory(cls, converter)

    def structure_factory(cls: type) -> Callable[[Any, Any], Any]:
        return _structure_factory(cls, converter)

    converter.register_structure_hook(str, _only(str))
    converter.register_structure_hook(bool, _only(bool))
    converter.register_unstructure_hook_factory(has, unstructure_factory)
    converter.register_structure_hook_factory(has, structure_factory)


def make_converter() -> cattrs.Converter:
    """Return a new converter for the service's JSON."""
    converter = cattrs.Converter(detailed_validation=False)
    configure_converter(converter)
    return converter


_converter = make_converter()
_unstructure = {cls: _converter.get_unstructure_hook(cls) for cls in (CodeRequest, VerifyCodeRequest)}
_structure = {operation.response: _converter.get_structure_hook(operation.response) for operation in OPERATIONS}
# One encoder, kept: json.dumps builds a new one on every call that has separators.
_json_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encode(request: CodeRequest | VerifyCodeRequest) -> bytes:
    """Return a request's body."""
    if isinstance(request, CodeRequest):
        # A checked number is a plus sign and digits, which JSON writes as they are.
        tail = _tail(
            request.from_,
            request.application_id,
            request.scope,
            request.message,
            request.digits,
            request.callback_url,
        )
        return b'{"to":"%b",%b' % (request.to.encode(), tail)
    return _document(_unstructure[VerifyCodeRequest](request))


@functools.lru_cache(maxsize=256)
def _tail(  # noqa: PLR0913 - the fields of a request
    from_: str,
    application_id: str,
    scope: str | None,
    message: str | None,
    digits: int | None,
    callback_url: str | None,
) -> bytes:
    """Return what follows the recipient in a code request's body: with most users, the same for very many of them."""
    anybody = CodeRequest("+10", from_, application_id, scope, message, digits, callback_url)
    return _document(_unstructure[CodeRequest](anybody)).removeprefix(b'{"to":"+10",')


def _document(document: dict[str, Any]) -> bytes:
    if orjson is not None:
        try:
            encoded: bytes = orjson.dumps(document)
        except TypeError:  # a subclass of str or float, such as NumPy's
            pass
        else:
            return encoded
    return _json_text(document).encode()


def _object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, or return an empty one where there is none to parse."""
    document = _loads(body)
    return document if _is_object(document) else {}


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _loads(body: bytes) -> Any:
    """Parse JSON, or return None where there is none to parse."""
    try:
        return json.loads(body) if orjson is None else orjson.loads(body)
    except (ValueError, RecursionError):
        return None


# ---------------------------------------------------------------------------------------------- answers


@define
class Answer:
    """What came back, before anybody knows what it means.

    Attributes:
        status: the HTTP status.
        headers: case-insensitive.
        body: as far as it came.
        flaw: why the body is not whole, or None.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    flaw: Flaw | None = None


def decipher(
    operation: Operation[_Request, _Response], answer: Answer, *, now: float = 0.0, secrets: Secrets = tuple
) -> _Response:
    """Return what the service said, or raise what its answer means.

    Args:
        operation: what was asked.
        answer: what came back.
        now: wall time in seconds, for a `Retry-After` date in an answer that has no `Date`.
        secrets: called only for an error: values that must not survive in its text.

    Raises:
        APIStatusError: a status other than 2xx.
        DeliveryUnknownError: a 2xx that is cut, late, or not the documented answer.
    """
    if 200 <= answer.status < 300:
        return _success(operation, answer)
    raise _refusal(operation, answer, now, secrets)


def _success(operation: Operation[_Request, _Response], answer: Answer) -> _Response:
    if answer.flaw == "timeout":
        raise ReadTimeoutError(f"the answer began with {answer.status} and did not end in time", operation.name)
    if answer.flaw == "disconnected":
        raise DisconnectedError(f"the connection was cut in the middle of a {answer.status} answer", operation.name)
    document = None if answer.flaw else _loads(answer.body)
    try:
        response: _Response = _structure[operation.response](document, operation.response)
    except Exception:  # noqa: BLE001 - cattrs raises KeyError, TypeError and its own for what is one fact to us
        response_name, document = json_name(fields(operation.response)[0].name), None  # crash reporters show variables
    else:
        return response
    why = f"is {answer.flaw}" if answer.flaw else f"holds no {response_name}"
    raise ResponseDecodeError(f"the answer has status {answer.status} but {why}", operation.name)


# The first row that fits decides. https://dev.bandwidth.com/docs/mfa/errors documents 400, 401, 403, 429 and 500.
_CLASSES: Final[tuple[tuple[range, type[APIStatusError]], ...]] = (
    (range(400, 401), BadRequestError),
    (range(401, 402), AuthenticationError),
    (range(403, 404), PermissionDeniedError),
    (range(404, 405), NotFoundError),
    (range(429, 430), RateLimitError),
    (range(500, 600), ServerError),
    (range(300, 1000), APIStatusError),
)

_MEANINGS: Final = {
    400: "the service refused a value",
    401: "the service found no valid credentials",
    403: "wrong credentials, or this user may not use MFA",
    404: "no such path; check base_url and account_id",
    408: "the service or a gateway waited too long for the request",
    413: "the request is too large for the service",
    429: "too many requests",
    500: "the service failed",
    502: "a gateway got no valid answer from the service",
    503: "the service is unavailable",
    504: "a gateway got no answer from the service in time",
}

# A protocol refusal; whatever sent it did not process the request.
_NOT_PROCESSED: Final = frozenset({501, 505, 511})
# A gateway speaks: it does not know what the service behind it did.
_GATEWAY: Final = frozenset({502, 504})


def _delivery(status: int, *, own_word: bool) -> Delivery:
    """Say what an unsuccessful status proves; `own_word`: the body is the service's own error."""
    if status in _NOT_PROCESSED:
        return Delivery.REJECTED
    if status in _GATEWAY or status == 303:  # 303: the request was taken and the result is elsewhere
        return Delivery.UNKNOWN
    if status == 408 or status >= 500:
        # "Any 4xx or 5xx is not billed" is said of the service's own answers, not of a proxy's page.
        return Delivery.REJECTED if own_word else Delivery.UNKNOWN
    return Delivery.REJECTED


def _refusal(operation: Operation[_Request, _Response], answer: Answer, now: float, secrets: Secrets) -> RequestError:
    status = answer.status
    if status < 300 or status >= 600:
        return ResponseDecodeError(f"the answer has status {status}, which ends no request", operation.name)
    document = {} if answer.flaw else _object(answer.body)
    text, request_id = _error_text(document, secrets), _request_id(document, answer.headers, secrets)
    retry_after = parse_retry_after(answer.headers, now)
    message = f"{_MEANINGS.get(status, 'the service answered no')} ({status})"
    if 300 <= status < 400:
        message = f"redirected ({status}); redirects are not followed, so check base_url"
    if text:
        message = f"{message}: {text}"
    if text == "Missing Authentication Token":
        # What the gateway says of a path it does not know, whatever the credentials.
        message += "; check that base_url ends in /api/v1"
    cls = next(cls for statuses, cls in _CLASSES if status in statuses)
    if status == 429 and not operation.sends:
        cls = VerificationLockedError
        message = f"this number is locked after too many wrong codes (429){f': {text}' if text else ''}"
        retry_after = wait_in_words(text) if retry_after is None else retry_after
    return cls(
        message,
        operation.name,
        _delivery(status, own_word=isinstance(document.get("error"), str)),
        1,
        0.0,
        request_id,
        retry_after,
        None,
        status,
        text,
    )


def _error_text(document: dict[str, Any], secrets: Secrets) -> str | None:
    # error: 400, 429, 500; message: 401; Message: 403 in the prose; result: until 2021; description: messaging's 429.
    for key in ("error", "message", "Message", "result", "description"):
        value = document.get(key)
        if isinstance(value, str) and value:
            return scrub(value, secrets())
    return None


_REQUEST_ID = re.compile(r"[A-Za-z0-9_=/.-]{1,80}", re.ASCII)


def _request_id(document: dict[str, Any], headers: Mapping[str, str], secrets: Secrets) -> str | None:
    # The body's key is documented ("from AWS"); the header is what AWS gateways add, no source shows it on MFA.
    for value in (document.get("requestId"), headers.get("x-amzn-requestid")):
        if isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            # Numbers are also written without their country code.
            return None if any(secret[-10:] in value for secret in secrets() if len(secret) > 3) else value
    return None


# ---------------------------------------------------------------------------------------------- OAuth2


# RFC 6749 section 4.4; the form the official SDKs send.
TOKEN_BODY: Final = b"grant_type=client_credentials"
TOKEN_OPERATION: Final = "token"  # noqa: S105 - a name
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
# Not documented by Bandwidth; its command-line tool assumes the same when the key is absent.
_TOKEN_LIFETIME: Final = 3600.0
_LONGEST_LIFETIME: Final = 1e9


@frozen
class Token:
    """A bearer token's Authorization header and how many seconds it lives."""

    header: str
    lifetime: float

    def __repr__(self) -> str:
        return f"Token(header='***', lifetime={self.lifetime!r})"


def decipher_token(answer: Answer, *, now: float = 0.0, secrets: Secrets = tuple) -> Token:
    """Return the token of a token endpoint's answer.

    Raises:
        RequestError: there is none; `delivery` is always NOT_SENT, since the code request waits for the token.
    """
    document = {} if answer.flaw else _object(answer.body)
    if 200 <= answer.status < 300:
        token, lifetime = document.get("access_token"), document.get("expires_in", _TOKEN_LIFETIME)
        if isinstance(lifetime, str):
            lifetime = seconds(lifetime)
        if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or not lifetime > 0:
            lifetime = _TOKEN_LIFETIME
        if isinstance(token, str) and _TOKEN.fullmatch(token):
            # min first: an integer of four hundred digits is JSON and no float.
            return Token(Secret(f"Bearer {token}"), float(min(lifetime, _LONGEST_LIFETIME)))
        raise NotSentError(
            f"no token: the token endpoint answered {answer.status} without an access_token", TOKEN_OPERATION
        )
    error = _refusal(MESSAGING, answer, now, secrets)
    if isinstance(error, ResponseDecodeError):
        error = NotSentError(error.message)
    hint = "; check client_id, client_secret and token_url" if answer.status in {400, 401, 403, 404} else ""
    error._update(  # noqa: SLF001 - errors are this package's own
        message=f"no token: {error.message}{hint}", operation=TOKEN_OPERATION, delivery=Delivery.NOT_SENT
    )
    raise error
