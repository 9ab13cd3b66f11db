"""What became of an item, and of all of them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, field, frozen

if TYPE_CHECKING:
    from .._models import CodeRequest, MessagingCodeResponse, VoiceCodeResponse
    from ..errors import (
        Delivery,
        MFAError,
    )

Ending: TypeAlias = Literal["finished", "stopped", "failed"]
"""How a run ended: its input was used up, it was told to stop, or an error ended it."""


@frozen
class ItemOutcome:
    """What became of one item of a bulk run.

    Attributes:
        index: its place in the input, from 0.
        key: its idempotency key, by default a digest of number, template and run name; empty for an item that is no
            request. Not shown in the `repr`, since a key of the caller's own may hold anything.
        request: what was asked; None when the input held something that is no request.
        delivery: what is known; `Delivery.INVALID` for an item that breaks a rule, `Delivery.SKIPPED` for one that was
            done before or stands in the input twice.
        response: the answer of an accepted one, also of one that an earlier run of the same journal had.
        error: why it was not accepted.
        previous: of a skipped one, what the journal says became of it; None when it is still under way or, in this
            run, came to nothing that lasts.
    """

    index: int
    key: str = field(repr=False)
    request: CodeRequest | None
    delivery: Delivery
    response: MessagingCodeResponse | VoiceCodeResponse | None = None
    error: MFAError | None = None
    previous: Delivery | None = None


@define(kw_only=True)
class BulkSummary:
    """A run's counts, kept up to date while it runs.

    Attributes:
        taken: items taken from the input.
        accepted: codes the service took.
        rejected: codes it refused.
        not_sent: codes that never left.
        unknown: codes of which nobody can say.
        invalid: items that break a rule.
        skipped: items done before, or twice in the input.
        in_flight: requests under way now.
        throttled: attempts answered 429, whether or not they were tried again.
        possible_duplicates: accepted ones of which an earlier attempt may have gone out too.
        attempts: requests made for those that ended.
        elapsed: seconds since the first item was asked for, up to the last outcome; of several streams, their sum.
        ending: ``"finished"``, ``"stopped"``, ``"failed"``, or None while it runs.
    """

    taken: int = 0
    accepted: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    invalid: int = 0
    skipped: int = 0
    in_flight: int = 0
    throttled: int = 0
    possible_duplicates: int = 0
    attempts: int = 0
    elapsed: float = 0.0
    ending: Ending | None = None

    @property
    def done(self) -> int:
        """Items that ended, in whatever way."""
        return self.accepted + self.rejected + self.not_sent + self.unknown + self.invalid + self.skipped

    def count(self, delivery: Delivery) -> None:
        """Count one item's end."""
        setattr(self, delivery.value, getattr(self, delivery.value) + 1)
