"""Calls with idempotency keys, and sign-ins, by two clients that share a store which fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import Delivery, MemoryStore, MFAClient, RedisStore, RequestError, SQLiteStore, StoreError
from bandwidth_mfa_async.signin import Guard, SignIn, SignIns
from tests.system._client_scenario import ATTEMPTS, CALL, CANCELLED, LOGIN, TASKS, CallResult, Scenario, result_of
from tests.system._ledger_server import is_valid
from tests.system._outcomes import Outcome, contradictions

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

MAX_CALLS = 4
GIVEN_BACK = {"no", "busy", "down"}  # answers that say that the service did not check
LEASE = {True: 30.0, False: 1.0}  # in virtual time, and in real time


class StoreScenario(Scenario):
    """Two clients with one store, which fails at random before and after a step."""

    redis_url = ""

    async def start(self, settings: dict[str, Any], folder: pathlib.Path) -> None:
        rng = self.rng = random.Random(f"{self.seed} store")
        virtual = self.policy.attempt_timeout > 1
        kinds = ["memory"] if virtual else ["memory", "sqlite", *(["redis"] if StoreScenario.redis_url else [])]
        kind, options = rng.choice(kinds), {"lease": LEASE[virtual], "secret": "a secret that only the oracle uses"}
        if kind == "sqlite":
            self.store: Any = SQLiteStore(str(folder / "codes.db"), **options)
        elif kind == "redis":
            self.store = RedisStore(StoreScenario.redis_url, prefix=f"oracle-{self.seed}", timeout=2.0, **options)
        else:
            self.store = MemoryStore(**options)
        self.failures = rng.choice([0.0, 0.0, 0.02])
        settings["store"] = self.store
        self.settings = settings
        self.verdict.words[f"{type(self).__name__}, {kind}"] += 1
        run = self.store.run

        async def failing(*args: Any, **options: Any) -> Any:
            if rng.random() < self.failures:
                raise StoreError("failed before the step")
            reply = await run(*args, **options)
            if rng.random() < self.failures:
                raise StoreError("failed after the step")
            return reply

        self.store.run = failing

    def compare_texts(self, number: str, outcome: Outcome, what: str) -> None:
        """Compare an outcome with the texts that have gone out by now."""
        key = f"messaging {number}"
        texts, arrivals = self.server.ledger[key], self.server.arrivals[key]
        gateways = sum(arrival.fault.proof == "gate" for arrival in arrivals)
        for wrong in contradictions(outcome, texts, self.resend.value, gateways=gateways):
            self.report(number, f"{what}: {wrong}; {outcome}; {[arrival.fault.name for arrival in arrivals]}")

    def report(self, number: str, wrong: str) -> None:
        self.verdict.wrong.append(f"seed {self.seed}, {self.resend.value}, {number}, {wrong}")

    async def finish(self) -> None:
        for key, arrivals in self.server.arrivals.items():
            self.verdict.requests += len(arrivals)
            self.verdict.twice += key.startswith("messaging") and len(self.server.ledger[key]) > 1
            self.verdict.faults.update(arrival.fault.name for arrival in arrivals)
        self.verdict.sends += self.size


class KeyedScenario(StoreScenario):
    """Each code has one key, requested by two to four calls, together or one after the other; some are cancelled.

    Each result is compared with the texts that had gone out when its call ended. At last each key is requested again.
    """

    async def play(self, mfa: MFAClient) -> None:
        self.numbers = [f"+1{index:010}" for index in range(self.size)]
        self.left = iter(self.numbers)
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
        self.compare_texts(number, Outcome(result.delivery, result.identifier or None, result.duplicate), name)
        self.verdict.words[f"key {result.delivery}"] += 1
        self.verdict.words["perhaps twice, and says so"] += result.duplicate


MAX_CHECKS = 3
ENDINGS = ("none", "none", "cancel", "done")


class SignInScenario(StoreScenario):
    """Each number has one flow, started once or twice at the same moment; then resends, and checks at the same moment.

    A text's outcome is compared with the texts that had gone out. At most one of a flow's checks succeeds, with the
    service's yes; no more than `MAX_CHECKS` reach the service, but for those that are given back.
    """

    async def play(self, mfa: MFAClient) -> None:
        numbers = iter([f"+1919{5550000 + index}" for index in range(self.size)])
        async with MFAClient(**self.settings) as other:
            options: dict[str, Any] = {"guard": Guard(per_number="100/h"), "cooldown": 0, "max_checks": MAX_CHECKS}
            pair = [SignIns(client, LOGIN, timeout=45, **options) for client in (mfa, other)]
            await asyncio.gather(*[self.sign_in_all(pair, numbers) for _ in range(TASKS)])
        await self.store.aclose()

    async def finish(self) -> None:
        await super().finish()
        self.verdict.twice = 0  # a resend is wanted

    async def sign_in_all(self, pair: list[SignIns], numbers: Iterator[str]) -> None:
        for number in numbers:
            await self.sign_in(pair, number)
            self.results[number] = CallResult("", 0)  # for `done`

    async def sign_in(self, pair: list[SignIns], number: str) -> None:
        rng = self.rng
        starts = [rng.choice(pair).start(number, idempotency_key=f"key of {number}") for _ in range(rng.choice([1, 2]))]
        flows = [await self.sent(start, number, "start") for start in asyncio.as_completed(starts)]
        flow = next((each for each in flows if each is not None), None)
        if flow is None:
            return
        for _ in range(rng.randrange(2)):
            await self.sent(rng.choice(pair).resend(flow.id), number, "resend")
        ending, checks = rng.choice(ENDINGS), [self.checked(rng.choice(pair), flow.id) for _ in range(rng.randrange(6))]
        results = await asyncio.gather(*checks)
        with contextlib.suppress(StoreError):
            if ending != "none":
                await getattr(rng.choice(pair), ending)(flow.id)
        results += [await self.checked(rng.choice(pair), flow.id) for _ in range(3)]
        if results.count("valid") > 1:
            self.report(number, f"{results.count('valid')} checks succeeded")
        if "valid" in results and not is_valid(self.seed, number):
            self.report(number, "a check succeeded without the service's yes")
        proofs = [arrival.fault.proof for arrival in self.server.arrivals[f"verify {number}"]]
        if sum(proof not in GIVEN_BACK for proof in proofs) > MAX_CHECKS * ATTEMPTS:
            self.report(number, f"{len(proofs)} checks reached the service: {proofs}")
        self.verdict.verifies += len(results)
        self.verdict.words.update(f"check {result}" for result in results)

    async def sent(self, text: Any, number: str, what: str) -> SignIn | None:
        """Return the flow of a text; None if nothing was sent."""
        before = len(self.server.ledger[f"messaging {number}"])
        try:
            flow: SignIn = await text
        except StoreError:
            self.verdict.words["sign-in without its store"] += 1
            return None
        except RequestError as error:
            if what == "start" and len(self.server.ledger[f"messaging {number}"]) > before:
                self.report(number, f"{what}: {error.delivery.value}, and a text went out")
            self.verdict.words[f"{what} {error.delivery.value}"] += 1
            return None
        if flow.delivery is Delivery.ACCEPTED and not self.server.ledger[f"messaging {number}"]:
            self.report(number, f"{what}: accepted, and nothing went out")
        self.verdict.words[f"{what} {flow.delivery.value}"] += 1
        return flow

    async def checked(self, signins: SignIns, flow_id: str) -> str:
        try:
            check = await signins.check(flow_id, "123456")
        except RequestError as error:
            return type(error).__name__
        return "valid" if check.valid else str(check.reason)
