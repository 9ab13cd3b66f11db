"""Which part of the package uses a Redis: its name in messages, its errors and its log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ..errors import LedgerError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import MFAError


@frozen
class Owner:
    """A part of the package that keeps data in Redis.

    Attributes:
        name: its name in messages.
        error: makes its error of a message.
        log: its logger.
        lost: what happens if Redis loses or evicts what it holds.
    """

    name: str
    error: Callable[[str], MFAError]
    log: logging.Logger
    lost: str


LEDGER: Final = Owner(
    "ledger",
    LedgerError,
    logging.getLogger("bandwidth_mfa_async.worker"),
    "codes whose claims it {verb} would be sent twice",
)
STORE: Final = Owner(
    "store",
    StoreError,
    logging.getLogger("bandwidth_mfa_async.stores"),
    "texts whose keys it {verb} would be sent twice",
)
