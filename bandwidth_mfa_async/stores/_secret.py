"""The secrets under which a store's personal digests are made."""

from __future__ import annotations

import contextlib
import os
import re
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._validation import configuration_error

if TYPE_CHECKING:
    from collections.abc import Sequence

StoreSecret: TypeAlias = "str | bytes | Sequence[str | bytes] | None"
VARIABLE: Final = "BW_STORE_SECRET"
_MIN_BYTES: Final = 16
_RULE: Final = (
    "must be text of at least 16 characters that no one can guess, such as the output of "
    "python -c 'import secrets; print(secrets.token_hex(32))'; or a list of these, the current one first"
)


def checked_secrets(secret: StoreSecret) -> tuple[bytes, ...]:
    """Return the secrets, the current one first; none if there is neither an argument nor the variable.

    Args:
        secret: one or several; None for those in `BW_STORE_SECRET`, separated by commas.

    Raises:
        ConfigurationError: one is too short or not text.
    """
    if secret is None:
        name, values = VARIABLE, [part for part in re.split(r"[\s,]+", os.environ.get(VARIABLE, "")) if part]
    else:
        given: Any = secret
        name, values = "secret", list(given) if isinstance(secret, (list, tuple)) else [given]
        if not values:
            raise configuration_error(name, _RULE)
    found = [value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value for value in values]
    if not all(isinstance(value, bytes) and len(value) >= _MIN_BYTES for value in found):
        del secret, values, found
        raise configuration_error(name, _RULE)
    return tuple(found)


def secret_beside(store: str) -> bytes:
    """Return the secret in ``<path>.secret``, which only its owner can read; make it if there is none.

    Of several processes that make it at the same moment, all return the one that was first.

    Raises:
        OSError: the file cannot be read or written, or contains no secret.
    """
    path = f"{os.path.realpath(store)}.secret"
    with contextlib.suppress(FileNotFoundError):
        return _read_secret(path)
    temporary = f"{path}-{token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(token_hex(32).encode())
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)  # noqa: PTH108 - a name as given
    return _read_secret(path)


def _read_secret(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - a name as given
        found = file.read(256).strip()
    if len(found) < _MIN_BYTES:
        raise OSError
    return found
