"""Writes the items of jobs in batches; concurrent operations on one job share a round trip."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from ..._process import PerLoop
from ..._redis._batcher import Batcher, Writer
from ...errors import LedgerError
from ._protocol import BatchReply

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from ..._clock import Clock
    from ._timeline import Timeline

_LOG = logging.getLogger("bandwidth_mfa_async.worker")


class _LoopState:
    """What belongs to one event loop."""

    def __init__(self) -> None:
        self.writer = Writer()
        # Only those with operations that have not run.
        self.batchers: dict[str, Batcher] = {}


class ItemWriter:
    """The batches of operations on the items of all jobs.

    Args:
        timeline: runs the script.
        keys: returns the keys of a job with these names.
        clock: the time source.
    """

    def __init__(self, timeline: Timeline, keys: Callable[..., list[str]], clock: Clock) -> None:
        self._timeline = timeline
        self._keys = keys
        self._clock = clock
        self._loops = PerLoop(_LoopState, self._adopt)

    @property
    def writer(self) -> Writer:
        """The writer of the running loop."""
        return self._loops.get().writer

    def call(self, job: str, operation: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Schedule an operation and return the future of its reply; see `Batcher.call`."""
        return self._batcher(job).call(operation)

    def submit(self, job: str, operation: tuple[Any, ...]) -> None:
        """Schedule an operation without waiting for its reply."""
        self._batcher(job).submit(operation)

    async def flush(self, job: str | None = None) -> None:
        """Wait until Redis holds every operation submitted so far, of one job or of all."""
        batchers = self._loops.get().batchers
        for name in tuple(batchers) if job is None else (job,):
            batcher = batchers.get(name)
            if batcher is not None:
                await batcher.flush()

    def _batcher(self, job: str) -> Batcher:
        batchers = self._loops.get().batchers
        batcher = batchers.get(job)
        if batcher is None:
            batcher = batchers[job] = Batcher(
                lambda ops: self._run_batch(job, ops), self._clock, lambda: batchers.pop(job, None)
            )
        return batcher

    def _adopt(self, _state: _LoopState, closed: _LoopState) -> None:
        for job, batcher in closed.batchers.items():
            self._batcher(job).adopt(batcher)

    async def _run_batch(self, job: str, operations: list[tuple[Any, ...]]) -> Sequence[str]:
        writer = self.writer
        result_keys: dict[int, int] = {}
        ops: list[tuple[Any, ...]] = []
        for operation in operations:
            kind, chunk, *rest = operation
            if kind == "settle" and rest[-1]:
                *rest, _, record = rest
                rest += [result_keys.setdefault(chunk, len(result_keys) + 1), record]
            ops.append((kind, chunk, *rest))
        names = ("job", "rows", "leases", "again", f"writer:{writer.id}", "unknown")
        keys = self._keys(job, *names, *(f"out:{chunk}" for chunk in result_keys))
        arguments = [writer.next_batch(), json.dumps(ops, separators=(",", ":"))]
        try:
            _, reply = await self._timeline.run("rows", job, keys, arguments)
            replies = str(reply, "ascii")
            if replies == BatchReply.LATE:
                writer.renew()
                raise LedgerError("another process writes under the same id; the next operation uses a new one")
        except LedgerError as error:
            _LOG.warning("outcomes of a job could not be written to the ledger: %s", error)
            raise
        return replies
