"""`MemoryStore`: keys, sign-ins and guards of one process."""

from __future__ import annotations

import heapq
import threading
from collections import Counter, defaultdict
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from .._validation import checked_count
from ..errors import StoreError
from ._decisions import DEFAULT_LEASE, DEFAULT_RETENTION
from ._transactional import TransactionalStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._clock import Clock
    from ._secret import StoreSecret
    from ._step import Reply, StoredRecord
    from ._transactional import Change

DEFAULT_MAX_RECORDS: Final = 1_000_000
_SWEEP_SIZE: Final = 500
"""Expired records that one decision removes; more would block the event loop. A full store removes all."""


class MemoryStore(TransactionalStore):
    """A store in the memory of one process: for tests, and for one process that may forget at a restart.

    It may be shared by threads and event loops. A process that a fork makes has a copy of its own.

    Args:
        lease: seconds for which a claim is valid unless it is renewed; at least 1.
        retention: seconds for which a key is kept after its last change; at least 60, and at least `lease`.
        max_records: the number of records that it holds. Beyond it new ones are refused: a record that is removed
            before its time could have a text sent twice.
        clock: the time source; for tests.
        secret: under which sign-ins and guards make digests of numbers and visitors; by default a random one.

    Raises:
        ConfigurationError: a value is wrong.
    """

    def __init__(
        self,
        *,
        lease: float = DEFAULT_LEASE,
        retention: float = DEFAULT_RETENTION,
        max_records: int = DEFAULT_MAX_RECORDS,
        clock: Clock | None = None,
        secret: StoreSecret = None,
    ) -> None:
        super().__init__(lease=lease, retention=retention, clock=clock, secret=secret)
        self._own_secrets = (token_bytes(32),)
        checked_count("max_records", max_records)
        self._max_records = max_records
        self._records: dict[str, StoredRecord] = {}
        # When which record may have expired; a record that was stored again has a later entry too.
        self._expiries: list[tuple[int, str]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(records={len(self._records)})"

    async def transact(self, keys: Sequence[str], change: Change, *, deadline: float, is_read: bool) -> Reply:  # noqa: ARG002 - it never waits, and writes what `change` returns
        """Run a change under the lock; see `TransactionalStore.transact`.

        Raises:
            StoreError: the store is full.
        """
        now = round(self.clock.time() * 1000)
        with self._lock:
            self._remove_expired(now, _SWEEP_SIZE)
            reply, changes = change([self._records.get(key) for key in keys], now)
            added = sum(1 for index, record in changes.items() if record and keys[index] not in self._records)
            if added and len(self._records) + added > self._max_records:
                self._remove_expired(now, len(self._expiries))
            if added and len(self._records) + added > self._max_records:
                raise StoreError(
                    f"the store is full: it holds {len(self._records)} records; raise max_records, or use an "
                    "SQLiteStore or a RedisStore"
                )
            for index, record in changes.items():
                self._put(keys[index], record)
        return reply

    def _put(self, key: str, record: StoredRecord | None) -> None:
        if record is None:
            self._records.pop(key, None)
            return
        old = self._records.get(key)
        self._records[key] = record
        if old is None:
            heapq.heappush(self._expiries, (record["e"], key))

    def _remove_expired(self, now: int, most: int) -> None:
        for _ in range(most):
            if not self._expiries or self._expiries[0][0] > now:
                return
            _, key = heapq.heappop(self._expiries)
            record = self._records.get(key)
            if record is not None and record["e"] <= now:
                del self._records[key]
            elif record is not None:
                heapq.heappush(self._expiries, (record["e"], key))

    async def _make_secrets(self, *, deadline: float) -> Sequence[bytes]:  # noqa: ARG002 - it never waits
        """Return a random secret, which lives as long as the store."""
        return self._own_secrets

    async def counts(self, *, deadline: float) -> Mapping[str, Mapping[str, int]]:  # noqa: ARG002 - it never waits
        """Return the number of records by kind and state."""
        now = round(self.clock.time() * 1000)
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        with self._lock:
            for key, record in self._records.items():
                if record["e"] > now:
                    found[key.partition(":")[0]][str(record.get("s", ""))] += 1
        return found

    async def aclose(self) -> None:
        """Keep everything: the records live as long as the store."""
