"""Item states in journals and ledgers, their stored codes, and how errors map to them."""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Final

from . import errors
from .errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    Delivery,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
    ServerError,
)

if TYPE_CHECKING:
    from .errors import MFAError


class JournalState(enum.IntEnum):
    """State of an item in a bulk run's journal; the values are stored in SQLite."""

    PENDING = 0
    """Read from the input. No attempt is in flight, and no earlier one can have been delivered."""
    SENDING = 1
    """The intent is on disk: an attempt may be in flight."""
    ACCEPTED = 2
    REJECTED = 3
    NOT_SENT = 4
    UNKNOWN = 5
    INVALID = 6


JOURNAL_STATE_OF: Final = {
    Delivery.ACCEPTED: JournalState.ACCEPTED,
    Delivery.REJECTED: JournalState.REJECTED,
    Delivery.NOT_SENT: JournalState.NOT_SENT,
    Delivery.UNKNOWN: JournalState.UNKNOWN,
    Delivery.INVALID: JournalState.INVALID,
}
DELIVERY_OF_JOURNAL_STATE: Final = {state: delivery for delivery, state in JOURNAL_STATE_OF.items()}
INTERRUPTED_RUN: Final = "InterruptedRun"
"""The cause of an unknown item that was in flight when its run was killed."""


class DenyReason(enum.Enum):
    """Why an attempt of a job item or a single code may not begin."""

    STOPPING = "stopping"
    """The worker begins no more attempts."""
    LEASE_LOST = "lease_lost"
    """The lease has expired, or another worker holds it."""
    LEASE_EXPIRED = "lease_expired"
    """The lease may have expired by this process's own clocks, after the ledger granted the attempt."""
    JOB_STOPPED = "job_stopped"
    GONE = "gone"
    """The ledger does not contain the item."""
    ALREADY_SETTLED = "already_settled"
    """The item has an outcome that does not allow another attempt."""


class LedgerState(enum.StrEnum):
    """The state of an item in the ledger."""

    PENDING = "0"
    """No attempt is in flight, and no earlier attempt can have reached the recipient."""
    SENDING = "1"
    """The intent is stored: an attempt may be in flight. No earlier attempt can have reached the recipient."""
    ACCEPTED_UNRECORDED = "2"
    """Accepted, and stored by a version that did not record whether the recipient may have got two texts."""
    REJECTED = "3"
    """Rejected because of the item itself; not sent again."""
    NOT_SENT = "4"
    UNKNOWN = "5"
    INVALID = "6"
    REFUSED = "7"
    """Rejected for a cause that may pass: credentials, throttling or a failure of the service."""
    DUPLICATE = "8"
    """An earlier item of the input asks for the same."""
    RESENDING = "9"
    """As `SENDING`, and an earlier attempt is unknown: the item ends as accepted or unknown."""
    ACCEPTED = "a"
    """Accepted, and no other attempt can have reached the recipient."""
    POSSIBLE_DUPLICATE = "b"
    """Accepted, and another attempt may have reached the recipient too."""


DELIVERY_OF_LEDGER_STATE: Final = {
    LedgerState.PENDING: Delivery.NOT_SENT,
    LedgerState.SENDING: Delivery.UNKNOWN,
    LedgerState.ACCEPTED_UNRECORDED: Delivery.ACCEPTED,
    LedgerState.REJECTED: Delivery.REJECTED,
    LedgerState.NOT_SENT: Delivery.NOT_SENT,
    LedgerState.UNKNOWN: Delivery.UNKNOWN,
    LedgerState.INVALID: Delivery.INVALID,
    LedgerState.REFUSED: Delivery.REJECTED,
    LedgerState.DUPLICATE: Delivery.SKIPPED,
    LedgerState.RESENDING: Delivery.UNKNOWN,
    LedgerState.ACCEPTED: Delivery.ACCEPTED,
    LedgerState.POSSIBLE_DUPLICATE: Delivery.ACCEPTED,
}
POSSIBLE_DUPLICATE_OF: Final[dict[LedgerState, bool | None]] = {
    LedgerState.ACCEPTED_UNRECORDED: None,
    LedgerState.POSSIBLE_DUPLICATE: True,
}
"""Whether the recipient may have got two texts; None if it was not recorded, False for every other state."""
LEASE_EXPIRED: Final = "LeaseExpired"
"""Cause of an item that became unknown because its owner's lease expired while an attempt was in flight."""


# Errors and statuses that concern the credentials, the URL, the rate, time or an outage, not the item.
_RETRYABLE_ERRORS: Final = (AuthenticationError, PermissionDeniedError, NotFoundError, RateLimitError, ServerError)
_RETRYABLE_STATUSES: Final = frozenset({401, 403, 404, 408, 425, 429})


def is_retryable_next_run(error: MFAError | None) -> bool:
    """Return whether the next run may send an item again that was not sent because of this error."""
    if not isinstance(error, APIStatusError) or isinstance(error, _RETRYABLE_ERRORS):
        return True
    return is_status_retryable_next_run(error.status)


def is_status_retryable_next_run(status: int) -> bool:
    """Return whether the next run may send an item again that the service rejected with this status."""
    return status in _RETRYABLE_STATUSES or 500 <= status < 600


def is_account_error(error: MFAError | None) -> bool:
    """Return whether the service rejected the account, its credentials or the URL, not the item.

    This includes a rejection by the token endpoint, and calls that are not tried because all credentials were rejected.
    """
    if isinstance(error, (AuthenticationError, PermissionDeniedError, NotFoundError)):
        return True
    if not isinstance(error, RequestError):
        return False
    if error.retry_stopped_by == "credentials":
        return True
    # Nothing was sent, and there is a status: that of the token endpoint.
    return isinstance(error, BadRequestError) and error.delivery is Delivery.NOT_SENT


def ledger_state_of(delivery: Delivery, error: MFAError) -> LedgerState:
    """Return the state of an item that ended with an error.

    Args:
        delivery: what is known of the text.
        error: why it was not accepted.
    """
    if delivery is Delivery.REJECTED:
        return LedgerState.REFUSED if is_retryable_next_run(error) else LedgerState.REJECTED
    return LedgerState.UNKNOWN if delivery is Delivery.UNKNOWN else LedgerState.NOT_SENT


def pack_error(error: MFAError | None) -> str:
    """Encode an error as JSON: its class name and its arguments, which hold no personal data."""
    if error is None:
        return ""
    return json.dumps([type(error).__name__, list(error.args)])


def unpack_error(text: str) -> MFAError | None:
    """Decode an error from `pack_error`; a class that this version does not have becomes a `RequestError`."""
    if not text:
        return None
    name, arguments = json.loads(text)
    kind = getattr(errors, name, RequestError)
    error: MFAError = kind(*arguments)
    return error
