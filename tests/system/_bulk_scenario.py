"""Bulk runs with a journal, stopped and resumed, against a service with random faults."""

from __future__ import annotations

import asyncio
import collections
import random
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import Delivery
from bandwidth_mfa_async.bulk import BulkSender
from tests.system._client_scenario import LOGIN, Scenario
from tests.system._outcomes import Outcome, Places, add_journal, of_item, summary_totals

if TYPE_CHECKING:
    import pathlib

    from bandwidth_mfa_async import MFAClient
    from bandwidth_mfa_async.bulk import ItemOutcome


class BulkScenario(Scenario):
    """A run that ends early up to three times, by a stop, a cancellation or a reader that leaves, and is resumed.

    After each pass, the outcomes of the items, the counts, the journal and its report are compared with each other,
    and with the texts that had gone out by then.
    """

    async def start(self, settings: dict[str, Any], folder: pathlib.Path) -> None:
        self.rng = random.Random(f"{self.seed} bulk")
        self.numbers = [f"+1{index:010}" for index in range(self.size)]
        self.channel = self.rng.choice(["messaging", "voice"])
        self.journal = folder / "journal.db"
        self.outcomes = {number: Outcome("not_sent") for number in self.numbers}
        self.passes: list[tuple[Places, dict[str, int]]] = []

    def done(self) -> int:
        return sum(outcome.delivery != "not_sent" for outcome in self.outcomes.values())

    async def wait_for_results(self, calls: int) -> None:
        while self.done() < calls and len(self.passes) < self.pass_count:
            await asyncio.sleep(self.wait)

    pass_count = 4

    async def play(self, mfa: MFAClient) -> None:
        ways = [self.rng.choice(["stop", "cancel", "leave"]) for _ in range(self.rng.randrange(self.pass_count))]
        ways += ["finish"] * (self.pass_count - len(ways))
        for way in ways:
            await self.one_pass(mfa, way)

    async def one_pass(self, mfa: MFAClient, way: str) -> None:
        ends_after = self.rng.randrange(1, self.size)
        self.events.clear()
        taken: dict[str, Outcome] = {}
        skipped: collections.Counter[str] = collections.Counter()

        def record(item: ItemOutcome) -> None:
            taken[self.numbers[item.index]] = of_item(item)
            if item.previous is not None:
                skipped[item.previous.value] += 1

        async with BulkSender(
            mfa, journal=self.journal, channel=self.channel, ordered=self.rng.random() < 0.5, drain_timeout=0.2
        ) as bulk:
            stream = bulk.send(self.numbers, template=LOGIN)
            async for item in stream:
                record(item)
                if way != "finish" and len(taken) == ends_after:
                    if way == "leave":
                        break
                    (bulk.stop if way == "stop" else bulk.cancel)()
        async for item in stream:  # the outcomes of what was in flight
            record(item)
        self.outcomes |= taken
        places = Places()
        places.outcomes["ItemOutcome"] = dict(self.outcomes)
        await asyncio.to_thread(add_journal, places, self.journal, self.numbers)
        # The counts of a run know the items that it took.
        own = Places()
        own.outcomes["ItemOutcome"] = taken
        own.totals["BulkSummary"] = summary_totals(bulk.summary, skipped, len(taken))
        sent = sum(outcome.delivery == "accepted" for outcome in taken.values()) - skipped["accepted"]
        reported = sum(event.delivery is Delivery.ACCEPTED for events in self.events.values() for event in events)
        if reported != sent:
            self.verdict.wrong.append(f"seed {self.seed}: {reported} events of accepted calls, {sent} items")
        arrived = {number: len(self.server.arrivals[self.key(number)]) for number in self.numbers}
        self.passes += [(places, arrived), (own, arrived)]

    def key(self, number: str) -> str:
        return f"{self.channel} {number}"

    async def finish(self) -> None:
        verdict, texts = self.verdict, {number: self.server.ledger[self.key(number)] for number in self.numbers}
        arrivals = {number: self.server.arrivals[self.key(number)] for number in self.numbers}
        gateways = {
            number: sum(arrival.fault.proof == "gate" for arrival in found) for number, found in arrivals.items()
        }
        for n, (places, arrived) in enumerate(self.passes):
            # A text of a later request went out in a later pass. An id ends with the number of its request.
            by_then = {
                number: [text for text in sent if int(text.rpartition("-")[2]) < arrived[number]]
                for number, sent in texts.items()
            }
            verdict.wrong += [
                f"bulk seed {self.seed}, {self.resend.value}, pass {n // 2}: {what}"
                for what in places.check(by_then, self.resend.value, gateways)
            ]
        verdict.sends += self.size
        verdict.requests += sum(map(len, arrivals.values()))
        verdict.twice += sum(len(sent) > 1 for sent in texts.values())
        for outcome in self.outcomes.values():
            verdict.words[f"item {outcome.delivery}"] += 1
            verdict.words["perhaps twice, and says so"] += bool(outcome.duplicate)
        verdict.faults.update(arrival.fault.name for found in arrivals.values() for arrival in found)
