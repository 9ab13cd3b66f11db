"""Names of records, sealed values and visitors.

Nothing personal is in a store in a form that neither its secret nor a flow's id is needed for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Final

from .._redaction import Secret
from ..errors import InvalidRequestError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ID_BYTES: Final = 24
_SCOPE_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_SCOPE_PREFIX: Final = 12
_SCOPE_RANDOM: Final = 12
_MAX_ID: Final = 128
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_WITH_PORT: Final = re.compile(r"\[(?P<six>[^\[\]]+)\](?::[0-9]*)?|(?P<four>[0-9]+(?:\.[0-9]+){3}):[0-9]*", re.ASCII)


def new_id() -> str:
    """Return an unguessable id of a flow."""
    return Secret(secrets.token_urlsafe(_ID_BYTES))


def new_token() -> str:
    """Return a name for one text or one check of a flow."""
    return secrets.token_hex(8)


def new_scope(scope: str) -> str:
    """Return a scope of a flow's own: 12 characters of the template's, and 12 random ones; at most 25.

    The service partitions codes by scope, so a code of another flow is invalid here.
    """
    return f"{scope[:_SCOPE_PREFIX]}-{''.join(secrets.choice(_SCOPE_ALPHABET) for _ in range(_SCOPE_RANDOM))}"


def is_plausible_id(value: object) -> bool:
    """Return whether a value can be the id of a flow; a cookie may hold anything."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID and value.isascii()


def public_name(kind: str, *parts: str) -> str:
    """Return the name of a record that is found by an unguessable value."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f"{kind}:{hashlib.sha256(text).hexdigest()[:40]}"


def secret_names(kind: str, keys: Sequence[bytes], value: str) -> list[str]:
    """Return the names of a record that is found by a personal value: one for each secret, the current one first."""
    text = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
    return [f"{kind}:{hmac.new(key, text, hashlib.sha256).hexdigest()[:40]}" for key in keys]


def request_digest(idempotency_key: str, number: str) -> str:
    """Return a digest of a request that only the idempotency key can recompute."""
    key = idempotency_key.encode("utf-8", "surrogatepass")
    return hmac.new(key, number.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:40]


def seal(key: str, value: Any) -> str:
    """Return a JSON value encrypted and authenticated under a key that the store does not hold.

    HMAC-SHA256 in counter mode with a random nonce, then an HMAC over both. A flow's number is sealed with its id, so
    that a store's files, logs and backups do not contain it.
    """
    master = hashlib.sha256(b"seal\0" + key.encode("utf-8", "surrogatepass")).digest()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    body = nonce + _mask(master, nonce, json.dumps(value).encode())
    return base64.b64encode(body + _tag(master, body)).decode()


def unseal(key: str, text: str) -> Any:
    """Return what `seal` was given.

    Raises:
        StoreError: the store holds something else.
    """
    master = hashlib.sha256(b"seal\0" + key.encode("utf-8", "surrogatepass")).digest()
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    body, tag = data[:-_TAG_BYTES], data[-_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(master, body)):
        raise StoreError("the store's record of a sign-in is damaged; start a new sign-in")
    nonce = body[:_NONCE_BYTES]
    return json.loads(_mask(master, nonce, body[_NONCE_BYTES:]))


def _mask(master: bytes, nonce: bytes, data: bytes) -> bytes:
    stream = b""
    while len(stream) < len(data):
        counter = (len(stream) // 32).to_bytes(4, "big")
        stream += hmac.new(master, b"mask" + nonce + counter, hashlib.sha256).digest()
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def _tag(master: bytes, body: bytes) -> bytes:
    return hmac.new(master, b"tag" + body, hashlib.sha256).digest()[:_TAG_BYTES]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def visitor_key(visitor: str) -> str:
    """Return what a visitor is counted as: an IPv6 address as its /64, an IPv4-mapped one as IPv4, others as given.

    A port does not count: each connection has another one.

    Raises:
        InvalidRequestError: the text has several addresses, or what looks like an address with a port is none.
    """
    text = visitor.strip()
    if "," in text:
        # A raw header, in which a visitor can write what it likes.
        raise InvalidRequestError(
            "visitor", "must be one address, from the server's trusted-proxy setting, not a list such as a raw header"
        )
    if match := _WITH_PORT.fullmatch(text):
        text = match["six"] or match["four"]
        if not _is_address(text):
            raise InvalidRequestError("visitor", "must be an IP address, with or without a port")
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
