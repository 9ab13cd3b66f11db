"""A single code whose key is also an idempotency key in the client's store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._client._keyed import KeyedSend
from .._client._not_after import NotAfter
from .._client._recorded_call import Entry
from .._item_state import LedgerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._client._executor import CallExecutor
    from .._item_state import DenyReason
    from .._models import CodeRequest
    from .._wire import Operation
    from ..errors import MFAError
    from ._single_code import SingleCode

_ACCEPTED = (LedgerState.ACCEPTED, LedgerState.POSSIBLE_DUPLICATE)


class KeyedCode(Entry):
    """A single code that the ledger and the store record: its key names the same code in calls with a key.

    The ledger's claim decides which worker sends the code; the store's decides between workers and calls.

    Args:
        code: the code in the ledger.
        secret: the `key_secret` of its key.
        executor: the executor of a client that has a store.
        operation: the operation.
        request: the request.
    """

    def __init__(
        self,
        code: SingleCode,
        secret: str,
        executor: CallExecutor,
        operation: Operation[CodeRequest, Any],
        request: CodeRequest,
    ) -> None:
        self._code = code
        clock, timeout = executor.state.clock, executor.policy.timeout
        self._key = KeyedSend(
            executor, code.name, secret, operation, request, "interactive", timeout, NotAfter(None, clock)
        )
        self.lease = code.lease
        self.maybe_delivered = code.maybe_delivered
        self._accepted: tuple[LedgerState, str | None, int] | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt may begin."""
        return self._code.is_stopping

    @property
    def before_wait(self) -> Callable[[], Awaitable[None]] | None:
        """Claim the key in the store before a wait; wait while a call holds it."""
        return self._key.before_wait

    def check_before_write(self) -> None:
        """Raise if one of the leases may have expired."""
        self._code.check_before_write()
        self._key.check_before_write()

    async def intent(self, *, maybe_delivered: bool) -> DenyReason | None:
        """Store the intent of an attempt in both."""
        denied = await self._key.intent(maybe_delivered=maybe_delivered)
        self.maybe_delivered = self.maybe_delivered or self._key.maybe_delivered
        return denied or await self._code.intent(maybe_delivered=maybe_delivered or self.maybe_delivered)

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:
        """Schedule the write of an outcome. The ledger gets an acceptance in `finish`, with what the store knows."""
        self._key.settle(state, provider_id, error, attempts)
        if state in _ACCEPTED:
            self._accepted = state, provider_id, attempts
        else:
            self._code.settle(state, provider_id, error, attempts)

    async def finish(self) -> None:
        """Release the key if nothing was settled, and settle an accepted code in the ledger."""
        self._key.end()
        is_duplicate = False
        try:
            is_duplicate = await self._key.finish()
        finally:
            if self._accepted is not None:
                state, provider_id, attempts = self._accepted
                self._code.settle(
                    LedgerState.POSSIBLE_DUPLICATE if is_duplicate else state, provider_id, None, attempts
                )
