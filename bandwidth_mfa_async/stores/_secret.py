"""The secrets under which a store's personal digests are made."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, TypeAlias

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
        name, values = "secret", [secret] if isinstance(secret, (str, bytes)) else list(secret)
        if not values:
            raise configuration_error(name, _RULE)
    found = [value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value for value in values]
    if not all(isinstance(value, bytes) and len(value) >= _MIN_BYTES for value in found):
        del secret, values, found
        raise configuration_error(name, _RULE)
    return tuple(found)
