"""`RedisLedger`: what every worker knows of every row, kept in Redis under leases."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import field, frozen

from ..._clock import SystemClock
from ..._item_state import LEASE_EXPIRED, LedgerState
from ..._lease import Lease
from ..._redis._batcher import Batcher
from ..._redis._connection import Connection, checked_url
from ...errors import ConfigurationError, LedgerError
from ._protocol import VERSION
from ._scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence
    from types import TracebackType

    from ..._clock import Clock

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
_MAX_NAME: Final = 100
_WEEK: Final = 7 * 86_400.0
_INTERRUPTED_RECORD: Final = f",{LedgerState.UNKNOWN.value},,{LEASE_EXPIRED},,0\n"


@frozen
class Chunk:
    """A chunk under a lease.

    Attributes:
        job: its job's name.
        number: its place in the job, from 0.
        size: how many rows the job's chunks have.
        channel: ``"messaging"`` or ``"voice"``.
        resumed: how often the job had been resumed when it was taken.
        states: of its rows, a character each.
        requests: what `_codec` made of them.
        lease: the right to send them.
    """

    job: str
    number: int
    size: int
    channel: str
    resumed: str
    states: str
    requests: bytes = field(repr=False)
    lease: Lease = field(repr=False)


class RedisLedger:
    """The truth about jobs and single codes, for any number of workers: who may send what, and what came of it.

    A row is one byte: pending, sending, and then what became of it. It becomes ``sending`` only under a living lease,
    and before its request is written; what is ``sending`` when its owner's lease has run out becomes unknown. The
    numbers and texts that are still to be sent are in it as well, until nothing of their chunk can be sent again: keep
    this Redis as you keep the list. It must not evict (``maxmemory-policy noeviction``) and should persist
    (``appendonly yes``): claims that it forgets can be sent twice.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database.
        cluster: the URL leads to a Redis Cluster; all keys of a job share a hash tag.
        prefix: what every Redis key begins with.
        lease: seconds after which a chunk is taken from a worker that shows no sign of life. It must outlast the
            longest stall you accept: taking it from one who lives costs an unknown, never a second text.
        retention: seconds that outcomes are kept after their chunk is done, and a single code after it was asked for.
        timeout: seconds one Redis operation may take before it is tried again.
        clock: where time comes from; for tests.

    Raises:
        ConfigurationError: a value is wrong, or redis-py is not installed.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        url: str,
        *,
        cluster: bool = False,
        prefix: str = "bandwidth-mfa",
        lease: float = 30.0,
        retention: float = _WEEK,
        timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        self.url: str = checked_url(url, cluster=cluster)
        self.cluster: bool = bool(cluster)
        self.prefix: str = checked_name("prefix", prefix)
        self.lease: float = _checked_seconds("lease", lease, minimum=1.0)
        self.retention: float = _checked_seconds("retention", retention, minimum=60.0)
        self.clock: Clock = clock or SystemClock()
        timeout = _checked_seconds("timeout", timeout, minimum=0.01)
        self._connection = Connection(self.url, cluster=cluster, timeout=timeout, clock=self.clock)
        self._batchers: dict[str, Batcher] = {}
        # Batches are numbered, so that one that comes late does nothing.
        self.writer: str = secrets.token_hex(8)
        self._batches = itertools.count(1)
        self._checked = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self.prefix!r})"  # the URL may hold a password

    async def __aenter__(self) -> Self:
        self._connection.open()
        try:
            await self.check()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def next_batch(self) -> int:
        """Return the number of a batch of this writer's, larger than those before."""
        return next(self._batches)

    @property
    def connection(self) -> Connection:
        """The connection, for what else is kept in the same Redis."""
        return self._connection

    async def check(self, *, max_wait: float = 10.0) -> None:
        """Make sure, once, that this Redis can be used and forgets nothing of its own accord.

        Args:
            max_wait: seconds to wait for a Redis that is away.

        Raises:
            LedgerError: it cannot be reached, refuses us, or evicts.
        """
        if self._checked:
            return
        facts = await self._connection.call(lambda client: client.info("memory"), max_wait=max_wait)
        for node in facts.values() if isinstance(next(iter(facts.values())), dict) else (facts,):
            policy = str(node.get("maxmemory_policy", "noeviction"))
            if policy != "noeviction" and int(node.get("maxmemory", 0)):
                raise LedgerError(
                    f"the ledger's Redis evicts (maxmemory-policy {policy}): what it forgets is sent twice; "
                    "set maxmemory-policy noeviction"
                )
        self._checked = True

    async def aclose(self) -> None:
        """Close; operations that Redis has not answered may or may not have been done."""
        await self._connection.aclose()

    async def flush(self) -> None:
        """Return once everything that was told is in Redis."""
        for batcher in tuple(self._batchers.values()):
            await batcher.flush()

    # Rows.

    def renew(self, job: str, chunk: int, lease: Lease) -> Awaitable[Any]:
        """Return an awaitable of ``K`` (it goes on), ``L`` (it is lost), ``X`` (kept, but the job is stopped)."""
        ms = round(lease.seconds * 1000)
        return self._batcher(job).call(("renew", chunk, lease.fencing_token, ms, "", -1, "", False))

    def intent(self, chunk: Chunk, row: int, *, resends_unknown: bool) -> Awaitable[Any]:
        """Return an awaitable of ``1`` once an attempt is on record, or of why there must be none.

        Args:
            chunk: the row's.
            row: its place in the job.
            resends_unknown: whether an unknown one may be sent again.
        """
        return self._batcher(chunk.job).call(
            ("intent", chunk.number, chunk.lease.fencing_token, row, "", -1, "", resends_unknown)
        )

    def settle(self, chunk: Chunk, row: int, state: LedgerState, record: str, *, resends_unknown: bool) -> None:
        """Write soon what became of a row.

        Args:
            chunk: the row's.
            row: its place in the job.
            state: what is known; `State.PENDING` when nothing became of it.
            record: id, cause, status and attempts, as `_codec` writes them; empty to keep none.
            resends_unknown: whether unknown rows are sent again, so that a late no says nothing.
        """
        text = f"{row},{state.value},{record}\n" if record else ""
        self._batcher(chunk.job).submit(
            (
                "settle",
                chunk.number,
                chunk.lease.fencing_token,
                row,
                state.value,
                chunk.number if text else -1,
                text,
                resends_unknown,
            )
        )

    def _batcher(self, job: str) -> Batcher:
        batcher = self._batchers.get(job)
        if batcher is None:
            batcher = self._batchers[job] = Batcher(lambda ops: self._run_batch(job, ops), self.clock)
        return batcher

    async def _run_batch(self, job: str, operations: list[tuple[Any, ...]]) -> Sequence[str]:
        texts: dict[int, int] = {}
        ops: list[tuple[Any, ...]] = []
        for kind, chunk, token, row, state, text, record, resends_unknown in operations:
            place = 0 if text < 0 else texts.setdefault(text, len(texts) + 1)
            ops.append((kind, chunk, token, row, state, place, record, resends_unknown))
        names = ("job", "rows", "leases", "again", f"writer:{self.writer}")
        keys = self._keys(job, *names, *(f"out:{chunk}" for chunk in texts))
        arguments = [self.next_batch(), json.dumps(ops, separators=(",", ":"))]
        try:
            answers = await self._connection.script(SCRIPTS["rows"], keys, arguments)
        except LedgerError as error:
            _LOG.warning("what became of some rows of a job could not be written: %s", error)
            raise
        return _text(answers)

    # Chunks.

    async def claim_chunk(self, job: str, chunk: int, lease: Lease) -> Chunk | str:
        """Take a chunk.

        Args:
            job: its job.
            chunk: its place in it.
            lease: a fresh one.

        Returns:
            The chunk, or why not: ``"gone"``, ``"stopped"``, ``"done"``, ``"held"``.

        Raises:
            LedgerError: Redis refuses us, or the job was made by another version.
        """
        now = lease.now()
        keys = self._keys(job, "job", "rows", "leases", "open", "done", "again", f"in:{chunk}", f"out:{chunk}")
        arguments = [chunk, lease.fencing_token, round(lease.seconds * 1000), _INTERRUPTED_RECORD]
        word, *rest = await self._connection.script(SCRIPTS["claim_chunk"], keys, arguments)
        word = _text(word)
        if word == "version":
            raise _version_mismatch(job, rest[0])
        if word != "taken":
            return word
        lease.renewed_at(now)
        states, requests, size, channel, resumed = rest
        return Chunk(job, chunk, int(size), _text(channel), _text(resumed), _text(states), bytes(requests), lease)

    async def release_chunk(self, chunk: Chunk, keep: bytes) -> str:
        """Give a chunk back: ``"done"``, ``"left"`` with rows to do, or ``"lost"`` before.

        Args:
            chunk: the one.
            keep: what its requests are replaced by once nothing of it can be sent again.
        """
        await self._batcher(chunk.job).flush()
        number = chunk.number
        names = ("job", "rows", "leases", "open", "done", "again", f"in:{number}", f"out:{number}", "digests")
        arguments = [number, chunk.lease.fencing_token, keep, round(self.retention)]
        return _text(await self._connection.script(SCRIPTS["release_chunk"], self._keys(chunk.job, *names), arguments))

    async def next_chunk(self, job: str) -> int | None:
        """Return a chunk of the job's window that nobody works at, if there is one."""
        found = int(await self._connection.script(SCRIPTS["next_chunk"], self._keys(job, "job", "leases", "open"), []))
        return None if found < 0 else found

    async def plan(
        self, job: str, lease: Lease, *, max_queued_chunks: int, requeue_after: float
    ) -> tuple[str, list[int]]:
        """Coordinate a job for a moment.

        Args:
            job: which.
            lease: the coordinator's.
            max_queued_chunks: how many chunks may be in the queue or worked at.
            requeue_after: seconds after which a chunk that nobody works at is named again.

        Returns:
            ``"going"`` and the chunks to enqueue; or ``"held"`` by another, ``"stopped"``, ``"ended"``, ``"gone"``.
        """
        arguments = [lease.fencing_token, round(lease.seconds * 1000), max_queued_chunks, round(requeue_after * 1000)]
        word, *rest = await self._connection.script(
            SCRIPTS["plan"], self._keys(job, "job", "leases", "open"), arguments
        )
        word = _text(word)
        if word == "version":
            raise _version_mismatch(job, rest[0])
        return word, [int(chunk) for chunk in rest]

    # Jobs.

    async def jobs(self, *, include_ended: bool = False) -> list[str]:
        """Return the names of the jobs that workers look after, oldest first; or of all that were ever submitted."""
        key = f"{self.prefix}:jobs:all" if include_ended else f"{self.prefix}:jobs"
        return [_text(name) for name in await self._connection.command("zrange", key, 0, -1)]

    async def register(self, job: str) -> None:
        """Let every worker know of a job."""
        now = self.clock.time()
        for key in (f"{self.prefix}:jobs:all", f"{self.prefix}:jobs"):
            await self._connection.command("zadd", key, {job: now})

    async def forget(self, job: str, *, include_ended: bool = False) -> None:
        """Take a job off the workers' list, or off that of all jobs."""
        key = f"{self.prefix}:jobs:all" if include_ended else f"{self.prefix}:jobs"
        await self._connection.command("zrem", key, job)

    async def submit(self, job: str, *arguments: str | int | bytes, chunk: int = 0) -> list[Any]:
        """Open a job, add a chunk to it or close its input; see ``submit.lua``.

        Raises:
            LedgerError: the job was made by another version.
        """
        keys = self._keys(job, "job", "rows", "digests", f"in:{chunk}", f"out:{chunk}")
        word, *rest = await self._connection.script(SCRIPTS["submit"], keys, arguments)
        if _text(word) == "version":
            raise _version_mismatch(job, rest[0])
        return [_text(word), *rest]

    async def facts(self, job: str) -> dict[str, str]:
        """Return what is known of a job, counts included; empty when it is not known."""
        (key,) = self._keys(job, "job")
        found = await self._connection.command("hgetall", key)
        facts = {_text(name): _text(value) for name, value in found.items()}
        if facts and facts.get("version") != str(VERSION):
            raise _version_mismatch(job, facts.get("version", ""))
        return facts

    async def exists(self, job: str) -> bool:
        """Return whether there is such a job, of any version."""
        return bool(await self._connection.command("exists", *self._keys(job, "job")))

    async def stop(self, job: str, why: str, *, resumed: str = "") -> None:
        """Let no more attempts of a job begin.

        Args:
            job: which.
            why: one word.
            resumed: of the chunk whose run found a reason; a job that was resumed since goes on.
        """
        await self._connection.script(SCRIPTS["stop"], self._keys(job, "job"), [why, resumed])

    async def resume(self, job: str) -> int:
        """Let a job go on, and return how many chunks are to be tried again; -1 when there is no such job.

        Raises:
            LedgerError: the job was made by another version.
        """
        names = ("job", "rows", "leases", "open", "done", "again", "digests")
        arguments = self._keys(job, "in:", "out:")
        found = await self._connection.script(SCRIPTS["resume"], self._keys(job, *names), arguments)
        if isinstance(found, list):
            raise _version_mismatch(job, found[1])
        return int(found)

    async def results(self, job: str, size: int, total: int) -> AsyncIterator[tuple[int, str, str, bytes]]:
        """Give, chunk by chunk, its number, states, result text and what is left of its requests."""
        rows_key, *_ = self._keys(job, "rows")
        for chunk, first in enumerate(range(0, total, size)):
            in_key, out_key = self._keys(job, f"in:{chunk}", f"out:{chunk}")
            last = min(first + size, total) - 1
            states = await self._connection.command("getrange", rows_key, first, last)
            text = await self._connection.command("get", out_key)
            requests = await self._connection.command("get", in_key)
            yield chunk, _text(states), _text(text or b""), requests or b""

    async def drop_results(self, job: str, chunk: int) -> None:
        """Forget a chunk's results, once they are kept elsewhere."""
        (key,) = self._keys(job, f"out:{chunk}")
        await self._connection.command("delete", key)

    def new_lease(self) -> Lease:
        """Return a lease that nobody has granted yet."""
        return Lease(self.lease, self.clock)

    def _keys(self, job: str, *names: str) -> list[str]:
        # The braces keep all keys of a job on one node of a cluster, so that one script may touch them.
        return [f"{self.prefix}:{{{job}}}:{name}" for name in names]


def checked_name(what: str, value: object) -> str:
    """Return a name that may stand in a Redis key.

    Raises:
        ConfigurationError: it may not.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        raise ConfigurationError(f"{what}: must be a text of 1 to {_MAX_NAME} characters, like 'launch'")
    if not value.isprintable() or any(char in "{} " for char in value):
        raise ConfigurationError(f"{what}: must not hold braces, blanks or control characters")
    return value


def _checked_seconds(name: str, value: object, *, minimum: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not minimum <= value < 1e9:
        raise ConfigurationError(f"{name}: must be a number of seconds of at least {minimum:g}")
    return float(value)


def _version_mismatch(job: str, version: Any) -> LedgerError:
    said = _text(version)
    if not said.isdecimal() or len(said) > 9:
        return LedgerError("the ledger cannot be used: a key of ours holds something else; choose another prefix")
    if int(said) > VERSION:
        return LedgerError(
            f"job {job!r} was made by a newer bandwidth-mfa-async (its version is {said}, {VERSION} is known here); "
            "upgrade with pip install -U bandwidth-mfa-async"
        )
    return LedgerError(
        f"job {job!r} was made by an older bandwidth-mfa-async (its version is {said}, {VERSION} is known here); "
        "let workers of that version end it, or submit what is left under another name"
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
