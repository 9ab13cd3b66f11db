"""Idempotency keys of items, and the digests that a journal stores instead of keys and payloads."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._models import CodeRequest, CodeTemplate

TEMPLATE_FIELDS: Final = ("from_", "application_id", "scope", "message", "digits", "callback_url")
MAX_KEY_LENGTH: Final = 512

_KEY_BYTES: Final = 16
_PAYLOAD_BYTES: Final = 8


def key_digest(key: str) -> bytes:
    """Return the 16-byte digest under which a journal stores a key."""
    # A key made from a line or a file name that is not valid UTF-8 contains lone surrogates.
    return blake2b(key.encode(errors="surrogatepass"), digest_size=_KEY_BYTES).digest()


def fact_digest(value: object) -> str:
    """Return the digest of a template field, so that a journal can detect another value."""
    return blake2b(repr(value).encode(), digest_size=_PAYLOAD_BYTES).hexdigest()


def key_secret(key: str) -> str:
    """Return a digest of an idempotency key that no name of it reveals: the secret of `request_digest`."""
    return blake2b(key.encode(errors="surrogatepass"), digest_size=_KEY_BYTES, person=b"request").hexdigest()


def store_key(account_id: str, key_name: str) -> str:
    """Return the name of an account's idempotency key in a store: a digest, since a key may contain personal data.

    Args:
        account_id: the account.
        key_name: the `key_digest` of the key in hexadecimal, by which the ledger names it too.
    """
    return key_digest(f"{account_id}\0{key_name}").hex()


def request_digest(secret: str, account_id: str, channel: str, request: CodeRequest) -> str:
    """Return a digest by which a store knows the same request for a code again.

    Args:
        secret: the `key_secret`: without it, a digest of a number could be found by trying all numbers.
        account_id: the account.
        channel: ``"messaging"`` or ``"voice"``.
        request: the request.
    """
    text = repr((account_id, channel, request.to, request.scope))
    return blake2b(text.encode(errors="surrogatepass"), key=secret.encode(), digest_size=_KEY_BYTES).hexdigest()


class Keys:
    """Makes default keys: requests with the same number, template, channel and run name have the same key.

    Args:
        channel: ``"messaging"`` or ``"voice"``.
        run: the run's name.
    """

    def __init__(self, channel: str, run: str) -> None:
        self._prefix = (channel, run)
        self._fields: tuple[Any, ...] | None = None
        self._hash = blake2b(digest_size=_KEY_BYTES)

    def payload(self, request: CodeRequest) -> bytes:
        """Return an 8-byte digest of the whole request, to detect two requests under one key."""
        return self.digest(request)[:_PAYLOAD_BYTES]

    def digest(self, request: CodeRequest) -> bytes:
        """Return the digest that is a request's default key; users see it in hexadecimal."""
        fields = template_values(request)
        # Most items of a run share one template: keep the hash state of its fields.
        if fields != self._fields:
            self._fields = fields
            self._hash = blake2b(repr((*self._prefix, *fields)).encode(), digest_size=_KEY_BYTES)
        digest = self._hash.copy()
        digest.update(request.to.encode())
        return digest.digest()


def template_values(source: CodeRequest | CodeTemplate) -> tuple[Any, ...]:
    """Return all fields of a request except the recipient, in the order of `TEMPLATE_FIELDS`."""
    return (
        source.from_,
        source.application_id,
        source.scope,
        source.message,
        source.digits,
        source.callback_url,
    )
