"""Sends one claimed single code under a lease that is renewed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .._client._recorded_call import Entry
from .._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState
from .._lease import LeaseKeeper
from .ledger._protocol import INTENT_STORED, Reply, deny_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._item_state import DenyReason
    from .._lease import Lease
    from ..errors import MFAError
    from .ledger._code_queue import CodeQueue


class SingleCode(Entry):
    """A single code that is being sent; the `Entry` that `send` stores its attempts under.

    Args:
        codes: the single codes in the ledger.
        name: its name in the ledger.
        lease: the right to send it.
        is_stopping: returns whether no further attempt may begin.
        resends_unknown: whether an unknown code is sent again.
        maybe_delivered: whether the code is unknown.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        codes: CodeQueue,
        name: str,
        lease: Lease,
        *,
        is_stopping: Callable[[], bool],
        resends_unknown: bool,
        maybe_delivered: bool,
    ) -> None:
        self._codes = codes
        self.name: str = name
        self._is_stopping = is_stopping
        self._resends_unknown = resends_unknown
        self.lease = lease
        self.keeper = LeaseKeeper(lease, partial(codes.renew, name, lease))
        self.maybe_delivered = maybe_delivered
        self.result: dict[str, Any] = {"delivery": None}

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt may begin."""
        return self._is_stopping()

    async def finish(self) -> None:
        """Do nothing: the outcome is settled."""

    async def intent(self, *, maybe_delivered: bool) -> DenyReason | None:
        """Store the intent of an attempt; return None, or why the attempt may not begin."""
        options = {"resends_unknown": self._resends_unknown, "maybe_delivered": maybe_delivered}
        ask = partial(self._codes.intent, self.name, self.lease, **options)
        reply = await self.keeper.intent(ask, lease_lost=Reply.LEASE_LOST)
        return None if reply in INTENT_STORED else deny_reason(reply)

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:  # noqa: ARG002 - the record of a single code holds no count
        """Schedule the write of the outcome."""
        self._codes.settle(self.name, self.lease, state, provider_id, error)
        if state is not LedgerState.PENDING:
            self.result = {"delivery": DELIVERY_OF_LEDGER_STATE[state].value, "id": provider_id}
            if state is LedgerState.POSSIBLE_DUPLICATE:
                self.result["possible_duplicate"] = True
            if error is not None:
                self.result["error"] = type(error).__name__
