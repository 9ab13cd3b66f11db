"""What makes two items the same: idempotency keys, and the digests a journal keeps of them. No I/O."""

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
    """Return what a journal keeps of a key."""
    # A file's name or line that was no UTF-8 holds lone surrogates.
    return blake2b(key.encode(errors="surrogatepass"), digest_size=_KEY_BYTES).digest()


def fact_digest(value: object) -> str:
    """Return what a journal keeps of a template's value, so that another value can be told from it."""
    return blake2b(repr(value).encode(), digest_size=_PAYLOAD_BYTES).hexdigest()


class Keys:
    """Makes default keys: the same number with the same template in the same run has the same key.

    Args:
        channel: texts and calls are different things.
        run: the run's name.
    """

    def __init__(self, channel: str, run: str) -> None:
        self._prefix = (channel, run)
        self._fields: tuple[Any, ...] | None = None
        self._hash = blake2b(digest_size=_KEY_BYTES)

    def payload(self, request: CodeRequest) -> bytes:
        """Return a digest of all that is sent, to tell two requests under one key apart."""
        return self.digest(request)[:_PAYLOAD_BYTES]

    def digest(self, request: CodeRequest) -> bytes:
        """Return the digest that a request has for a key; in hexadecimal it is the key users see."""
        fields = template_values(request)
        # The items of a run mostly share one template, so its share of the digest is kept.
        if fields != self._fields:
            self._fields = fields
            self._hash = blake2b(repr((*self._prefix, *fields)).encode(), digest_size=_KEY_BYTES)
        digest = self._hash.copy()
        digest.update(request.to.encode())
        return digest.digest()


def template_values(source: CodeRequest | CodeTemplate) -> tuple[Any, ...]:
    """Return everything of a request but its recipient, in the order of `TEMPLATE_FIELDS`."""
    return (
        source.from_,
        source.application_id,
        source.scope,
        source.message,
        source.digits,
        source.callback_url,
    )
