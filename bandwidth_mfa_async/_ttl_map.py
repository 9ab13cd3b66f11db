"""A map that is bounded in number and age."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ._clock import Clock

_Key = TypeVar("_Key", bound="Hashable")
_Value = TypeVar("_Value")


class TTLMap(Generic[_Key, _Value]):
    """A map whose entries expire, and that drops the oldest entry when it is full.

    Args:
        max_size: maximum number of entries.
        seconds: how long an entry is kept after `put`.
        clock: the source of time.
    """

    __slots__ = ("_clock", "_entries", "_max_size", "_seconds")

    def __init__(self, max_size: int, seconds: float, clock: Clock) -> None:
        self._max_size = max_size
        self._seconds = seconds
        self._clock = clock
        # With the time at which each expires. An OrderedDict: a dict is slow to find its first key after deletions.
        self._entries: OrderedDict[_Key, tuple[float, _Value]] = OrderedDict()

    def __len__(self) -> int:
        self._evict()
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        self._evict()
        return key in self._entries

    def get(self, key: _Key) -> _Value | None:
        """Return the value of a key; None if it has none or it has expired."""
        self._evict()
        expiry, value = self._entries.get(key, (0.0, None))
        # An entry that `transfer` moved may expire before those ahead of it.
        return value if expiry > self._clock.monotonic() else None

    def put(self, key: _Key, value: _Value) -> None:
        """Set the value of a key, as the newest entry."""
        self._evict()
        self._insert(key, (self._clock.monotonic() + self._seconds, value))

    def transfer(self, other: TTLMap[_Key, _Value], key: _Key) -> None:
        """Move an entry, if there is one, to another map; it expires when it would have expired here."""
        self._evict()
        entry = self._entries.pop(key, None)
        if entry is not None:
            other._insert(key, entry)

    def _insert(self, key: _Key, entry: tuple[float, _Value]) -> None:
        self._entries.pop(key, None)
        self._entries[key] = entry
        if len(self._entries) > self._max_size:
            self._entries.popitem(last=False)

    def _evict(self) -> None:
        now = self._clock.monotonic()
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)
