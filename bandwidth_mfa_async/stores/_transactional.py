"""`TransactionalStore`: a store made of one primitive, for memory, SQLite and databases of others."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from ._decisions import KeyDecisions
from ._step import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._step import Argument, Reply, Step, StoredRecord

Change: TypeAlias = "Callable[[Sequence[StoredRecord | None], int], tuple[Reply, dict[int, StoredRecord | None]]]"
"""A pure function. It receives the records (None where there is none) and Unix time in ms, and returns the reply and
the records to store by their index: None deletes one. It may be called again if the transaction has to be repeated."""


class TransactionalStore(KeyDecisions):
    """A store that runs a pure function over a few records in one transaction.

    To keep keys in another database, such as Postgres, subclass it and write `transact`, `counts` and `aclose`. A
    record is a small dict of str, int and float: a JSON column will do. Its field ``e`` says when it expires (Unix
    time, ms); it may be deleted from then on, and never before. Raise `StoreError` if the database cannot be used or
    does not answer by the deadline: nothing is sent then.

    Args:
        lease: seconds for which a claim is valid unless it is renewed; at least 1.
        retention: seconds for which a key is kept after its last change; at least 60.
        clock: the time source; for tests.
    """

    @abstractmethod
    async def transact(self, keys: Sequence[str], change: Change, *, deadline: float, is_read: bool) -> Reply:
        """Read the records of `keys`, call `change`, store what it returns, and return its reply; all atomically.

        Args:
            keys: the names of the records, all different.
            change: a function of the records; returns the records to store and the reply.
            deadline: when to give up, in seconds of ``self.clock.monotonic()``. Do not commit after it.
            is_read: whether `change` stores nothing.

        Raises:
            StoreError: the database cannot be used, or did not answer by the deadline.
        """

    async def run(  # noqa: PLR0913 - the facts of a step
        self,
        step: Step,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        deadline: float,
        group: str = "",  # noqa: ARG002 - for stores on several nodes
        confirm: bool = False,  # noqa: ARG002 - a commit is the confirmation
    ) -> Reply:
        """Run a step atomically and return its reply; see `Store.run`."""

        def change(found: Sequence[StoredRecord | None], now: int) -> tuple[Any, dict[int, StoredRecord | None]]:
            """Run the step's pure function."""
            records = Records(found, now)
            return step.apply(records, args, now), records.changes

        return await self.transact(keys, change, deadline=deadline, is_read=step.is_read)
