"""Packs and unpacks the requests and outcomes that the ledger stores."""

from __future__ import annotations

import json
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from ..._frames import clears_locals
from ..._keys import template_values
from ..._models import CodeRequest
from ..._redaction import Secret
from ...errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence


_DIGEST_BYTES: Final = 8


@frozen
class ItemResult:
    """The stored outcome of an item.

    Attributes:
        state: the item's state when it was stored.
        provider_id: the service's id of an accepted code.
        cause: the class of the error.
        status: the HTTP status of the response.
        attempts: the number of attempts.
    """

    state: str
    provider_id: str | None
    cause: str | None
    status: int | None
    attempts: int


def pack_requests(requests: Sequence[CodeRequest | None], keys: Sequence[str] | None) -> tuple[bytes, bytes]:
    """Return a chunk's requests as the ledger stores them, and a digest that identifies the same chunk later.

    Args:
        requests: the requests; None for items that are invalid or not sent.
        keys: the custom keys, if there are any.
    """
    templates: dict[tuple[Any, ...], int] = {}
    items: list[Any] = []
    for request in requests:
        if request is None:
            items.append(0)
            continue
        template = templates.setdefault(template_values(request), len(templates))
        items.append([template, request.to])
    text = json.dumps({"t": list(templates), "r": items, "k": keys}, separators=(",", ":")).encode()
    return zlib.compress(text, 1), blake2b(text, digest_size=_DIGEST_BYTES).digest()


@clears_locals
def unpack_requests(packed: bytes) -> list[CodeRequest | None]:
    """Return the requests of a chunk.

    Raises:
        LedgerError: the requests cannot be read.
    """
    try:
        found = json.loads(zlib.decompress(packed))
        templates = found["t"]
        return [None if item == 0 else CodeRequest(item[1], *templates[item[0]]) for item in found["r"]]
    except (zlib.error, ValueError, KeyError, IndexError, TypeError):
        # Not chained: the unreadable text may contain numbers.
        error = LedgerError(
            "the requests of a chunk cannot be read; if another bandwidth-mfa-async version submitted the job, use it"
        )
    raise error


def keys_only(packed: bytes) -> bytes:
    """Return what remains of a chunk's requests once none can be sent again: the custom keys, or nothing."""
    keys = unpack_keys(packed)
    if keys is None:
        return b""
    return zlib.compress(json.dumps({"t": [], "r": [], "k": keys}, separators=(",", ":")).encode(), 1)


@clears_locals
def unpack_keys(packed: bytes) -> list[str] | None:
    """Return the custom keys of a chunk; None if it has none."""
    if not packed:
        return None
    keys: list[str] | None = json.loads(zlib.decompress(packed))["k"]
    return keys


def pack_record(provider_id: str | None, error: BaseException | None, attempts: int) -> str:
    """Return the record of an outcome, without its index and state: id, cause, status and attempts."""
    # The service chooses the id: separators in it are replaced.
    name = "" if provider_id is None else provider_id.translate(_UNSAFE)
    cause = "" if error is None else type(error).__name__
    status = getattr(error, "status", "")
    return f"{name},{cause},{status or ''},{attempts}"


_UNSAFE: Final = {ord(char): "_" for char in ",\n\r"}


def unpack_records(text: str) -> dict[int, ItemResult]:
    """Return the last record of each item, by the item's index in the job."""
    found: dict[int, ItemResult] = {}
    for line in text.removesuffix("\n").split("\n") if text else ():
        index, state, provider_id, cause, status, attempts = line.split(",")
        found[int(index)] = ItemResult(
            state, provider_id or None, cause or None, int(status) if status else None, int(attempts or 0)
        )
    return found


def pack_code(request: CodeRequest, channel: str) -> tuple[str, str]:
    """Return a single request as the ledger stores it, and its digest."""
    text = json.dumps([channel, request.to, *template_values(request)], separators=(",", ":"))
    # A secret: it waits for Redis in frames and queues.
    return Secret(text), blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


@clears_locals
def unpack_code(text: str) -> tuple[str, CodeRequest]:
    """Return the channel and the request of a single code.

    Raises:
        LedgerError: the request cannot be read.
    """
    try:
        channel, *values = json.loads(text)
        return channel, CodeRequest(*values)
    except (ValueError, TypeError):
        error = LedgerError(
            "a single code cannot be read; if another bandwidth-mfa-async version requested it, use that version"
        )
    raise error
