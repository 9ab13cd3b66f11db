"""A step: one atomic decision over a few records, as a pure function and as a Lua script of the same meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import field, frozen

from .._concise import ConciseType

if TYPE_CHECKING:
    from collections.abc import Sequence

StoredRecord: TypeAlias = dict[str, Any]
"""A stored record: a flat dict of str, int and float. Its field ``e`` says when it expires (Unix time, ms)."""
Argument: TypeAlias = "str | int | float"
Reply: TypeAlias = list[Any]
"""What a step returns: a list of str, int and float. It never is empty and never contains None."""


class Records:
    """The records of one step: read them by index, and save or delete them.

    Args:
        found: the stored records; None where there is none.
        now: Unix time in milliseconds. A record that has expired by then counts as absent.
    """

    __slots__ = ("_stored", "changes")

    def __init__(self, found: Sequence[StoredRecord | None], now: int) -> None:
        self._stored = [None if each is None or each["e"] <= now else each for each in found]
        self.changes: dict[int, StoredRecord | None] = {}

    def __getitem__(self, index: int) -> StoredRecord | None:
        """Return a copy of a record; None if it is absent."""
        record = self.changes.get(index, self._stored[index])
        return None if record is None else dict(record)

    def save(self, index: int, record: StoredRecord) -> None:
        """Store a record in the place of the old one."""
        self.changes[index] = record

    def delete(self, index: int) -> None:
        """Delete a record."""
        self.changes[index] = None


class Apply(Protocol):
    """The pure function of a step."""

    def __call__(self, records: Records, args: Sequence[Argument], now: int, /) -> Reply:
        """Decide, save what changed, and return the reply.

        Args:
            records: the step's records, in the order of its keys.
            args: the step's arguments.
            now: Unix time in milliseconds.
        """
        ...


@frozen
class Step(metaclass=ConciseType):
    """One atomic decision.

    `RedisStore` runs ``<package>/lua/<name>.lua``, which must mean the same as `apply`. The file is the body of a
    function of ``records`` (1-based; nil where there is none), ``args`` (1-based) and ``now``, with ``save(index,
    record)`` and ``delete(index)``; it returns the reply.

    A step may run twice with the same arguments: a reply can be lost. So a step that counts takes a token, and counts
    each token once.

    Attributes:
        name: its name, and that of the Lua file.
        apply: the pure function.
        prelude: Lua files with functions that the script uses.
        is_read: whether it never saves or deletes.
        runs_late: whether it may run after its deadline: it stores an outcome, and begins nothing.
        package: the package with the folder ``lua``.
    """

    name: str
    apply: Apply = field(eq=False, repr=False)
    prelude: tuple[str, ...] = ()
    is_read: bool = False
    runs_late: bool = False

    package: str = "bandwidth_mfa_async.stores"
