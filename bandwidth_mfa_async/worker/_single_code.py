"""One single code that a worker sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._clock import sleep_until
from .._item_state import LedgerState
from ..errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._lease import Lease
    from ..errors import MFAError
    from .ledger._code_queue import CodeQueue
    from .ledger._ledger import RedisLedger


class SingleCode:
    """A single code being sent; what `send` needs to know of it.

    Args:
        codes: the single codes in the ledger.
        name: what the ledger knows it by.
        lease: the right to send it.
        is_stopping: whether no further attempt is to begin.
        resends_unknown: whether an unknown one is sent again.
    """

    def __init__(
        self,
        codes: CodeQueue,
        name: str,
        lease: Lease,
        *,
        is_stopping: Callable[[], bool],
        resends_unknown: bool,
    ) -> None:
        self._codes = codes
        self._name = name
        self._is_stopping = is_stopping
        self._resends_unknown = resends_unknown
        self.lease = lease
        self.result: dict[str, Any] = {"delivery": None}

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt is to begin."""
        return self._is_stopping()

    async def intent(self) -> str:
        """Put an attempt on record."""
        letter = await self._codes.intent(self._name, self.lease, resends_unknown=self._resends_unknown)
        if letter == "L" and await self._codes.renew(self._name, self.lease):
            # It had run out, in a freeze or while Redis was away, and nobody had taken it.
            letter = await self._codes.intent(self._name, self.lease, resends_unknown=self._resends_unknown)
        return letter

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:  # noqa: ARG002 - the record of a single code holds no count
        """Write soon what became of it."""
        self._codes.settle(self._name, self.lease, state, provider_id, error, resends_unknown=self._resends_unknown)
        if state is not LedgerState.PENDING:
            self.result = {"delivery": state.name.lower(), "id": provider_id}
            if error is not None:
                self.result["error"] = type(error).__name__

    async def renew(self, ledger: RedisLedger) -> None:
        """Renew the lease for as long as the code is worked at."""
        while True:
            await sleep_until(ledger.clock, ledger.clock.monotonic() + self.lease.seconds / 4)
            try:
                if not await self._codes.renew(self._name, self.lease):
                    self.lease.lost = True
                    return
            except LedgerError:
                return
