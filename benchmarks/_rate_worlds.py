"""Accounts whose limit changes, in virtual time and over real HTTP, and the callers that meet them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import evolve, frozen

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RequestError
from bandwidth_mfa_async._transport import Transport
from bandwidth_mfa_async._wire import Answer
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.simulator._limits import Limiter
from tests.limits.limits_simulation import REFUSAL_TRIP, ROUND_TRIP, Tally, run_virtual

from ._rate_rivals import Aimd, BotocoreAdaptive, Naive

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async._config import Lane
    from bandwidth_mfa_async.simulator import AccountLimits

    from ._rate_rivals import Post, Way

OURS, NAIVE, BOTOCORE, AIMD = "ours", "naive", "botocore", "AIMD"
WAYS = (OURS, NAIVE, BOTOCORE, AIMD)

BULK = 50
LOGINS_PER_SECOND = 2.0
TEMPLATE = CodeTemplate("+19195554321", "app", scope="login")


@frozen(kw_only=True)
class Account:
    """How a service counts, and when its limit changes.

    Args:
        limits: the limit at the start.
        steps: pairs of a second and the messages a second from then on.
        until: seconds.
        known: whether the callers are told the first limit.
        logins: sign-ins a second.
    """

    limits: AccountLimits
    steps: tuple[tuple[float, float], ...] = ()
    until: float
    known: bool = False
    logins: float = LOGINS_PER_SECOND

    def at(self, rate: float) -> AccountLimits:
        """Return the limit after a step: a queue holds as many messages as before, not as many seconds."""
        seconds = self.limits.queue_seconds * self.limits.per_second / rate
        return evolve(self.limits, rate=rate, per=1.0, queue_seconds=seconds)


class OurWay:
    """`MFAClient` as it comes."""

    def __init__(self, client: MFAClient) -> None:
        self._client = client
        self._sent = 0

    async def send(self, lane: Lane) -> None:
        self._sent += 1
        await self._client.generate_messaging_code(TEMPLATE.to(f"+1919{self._sent % 10_000_000:07}"), lane=lane)


def rival(name: str, post: Post, account: Account, seed: int) -> Way:
    if name == NAIVE:
        return Naive(post, seed)
    if name == BOTOCORE:
        return BotocoreAdaptive(post, seed)
    return Aimd(post, account.limits.per_second) if account.known else Aimd(post)


def our_limits(account: Account) -> Limits:
    return Limits(rate=f"{account.limits.rate:g}/{account.limits.per:g}s") if account.known else Limits()


async def drive(way: Way, tally: Tally, account: Account, change: Callable[[float], None], seed: int) -> None:
    """Let a bulk run of 50 in flight and people who sign in use one way, while the limit changes."""
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
        finally:  # one that still waits at the end has waited so long at least
            tally.interactive.append((began - start, float("inf") if failed else loop.time() - began))

    async def people(group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(account.logins))
            group.create_task(login())

    async def steps() -> None:
        for at, rate in account.steps:
            await asyncio.sleep(start + at - loop.time())
            change(rate)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(start + account.until), asyncio.TaskGroup() as group:
            for _ in range(BULK):
                group.create_task(worker())
            group.create_task(people(group))
            group.create_task(steps())


class _Service:
    """The simulator's account limit behind a network of 90 ms (35 ms for a refusal), in the loop's time."""

    def __init__(self, account: Account, tally: Tally, seed: int) -> None:
        self.limiter = Limiter(account.limits)
        self.longest_queue = 0.0
        self._tally = tally
        self._rng = random.Random(seed)
        self._start = asyncio.get_running_loop().time()

    async def post(self) -> bool:
        await asyncio.sleep(REFUSAL_TRIP * self._rng.uniform(0.45, 0.55))
        now = asyncio.get_running_loop().time()
        admission = self.limiter.admit(now)
        if admission.accepted:
            self.longest_queue = max(self.longest_queue, admission.wait)
            self._tally.accepted.append(now - self._start)
            await asyncio.sleep((ROUND_TRIP - REFUSAL_TRIP / 2) * self._rng.uniform(0.9, 1.1))
        else:
            self._tally.refused.append(now - self._start)
            await asyncio.sleep(REFUSAL_TRIP / 2)
        return admission.accepted


class _Wire(Transport):
    """The client's transport, with a service instead of sockets."""

    def __init__(self, service: _Service) -> None:
        super().__init__()
        self._service = service

    async def send(self, url: Any, headers: Any, payload: Any, **_options: Any) -> Answer:
        del url, headers
        payload.begun = True
        if await self._service.post():
            return Answer(200, {}, b'{"messageId": "1589228074636lm4k2je7j7jklbn2"}')
        return Answer(429, {}, b'{"error": "too many requests"}')


@frozen
class Seen:
    """What one run came to."""

    tally: Tally
    longest_queue: float = 0.0


def in_virtual_time(name: str, account: Account, seed: int) -> Seen:
    """Run one way against one account; an hour takes seconds."""

    async def run() -> Seen:
        tally = Tally()
        service = _Service(account, tally, seed)
        loop = asyncio.get_running_loop()

        def change(rate: float) -> None:
            service.limiter.change(account.at(rate), loop.time())

        if name != OURS:
            await drive(rival(name, service.post, account, seed), tally, account, change, seed)
        else:
            async with MFAClient("9900000", BasicAuth("user", "pass"), limits=our_limits(account)) as client:
                client._caller.core.transport = _Wire(service)
                client._caller.core.rng = random.Random(seed)
                await drive(OurWay(client), tally, account, change, seed)
        return Seen(tally, service.longest_queue)

    return run_virtual(run())


async def over_http(name: str, account: Account, seed: int) -> Seen:
    """Run one way against the simulator on loopback, whose answers take 50 ms more; the server does the counting."""
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
            (tally.refused if record.status == 429 else tally.accepted).append(record.time - start)
    return Seen(tally)
