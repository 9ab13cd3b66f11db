"""The journal: what is on disk and when, locking, resuming, and errors of unusable files."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BulkSender,
    ClientStateError,
    CodeTemplate,
    ConfigurationError,
    Delivery,
    DeliveryUnknownError,
    ItemOutcome,
    JournalError,
    Limits,
    MFAClient,
    NotSentError,
    Resend,
    RetryPolicy,
    SQLiteJournal,
)
from bandwidth_mfa_async._clock import ManualClock, SystemClock
from bandwidth_mfa_async._item_state import JournalState
from bandwidth_mfa_async._keys import Keys
from bandwidth_mfa_async.bulk import JournalReport
from bandwidth_mfa_async.bulk._item import Item
from bandwidth_mfa_async.bulk._run_journal import RunJournal
from bandwidth_mfa_async.bulk.journal import _file, _schema
from bandwidth_mfa_async.bulk.journal._file import Batch, JournalFile, JournalRow
from tests.support.fault_server import Act, FaultServer, answer
from tests.support.journal_file import RESEAL, held_by_another_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.support.clients import MakeClient

NUMBERS = [f"+1919555{index:04}" for index in range(20)]


async def send(client: MFAClient, journal: Any, template: CodeTemplate, source: Any = NUMBERS) -> list[ItemOutcome]:
    async with BulkSender(client, journal=journal, max_in_flight=5, ordered=True) as bulk:
        return [outcome async for outcome in bulk.send(source, template=template)]


async def counts(path: pathlib.Path) -> dict[str, int]:
    async with SQLiteJournal(path) as journal:
        return await journal.counts()


def rows(path: pathlib.Path, query: str = "SELECT status FROM item ORDER BY position") -> list[tuple[Any, ...]]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


async def test_every_intent_is_on_disk_before_its_request(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """When the server reads a request, at least as many rows are no longer pending."""
    path = tmp_path / "run.db"
    seen: list[tuple[int, int]] = []

    def look(fault_server: FaultServer) -> None:
        begun = rows(path, "SELECT count(*) FROM item WHERE status <> 0")[0][0]
        seen.append((len(fault_server.seen), begun))

    server.default = Act(answer().reply, accepted=True, before=look)
    await send(make_client(), path, template)
    assert len(seen) == 20
    assert all(requests <= begun for requests, begun in seen)


async def test_the_files_contain_no_personal_data_and_are_private(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """No file contains a number, a text or a credential."""
    path = tmp_path / "run.db"
    await send(make_client(), path, template, [*NUMBERS, "+1919bad5551111"])
    secrets = [*NUMBERS, *(number[1:] for number in NUMBERS), template.from_, "5551111", "user", "pass", "{CODE}"]
    for file in await asyncio.to_thread(lambda: list(tmp_path.iterdir())):
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], file.name
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name
    assert path.stat().st_size > 1000


async def test_a_second_run_skips_accepted_items(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """It sends nothing and returns the ids of the first run."""
    path = tmp_path / "run.db"
    first = await send(make_client(), path, template)
    second = await send(make_client(), path, template)
    assert len(server.seen) == 20
    assert {outcome.delivery for outcome in second} == {Delivery.SKIPPED}
    assert [o.response.message_id for o in second if o.response] == [o.response.message_id for o in first if o.response]
    assert [outcome.key for outcome in second] == [outcome.key for outcome in first]
    assert {outcome.previous for outcome in second} == {Delivery.ACCEPTED}


async def test_a_duplicate_in_the_input_is_sent_once(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Duplicates may be in flight at the same time, or far apart."""
    outcomes = await send(make_client(), tmp_path / "run.db", template, [*NUMBERS[:3] * 30, *NUMBERS, *NUMBERS])
    assert sorted(str(seen.document["to"]) for seen in server.seen) == NUMBERS
    kinds = [outcome.delivery for outcome in outcomes]
    assert kinds.count(Delivery.ACCEPTED) == 20
    assert kinds.count(Delivery.SKIPPED) == 90 + 40 - 20


async def test_another_run_name_sends_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The default key contains number, template and run name."""
    path = tmp_path / "run.db"
    await send(make_client(), SQLiteJournal(path, run="monday"), template)
    await send(make_client(), SQLiteJournal(path, run="tuesday"), template)
    await send(make_client(), SQLiteJournal(path, run="tuesday"), template)
    assert len(server.seen) == 40


async def test_a_custom_key_with_another_request_is_invalid(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The same key with the same request is skipped."""
    path = tmp_path / "run.db"
    for _ in range(2):
        async with BulkSender(make_client(), journal=path, ordered=True) as bulk:
            source = ["+19195550001", "+19195550002", "+19195550001"]
            outcomes = [o async for o in bulk.send(source, template=template, key=lambda _request: "the same")]
    assert [outcome.delivery.value for outcome in outcomes] == ["skipped", "invalid", "skipped"]
    assert len(server.seen) == 1
    assert "another request" in str(outcomes[1].error)


@pytest.mark.parametrize(
    ("status", "final"),
    [(400, True), (413, True), (401, False), (403, False), (404, False), (500, False), (503, False)],
)
async def test_only_rejections_for_the_item_itself_are_final(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    status: int,
    final: bool,
) -> None:
    """Rejections for the account, the rate or the service are sent again by the next run."""
    path = tmp_path / "run.db"
    server.default = answer(status, {"error": "no", "requestId": "r"})
    first = await send(make_client(), path, template, NUMBERS[:2])
    assert {outcome.delivery for outcome in first} == {Delivery.REJECTED}
    assert await counts(path) == {"rejected": 2}
    server.default = answer()
    second = await send(make_client(), path, template, NUMBERS[:2])
    assert {outcome.delivery for outcome in second} == {Delivery.SKIPPED if final else Delivery.ACCEPTED}
    assert {outcome.previous for outcome in second} == {Delivery.REJECTED if final else None}


async def test_an_invalid_item_has_one_row(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """It is reported by every run."""
    path = tmp_path / "run.db"
    for _ in range(2):
        outcomes = await send(make_client(), path, template, ["bad", *NUMBERS])
        assert outcomes[0].delivery is Delivery.INVALID
    assert await counts(path) == {"accepted": 20, "invalid": 1}


async def test_the_report_tables_match_the_items(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The counters per second and the latency buckets add up to the outcomes."""
    path = tmp_path / "run.db"
    server.play(answer(429, {}), answer(400, {"error": "no", "requestId": "r"}))
    await send(make_client(limits=Limits(adaptive=False)), path, template, [*NUMBERS, "bad"])
    totals = rows(path, "SELECT sum(accepted), sum(rejected), sum(invalid), sum(throttled) FROM second")
    assert totals == [(19, 1, 1, 1)]
    assert rows(path, "SELECT sum(count) FROM latency") == [(20,)]
    assert rows(path, "SELECT ending FROM session") == [("finished",)]
    assert rows(path, "SELECT DISTINCT attempts FROM item WHERE status = 2 ORDER BY 1") == [(1,), (2,)]


async def test_another_template_is_refused_and_the_error_names_the_fields(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Nothing is sent, and the error shows neither value."""
    path = tmp_path / "run.db"
    await send(make_client(), path, template)
    other = CodeTemplate("+19195550000", template.application_id, scope="login", digits=8)
    with pytest.raises(JournalError, match=r"another from_, digits;") as caught:
        await send(make_client(), path, other)
    assert "9195550000" not in str(caught.value)
    with pytest.raises(JournalError, match="another digits"):
        async with SQLiteJournal(
            path, template=CodeTemplate(template.from_, template.application_id, "login", digits=4)
        ):
            pass
    with pytest.raises(JournalError, match="channel"):
        async with BulkSender(make_client(), journal=path, channel="voice") as bulk:
            await anext(bulk.send(NUMBERS, template=template))
    with pytest.raises(JournalError, match="kind of keys"):
        async with BulkSender(make_client(), journal=path) as bulk:
            await anext(bulk.send(NUMBERS, template=template, key=lambda request: request.to))
    assert len(server.seen) == 20
    assert await counts(path) == {"accepted": 20}


# Items in flight when a run is killed.


def id_of(known: int | JournalRow) -> int:
    return known if isinstance(known, int) else known.id


def interrupted(path: pathlib.Path, template: CodeTemplate, numbers: list[str]) -> None:
    """Create the file of a run that was killed with these numbers in flight."""
    keys = Keys("messaging", "")
    file = JournalFile(str(path))
    file.open(1_700_000_000.0)
    batch = Batch()
    for position, number in enumerate(numbers):
        batch.keys += keys.digest(template.to(number))
        batch.positions.append(position)
        batch.payloads += bytes(8)
    known = file.apply(batch)
    file.apply(Batch(intents=dict.fromkeys(map(id_of, known))))
    file._close_connections()


async def test_items_in_flight_at_a_kill_are_unknown_and_not_sent_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """This run and all later ones report them as unknown; all other items are sent."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(interrupted, path, template, NUMBERS[:3])
    for rest in (Delivery.ACCEPTED, Delivery.SKIPPED):
        outcomes = await send(make_client(), path, template)
        assert [outcome.delivery for outcome in outcomes] == [Delivery.UNKNOWN] * 3 + [rest] * 17
        assert all(isinstance(outcome.error, DeliveryUnknownError) for outcome in outcomes[:3])
        assert all("earlier run" in str(outcome.error) for outcome in outcomes[:3])
    assert sorted(str(seen.document["to"]) for seen in server.seen) == NUMBERS[3:]
    assert rows(path, "SELECT DISTINCT cause FROM item WHERE status = 5") == [("InterruptedRun",)]


async def test_at_least_once_sends_unknown_items_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Accepted ones are possible duplicates; one that is rejected now stays unknown."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(interrupted, path, template, NUMBERS[:3])
    policy = RetryPolicy(resend=Resend.AT_LEAST_ONCE, max_attempts=1)
    server.play(answer(), answer(400, {"error": "no", "requestId": "r"}), answer())
    async with BulkSender(make_client(retry=policy), journal=path, max_in_flight=1, ordered=True) as bulk:
        outcomes = [outcome async for outcome in bulk.send(NUMBERS, template=template)]
    kinds = [outcome.delivery.value for outcome in outcomes[:3]]
    assert kinds == ["accepted", "unknown", "accepted"]
    twice = [outcome.response.meta.possible_duplicate for outcome in outcomes if outcome.response]
    assert twice == [True, True] + [False] * 17
    assert bulk.summary.possible_duplicates == 2
    assert len(server.seen) == 20
    assert await counts(path) == {"accepted": 19, "unknown": 1}


async def test_unknown_items_stay_unknown_after_the_clock_was_set_back(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """They are not mistaken for results of this session."""
    path = tmp_path / "run.db"
    server.play(Act(then="fin"))
    first = await send(make_client(), path, template, NUMBERS[:1])
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE item SET settled_at = settled_at + 3600")
    db.close()
    second = await send(make_client(), path, template, NUMBERS[:1])
    assert [outcomes[0].delivery for outcomes in (first, second)] == [Delivery.UNKNOWN] * 2
    assert rows(path, "SELECT cause FROM item") == [("DisconnectedError",)]


async def test_a_duplicate_of_an_item_that_became_unknown_is_skipped(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """It is counted as unknown once."""
    server.play(Act(then="fin"))
    async with BulkSender(make_client(), journal=tmp_path / "run.db", max_in_flight=1, ordered=True) as bulk:
        outcomes = [o async for o in bulk.send([NUMBERS[0], *NUMBERS[1:6], NUMBERS[0]], template=template)]
    assert [outcomes[0].delivery, outcomes[-1].delivery] == [Delivery.UNKNOWN, Delivery.SKIPPED]
    assert outcomes[-1].previous is Delivery.UNKNOWN
    assert bulk.summary.unknown == 1


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_duplicate_is_skipped_after_a_step_of_the_clock(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, step: float
) -> None:
    """Under `AT_LEAST_ONCE` too: the item became unknown in this run, not in an earlier one."""

    class SteppedClock(SystemClock):
        offset = 0.0

        def time(self) -> float:
            return super().time() + self.offset

    clock = SteppedClock()
    server.play(Act(then="fin"))
    client = make_client(clock=clock, retry=RetryPolicy(max_attempts=1, resend=Resend.AT_LEAST_ONCE))

    async def numbers() -> AsyncIterator[str]:
        clock.offset = step
        yield NUMBERS[0]
        while not bulk.summary.unknown:
            await asyncio.sleep(0)
        yield NUMBERS[0]

    async with BulkSender(client, journal=tmp_path / "run.db") as bulk:
        outcomes = [outcome async for outcome in bulk.send(numbers(), template=template)]
    assert [outcome.delivery for outcome in outcomes] == [Delivery.UNKNOWN, Delivery.SKIPPED]
    assert len(server.seen) == 1


@pytest.mark.virtual_time
async def test_a_stopped_run_leaves_no_item_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The next run sends the items that were queued when the run was stopped."""
    path = tmp_path / "run.db"
    async with BulkSender(make_client(limits=Limits(rate="1/s")), journal=path, max_in_flight=8) as bulk:
        stream = bulk.send(NUMBERS, template=template)
        await anext(stream)
        while bulk.summary.taken < 17:
            await asyncio.sleep(0)
        bulk.stop()
        rest = [outcome async for outcome in stream]
    assert {outcome.delivery for outcome in rest} <= {Delivery.NOT_SENT, Delivery.ACCEPTED}
    assert (await counts(path)).keys() == {"accepted", "pending"}
    await send(make_client(), path, template)
    assert await counts(path) == {"accepted": 20}
    assert sorted(str(seen.document["to"]) for seen in server.seen) == NUMBERS
    assert rows(path, "SELECT ending FROM session WHERE id IN (1, 3)") == [("stopped",), ("finished",)]


@pytest.mark.virtual_time
async def test_the_journal_has_the_rejection_of_an_item_whose_retry_a_stop_prevented(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """As the outcome and the summary have; the next run sends the item."""
    path = tmp_path / "run.db"
    server.default = answer(429, {}, headers={"Retry-After": "30"})
    async with BulkSender(make_client(), journal=path) as bulk:
        stream = bulk.send(NUMBERS[:1], template=template)
        reader = asyncio.ensure_future(anext(stream))
        while not server.seen or bulk.summary.in_flight:
            await asyncio.sleep(0)
        bulk.stop()
        outcomes = [await reader, *[outcome async for outcome in stream]]
    assert [outcome.delivery for outcome in outcomes] == [Delivery.REJECTED]
    assert (bulk.summary.rejected, bulk.summary.ending) == (1, "stopped")
    report = await asyncio.to_thread(JournalReport.read, path)
    assert (report.counts.rejected, report.counts.pending) == (1, 0)
    assert [(failure.cause, failure.http_status, failure.resume) for failure in report.failures] == [
        ("RateLimitError", 429, "yes")
    ]
    server.default = answer()
    assert [outcome.delivery for outcome in await send(make_client(), path, template, NUMBERS[:1])] == [
        Delivery.ACCEPTED
    ]


async def test_a_cancelled_run_records_which_items_may_have_been_sent(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The next run sends the others."""
    path = tmp_path / "run.db"
    server.default = Act(then="hang")
    async with BulkSender(make_client(), journal=path, max_in_flight=3) as bulk:
        stream = bulk.send(NUMBERS, template=template)
        reader = asyncio.ensure_future(anext(stream))
        while len(server.seen) < 3:
            await asyncio.sleep(0)
        bulk.cancel()
        outcomes = [await reader, *[outcome async for outcome in stream]]
    assert [outcome.delivery for outcome in outcomes].count(Delivery.UNKNOWN) == 3
    assert (await counts(path))["unknown"] == 3
    server.default = answer()
    await send(make_client(), path, template)
    texted = [str(seen.document["to"]) for seen in server.seen]
    assert len(texted) == len(set(texted)) == 20


# Files that cannot be used.


def newer(path: pathlib.Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID}")
    db.execute("PRAGMA user_version = 99")
    db.execute("CREATE TABLE x (y)")
    db.close()


def foreign(path: pathlib.Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE people (name)")
    db.close()


def text(path: pathlib.Path) -> None:
    path.write_text("to\n+19195551234\n" * 100)


def torn(path: pathlib.Path) -> None:
    made(path)
    os.truncate(path, path.stat().st_size // 2)


def scribbled(path: pathlib.Path) -> None:
    made(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = b"\xa5" * 3000
    path.write_bytes(content)


def made(path: pathlib.Path) -> None:
    file = JournalFile(str(path))
    file.open(1_700_000_000.0)
    batch = Batch()
    for index in range(2_000):
        batch.keys += index.to_bytes(16, "big")
        batch.positions.append(index)
        batch.payloads += bytes(8)
    file.apply(batch)
    file.close("finished", 1_700_000_001.0)


def folder(path: pathlib.Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (newer, "newer bandwidth-mfa-async"),
        (foreign, "another program's database"),
        (text, "damaged, or not a journal"),
        (torn, "damaged"),
        (scribbled, "damaged"),
        (folder, "is a folder"),
    ],
)
async def test_a_file_that_is_not_a_journal_is_refused(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    make: Callable[[pathlib.Path], None],
    says: str,
) -> None:
    """The error names the file, the file is unchanged, and nothing is sent."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(make, path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(JournalError, match=says) as caught:
        await send(make_client(), path, template)
    assert str(path) in str(caught.value)
    assert server.seen == []
    assert path.is_dir() or path.read_bytes() == before


@pytest.mark.parametrize("path", ["/proc/run.db", "/nowhere/at/all/run.db"])
async def test_a_folder_that_cannot_be_written_is_an_error(
    make_client: MakeClient, template: CodeTemplate, path: str
) -> None:
    """One folder is read-only, also for root; the other does not exist."""
    with pytest.raises(JournalError, match="folder"):
        await send(make_client(), path, template)


async def test_a_journal_is_used_by_one_run_at_a_time(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """A second run in this or another process is refused, a reader is not, and a kill releases the lock."""
    path = tmp_path / "run.db"
    async with held_by_another_process(path):
        with pytest.raises(JournalError, match="another run is using"):
            await send(make_client(), path, template)
        assert rows(path, "SELECT count(*) FROM session") == [(1,)]
    assert len(await send(make_client(), path, template)) == 20
    async with SQLiteJournal(path) as journal:
        with pytest.raises(JournalError, match="another run is using"):
            await send(make_client(), path, template)
        with pytest.raises(ClientStateError, match="open already"):
            await journal.open()
    assert rows(path, "SELECT ending FROM session") == [(None,), ("finished",), ("finished",)]


async def test_a_full_disk_ends_the_run_and_a_later_run_continues(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says what to do, and no item is sent without its intent on disk."""
    path = tmp_path / "run.db"
    numbers = [f"+1919{index:07}" for index in range(2_000)]
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.execute("PRAGMA max_page_count = 60")
        return db

    monkeypatch.setattr(_file.sqlite3, "connect", small)
    outcomes = []
    async with BulkSender(make_client(), journal=path, max_in_flight=5) as bulk:
        with pytest.raises(JournalError, match="the disk is full; free some space"):
            async for outcome in bulk.send(numbers, template=template):
                outcomes.append(outcome)
    assert bulk.summary.ending == "failed"
    assert len(outcomes) == bulk.summary.taken < 2_000
    begun = rows(path, "SELECT count(*) FROM item WHERE status <> 0")[0][0]
    assert len(server.seen) <= begun
    monkeypatch.setattr(_file.sqlite3, "connect", connect)
    await send(make_client(), path, template, numbers)
    texted = [str(seen.document["to"]) for seen in server.seen]
    assert len(texted) == len(set(texted))
    found = await counts(path)
    assert found.get("accepted", 0) + found.get("unknown", 0) == 2_000
    assert found.get("unknown", 0) <= 5


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_a_symbolic_link_leads_to_the_same_lock(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, kind: str
) -> None:
    """The file behind the link is private from the start."""
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real if kind == "folder" else real / "run.db")
    path = link / "run.db" if kind == "folder" else link
    async with SQLiteJournal(path):
        assert stat.S_IMODE((real / "run.db").stat().st_mode) == 0o600
        with pytest.raises(JournalError, match="another run is using"):
            await send(make_client(), real / "run.db", template)
    async with SQLiteJournal(real / "run.db"):
        with pytest.raises(JournalError, match="another run is using"):
            await send(make_client(), path, template)
    assert server.seen == []


@pytest.mark.parametrize("how", ["read in part", "read in part, with an error", "read to the end"])
async def test_a_result_that_cannot_be_written_is_raised_once(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """By the stream, or by the exit of the `async with` if the stream was not read that far; another error is kept."""
    path = tmp_path / "run.db"
    apply = JournalFile.apply

    def fails(file: JournalFile, batch: Batch) -> Any:
        if batch.accepted:
            raise JournalError("no room")
        return apply(file, batch)

    monkeypatch.setattr(JournalFile, "apply", fails)
    bulk = BulkSender(make_client(), journal=path, max_in_flight=1)
    expected = ZeroDivisionError if how.endswith("error") else JournalError
    with pytest.raises(expected) as caught:
        async with bulk:
            stream = bulk.send(NUMBERS[:1], template=template)
            assert (await anext(stream)).delivery is Delivery.ACCEPTED
            if how.endswith("error"):
                raise ZeroDivisionError
            if how == "read to the end":
                with pytest.raises(JournalError):
                    await anext(stream)
                raise JournalError("no room, once")
    assert "no room" in str(caught.value) + str(getattr(caught.value, "__notes__", ""))
    assert getattr(caught.value, "__notes__", []) == (["no room"] if how.endswith("error") else [])
    assert bulk.summary.ending == "failed"
    monkeypatch.setattr(JournalFile, "apply", apply)
    assert await counts(path) == {"unknown": 1}


@pytest.mark.parametrize("turns", [0, 1, 2, 4, 7, 12, 20, 40])
async def test_a_cancellation_during_close_loses_no_result(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, turns: int
) -> None:
    """All results are on disk and the lock is released, even if the close is cancelled twice."""
    path = tmp_path / "run.db"
    leaving = asyncio.Event()

    async def run() -> None:
        async with BulkSender(make_client(), journal=path, max_in_flight=4) as bulk:
            stream = bulk.send(NUMBERS[:8], template=template)
            for _ in range(8):
                await anext(stream)
            leaving.set()

    task = asyncio.create_task(run())
    await leaving.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    assert await counts(path) == {"accepted": 8}


async def test_an_older_file_is_migrated_once(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migration is one transaction: it keeps the data, and a failed one changes nothing."""
    path = tmp_path / "run.db"
    await send(make_client(), path, template)
    migrations = _schema.MIGRATIONS
    broken = (*_schema.MIGRATIONS, ("ALTER TABLE item ADD COLUMN note TEXT", "this is no SQL"))
    monkeypatch.setattr(_schema, "MIGRATIONS", broken)
    with pytest.raises(JournalError):
        await counts(path)
    assert rows(path, "PRAGMA user_version") == [(2,)]
    monkeypatch.setattr(_schema, "MIGRATIONS", (*migrations, ("ALTER TABLE item ADD COLUMN note TEXT",)))
    for _ in range(2):
        assert await counts(path) == {"accepted": 20}
    assert rows(path, "PRAGMA user_version") == [(3,)]
    assert rows(path, "SELECT DISTINCT note FROM item") == [(None,)]
    monkeypatch.setattr(_schema, "MIGRATIONS", migrations)
    with pytest.raises(JournalError, match="newer"):
        await counts(path)


async def test_an_sqlite_that_is_too_old_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the version that the journal needs."""
    monkeypatch.setattr(_file.sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(JournalError, match=r"SQLite 3\.33"):
        await counts(tmp_path / "run.db")


def test_an_invalid_argument_is_named(template: CodeTemplate) -> None:
    """Every error names its argument."""
    for path in ("", ":memory:", "file:x?mode=memory", "a\0b", b"x"):
        with pytest.raises(ConfigurationError, match="journal"):
            SQLiteJournal(path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="run"):
        SQLiteJournal("x.db", run=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="template"):
        SQLiteJournal("x.db", template=template.to("+19195551234"))  # type: ignore[arg-type]


async def test_a_journal_that_is_not_open_raises_client_state_error(tmp_path: pathlib.Path) -> None:
    """It can be opened again after it was closed."""
    journal = SQLiteJournal(tmp_path / "run.db")
    with pytest.raises(ClientStateError, match="not open"):
        await journal.counts()
    await journal.aclose()
    async with journal:
        assert journal.is_open
    assert not journal.is_open
    async with journal:
        assert await journal.counts() == {}


def test_state_names_match_the_specification() -> None:
    """Their order defines the stored codes."""
    words = "pending sending accepted rejected not_sent unknown invalid"
    assert [status.name.lower() for status in JournalState] == words.split()


# Batches.


def new_items(*names: int) -> Batch:
    batch = Batch()
    for name in names:
        batch.keys += name.to_bytes(16, "big")
        batch.positions.append(name)
        batch.payloads += bytes(8)
    return batch


def test_a_batch_is_atomic(tmp_path: pathlib.Path) -> None:
    """After a failed batch nothing is written until the file is opened again."""
    path = tmp_path / "run.db"
    file = JournalFile(str(path))
    file.open(1_700_000_000.0)
    first, second = map(id_of, file.apply(new_items(1, 2)))
    assert file._db is not None
    file._db.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON item WHEN NEW.position = 5 "
        "BEGIN SELECT raise(ABORT, 'disk full'); END"
    )
    batch = new_items(3, 4, 5)
    batch.intents[first] = None
    batch.accept(second, "m-2", 1, 1_700_000_001.0)
    with pytest.raises(JournalError, match="free some space"):
        file.apply(batch)
    with pytest.raises(JournalError, match="free some space"):
        file.apply(Batch(intents={first: None}))
    assert rows(path) == [(JournalState.PENDING,), (JournalState.PENDING,)]
    file._close_connections()
    file.open(1_700_000_002.0)
    file.apply(Batch(intents={first: None}))
    assert rows(path) == [(JournalState.SENDING,), (JournalState.PENDING,)]
    file._close_connections()


def test_adding_known_items_returns_their_rows(tmp_path: pathlib.Path) -> None:
    """Results are in the order of the batch, and row ids are never shared."""
    file = JournalFile(str(tmp_path / "run.db"))
    file.open(1_700_000_000.0)
    one, two = file.apply(new_items(1, 2))
    assert isinstance(one, int), "all are new, so the result is their ids"
    assert isinstance(two, int)
    again, new, twice, more = file.apply(new_items(2, 3, 3, 4))
    assert again == JournalRow(two, JournalState.PENDING)
    assert new == twice
    assert len({one, two, id_of(new), id_of(more)}) == 4
    assert [id_of(known) for known in file.apply(new_items(4, 5, 1))][::2] == [id_of(more), one]
    file._close_connections()


@pytest.mark.parametrize("provider_id", ["1589228074636lm4k2je7j7jklbn2", "", 'é"\\\n\u2028,1', "x" * 3000])
@pytest.mark.parametrize(
    ("at", "first", "attempts"),
    [(1_732_812_345.139509, 1, 1), (1e10, 10**15 - 2, 999_999_987), (0.0, 7, 0), (-1.5, 7, 100_000)],
)
def test_an_accepted_item_replaces_an_earlier_failure(
    tmp_path: pathlib.Path, provider_id: str, at: float, first: int, attempts: int
) -> None:
    """Attempts add up over the runs; cause and HTTP status of the earlier failure are cleared."""
    path = tmp_path / "run.db"
    file = JournalFile(str(path))
    file.open(1_700_000_000.0)
    file._next_id = first
    (row, other) = map(id_of, file.apply(new_items(1, 2)))
    failed = (JournalState.NOT_SENT, None, "ServerError", 503, True, 12, 1_700_000_001.0, False)
    file.apply(Batch(settled={row: failed, other: failed}))
    file.apply(Batch(intents={row: None}))
    batch = Batch()
    batch.accept(row, provider_id, attempts, at)
    file.apply(batch)
    file._close_connections()
    columns = "status, provider_id, cause, http_status, again, attempts, settled_at"
    assert rows(path, f"SELECT {columns} FROM item ORDER BY id") == [
        (JournalState.ACCEPTED, provider_id, None, None, 0, attempts + 12, at),
        (JournalState.NOT_SENT, None, "ServerError", 503, 1, 12, 1_700_000_001.0),
    ]


def ignore(_item: None, _known: int | JournalRow | JournalError) -> None:
    """Ignore the result."""


async def test_a_failed_journal_reports_its_error_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later callers, such as an item between two attempts, do not wait."""

    def fails(_file: JournalFile, _batch: Batch) -> Any:
        raise JournalError("no room")

    results: list[int | JournalRow | JournalError] = []
    journal = SQLiteJournal(tmp_path / "run.db")
    await journal.open()
    monkeypatch.setattr(JournalFile, "apply", fails)
    with pytest.raises(JournalError, match="no room"):
        await asyncio.wait_for(journal.begin(1), 5)
    with pytest.raises(JournalError, match="no room"):
        await asyncio.wait_for(journal.begin(1), 5)
    journal.add(bytes(16), 0, None, lambda _item, known: results.append(known), None)
    assert [str(error) for error in results] == ["no room"]
    with pytest.raises(JournalError, match="no room"):
        await journal.aclose()


def test_a_duplicate_of_an_active_item_is_skipped(template: CodeTemplate) -> None:
    """The first is still pending on disk while it waits for its turn."""

    class IgnoringJournal:
        def accept(self, *_columns: object, **_options: object) -> None:
            """Write nothing."""

    journal: Any = IgnoringJournal()
    run_journal = RunJournal(journal, ManualClock(), "messaging", "generate_messaging_code", resends_unknown=False)
    items = [Item(None, index, "", template.to(NUMBERS[0])) for index in range(3)]  # type: ignore[arg-type]  # no run
    assert run_journal.admit(items[0], 7) is None
    outcome = run_journal.admit(items[1], JournalRow(7, JournalState.PENDING))
    assert outcome is not None
    assert (outcome.delivery, outcome.previous) == (Delivery.SKIPPED, None)
    run_journal.record_accepted(items[0], "m-1")
    outcome = run_journal.admit(items[2], JournalRow(7, JournalState.ACCEPTED, provider_id="m-1", attempts=1))
    assert outcome is not None
    assert (outcome.delivery, outcome.previous) == (Delivery.SKIPPED, Delivery.ACCEPTED)


async def test_the_next_run_settles_an_invalid_item_of_a_killed_run(tmp_path: pathlib.Path) -> None:
    """Its row was on disk, its result was not."""
    path = tmp_path / "run.db"
    for _ in range(2):
        journal = SQLiteJournal(path)
        run_journal = RunJournal(journal, SystemClock(), "messaging", "generate_messaging_code", resends_unknown=False)
        async with journal:
            run_journal.record_invalid("no number", 0, pytest.fail)
            await journal.flush()
            assert await journal.counts() == {"invalid": 1}
        with sqlite3.connect(path) as db:
            db.execute("UPDATE item SET status = 0")
            db.execute(RESEAL)
        db.close()


@pytest.mark.parametrize("end", ["accepted", "not_sent", "invalid"])
async def test_the_result_that_fills_a_batch_is_counted_in_it(
    tmp_path: pathlib.Path, template: CodeTemplate, end: str
) -> None:
    """A full batch is written at once, so a result must be counted before it is settled."""
    path = tmp_path / "run.db"
    journal = SQLiteJournal(path)
    run_journal = RunJournal(journal, SystemClock(), "messaging", "generate_messaging_code", resends_unknown=False)
    async with journal:
        items: list[Item] = []

        def known(item: Item, row: int | JournalRow | JournalError) -> None:
            assert not isinstance(row, JournalError)
            run_journal.admit(item, row)
            items.append(item)

        for index in range(32):
            if end == "invalid":
                run_journal.record_invalid(f"no number {index}", index, pytest.fail)
            else:
                item = Item(None, index, "", template.to(NUMBERS[0]))  # type: ignore[arg-type]  # no run
                journal.add(index.to_bytes(16, "big"), index, None, known, item)
        await journal.flush()
        for item in items:
            if end == "accepted":
                run_journal.record_accepted(item, "m-1")
            else:
                run_journal.record_failed(
                    item, Delivery.NOT_SENT, NotSentError("no connection", "generate_messaging_code")
                )
        while journal._is_writing:
            await asyncio.sleep(0)
    assert rows(path, f"SELECT total({end}) FROM second") == [(32,)]


async def test_a_full_batch_is_written_before_the_end_of_the_loop_iteration(tmp_path: pathlib.Path) -> None:
    """A small batch waits for the end of the iteration and is one transaction."""
    journal = SQLiteJournal(tmp_path / "run.db")
    sizes: list[int] = []
    apply = journal._file.apply

    def recorded(batch: Batch) -> Sequence[int | JournalRow]:
        sizes.append(batch.size)
        return apply(batch)

    journal._file.apply = recorded  # type: ignore[method-assign]
    async with journal:
        for index in range(1, 5):
            journal.add(index.to_bytes(16, "big"), index, None, ignore, None)
        await journal.flush()
        assert sizes == [4]
        for index in range(5, 505):
            journal.add(index.to_bytes(16, "big"), index, None, ignore, None)
        await journal.flush()
        assert sizes[1:3] == [32, 96]
        assert sum(sizes) == 504
        assert len(sizes) == 4, "changes collect while two writes are pending"
