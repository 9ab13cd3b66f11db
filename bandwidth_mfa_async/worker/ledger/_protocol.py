"""The replies of the ledger's Lua scripts, and the version of the stored format."""

from __future__ import annotations

import enum
from typing import Final

from ..._item_state import DenyReason, LedgerState
from ...errors import LedgerError

VERSION: Final = 2
READABLE_VERSIONS: Final = frozenset({"1", "2"})
"""A claim makes a job of version 1 one of version 2, which workers of version 1 refuse."""


class Reply(enum.StrEnum):
    """Replies of ``rows.lua`` and ``codes.lua`` to one operation. Every other reply is a `LedgerState`."""

    CLAIMED = "T"
    """The code is claimed, and its payload follows."""
    RENEWED = "K"
    LEASE_LOST = "L"
    """The lease has expired, or another worker holds it."""
    JOB_STOPPED = "X"
    GONE = "G"
    """The ledger does not contain the item."""
    HELD = "H"
    """Another worker holds the code."""
    TOO_LATE = "E"
    """The time in which the code may be sent is over."""
    OTHER_REQUEST = "D"
    """The key belongs to another request."""


class BatchReply(enum.StrEnum):
    """Replies of ``rows.lua`` to a whole batch."""

    LATE = "late"
    """A later batch of the same writer has already run; nothing was done."""


class ClaimReply(enum.StrEnum):
    """Replies of ``claim_chunk.lua``."""

    CLAIMED = "taken"
    HELD = "held"
    DONE = "done"
    STOPPED = "stopped"
    GONE = "gone"
    VERSION = "version"


class ReleaseReply(enum.StrEnum):
    """Replies of ``release_chunk.lua``."""

    DONE = "done"
    OPEN = "left"
    """Items of the chunk are still pending."""
    LOST = "lost"
    """The chunk is not held under this fencing token."""


class PlanReply(enum.StrEnum):
    """Replies of ``plan.lua``."""

    ACTIVE = "going"
    HELD = "held"
    """Another process coordinates the job."""
    STOPPED = "stopped"
    ENDED = "ended"
    GONE = "gone"
    VERSION = "version"


class SubmitReply(enum.StrEnum):
    """Replies of ``submit.lua``."""

    CREATED = "made"
    ADDED = "added"
    CLOSED = "closed"
    KNOWN = "known"
    """The ledger already contains the same job or chunk."""
    DIFFERENT = "other"
    """The ledger contains another chunk there, or the job is closed."""
    GONE = "gone"
    VERSION = "version"


class ResumeReply(enum.StrEnum):
    """Replies of ``resume.lua``, besides numbers."""

    VERSION = "version"


INTENT_STORED: Final = frozenset({LedgerState.SENDING, LedgerState.RESENDING})
"""Replies to an intent after which the attempt may begin."""
# A reply to an intent that is not here is the state of an item that another worker has settled.
_DENY_REASONS: Final[dict[str, DenyReason]] = {
    Reply.LEASE_LOST: DenyReason.LEASE_LOST,
    Reply.JOB_STOPPED: DenyReason.JOB_STOPPED,
    Reply.GONE: DenyReason.GONE,
}


def deny_reason(reply: str) -> DenyReason:
    """Return why the ledger denied an attempt.

    Args:
        reply: the ledger's reply to an intent that is not in `INTENT_STORED`.
    """
    return _DENY_REASONS.get(reply, DenyReason.ALREADY_SETTLED)


def version_mismatch(job: str, version: str) -> LedgerError:
    """Return the error for a job in a format that this version does not read.

    Args:
        job: the job's name.
        version: the number of its format, or what a key that is not ours holds.
    """
    if not version.isdecimal() or len(version) > 9:
        return LedgerError("the ledger cannot be used: a key of its prefix holds something else; choose another prefix")
    if int(version) > VERSION:
        return LedgerError(
            f"job {job!r} was made by a newer bandwidth-mfa-async (format {version}; this one reads format {VERSION}); "
            "upgrade with pip install -U bandwidth-mfa-async"
        )
    return LedgerError(
        f"job {job!r} was made by an older bandwidth-mfa-async (format {version}; this one reads format {VERSION}); "
        "finish it with workers of that version, or submit the remaining items under another name"
    )
