"""`Guard`: who may cost money. Usable alone, by tickets, and in `SignIns`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from attrs import field, frozen

from .._concise import ConciseType
from .._frames import clears_locals
from .._redaction import hide
from .._tasks import TaskSet
from ..errors import ConfigurationError
from ._flow import TICKET_ADMIT, TICKET_END
from ._identity import new_token
from ._policy import Policy
from ._stepper import Keys, Stepper

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .._config import Rate
    from ..stores import Store
    from ._policy import UnverifiedBudget
    from ._regions import Recipient

_TIMEOUT: Final = 5.0


class Guard:
    """Limits on who may have a text sent: regions, numbers, visitors, and texts that no one verifies.

    Without a guard each request to a sign-in page costs money, and there are people who earn from that. A refusal is a
    `GuardRefusedError`, before anything is sent. Use it in `SignIns`, or alone::

        ticket = await guard.admit(number, visitor=ip)  # raises GuardRefusedError
        await ticket.release()  # nothing was sent
        await ticket.verified()  # the person has proved to hold the number

    With phonenumberslite (the ``[signin]`` extra) numbers are put into their canonical form before they are counted.
    Without it a guard without regions works on E.164 numbers as given, and does not find premium-rate numbers.

    Args:
        regions: the regions to which texts go, such as ``{"US", "CA"}``, as two-letter codes, or ``"001"`` for global
            numbers; None for all but global numbers. Needs the extra. A country code is not enough: ``+1`` is also
            Jamaica and the Dominican Republic.
        denied_prefixes: beginnings of E.164 numbers to refuse, such as ``("+1900",)``.
        premium: whether to admit premium-rate and shared-cost numbers.
        per_number: texts to one number, over all flows; requests with ``cleared=True`` have a second share.
        per_visitor: texts from one visitor that were not verified: carriers and campuses share addresses.
        total: all texts, such as ``"1000/h"``; None for no limit.
        unverified: a budget of unverified texts; None for none.
        mode: ``"enforce"``, or ``"observe"`` to refuse nothing and count what would have been refused.
        observe: the reasons that only observe, such as ``{"unverified"}``.
        store: where it counts. Needed for `admit`; in `SignIns` the guard counts in their store.

    Raises:
        ConfigurationError: a value is wrong, or phonenumberslite is needed and not installed.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        *,
        regions: Collection[str] | None = None,
        denied_prefixes: Sequence[str] = (),
        premium: bool = False,
        per_number: str | Rate | Sequence[str | Rate] | None = ("5/h", "10/d"),
        per_visitor: str | Rate | Sequence[str | Rate] | None = ("20/h", "50/d"),
        total: str | Rate | Sequence[str | Rate] | None = None,
        unverified: UnverifiedBudget | None = None,
        mode: Literal["enforce", "observe"] = "enforce",
        observe: Collection[str] = (),
        store: Store | None = None,
    ) -> None:
        self._policy = Policy(
            regions=regions,
            denied_prefixes=denied_prefixes,
            premium=premium,
            per_number=per_number,
            per_visitor=per_visitor,
            total=total,
            unverified=unverified,
            mode=mode,
            observe=observe,
        )
        self.store: Store | None = store
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._policy.describe()})"

    @clears_locals
    async def admit(
        self, number: str, *, visitor: str | None = None, region: str | None = None, cleared: bool = False
    ) -> Ticket:
        """Admit one text, and count it.

        Args:
            number: the recipient, E.164; with `region` as people type it there.
            visitor: where the request came from: an IP address, from the server's own trusted-proxy setting and never
                from a raw header. IPv6 counts as its /64; a port does not count.
            region: the region of a number that is not in the international form.
            cleared: whether the application vouches for this request: a CAPTCHA was solved, the user is signed in.

        Raises:
            GuardRefusedError: the guard refuses; nothing was counted for the number.
            StoreError: the store cannot be used; send nothing.
            ConfigurationError: the guard has no store.
        """
        stepper = self._stepper()
        recipient = self._policy.recipient(number, region)
        counted = self._policy.visitor(visitor)
        token = new_token()
        keys = Keys().add("ticket", f"a:{token}")
        self._policy.add_keys(keys, recipient, counted, await stepper.secrets())
        arguments = self._policy.arguments(recipient, cleared=cleared, fake=False, cooldown=[])
        released = {"outcome": "released"}
        reply = await stepper.count(TICKET_ADMIT, keys, arguments, undo=TICKET_END, undo_arguments=released)
        if reply[0] == "refused":
            raise self._policy.refusal(reply[1], reply[2], cleared=cleared)
        if reply[1]:
            self._policy.warn_observing()
        return Ticket(self, token, recipient, counted)

    def _stepper(self) -> Stepper:
        if self.store is None:
            raise ConfigurationError("store: pass one to Guard, such as SQLiteStore('codes.db') or MemoryStore()")
        return Stepper(self.store, _TIMEOUT, self._tasks)

    async def _end(self, token: str, recipient: Recipient, visitor: str | None, outcome: str) -> None:
        """Store the outcome of a ticket."""
        stepper = self._stepper()
        keys = Keys().add("ticket", f"a:{token}")
        self._policy.add_keys(keys, recipient, visitor, await stepper.secrets())
        arguments = self._policy.arguments(recipient, cleared=False, fake=False, cooldown=[])
        await stepper.run(TICKET_END, keys, arguments | {"outcome": outcome})


@frozen
class Ticket(metaclass=ConciseType):
    """One admitted text.

    A ticket that neither is released nor verified counts as a text that was sent and not verified. Only the first of
    the two calls takes effect.
    """

    _guard: Guard = field(repr=False)
    _token: str = field(repr=False)
    _recipient: Recipient = field(repr=False)
    _visitor: str | None = field(repr=hide)

    @property
    def number(self) -> str:
        """The number in canonical form: send to this one."""
        return self._recipient.number

    @clears_locals
    async def release(self) -> None:
        """Give back what was counted: nothing was sent.

        Raises:
            StoreError: the store cannot be used; the text stays counted.
        """
        await self._guard._end(self._token, self._recipient, self._visitor, "released")  # noqa: SLF001

    @clears_locals
    async def verified(self) -> None:
        """Take the text out of the budgets: the person has proved to hold the number.

        Raises:
            StoreError: the store cannot be used; the text stays counted as unverified.
        """
        await self._guard._end(self._token, self._recipient, self._visitor, "verified")  # noqa: SLF001


def policy_of(guard: Guard) -> Policy:
    """Return a guard's policy, for the flows."""
    return guard._policy  # noqa: SLF001 - the one place that reads it
