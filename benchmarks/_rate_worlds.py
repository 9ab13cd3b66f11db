"""Accounts with changing limits, in virtual time and over HTTP, and their callers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
import random
import tempfile
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import aiohttp
from attrs import Factory, evolve, frozen

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RedisLimits, RequestError
from bandwidth_mfa_async._transport import Transport
from bandwidth_mfa_async._wire import RawResponse
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.simulator._server_limiter import ServerLimiter
from tests.support.limits_simulation import REJECTION_TRIP, ROUND_TRIP, Tally, run_virtual
from tests.support.redis_server import RedisServer
from tests.support.virtual_redis import VirtualScript, VirtualStore

from ._rate_rivals import Aimd, AiohttpRetry, BotocoreAdaptive, Naive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bandwidth_mfa_async._clock import Clock
    from bandwidth_mfa_async._validation import Lane
    from bandwidth_mfa_async.simulator import AccountLimits

    from ._rate_rivals import Post, Way

OURS, NAIVE, AIOHTTP_RETRY, BOTOCORE, AIMD = "ours", "naive", "aiohttp-retry", "botocore", "AIMD"
WAYS = (OURS, NAIVE, AIOHTTP_RETRY, BOTOCORE, AIMD)

BULK = 50
LOGINS_PER_SECOND = 2.0
TEMPLATE = CodeTemplate("+19195554321", "app", scope="login")


@frozen(kw_only=True)
class Account:
    """The limit of a service, and its changes.

    Args:
        limits: the initial limit.
        steps: pairs of a time in seconds and the messages per second from then on.
        until: the length of the run in seconds.
        known: whether the callers know the initial limit.
        logins: sign-ins per second.
        bulk: messages in flight of the bulk run.
        processes: programs that use the account. Ours share what they learn; the others do not know each other.
    """

    limits: AccountLimits
    steps: tuple[tuple[float, float], ...] = ()
    until: float
    known: bool = False
    logins: float = LOGINS_PER_SECOND
    bulk: int = BULK
    processes: int = 1

    def at(self, rate: float) -> AccountLimits:
        """Return the limit after a step: a queue keeps its size in messages, not in seconds."""
        seconds = self.limits.queue_seconds * self.limits.per_second / rate
        return evolve(self.limits, rate=rate, per=1.0, queue_seconds=seconds)


class OurWay:
    """`MFAClient` with its defaults."""

    def __init__(self, client: MFAClient) -> None:
        self._client = client
        self._sent = 0

    async def send(self, lane: Lane) -> None:
        self._sent += 1
        await self._client.generate_messaging_code(TEMPLATE.to(f"+1919{self._sent % 10_000_000:07}"), lane=lane)


class Programs:
    """Several programs, each with its own way. A caller always uses the same program."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways
        self._turns = itertools.cycle(range(len(ways)))
        self._mine: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self.sent: list[list[float]] = [[] for _ in ways]

    async def send(self, lane: Lane) -> None:
        task = asyncio.current_task()
        assert task is not None
        if task not in self._mine:
            self._mine[task] = next(self._turns)
        mine = self._mine[task]
        await self._ways[mine].send(lane)
        self.sent[mine].append(asyncio.get_running_loop().time())


class VirtualRedisLimits(RedisLimits):
    """`RedisLimits` whose script runs in virtual time."""

    script: VirtualScript

    def _store(self, channel: str, timeout: float = 0.0) -> Any:
        del channel, timeout
        return VirtualStore(self.script)


def rival(name: str, post: Post, account: Account, seed: int) -> Way:
    if name == NAIVE:
        return Naive(post, seed)
    if name == AIOHTTP_RETRY:
        return AiohttpRetry(post)
    if name == BOTOCORE:
        return BotocoreAdaptive(post, seed)
    return Aimd(post, account.limits.per_second) if account.known else Aimd(post)


def our_limits(account: Account) -> Limits:
    return Limits(rate=f"{account.limits.rate:g}/{account.limits.per:g}s") if account.known else Limits()


async def drive(way: Way, tally: Tally, account: Account, change: Callable[[float], None], seed: int) -> None:
    """Run a bulk run and sign-ins through one way while the limit changes."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    rng = random.Random(seed)

    async def worker() -> None:
        while True:
            await way.send("bulk")

    async def login() -> None:
        began = loop.time()
        failed = False
        try:
            await way.send("interactive")
        except RequestError:
            failed = True
        finally:  # a login that still waits at the end counts with its time so far
            tally.interactive.append((began - start, float("inf") if failed else loop.time() - began))

    async def logins(group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(account.logins))
            group.create_task(login())

    async def steps() -> None:
        for at, rate in account.steps:
            await asyncio.sleep(start + at - loop.time())
            change(rate)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(start + account.until), asyncio.TaskGroup() as group:
            for _ in range(account.bulk):
                group.create_task(worker())
            group.create_task(logins(group))
            group.create_task(steps())


class _Service:
    """The simulator's account limit behind a network of 90 ms (35 ms for a rejection), in the loop's time."""

    def __init__(self, account: Account, tally: Tally, seed: int) -> None:
        self.limiter = ServerLimiter(account.limits)
        self.longest_queue = 0.0
        self._tally = tally
        self._rng = random.Random(seed)
        self._start = asyncio.get_running_loop().time()

    async def post(self) -> bool:
        await asyncio.sleep(REJECTION_TRIP * self._rng.uniform(0.45, 0.55))
        now = asyncio.get_running_loop().time()
        admission = self.limiter.admit(now)
        if admission.accepted:
            self.longest_queue = max(self.longest_queue, admission.wait)
            self._tally.accepted.append(now - self._start)
            await asyncio.sleep((ROUND_TRIP - REJECTION_TRIP / 2) * self._rng.uniform(0.9, 1.1))
        else:
            self._tally.rejected.append(now - self._start)
            await asyncio.sleep(REJECTION_TRIP / 2)
        return admission.accepted


class _Wire(Transport):
    """The client's transport with a service instead of sockets."""

    def __init__(self, service: _Service, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._service = service

    async def send(self, url: Any, headers: Any, payload: Any, **_options: Any) -> RawResponse:
        del url, headers
        payload.begun = True
        if await self._service.post():
            return RawResponse(200, {}, b'{"messageId": "1589228074636lm4k2je7j7jklbn2"}')
        return RawResponse(429, {}, b'{"error": "too many requests"}')


@frozen
class Seen:
    """The result of one run.

    Args:
        tally: accepted and rejected messages, and the sign-ins.
        longest_queue: the provider's longest queue, in seconds.
        sent: accepted messages of each program, as times.
        calls: script calls in Redis.
    """

    tally: Tally
    longest_queue: float = 0.0
    sent: list[list[float]] = Factory(list)
    calls: int = 0

    def jain(self, start: float, end: float) -> float:
        """Return Jain's index of the messages accepted per program: 1 if all are equal."""
        shares = [sum(start <= at < end for at in times) for times in self.sent]
        return sum(shares) ** 2 / max(1, len(shares) * sum(share**2 for share in shares))


def in_virtual_time(name: str, account: Account, seed: int) -> Seen:
    """Run one way against one account; an hour takes seconds."""

    async def run() -> Seen:
        tally = Tally()
        service = _Service(account, tally, seed)
        loop = asyncio.get_running_loop()
        start = loop.time()
        calls = 0

        def change(rate: float) -> None:
            service.limiter.change(account.at(rate), loop.time())

        async with contextlib.AsyncExitStack() as stack:
            shared: VirtualRedisLimits | None = None
            if name == OURS and account.processes > 1:
                server = RedisServer(pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())))
                stack.callback(server.kill)
                shared = VirtualRedisLimits(server.url, key="9900000")
                shared.script = VirtualScript(server)
                stack.callback(shared.script.client.close)
            ways: list[Way] = []
            for n in range(account.processes):
                if name != OURS:
                    ways.append(rival(name, service.post, account, seed + 1000 * n))
                    continue
                limits = evolve(our_limits(account), shared=shared)
                client = await stack.enter_async_context(MFAClient("9900000", BasicAuth("user", "pass"), limits=limits))
                client._executor.state.transport = _Wire(service, client._executor.state.clock)
                client._executor.state.rng.seed(seed + 1000 * n)
                ways.append(OurWay(client))
            programs = Programs(ways)
            await drive(programs, tally, account, change, seed)
            calls = 0 if shared is None else shared.script.calls
        return Seen(tally, service.longest_queue, [[at - start for at in times] for times in programs.sent], calls)

    return run_virtual(run())


async def over_http(name: str, account: Account, seed: int) -> Seen:
    """Run one way against the simulator on loopback with 50 ms added to its answers; the server counts."""
    tally = Tally()
    async with Simulator(
        messaging_limits=account.limits, inbox_limit=100, request_log_limit=1_000_000, seed=seed
    ) as sim:
        sim.faults.chance(Fault(delay=0.05), 1.0)
        start = sim._clock.time()

        def change(rate: float) -> None:
            sim.set_limits(messaging=account.at(rate))

        if name == OURS:
            async with MFAClient(**sim.client_kwargs(), limits=our_limits(account)) as client:
                await drive(OurWay(client), tally, account, change, seed)
        else:
            url = f"{sim.base_url}/accounts/{sim.account_id}/code/messaging"
            fields = {"from": TEMPLATE.from_, "applicationId": "app", "scope": "login", "message": TEMPLATE.message}
            body = {"to": "+19195551234", "digits": 6, **fields}
            auth = aiohttp.BasicAuth(sim.username, sim.password)
            async with aiohttp.ClientSession(auth=auth) as session:

                async def post() -> bool:
                    async with session.post(url, json=body) as response:
                        await response.read()
                        return response.status == 200

                await drive(rival(name, post, account, seed), tally, account, change, seed)
        for record in sim.requests:
            (tally.rejected if record.status == 429 else tally.accepted).append(record.time - start)
    return Seen(tally)
