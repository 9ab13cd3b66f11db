"""The states of a row, a byte each in the ledger, and what they mean to a user. No I/O."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from ...bulk._outcome import worth_repeating
from ...errors import Delivery

if TYPE_CHECKING:
    from ...errors import MFAError

VERSION: Final = 1
INTERRUPTED: Final = "LeaseExpired"
"""The cause of an unknown row that was under way when its owner's lease ran out."""
EXPIRED: Final = "Expired"
"""The cause of a single code that nobody took in time."""


class State(enum.StrEnum):
    """What the ledger knows of a row."""

    PENDING = "0"
    """No attempt is under way, and none so far can have reached a person."""
    SENDING = "1"
    """Its intent is in the ledger: an attempt may be under way."""
    ACCEPTED = "2"
    REJECTED = "3"
    """Refused for good: its own fault."""
    NOT_SENT = "4"
    UNKNOWN = "5"
    INVALID = "6"
    REFUSED = "7"
    """Refused for a cause that may pass: the credentials, the pace, the hour."""
    DUPLICATE = "8"
    """Stands in the input a second time."""


DELIVERY_OF: Final = {
    State.PENDING: Delivery.NOT_SENT,
    State.SENDING: Delivery.UNKNOWN,
    State.ACCEPTED: Delivery.ACCEPTED,
    State.REJECTED: Delivery.REJECTED,
    State.NOT_SENT: Delivery.NOT_SENT,
    State.UNKNOWN: Delivery.UNKNOWN,
    State.INVALID: Delivery.INVALID,
    State.REFUSED: Delivery.REJECTED,
    State.DUPLICATE: Delivery.SKIPPED,
}


def state_of(delivery: Delivery, error: MFAError) -> State:
    """Return the state of a row that ended with an error.

    Args:
        delivery: what is known of its message.
        error: why it was not accepted.
    """
    if delivery is Delivery.REJECTED:
        return State.REFUSED if worth_repeating(error) else State.REJECTED
    return State.UNKNOWN if delivery is Delivery.UNKNOWN else State.NOT_SENT
