"""`RedisLedger`: the state of every job item and single code in Redis, written under leases."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import field, frozen

from ..._clock import SystemClock
from ..._frames import clears_locals
from ..._item_state import LEASE_EXPIRED, LedgerState
from ..._lease import Lease
from ..._redis._connect import checked_redis_url
from ..._redis._connection import Connection
from ..._redis._durability import check_durability
from ..._redis._owner import LEDGER
from ..._redis._script import as_text
from ..._validation import checked_name, checked_seconds
from ._item_writer import ItemWriter
from ._protocol import READABLE_VERSIONS, ClaimReply, PlanReply, ReleaseReply, SubmitReply, version_mismatch
from ._scripts import SCRIPTS
from ._timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from types import TracebackType

    from ..._clock import Clock
    from ..._redis._batcher import Writer

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
_RIGHTS: Final = "+@read +@write +evalsha +eval +info +time"
_WEEK: Final = 7 * 86_400.0
_INTERRUPTED_RECORD: Final = f",{LedgerState.UNKNOWN.value},,{LEASE_EXPIRED},,0\n"


@frozen
class Chunk:
    """A claimed chunk.

    Attributes:
        job: the job's name.
        number: its number in the job, from 0.
        size: the number of items of the job's chunks; the last one may have fewer.
        channel: ``"messaging"`` or ``"voice"``.
        resumed: how often the job had been resumed at the time of the claim.
        states: the states of its items, one character each.
        requests: its requests, as `_codec.pack_requests` packed them.
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
    """The source of truth about jobs and single codes for any number of workers: who may send what, and the outcomes.

    The state of an item is one byte. It becomes ``sending`` only under a valid lease and before the request is written;
    an item that is ``sending`` when the lease of its worker expires becomes unknown. An unknown item stays unknown
    until an attempt is accepted; only the late answer to the one attempt that made it unknown can reject it. The ledger
    also holds the numbers and texts of a chunk until no item of it can be sent again: protect this Redis as you protect
    the list. It must not evict (``maxmemory-policy noeviction``) and must persist (``appendonly yes``): codes whose
    claims it loses can be sent twice.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database.
        cluster: whether the URL is that of a Redis Cluster. All keys of a job share a hash tag.
        prefix: the prefix of every Redis key.
        lease: seconds after which the chunk of a worker that does not renew its claim goes to another worker. It must
            outlast the longest stall you accept: taking a chunk from a running worker costs an unknown outcome, never
            a second text.
        retention: seconds for which outcomes are kept after their chunk is done, and a single code after its request.
        timeout: seconds that one Redis operation may take before it is tried again.
        require_aof: refuse a Redis without an append-only file; False allows it, with a warning.
        clock: the time source; for tests.

    Raises:
        ConfigurationError: a value is wrong, or redis-py is not installed.
    """

    @clears_locals
    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        url: str,
        *,
        cluster: bool = False,
        prefix: str = "bandwidth-mfa",
        lease: float = 30.0,
        retention: float = _WEEK,
        timeout: float = 5.0,
        require_aof: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.url: str = checked_redis_url("ledger", url, user="the ledger", extra="worker", cluster=cluster)
        self.cluster: bool = bool(cluster)
        self.prefix: str = checked_name("prefix", prefix)
        self.lease: float = checked_seconds("lease", lease, minimum=1.0)
        self.retention: float = checked_seconds("retention", retention, minimum=60.0)
        self.clock: Clock = clock or SystemClock()
        timeout = checked_seconds("timeout", timeout, minimum=0.01)
        self._connection = Connection(
            self.url, cluster=cluster, timeout=timeout, clock=self.clock, rights=f"{_RIGHTS} ~{self.prefix}:*"
        )
        self.timeline: Timeline = Timeline(self._connection)
        self._items = ItemWriter(self.timeline, self._keys, self.clock)
        self._require_aof = bool(require_aof)
        self._checked = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self.prefix!r})"  # the URL may contain a password

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

    @property
    def writer(self) -> Writer:
        """The writer of the running event loop, for batches of other data in the same Redis."""
        return self._items.writer

    @property
    def connection(self) -> Connection:
        """The connection, for other data in the same Redis."""
        return self._connection

    async def check(self, *, max_wait: float = 10.0) -> None:
        """Check once that this Redis can be used, does not evict and writes an append-only file.

        Args:
            max_wait: seconds to wait for a Redis that cannot be reached.

        Raises:
            LedgerError: Redis cannot be reached, refuses the ledger, or evicts.
            ConfigurationError: it has no append-only file, which `require_aof` demands.
        """
        if self._checked:
            return
        await check_durability(self._connection, LEDGER, require_aof=self._require_aof, max_wait=max_wait)
        self._checked = True

    async def aclose(self) -> None:
        """Close. Operations that Redis has not answered may or may not have run."""
        await self._connection.aclose()

    async def flush(self) -> None:
        """Wait until Redis holds every operation submitted so far."""
        await self._items.flush()

    # Items.

    def renew(self, job: str, chunk: int, lease: Lease) -> Awaitable[Any]:
        """Renew the lease of a chunk.

        Returns:
            An awaitable of `Reply.RENEWED`, `Reply.LEASE_LOST`, or `Reply.JOB_STOPPED` (renewed, but the job is
            stopped).
        """
        ms = round(lease.seconds * 1000)
        return self._items.call(job, ("renew", chunk, lease.fencing_token, ms))

    def intent(
        self, chunk: Chunk, index: int, *, resends_unknown: bool, maybe_delivered: bool = False
    ) -> Awaitable[Any]:
        """Store the intent of an attempt.

        Args:
            chunk: the item's chunk.
            index: the item's index in the job.
            resends_unknown: whether an item that the ledger calls unknown may be sent again.
            maybe_delivered: whether an earlier attempt of the same call is unknown.

        Returns:
            An awaitable of `LedgerState.SENDING` or `LedgerState.RESENDING` once the intent is stored, or of a reply
            that denies the attempt: `Reply.LEASE_LOST`, `Reply.JOB_STOPPED`, `Reply.GONE`, or the state of an item that
            is settled.
        """
        return self._items.call(
            chunk.job, ("intent", chunk.number, chunk.lease.fencing_token, index, resends_unknown, maybe_delivered)
        )

    def settle(self, chunk: Chunk, index: int, state: LedgerState, record: str) -> None:
        """Schedule the write of an item's outcome.

        The ledger stores unknown or accepted instead if an earlier attempt of the item is unknown.

        Args:
            chunk: the item's chunk.
            index: the item's index in the job.
            state: the outcome; `LedgerState.PENDING` if nothing was sent and the item is open again.
            record: id, cause, status and attempts, as `_codec.pack_record` packs them; empty to store none.
        """
        number, token = chunk.number, chunk.lease.fencing_token
        self._items.submit(chunk.job, ("settle", number, token, index, state.value, 0, record))

    # Chunks.

    async def claim_chunk(self, job: str, chunk: int, lease: Lease) -> Chunk | ClaimReply:
        """Claim a chunk.

        Args:
            job: the job's name.
            chunk: the chunk's number.
            lease: a new lease.

        Returns:
            The chunk, or why it cannot be claimed.

        Raises:
            LedgerError: Redis refuses the ledger, or another version made the job.
        """
        now = lease.now()
        names = ("job", "rows", "leases", "open", "done", "again", f"in:{chunk}", f"out:{chunk}", "unknown")
        keys = self._keys(job, *names)
        arguments = [chunk, lease.fencing_token, round(lease.seconds * 1000), _INTERRUPTED_RECORD]
        _, (word, *rest) = await self.timeline.run("claim_chunk", job, keys, arguments)
        reply = ClaimReply(as_text(word))
        if reply is ClaimReply.VERSION:
            raise version_mismatch(job, as_text(rest[0]))
        if reply is not ClaimReply.CLAIMED:
            return reply
        lease.renewed_at(now)
        states, requests, size, channel, resumed = rest
        return Chunk(job, chunk, int(size), as_text(channel), as_text(resumed), as_text(states), bytes(requests), lease)

    async def release_chunk(self, chunk: Chunk, remainder: bytes) -> ReleaseReply:
        """Release a chunk: it is done if no item is pending or sending, otherwise another worker may claim it.

        Args:
            chunk: the claimed chunk.
            remainder: what replaces its requests once no item of it can be sent again.
        """
        await self._items.flush(chunk.job)
        number = chunk.number
        names = ("job", "rows", "leases", "open", "done", "again", f"in:{number}", f"out:{number}", "digests")
        arguments = [number, chunk.lease.fencing_token, remainder, round(self.retention)]
        keys = self._keys(chunk.job, *names, "unknown")
        reply = await self._connection.script(SCRIPTS["release_chunk"], keys, arguments)
        return ReleaseReply(as_text(reply))

    async def next_chunk(self, job: str) -> int | None:
        """Return the number of a queued chunk of the job that no worker holds; None if there is none."""
        _, found = await self.timeline.run("next_chunk", job, self._keys(job, "job", "leases", "open"), [])
        return None if found < 0 else int(found)

    async def plan(
        self, job: str, lease: Lease, *, max_queued_chunks: int, requeue_after: float
    ) -> tuple[PlanReply, list[int]]:
        """Coordinate a job once.

        Args:
            job: the job's name.
            lease: the coordinator's lease.
            max_queued_chunks: the number of chunks that may be queued or claimed.
            requeue_after: seconds after which a chunk that no worker holds is queued again.

        Returns:
            `PlanReply.ACTIVE` and the chunks that need a wake-up message, or another reply and no chunk.
        """
        ms = (round(lease.seconds * 1000), round(requeue_after * 1000))
        arguments = [lease.fencing_token, ms[0], max_queued_chunks, ms[1]]
        keys = self._keys(job, "job", "leases", "open")
        _, (word, *rest) = await self.timeline.run("plan", job, keys, arguments)
        reply = PlanReply(as_text(word))
        if reply is PlanReply.ENDED:
            self.timeline.end(job)
        if reply is PlanReply.VERSION:
            raise version_mismatch(job, as_text(rest[0]))
        return reply, [int(chunk) for chunk in rest]

    # Jobs.

    async def jobs(self, *, include_ended: bool = False) -> list[str]:
        """Return the names of the jobs that workers poll, or of all jobs in the ledger, oldest first."""
        return [
            as_text(name) for name in await self._connection.command("zrange", self._list_key(include_ended), 0, -1)
        ]

    async def register(self, job: str) -> None:
        """Add a job to the list that workers poll and to the list of all jobs."""
        now = self.clock.time()
        for include_ended in (True, False):
            await self._connection.command("zadd", self._list_key(include_ended), {job: now})

    async def forget(self, job: str, *, include_ended: bool = False) -> None:
        """Remove a job from the list that workers poll, or from the list of all jobs."""
        await self._connection.command("zrem", self._list_key(include_ended), job)

    def _list_key(self, include_ended: bool) -> str:  # noqa: FBT001 - named at each use
        return f"{self.prefix}:jobs:all" if include_ended else f"{self.prefix}:jobs"

    async def submit(self, job: str, *arguments: str | int | bytes, chunk: int = 0) -> list[Any]:
        """Create a job, add a chunk to it or close its input; see ``submit.lua``.

        Returns:
            A `SubmitReply` and what follows it.

        Raises:
            LedgerError: another version made the job.
        """
        keys = self._keys(job, "job", "rows", "digests", f"in:{chunk}", f"out:{chunk}")
        word, *rest = await self._connection.script(SCRIPTS["submit"], keys, arguments)
        reply = SubmitReply(as_text(word))
        if reply is SubmitReply.VERSION:
            raise version_mismatch(job, as_text(rest[0]))
        return [reply, *rest]

    async def facts(self, job: str) -> dict[str, str]:
        """Return the fields of a job, counts included; empty if the ledger does not know the job."""
        (key,) = self._keys(job, "job")
        found = await self._connection.command("hgetall", key)
        facts = {as_text(name): as_text(value) for name, value in found.items()}
        if facts and facts.get("version") not in READABLE_VERSIONS:
            raise version_mismatch(job, facts.get("version", ""))
        return facts

    async def leases(self, job: str) -> dict[str, str]:
        """Return the leases of a job's chunks by number; the text of each changes when its worker renews it."""
        (key,) = self._keys(job, "leases")
        found = await self._connection.command("hgetall", key)
        return {as_text(chunk): as_text(lease) for chunk, lease in found.items()}

    async def exists(self, job: str) -> bool:
        """Return whether the ledger holds a job of this name, of any version."""
        return bool(await self._connection.command("exists", *self._keys(job, "job")))

    async def stop(self, job: str, reason: str, *, resumed: str = "") -> None:
        """Begin no more attempts of a job.

        Args:
            job: the job's name.
            reason: one word.
            resumed: `Chunk.resumed` of the chunk whose run found the reason. The stop has no effect if the job was
                resumed since.
        """
        await self._connection.script(SCRIPTS["stop"], self._keys(job, "job"), [reason, resumed])

    async def resume(self, job: str) -> int:
        """Resume a job; return the number of chunks that are tried again, or -1 if there is no such job.

        Raises:
            LedgerError: another version made the job.
        """
        names = ("job", "rows", "leases", "open", "done", "again", "digests", "unknown")
        arguments = self._keys(job, "in:", "out:")
        found = await self._connection.script(SCRIPTS["resume"], self._keys(job, *names), arguments)
        if isinstance(found, list):  # ResumeReply.VERSION and the version
            raise version_mismatch(job, as_text(found[1]))
        return int(found)

    async def results(self, job: str, size: int, total: int) -> AsyncIterator[tuple[int, str, str, bytes]]:
        """Yield the number, states, result text and remaining requests of each chunk."""
        rows_key, *_ = self._keys(job, "rows")
        for chunk, first in enumerate(range(0, total, size)):
            in_key, out_key = self._keys(job, f"in:{chunk}", f"out:{chunk}")
            last = min(first + size, total) - 1
            states = await self._connection.command("getrange", rows_key, first, last)
            text = await self._connection.command("get", out_key)
            requests = await self._connection.command("get", in_key)
            yield chunk, as_text(states), as_text(text or b""), requests or b""

    async def drop_results(self, job: str, chunk: int) -> None:
        """Delete the result text of a chunk."""
        (key,) = self._keys(job, f"out:{chunk}")
        await self._connection.command("delete", key)

    def new_lease(self) -> Lease:
        """Return a lease that is not granted yet."""
        return Lease(self.lease, self.clock)

    def _keys(self, job: str, *names: str) -> list[str]:
        # The braces are a hash tag: they keep all keys of a job on one node of a cluster, as scripts need.
        return [f"{self.prefix}:{{{job}}}:{name}" for name in names]
