"""A client's use of a store: it closes it at the end, unless another client of the process uses it too."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Final

from .._tasks import TaskSet
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..stores import Store

_METHODS: Final = ("claim", "begin", "renew", "settle", "withdraw", "get", "run")
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds to wait for the store to hold the last outcomes."""
_users: Final[weakref.WeakKeyDictionary[Any, int]] = weakref.WeakKeyDictionary()
"""The number of open clients that have used each store."""


class StoreUse:
    """The store of a client and its views, and the writes that outlive the calls that began them.

    Args:
        store: the store, or None.

    Raises:
        ConfigurationError: it is not a store.
    """

    def __init__(self, store: Store | None) -> None:
        if store is not None and not all(callable(getattr(store, name, None)) for name in _METHODS):
            raise ConfigurationError(
                f"store: must be a MemoryStore, SQLiteStore, RedisStore or another Store, not {type(store).__name__}"
            )
        self.store: Store | None = store
        self._is_used = False
        self.tasks: TaskSet = TaskSet()

    def require(self) -> Store:
        """Return the store.

        Raises:
            ConfigurationError: the client has none.
        """
        if self.store is None:
            raise ConfigurationError(
                "store: idempotency keys need one: pass store=SQLiteStore('codes.db') for the processes of one "
                "machine, RedisStore('redis://...') for several machines or MemoryStore() for one process, or set "
                "BW_STORE_URL"
            )
        if not self._is_used:
            self._is_used = True
            _users[self.store] = _users.get(self.store, 0) + 1
        return self.store

    async def aclose(self) -> None:
        """Wait for the writes, then close the store unless another client uses it."""
        if len(self.tasks):
            await asyncio.wait(list(self.tasks), timeout=_CLOSE_TIMEOUT)
            self.tasks.cancel()
            await self.tasks.wait_idle()
        if self.store is None or not self._is_used:
            return
        self._is_used = False
        left = _users.get(self.store, 1) - 1
        if left:
            _users[self.store] = left
            return
        _users.pop(self.store, None)
        await self.store.aclose()
