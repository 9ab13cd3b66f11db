"""`RedisStore`: keys, sign-ins and guards of all machines."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import field, frozen

from .._frames import clears_locals
from .._process import PerLoop
from .._redis._batcher import Batcher
from .._redis._connect import checked_redis_url
from .._redis._connection import Connection
from .._redis._durability import check_durability
from .._redis._owner import STORE
from .._redis._time import RedisTime
from .._validation import checked_name, checked_seconds
from ..errors import ConfigurationError, StoreError
from ._decisions import DEFAULT_LEASE, DEFAULT_RETENTION, KeyDecisions
from ._lua import load_scripts, script_of
from ._transitions import BEGIN, CLAIM, FORMAT, GET, RENEW, SETTLE, WITHDRAW

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from .._clock import Clock
    from ._secret import StoreSecret
    from ._step import Argument, Reply, Step

_RIGHTS: Final = "+@read +@write +evalsha +eval +info +time"
_LATE: Final = ["late"]
_MIN_SET_BACK: Final = 1_000.0
"""Milliseconds; smaller corrections of a clock are normal."""
_SCAN: Final = 1_000
_WAIT_SHARE: Final = 0.8
_WAITAOF: Final = (7, 2)
"""The first version of Redis with ``WAITAOF``."""


@frozen
class _Operation:
    """One step to run.

    Attributes:
        step: the step.
        group: the group of its records.
        names: the names of its records.
        args: its arguments.
        deadline: when to give up, in the clock's seconds.
        confirm: whether its change must be confirmed.
    """

    step: Step
    group: str
    names: Sequence[str]
    args: Sequence[Argument] = field(repr=False)
    deadline: float
    confirm: bool


class _Timeline:
    """What this process knows of one of the store's clocks: see ``lua/_frame.lua``."""

    __slots__ = ("ahead", "created", "heard")

    def __init__(self) -> None:
        self.created = ""
        self.heard = 0
        self.ahead: float | None = None

    @property
    def seen(self) -> str:
        """The argument of the scripts."""
        return f"{self.created} {self.heard}" if self.heard else ""

    def update(self, created: str, heard: int, ahead: float, *, lost: bool) -> None:
        """Record a reply, and log what it says of Redis."""
        if lost:
            STORE.log.error(
                "the store's Redis lost the newest of what was written to it: it was restarted from older data, or "
                "failed over to a server that did not have it. Keys that were waiting then are unknown now; texts "
                "whose keys it lost can be sent again"
            )
        if self.ahead is not None and ahead - self.ahead >= _MIN_SET_BACK and created == self.created:
            STORE.log.warning(
                "the clock of the store's Redis was set back by %.0f s; leases and expiries continue as if it had not "
                "been",
                (ahead - self.ahead) / 1000,
            )
        self.heard = heard if created != self.created else max(self.heard, heard)
        self.created, self.ahead = created, ahead


class _Loop:
    """What belongs to one event loop: the batchers, and Redis's time by clock."""

    def __init__(self) -> None:
        self.batchers: dict[str, Batcher] = {}
        self.times: defaultdict[str, RedisTime] = defaultdict(RedisTime)


class RedisStore(KeyDecisions):
    """A store in Redis, for any number of processes and machines.

    Redis must not evict (``maxmemory-policy noeviction``) and should write an append-only file (``appendonly yes``):
    a text whose key it loses can be sent twice. With ``appendfsync everysec``, Redis's default, a crash of its machine
    can lose the last second; a failover can lose what the replica had not received. `confirm` closes these gaps.

    It holds digests, ids and outcomes, no numbers and no texts. Operations of one millisecond share a round trip.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database. Needs redis-py:
            ``pip install 'bandwidth-mfa-async[redis]'``.
        cluster: whether the URL is that of a Redis Cluster. The keys of one group share a hash tag.
        prefix: the prefix of every Redis key.
        lease: seconds for which a claim is valid unless it is renewed; at least 1.
        retention: seconds for which a key is kept after its last change; at least 60, and at least `lease`.
        timeout: seconds that one Redis operation may take before it is tried again.
        require_aof: refuse a Redis without an append-only file; False allows it, with a warning.
        confirm: ``"replica"`` waits until a replica has received an intent (``WAIT``), ``"fsync"`` until it is on the
            disk of the primary (``WAITAOF``, Redis 7.2); nothing is sent before. None does not wait.
        clock: the time source; for tests. Its wall clock, not Redis's, then decides on leases and expiry.
        secret: text of at least 16 characters that all processes share, or several, the current one first; by default
            those in `BW_STORE_SECRET`. Sign-ins and guards need one, keys do not; see `Store.secrets`.

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
        lease: float = DEFAULT_LEASE,
        retention: float = DEFAULT_RETENTION,
        timeout: float = 5.0,
        require_aof: bool = True,
        confirm: Literal["replica", "fsync"] | None = None,
        clock: Clock | None = None,
        secret: StoreSecret = None,
    ) -> None:
        super().__init__(lease=lease, retention=retention, clock=clock, secret=secret)
        url = checked_redis_url("store", url, user="the store", extra="redis", cluster=cluster)
        self.prefix: str = checked_name("prefix", prefix)
        if confirm not in {None, "replica", "fsync"}:
            raise ConfigurationError("confirm: must be 'replica', 'fsync' or None")
        if confirm and cluster:
            raise ConfigurationError("confirm: is not available with cluster=True, whose connections cannot wait")
        self._cluster = bool(cluster)
        self._require_aof = bool(require_aof)
        self._confirm = confirm
        self._has_clock = clock is not None
        self._timeout = checked_seconds("timeout", timeout, minimum=0.01)
        self._connection = Connection(
            url,
            cluster=cluster,
            timeout=self._timeout,
            clock=self.clock,
            rights=f"{_RIGHTS} ~{self.prefix}:*",
            owner=STORE,
        )
        self._loops = PerLoop(_Loop)
        self._timelines: defaultdict[str, _Timeline] = defaultdict(_Timeline)
        self._checked = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self.prefix!r})"  # the URL may contain a password

    async def check(self, *, max_wait: float = 10.0) -> None:
        """Check once that this Redis does not evict, writes an append-only file, and can confirm as `confirm` says.

        Args:
            max_wait: seconds to wait for a Redis that cannot be reached.

        Raises:
            StoreError: Redis cannot be reached, refuses the operation, or evicts.
            ConfigurationError: it has no append-only file, which `require_aof` demands, or cannot confirm.
        """
        if self._checked:
            return
        await check_durability(self._connection, STORE, require_aof=self._require_aof, max_wait=max_wait)
        if self._confirm == "fsync":
            found = await self._connection.call(lambda client: client.info("server"), max_wait=max_wait)
            version = str(found.get("redis_version", ""))
            if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _WAITAOF:
                msg = f"confirm: 'fsync' needs Redis 7.2 or later, and this one is {version}; use 'replica' or None"
                raise ConfigurationError(msg)
        self._checked = True

    async def run(  # noqa: PLR0913 - the facts of a step
        self,
        step: Step,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        deadline: float,
        group: str = "",
        confirm: bool = False,
    ) -> Reply:
        """Run a step's script; see `Store.run`.

        Raises:
            StoreError: Redis refuses the operation, did not answer by the deadline, or did not confirm.
            ConfigurationError: the Redis cannot serve as a store; the message names what to change.
        """
        clock = self.clock
        self._connection.open()
        if not self._checked:
            await self.check(max_wait=deadline - clock.monotonic())
        timeline = group if self._cluster else ""
        loop = self._loops.get()
        if not loop.times[timeline].is_known:
            await self._run_batch(timeline, [], until=deadline)
        batcher = loop.batchers.get(timeline)
        if batcher is None:
            # One for all steps: a step that settles a key never runs before the one that claims it.
            batcher = loop.batchers[timeline] = Batcher(partial(self._run_batch, timeline), clock, owner=STORE)
        operation = _Operation(step, group, keys, args, deadline, confirm and self._confirm is not None)
        while True:
            reply = await batcher.call(operation, deadline=deadline)
            if isinstance(reply, StoreError):
                raise reply
            if reply != _LATE:
                return list(reply)
            if clock.monotonic() >= deadline:
                raise StoreError("the store did not answer in time; its Redis is too slow")
            # Redis's clock was set forward. The reply contained its time, so the next try is not late.

    async def _run_batch(
        self, group: str, operations: list[_Operation], *, until: float = 0.0
    ) -> Sequence[Reply | StoreError]:
        """Run operations whose records are on one node; without any, learn Redis's time."""
        clock, time, timeline = self.clock, self._loops.get().times[group], self._timelines[group]
        keys = [f"{self.prefix}:{{{op.group}}}:{name}" for op in operations for name in op.names]
        keys.append(f"{self.prefix}:{{{group}}}:clock" if self._cluster else f"{self.prefix}:store:clock")
        until = max((op.deadline for op in operations), default=until)
        confirm = any(op.confirm for op in operations)
        script = script_of(frozenset(op.step for op in operations))
        asked_at = 0.0

        def arguments() -> list[Any]:
            """Return the arguments of one try."""
            nonlocal asked_at
            asked_at = clock.monotonic()
            batch = [
                (op.step.name, len(op.names), 0 if op.step.runs_late else time.at(op.deadline), op.args)
                for op in operations
            ]
            now = round(clock.time() * 1000) if self._has_clock else ""
            return [json.dumps(batch), now, timeline.seen]

        def run(client: Any) -> Awaitable[Any]:
            """Run the script once."""
            if not confirm:
                return script.run(client, keys, arguments())
            # The wait must end before the callers and the connection give up: that would run the script again.
            ms = max(1, round(min(until - clock.monotonic(), self._timeout) * _WAIT_SHARE * 1000))
            command = ("WAIT", 1, ms) if self._confirm == "replica" else ("WAITAOF", 1, 0, ms)
            return script.run_then(client, keys, arguments(), command)

        answer = await self._connection.call(run, max_wait=max(0.0, until - clock.monotonic()))
        text, confirmed = answer if confirm else (answer, 1)
        created, heard, lost, ahead, replies = json.loads(text)
        replies = list(replies)  # of an empty list, cjson makes an object
        if len(replies) != len(operations):
            raise StoreError(
                f"the store was written by a newer bandwidth-mfa-async (this one reads format {FORMAT}); upgrade with "
                "pip install -U bandwidth-mfa-async"
            )
        if heard:
            timeline.update(created, int(heard), float(ahead), lost=lost)
            time.update(asked_at, heard, reset=_LATE in replies)
        if confirmed[0] if isinstance(confirmed, list) else confirmed:
            return replies
        where = "a replica" if self._confirm == "replica" else "the disk"
        error = f"the store's Redis did not confirm in time that {where} holds the key; nothing was sent"
        return [StoreError(error) if op.confirm else reply for op, reply in zip(operations, replies, strict=True)]

    async def counts(self, *, deadline: float) -> Mapping[str, Mapping[str, int]]:
        """Return the number of records by kind and state. It reads every record.

        Raises:
            StoreError: Redis refuses the operation, or did not answer by the deadline.
        """
        self._connection.open()
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)

        def add(names: Sequence[bytes], values: Sequence[bytes | None]) -> None:
            """Count one page."""
            for name, value in zip(names, values, strict=True):
                kind, colon, _ = name.decode().partition("}:")[2].partition(":")
                if value is not None and colon:
                    found[kind][str(json.loads(value).get("s", ""))] += 1

        names: Any = None

        async def count_page(client: Any) -> bool:
            """Count the next page, and return whether there are more; after a failure, begin again."""
            nonlocal names
            if names is None:
                found.clear()
                names = client.scan_iter(match=f"{self.prefix}:{{*", count=_SCAN)
            page: list[bytes] = []
            scan, names = names, None
            async for name in scan:
                page.append(name)
                if len(page) == _SCAN:
                    break
            if page:
                add(page, await self._read(client, page))
            names = scan
            return len(page) == _SCAN

        # A page is one operation: all of a large store would take longer than one may.
        while await self._connection.call(count_page, max_wait=max(0.0, deadline - self.clock.monotonic())):
            pass
        return found

    async def _read(self, client: Any, names: list[bytes]) -> Sequence[bytes | None]:
        if self._cluster:
            return list(await client.mget_nonatomic(names))
        return list(await client.mget(names))

    async def aclose(self) -> None:
        """Close the running loop's connections. Operations that Redis has not answered may or may not have run."""
        await self._connection.aclose()


load_scripts(BEGIN, CLAIM, GET, RENEW, SETTLE, WITHDRAW)
