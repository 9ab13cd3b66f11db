"""The outcome of an item and the counts of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, field, frozen

from .._concise import ConciseType

if TYPE_CHECKING:
    from .._models import CodeRequest, MessagingCodeResponse, VoiceCodeResponse
    from ..errors import Delivery, MFAError

Ending: TypeAlias = Literal["finished", "stopped", "failed"]
"""How a run ended: the input was used up, the run was stopped, or an error ended it."""


@frozen
class ItemOutcome(metaclass=ConciseType):
    """The outcome of one item of a bulk run.

    Attributes:
        index: position in the input, from 0.
        key: idempotency key, by default a digest of number, template, channel and run name; empty if the input value is
            not a request. Not part of the `repr`, because a custom key may contain personal data.
        request: the request; None if the input value is not a request.
        delivery: what is known of the text; `Delivery.INVALID` if the item breaks a rule, `Delivery.SKIPPED` if it was
            done before or is a duplicate in the input.
        response: the response if the item was accepted, now or in an earlier run with the same journal.
        error: why the item was not accepted.
        previous: for a skipped item, the outcome that the journal has; None if its first occurrence in the input was
            still active in this run.
    """

    index: int
    key: str = field(repr=False)
    request: CodeRequest | None
    delivery: Delivery
    response: MessagingCodeResponse | VoiceCodeResponse | None = None
    error: MFAError | None = None
    previous: Delivery | None = None


@define(kw_only=True)
class BulkSummary(metaclass=ConciseType):
    """The counts of a run, updated while it runs.

    Attributes:
        taken: items read from the input.
        accepted: items that the service accepted.
        rejected: items that the service rejected.
        not_sent: items whose request was never written.
        unknown: items that may have been sent.
        invalid: items that break a rule.
        skipped: items done before, or duplicates in the input.
        in_flight: requests in flight now.
        throttled: attempts answered with 429, retried or not.
        possible_duplicates: items accepted, by this or an earlier run, of which an earlier attempt may have been
            delivered too.
        possible_duplicates_unrecorded: items accepted by an earlier run with an older version, which did not record
            that.
        attempts: attempts of all finished items.
        elapsed: seconds from the first read of the stream to the last outcome; the sum over several streams.
        ending: ``"finished"``, ``"stopped"``, ``"failed"``, or None while the run is active.
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
    possible_duplicates_unrecorded: int = 0
    attempts: int = 0
    elapsed: float = 0.0
    ending: Ending | None = None

    @property
    def done(self) -> int:
        """Number of items that have an outcome."""
        return self.accepted + self.rejected + self.not_sent + self.unknown + self.invalid + self.skipped

    def count(self, delivery: Delivery, possible_duplicate: bool | None = False) -> None:  # noqa: FBT001, FBT002 - a fact
        """Count one outcome.

        Args:
            delivery: what is known of the text.
            possible_duplicate: of an accepted item, `ResponseMeta.possible_duplicate`.
        """
        setattr(self, delivery.value, getattr(self, delivery.value) + 1)
        if possible_duplicate:
            self.possible_duplicates += 1
        elif possible_duplicate is None:
            self.possible_duplicates_unrecorded += 1
