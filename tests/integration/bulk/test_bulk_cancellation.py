"""A bulk run and a journal that are cancelled at each of their awaits: no outcome is lost, no item is sent twice."""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import BulkSender, Delivery, ItemOutcome, JournalError, Limits, RetryPolicy, SQLiteJournal
from tests.support.fault_server import Act, FaultServer, answer, taken
from tests.support.suspensions import Suspensions, every_suspension

if TYPE_CHECKING:
    import pathlib

    from bandwidth_mfa_async import CodeTemplate, MFAClient
    from tests.support.clients import MakeClient

NUMBERS = [f"+1919555{index:04}" for index in range(7)]


def texts(server: FaultServer) -> collections.Counter[str]:
    """Count the requests for each number; in these tests each is a text unless it was answered with 429."""
    return collections.Counter(str(seen.document["to"]) for seen in server.seen)


async def assert_nothing_held(client: MFAClient) -> None:
    for _ in range(10):
        await asyncio.sleep(0)
    executor = client._executor
    assert (executor.slots.taken, executor.slots.waiting, executor.state._active) == (0, 0, 0)
    assert {limiter.waiting for limiter in executor.limiters.values()} == {0}
    assert taken(client) == 0


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("way", "journal", "late"),
    [
        ("read to the end", True, False),
        ("left early", True, True),
        *((way, False, late) for way in ("read to the end", "stopped", "cut", "left early") for late in (False, True)),
    ],
)
async def test_a_run_cancelled_at_any_await_loses_no_outcome(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    way: str,
    journal: bool,
    late: bool,
) -> None:
    """The reader is cancelled: every item taken has one outcome, which matches what the server received."""
    outcomes: list[ItemOutcome] = []
    streams: list[Any] = []
    bulk: BulkSender

    async def run() -> None:
        async with bulk:
            streams.append(bulk.send(NUMBERS, template=template))
            async for outcome in streams[0]:
                outcomes.append(outcome)
                if len(outcomes) == 3:
                    if way == "left early":
                        return
                    {"stopped": bulk.stop, "cut": bulk.cancel}.get(way, lambda: None)()

    at = cancelled = 0
    while True:
        path = tmp_path / f"{at}.db" if journal else None
        server.seen.clear()
        server.script.clear()
        server.play(answer(), answer(429, {}), Act(then="fin", accepted=True), answer(400, {"error": "x"}))
        server.default = answer(delay=0.5)
        client = make_client(limits=Limits(max_in_flight=2, adaptive=False), retry=RetryPolicy(max_attempts=2))
        outcomes.clear()
        streams.clear()
        bulk = BulkSender(client, journal=path, max_in_flight=2, drain_timeout=1.0)
        suspensions = Suspensions(at, late=late)
        task = await suspensions.run(run())
        cancelled += task.cancelled()
        if not task.cancelled():
            assert task.exception() is None
        if streams:
            outcomes += [outcome async for outcome in streams[0]]
        await assert_nothing_held(client)
        summary = bulk.summary
        assert len(outcomes) == summary.taken == summary.done
        assert summary.in_flight == 0
        assert len({outcome.index for outcome in outcomes}) == len(outcomes)
        throttled = {str(seen.document["to"]) for seen in server.seen[1:2]}
        arrived = texts(server)
        for outcome in outcomes:
            assert outcome.request is not None
            to = outcome.request.to
            if outcome.delivery is Delivery.ACCEPTED:
                assert arrived[to] == 1 + (to in throttled)
            elif outcome.delivery is Delivery.NOT_SENT:
                assert arrived[to] == 0, f"{way}, wait {at}"
            elif outcome.delivery is Delivery.UNKNOWN:
                assert arrived[to] <= 1 + (to in throttled)
        if path is not None:
            await _assert_next_run_agrees(server, client, template, path, outcomes, throttled)
        await client.aclose()
        if suspensions.count <= at:
            break
        at += 1
        assert at < 300
    assert cancelled >= 3


async def _assert_next_run_agrees(
    server: FaultServer,
    client: MFAClient,
    template: CodeTemplate,
    path: pathlib.Path,
    outcomes: list[ItemOutcome],
    throttled: set[str],
) -> None:
    """Resume with the journal, and compare both runs with the requests that the server received."""
    server.script.clear()
    server.default = answer()
    unknown = {o.request.to for o in outcomes if o.delivery is Delivery.UNKNOWN and o.request}
    async with BulkSender(client, journal=path) as bulk:
        second = [outcome async for outcome in bulk.send(NUMBERS, template=template)]
    arrived = texts(server)
    assert len(second) == len(NUMBERS)
    for outcome in second:
        assert outcome.request is not None
        to = outcome.request.to
        assert arrived[to] <= 1 + (to in throttled), "sent twice"
        ending = outcome.previous or outcome.delivery
        assert ending in {Delivery.ACCEPTED, Delivery.UNKNOWN, Delivery.REJECTED}
        if to in unknown:
            assert outcome.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize(
    "call", ["open", "counts", "bind", "flush", "aclose", "enter and leave", "claim_numbers", "record_input"]
)
async def test_a_journal_cancelled_at_any_await_can_be_opened_again(
    tmp_path: pathlib.Path, template: CodeTemplate, call: str
) -> None:
    """The lock is released, and the file is valid."""
    path = tmp_path / "run.db"
    journals: list[SQLiteJournal] = []

    async def make() -> None:
        journal = SQLiteJournal(path)
        journals.append(journal)
        if call == "enter and leave":
            async with journal:
                await journal.counts()
            return
        await asyncio.shield(open_first(journal))
        if call == "open":
            await journal.open()
        elif call == "bind":
            await journal.bind(template, channel="messaging")
        elif call == "claim_numbers":
            await journal.claim_numbers([(bytes(16), bytes(range(16)))])
        elif call == "record_input":
            await journal.record_input(5)
        else:
            journal.add(len(journals).to_bytes(16, "big"), len(journals), None, lambda _item, _known: None, None)
            await getattr(journal, call)()

    async def open_first(journal: SQLiteJournal) -> None:
        if call != "open":
            await journal.open()

    seen = set()
    async for _suspensions, task in every_suspension(make):
        seen.add(task.cancelled())
        if not task.cancelled():
            assert task.exception() is None
        journal = journals[-1]
        while journal._is_writing:
            await asyncio.sleep(0)
        await journal.aclose()
        try:
            async with SQLiteJournal(path) as reopened:
                assert set(await reopened.counts()) <= {"pending"}
        except JournalError as error:
            pytest.fail(f"the file is not usable: {error}")
    assert seen == {True, False}
