"""Calls with idempotency keys by two clients that share a store which fails, against a service with random faults."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import MemoryStore, MFAClient, RedisStore, SQLiteStore, StoreError
from tests.system._client_scenario import CALL, CANCELLED, LOGIN, TASKS, CallResult, Scenario, result_of
from tests.system._outcomes import Outcome, contradictions

if TYPE_CHECKING:
    import pathlib

MAX_CALLS = 4
LEASE = {True: 30.0, False: 1.0}  # in virtual time, and in real time


class KeyedScenario(Scenario):
    """Each code has one key, requested by two to four calls, together or one after the other; some are cancelled.

    The store fails at random, before and after a step. Each result is compared with the texts that had gone out when
    its call ended. At last each key is requested once more.
    """

    redis_url = ""

    async def start(self, settings: dict[str, Any], folder: pathlib.Path) -> None:
        rng = self.rng = random.Random(f"{self.seed} keyed")
        virtual = self.policy.attempt_timeout > 1
        kinds = ["memory"] if virtual else ["memory", "sqlite", *(["redis"] if self.redis_url else [])]
        kind, lease = rng.choice(kinds), LEASE[virtual]
        if kind == "sqlite":
            self.store: Any = SQLiteStore(str(folder / "codes.db"), lease=lease)
        elif kind == "redis":
            self.store = RedisStore(self.redis_url, lease=lease, prefix=f"oracle-{self.seed}", timeout=2.0)
        else:
            self.store = MemoryStore(lease=lease)
        self.failures = rng.choice([0.0, 0.0, 0.02])
        settings["store"] = self.store
        self.settings = settings
        self.numbers = [f"+1{index:010}" for index in range(self.size)]
        self.left = iter(self.numbers)
        self.verdict.words[f"keyed scenario, {kind}"] += 1
        run = self.store.run

        async def failing(*args: Any, **options: Any) -> Any:
            if rng.random() < self.failures:
                raise StoreError("failed before the step")
            reply = await run(*args, **options)
            if rng.random() < self.failures:
                raise StoreError("failed after the step")
            return reply

        self.store.run = failing

    async def play(self, mfa: MFAClient) -> None:
        async with MFAClient(**self.settings) as other:
            await asyncio.gather(*[self.run_keys([mfa, other]) for _ in range(TASKS)])
            self.failures = 0.0
            async with MFAClient(**self.settings) as last:
                for number in self.numbers:
                    await self.request(last, number, None, "last")
        await self.store.aclose()

    async def run_keys(self, clients: list[MFAClient]) -> None:
        rng = self.rng
        for number in self.left:
            calls = [
                self.request(
                    rng.choice(clients), number, rng.randrange(40) if rng.random() < 0.05 else None, f"call {index}"
                )
                for index in range(rng.randrange(2, MAX_CALLS + 1))
            ]
            if rng.random() < 0.5:
                await asyncio.gather(*calls)
            else:
                for call in calls:
                    await call
            self.results[number] = CallResult("", 0)  # for `done`

    async def request(self, client: MFAClient, number: str, cancel_after: int | None, name: str) -> None:
        CALL.set(f"messaging {number}")
        call = client.generate_messaging_code(LOGIN.to(number), idempotency_key=f"login:{number}")
        result = await result_of(call, cancel_after)
        # "Not sent" is of this call: without the store it knows nothing of others.
        if result.error == "StoreError" and result.delivery == "not_sent":
            self.verdict.words["key without its store"] += 1
        elif result.error != CANCELLED:
            self.check(number, result, name)

    def check(self, number: str, result: CallResult, name: str) -> None:
        """Compare a result with the texts that have gone out by now."""
        texts, arrivals = self.server.ledger[f"messaging {number}"], self.server.arrivals[f"messaging {number}"]
        gateways = sum(arrival.fault.proof == "gate" for arrival in arrivals)
        outcome = Outcome(result.delivery, result.identifier or None, result.duplicate)
        wrong = list(contradictions(outcome, texts, self.resend.value, gateways=gateways))
        names = [arrival.fault.name for arrival in arrivals]
        verdict = self.verdict
        verdict.wrong += [
            f"seed {self.seed}, {self.resend.value}, key of {number}, {name}: {what}; {result}; {names}"
            for what in wrong
        ]
        verdict.words[f"key {result.delivery}"] += 1
        verdict.words["perhaps twice, and says so"] += result.duplicate

    async def finish(self) -> None:
        for number in self.numbers:
            key = f"messaging {number}"
            self.verdict.requests += len(self.server.arrivals[key])
            self.verdict.twice += len(self.server.ledger[key]) > 1
            self.verdict.faults.update(arrival.fault.name for arrival in self.server.arrivals[key])
        self.verdict.sends += self.size
