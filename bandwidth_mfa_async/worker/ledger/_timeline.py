"""Redis's time as this process knows it: it never decreases, unless Redis lost what was written to it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ._scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._redis._connection import Connection

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
CODES: Final = ""
"""The name of the clock of single codes; a job's clock has the job's name."""
_MAX_CLOCKS: Final = 1_000
_MIN_SET_BACK: Final = 1_000.0
"""Milliseconds; smaller corrections of a clock are normal."""


class _Clock:
    """What is known of one clock: when it was created, its latest time, and how far it was set back."""

    __slots__ = ("ahead", "created", "heard", "is_over")

    def __init__(self) -> None:
        self.created = ""
        self.heard = 0
        self.ahead: float | None = None
        self.is_over = False


class Timeline:
    """Runs the scripts that read the time, and passes what this process knows of the time to each; see ``_clock.lua``.

    A Redis that was restarted from an old snapshot, or that lost writes in a failover, knows an earlier time than a
    process that survived. It would let codes be sent again that were sent after that time, so the script stops the job,
    or makes the waiting single codes unknown.

    Args:
        connection: the ledger's connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clocks: OrderedDict[str, _Clock] = OrderedDict()
        self._was_set_back = 0.0

    async def run(
        self, script: str, clock: str, keys: Sequence[str], arguments: Callable[[], Sequence[Any]] | Sequence[Any]
    ) -> tuple[int, Any]:
        """Run a script.

        Args:
            script: its name.
            clock: the job, or `CODES`.
            keys: its keys.
            arguments: see `Connection.script`.

        Returns:
            Redis's time in milliseconds, and the script's own reply.

        Raises:
            LedgerError: Redis refuses the operation, or the ledger was closed.
        """

        def complete() -> list[Any]:
            """Return the arguments of one try."""
            known = self._clocks.get(clock)
            seen = "" if known is None else f"{known.created} {known.heard} {known.is_over:d}"
            return [*(arguments if isinstance(arguments, Sequence) else arguments()), seen]

        answer = await self._connection.script(SCRIPTS[script], keys, complete)
        created, heard, rewound, ahead, reply = answer
        if int(heard):
            self._update(clock, created.decode(), int(heard), float(ahead))
        if rewound:
            self._log_rewound(clock)
        return int(heard), reply

    def end(self, clock: str) -> None:
        """Record that a job has ended: another one may take its name."""
        known = self._clocks.get(clock)
        if known is not None:
            known.is_over = True

    def _update(self, clock: str, created: str, heard: int, ahead: float) -> None:
        known = self._clocks.get(clock)
        if known is None or known.created != created:
            known = self._clocks[clock] = _Clock()
            known.created = created
        self._clocks.move_to_end(clock)
        if len(self._clocks) > _MAX_CLOCKS:
            self._clocks.popitem(last=False)
        known.heard = max(known.heard, heard)
        before, known.ahead = known.ahead, ahead
        if before is not None and ahead - before >= _MIN_SET_BACK and ahead > self._was_set_back:
            # The clock of each job reports the same step, within the time between two polls: log the first one only.
            self._was_set_back = ahead + 2 * _MIN_SET_BACK
            _LOG.warning(
                "the clock of the ledger's Redis was set back by %.0f s; leases and waiting times continue as if it "
                "had not been",
                (ahead - before) / 1000,
            )

    @staticmethod
    def _log_rewound(clock: str) -> None:
        cause = (
            "the ledger's Redis lost the newest of what was written to it: it was restarted from an old snapshot, or "
            "failed over to a server that did not have it"
        )
        if clock == CODES:
            _LOG.error("%s; the single codes that wait are unknown now, because they may have been sent", cause)
        else:
            _LOG.error(
                "job %s is stopped: %s. Codes that were sent since then would be sent again; compare with the "
                "service's records before you resume the job",
                clock,
                cause,
            )
