"""A job and single codes sent by workers on one ledger, against a service with random faults."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

import redis
from taskiq import InMemoryBroker

from bandwidth_mfa_async import MFAClient, RequestError
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger, _runtime
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from tests.system._client_scenario import LOGIN, Scenario
from tests.system._outcomes import (
    Outcome,
    Places,
    add_progress,
    code_row,
    contradictions,
    ledger_rows,
    of_code,
    of_error,
    of_job_item,
)

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

CHUNK = 10


@contextlib.contextmanager
def impatient_workers() -> Iterator[None]:
    """Poll the ledger in milliseconds; seconds in production."""
    with mock.patch.object(_runtime, "POLL_INTERVAL", 0.05), mock.patch.object(_runtime, "_STALE_CODE_AGE", 0.1):
        yield


class WorkerScenario(Scenario):
    """Half of the numbers are items of a job, the others single codes; a worker leaves, and the job is resumed.

    All places that report are compared with each other and with the texts that went out.
    """

    redis_url: ClassVar[str] = ""

    async def start(self, settings: dict[str, Any], folder: pathlib.Path) -> None:
        self.rng = random.Random(f"{self.seed} worker")
        numbers = [f"+1{index:010}" for index in range(self.size)]
        self.items, self.singles = numbers[: self.size // 2], numbers[self.size // 2 :]
        self.settings = settings
        self.prefix = f"oracle-{self.seed}-{self.rng.getrandbits(40):x}"
        self.returned: dict[str, Outcome] = {}
        self.places, self.code_places = Places(), Places()

    def done(self) -> int:
        return len(self.returned)

    async def interrupt_service(self) -> None:
        """Workers have no outage: ten failed connections in a row end nothing, and take all their time."""

    async def make_worker(self) -> MFAWorker:
        worker = MFAWorker(
            InMemoryBroker(),
            ledger=RedisLedger(self.redis_url, prefix=self.prefix, lease=2.0),
            client=lambda: MFAClient(**self.settings),
            share_limits=False,
            drain_timeout=0.3,
        )
        await worker.broker.startup()
        return worker

    async def play(self, mfa: MFAClient) -> None:
        workers = [await self.make_worker() for _ in range(2)]
        producer = workers[0]
        job = await producer.submit(self.items, name="job", chunk=CHUNK, template=LOGIN)
        codes = iter(self.singles)

        async def request_codes() -> None:
            for number in codes:
                self.returned[number] = await self.request_code(producer, number)

        requests = [asyncio.ensure_future(request_codes()) for _ in range(8)]
        await asyncio.sleep(self.rng.random())
        leaving = workers.pop()
        await leaving.broker.shutdown()
        await leaving.aclose()
        if self.rng.random() < 0.5:
            await job.cancel()
            await asyncio.sleep(self.rng.random() * 0.1)
            await job.resume()
        workers.append(await self.make_worker())
        async for _ in job.watch(0.02):
            pass
        await asyncio.gather(*requests)
        if self.rng.random() < 0.5:
            await job.resume()  # try again what was not sent, or was rejected for a cause that passes
            async for _ in job.watch(0.02):
                pass
        # Codes whose request timed out may still be in flight.
        for number in self.singles:
            while not of_code(await producer.send_code.outcome(key(number))).delivery:
                await asyncio.sleep(0.02)
        await self.read(producer, job)
        for worker in workers:
            await worker.broker.shutdown()
            await worker.aclose()

    async def request_code(self, producer: MFAWorker, number: str) -> Outcome:
        try:
            identifier = await producer.send_code.kiq(LOGIN.to(number), key=key(number), timeout=20.0)
        except RequestError as error:
            return of_error(error)
        code = await producer.send_code.outcome(key(number))
        return Outcome("accepted", identifier, None if code is None else code.possible_duplicate)

    async def read(self, producer: MFAWorker, job: Any) -> None:
        items = [item async for item in job.outcomes()]
        self.places.outcomes["JobOutcome"] = {self.items[item.index]: of_job_item(item) for item in items}
        progress = await job.progress()
        known = {number: await producer.send_code.outcome(key(number)) for number in self.singles}
        self.code_places.outcomes["CodeOutcome"] = {number: of_code(code) for number, code in known.items()}

        def read_redis() -> None:
            add_progress(self.places, progress, self.redis_url, prefix=self.prefix)
            with redis.Redis.from_url(self.redis_url) as client:
                self.places.outcomes["ledger"] = ledger_rows(client, "job", self.items, CHUNK, prefix=self.prefix)
                self.code_places.outcomes["ledger"] = {
                    number: code_row(client, CodeQueue.name(key(number)), prefix=self.prefix) for number in self.singles
                }

        await asyncio.to_thread(read_redis)

    async def finish(self) -> None:
        verdict, policy = self.verdict, self.resend.value
        numbers = self.items + self.singles
        texts = {number: self.server.ledger[f"messaging {number}"] for number in numbers}
        arrivals = {number: self.server.arrivals[f"messaging {number}"] for number in numbers}
        gateways = {
            number: sum(arrival.fault.proof == "gate" for arrival in found) for number, found in arrivals.items()
        }
        wrong = [*self.places.check(texts, policy, gateways), *self.code_places.check(texts, policy, gateways)]
        for number, outcome in self.returned.items():
            found = contradictions(outcome, texts[number], policy, gateways=gateways[number])
            wrong += [f"kiq, {number}: {what}; {outcome}" for what in found]
        verdict.wrong += [f"worker seed {self.seed}, {policy}: {what}" for what in wrong]
        verdict.sends += self.size
        verdict.requests += sum(map(len, arrivals.values()))
        verdict.twice += sum(len(sent) > 1 for sent in texts.values())
        words: collections.Counter[str] = verdict.words
        for kind, places in (("job item", self.places), ("code", self.code_places)):
            for outcome in next(iter(places.outcomes.values())).values():
                words[f"{kind} {outcome.delivery}"] += 1
                words["perhaps twice, and says so"] += bool(outcome.duplicate)
        verdict.faults.update(arrival.fault.name for found in arrivals.values() for arrival in found)


def key(number: str) -> str:
    return f"login:{number}"
