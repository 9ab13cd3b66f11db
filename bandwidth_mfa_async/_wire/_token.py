"""The OAuth2 token request and its response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from .._redaction import Secret
from .._retry_after import seconds
from ..errors import Delivery, NotSentError, ResponseDecodeError
from ._answers import header_request_id, status_error
from ._json import parse_object
from ._operations import MESSAGING

if TYPE_CHECKING:
    from ._answers import RawResponse, Secrets

# RFC 6749 section 4.4; the form the official SDKs send.
TOKEN_BODY: Final = b"grant_type=client_credentials"
TOKEN_OPERATION: Final = "token"  # noqa: S105 - a name
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
# Not documented by Bandwidth; its command-line tool assumes the same when the key is absent.
_TOKEN_LIFETIME: Final = 3600.0
_MAX_LIFETIME: Final = 1e9
# Bounds the token requests of a client to two a second, whatever the endpoint says. A token that ends earlier is
# renewed after its rejection.
_MIN_LIFETIME: Final = 1.0


@frozen
class Token:
    """A bearer token's Authorization header and its lifetime in seconds."""

    header: str
    lifetime: float

    def __repr__(self) -> str:
        return f"Token(header='***', lifetime={self.lifetime!r})"


def decipher_token(response: RawResponse, *, now: float = 0.0, secrets: Secrets = tuple) -> Token:
    """Return the token from a token endpoint's response.

    Raises:
        RequestError: the response has no token; `delivery` is NOT_SENT, since the code request waits for the token.
    """
    document = {} if response.defect else parse_object(response.body)
    if 200 <= response.status < 300:
        token, lifetime = document.get("access_token"), document.get("expires_in", _TOKEN_LIFETIME)
        if isinstance(lifetime, str):
            lifetime = seconds(lifetime)
        if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or not lifetime > 0:
            lifetime = _TOKEN_LIFETIME
        if isinstance(token, str) and _TOKEN.fullmatch(token):
            # min first: JSON allows an integer of four hundred digits, which float() does not.
            return Token(Secret(f"Bearer {token}"), float(max(min(lifetime, _MAX_LIFETIME), _MIN_LIFETIME)))
        raise NotSentError(
            f"no token: the token endpoint responded {response.status} without an access_token",
            TOKEN_OPERATION,
            request_id=header_request_id(response, secrets),
        )
    error = status_error(MESSAGING, response, now, secrets)
    if isinstance(error, ResponseDecodeError):
        error = NotSentError(error.message, request_id=error.request_id)
    hint = "; check client_id, client_secret and token_url" if response.status in {400, 401, 403, 404} else ""
    error._update(  # noqa: SLF001 - errors are this package's own
        message=f"no token: {error.message}{hint}", operation=TOKEN_OPERATION, delivery=Delivery.NOT_SENT
    )
    raise error
