"""The messages between a process and the shared limiter: the report and the grant."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import define, frozen

from ..._logger import LOGGER_NAME
from ..._redis._fail_fast import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._grant_queue import GrantQueue

_ANSWER_FIELDS: Final = 13
_MIN_SET_BACK: Final = 1.0
"""Seconds; smaller corrections of a clock are normal."""
_logger = logging.getLogger(LOGGER_NAME)


class LimitStore(Protocol):
    """Access to the shared state of one channel."""

    async def exchange(self, arguments: Sequence[str]) -> Any:
        """Run the script once. Raise `StoreUnavailableError` if that is not possible."""
        ...

    async def aclose(self) -> None:
        """Close the connection, if there is one."""


@define(kw_only=True)
class Report:
    """What happened since the last exchange and what is needed now. The fields are the script's arguments."""

    adaptive: bool
    ceiling: float = 0.0
    want_interactive: int = 0
    head_interactive: int = 0
    ticket_interactive: float = 0.0
    want_bulk: int = 0
    head_bulk: int = 0
    ticket_bulk: float = 0.0
    epoch: int = 0
    accepted: int = 0
    accepted_before: int = 0
    rejected: int = 0
    rejected_epoch: int = -1
    retry_after: float = 0.0
    unused: int = 0
    seed: float = 0.0
    expires: float = 0.0
    process: str = ""
    windows: str = ""
    written: str = ""
    returned: bool = False
    ready: str = "0:0:0:0"

    def request_writes(self, queue: GrantQueue) -> None:
        """Request to write the texts of the waiters of a queue."""
        interactive, bulk = queue.shortfalls()
        head = queue.head_shortfall()
        self.ready = f"{interactive}:{head}:{bulk}:{1 if interactive else head}"

    def request(self, queue: GrantQueue, tickets: Mapping[str, tuple[float, float]]) -> None:
        """Request the permits that the waiters of a queue need, at the slots of their lanes."""
        self.want_interactive, self.want_bulk = queue.shortfalls()
        first = queue.head_shortfall()
        self.head_interactive = first
        self.head_bulk = 1 if self.want_interactive else first
        self.ticket_interactive = tickets.get("interactive", (0.0, 0.0))[0]
        self.ticket_bulk = tickets.get("bulk", (0.0, 0.0))[0]

    def arguments(self) -> list[str]:
        """Return the fields in the script's order, with `%.6f` because a time stamp has sixteen digits."""
        numbers = (
            self.ceiling,
            self.want_interactive,
            self.head_interactive,
            self.ticket_interactive,
            self.want_bulk,
            self.head_bulk,
            self.ticket_bulk,
            self.epoch,
            self.accepted,
            self.accepted_before,
            self.rejected,
            self.rejected_epoch,
            self.retry_after,
            self.unused,
            self.seed,
        )
        formatted = (f"{number:.6f}" for number in numbers)
        return [
            str(int(self.adaptive)),
            *formatted,
            str(int(self.expires * 1000)),
            self.process,
            self.windows,
            self.written,
            str(int(self.returned)),
            self.ready,
        ]


@frozen(kw_only=True)
class PermitGrant:
    """The script's answer.

    Attributes:
        granted: permits that may be used now.
        interactive_ticket: the next slot of the interactive lane in Redis's own time; 0 for none.
        interactive_wait: seconds until then; 0 without a slot.
        bulk_ticket: the next slot of the bulk lane.
        bulk_wait: seconds until then.
        epoch: how many times the rate was cut.
        rate: messages (segments) per second of all processes together; None while unlimited.
        pause: seconds for which nothing is granted.
        half_open: everything was rejected lately, and one message goes first as a probe.
        processes: with a configured rate, processes that have reported lately.
        set_back: the seconds by which Redis's clock was set back since the last report of any process.
        writes: with a configured rate, segments of waiting texts that may be written now.
        writes_wait: seconds until the other ones may ask again; 0 if there is none.
    """

    granted: int
    interactive_ticket: float
    interactive_wait: float
    bulk_ticket: float
    bulk_wait: float
    epoch: int
    rate: float | None
    pause: float
    half_open: bool
    processes: int
    set_back: float
    writes: int
    writes_wait: float

    def tickets(self, now: float) -> dict[str, tuple[float, float]]:
        """Return the slot of each lane that has one: in Redis's own time, and in the clock's seconds."""
        slots = (
            ("interactive", self.interactive_ticket, self.interactive_wait),
            ("bulk", self.bulk_ticket, self.bulk_wait),
        )
        return {lane: (ticket, now + wait) for lane, ticket, wait in slots if ticket > 0}

    @classmethod
    def parse(cls, answer: Any) -> PermitGrant:
        """Parse an answer.

        Raises:
            StoreUnavailableError: the answer does not come from the script.
        """
        try:
            values = [float(value) for value in answer]
        except (TypeError, ValueError):
            values = []
        if len(values) != _ANSWER_FIELDS:
            raise StoreUnavailableError("its answer does not come from the limiter's script")
        granted, ticket, wait, bulk_ticket, bulk_wait, epoch, rate, pause, half_open, processes, set_back = values[:11]
        return cls(
            granted=int(granted),
            interactive_ticket=ticket,
            interactive_wait=wait,
            bulk_ticket=bulk_ticket,
            bulk_wait=bulk_wait,
            epoch=int(epoch),
            rate=rate if rate > 0 else None,
            pause=pause,
            half_open=half_open > 0,
            processes=int(processes),
            set_back=set_back,
            writes=int(values[11]),
            writes_wait=values[12],
        )

    def log_set_back(self, channel: str) -> None:
        """Log that Redis's clock was set back. The script reports each step to one process only."""
        if self.set_back >= _MIN_SET_BACK:
            _logger.warning(
                "%s limit: the clock of its Redis was set back by %.0f s; the limit continues as if it had not been",
                channel,
                self.set_back,
            )
