"""What the ledger holds of requests and of their outcomes, as text. No I/O."""

from __future__ import annotations

import json
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from ..._keys import template_values
from ..._models import CodeRequest
from ...errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence


_DIGEST_BYTES: Final = 8


@frozen
class ItemResult:
    """What the ledger says of a row's end.

    Attributes:
        state: the row's state at the time.
        provider_id: the service's id of an accepted one.
        cause: the error's class.
        status: the answer's HTTP status.
        attempts: how many there were.
    """

    state: str
    provider_id: str | None
    cause: str | None
    status: int | None
    attempts: int


def pack_requests(requests: Sequence[CodeRequest | None], keys: Sequence[str] | None) -> tuple[bytes, bytes]:
    """Return a chunk's requests for the ledger, and a digest by which the same chunk is known again.

    Args:
        requests: what is to be sent; None where an item is no request or not to be sent.
        keys: the caller's own keys, if there are any.
    """
    templates: dict[tuple[Any, ...], int] = {}
    rows: list[Any] = []
    for request in requests:
        if request is None:
            rows.append(0)
            continue
        place = templates.setdefault(template_values(request), len(templates))
        rows.append([place, request.to])
    text = json.dumps({"t": list(templates), "r": rows, "k": keys}, separators=(",", ":")).encode()
    return zlib.compress(text, 1), blake2b(text, digest_size=_DIGEST_BYTES).digest()


def unpack_requests(packed: bytes) -> list[CodeRequest | None]:
    """Return a chunk's requests.

    Raises:
        LedgerError: they cannot be read.
    """
    try:
        found = json.loads(zlib.decompress(packed))
        templates = found["t"]
        return [None if row == 0 else CodeRequest(row[1], *templates[row[0]]) for row in found["r"]]
    except (zlib.error, ValueError, KeyError, IndexError, TypeError):
        # Not chained: what cannot be read may hold numbers.
        error = LedgerError("the ledger holds requests that cannot be read; were they made by another version?")
    raise error


def keys_only(packed: bytes) -> bytes:
    """Return what is kept of a chunk's requests once none can be sent again: the caller's own keys, or nothing."""
    keys = unpack_keys(packed)
    if keys is None:
        return b""
    return zlib.compress(json.dumps({"t": [], "r": [], "k": keys}, separators=(",", ":")).encode(), 1)


def unpack_keys(packed: bytes) -> list[str] | None:
    """Return the caller's own keys of a chunk; None where there are none."""
    if not packed:
        return None
    keys: list[str] | None = json.loads(zlib.decompress(packed))["k"]
    return keys


def pack_record(provider_id: str | None, error: BaseException | None, attempts: int) -> str:
    """Return what the ledger keeps of a row's end, after its place and state: id, cause, status and attempts."""
    # An id is the service's word: what would break the text is not let through.
    name = "" if provider_id is None else provider_id.translate(_UNSAFE)
    cause = "" if error is None else type(error).__name__
    status = getattr(error, "status", "")
    return f"{name},{cause},{status or ''},{attempts}"


_UNSAFE: Final = {ord(char): "_" for char in ",\n\r"}


def unpack_records(text: str) -> dict[int, ItemResult]:
    """Return the last record of each row, by the row's place in the job."""
    found: dict[int, ItemResult] = {}
    for line in text.splitlines():
        row, state, provider_id, cause, status, attempts = line.split(",")
        found[int(row)] = ItemResult(
            state, provider_id or None, cause or None, int(status) if status else None, int(attempts or 0)
        )
    return found


def pack_code(request: CodeRequest, channel: str) -> tuple[str, str]:
    """Return a single request for the ledger, and a digest of it."""
    text = json.dumps([channel, request.to, *template_values(request)], separators=(",", ":"))
    return text, blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def unpack_code(text: str) -> tuple[str, CodeRequest]:
    """Return a single request's channel and the request.

    Raises:
        LedgerError: it cannot be read.
    """
    try:
        channel, *values = json.loads(text)
        return channel, CodeRequest(*values)
    except (ValueError, TypeError):
        error = LedgerError("the ledger holds a request that cannot be read; was it made by another version?")
    raise error
