"""The journal's file: what is on disk when, who may use it, and what it says when it cannot be used."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sqlite3
import stat
import sys
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
from bandwidth_mfa_async.bulk import _schema, _store
from bandwidth_mfa_async.bulk._item import Item
from bandwidth_mfa_async.bulk._keys import Keys
from bandwidth_mfa_async.bulk._record import Record
from bandwidth_mfa_async.bulk._schema import Status
from bandwidth_mfa_async.bulk._store import Batch, Row, Store
from tests.support import processes
from tests.support.fault_server import Act, FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


async def test_no_request_without_its_intent_on_disk(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Whenever the server reads a request, as many rows at least say that they are being sent or were."""
    path = tmp_path / "run.db"
    seen: list[tuple[int, int]] = []

    def look(fault_server: FaultServer) -> None:
        begun = rows(path, "SELECT count(*) FROM item WHERE status <> 0")[0][0]
        seen.append((len(fault_server.seen), begun))

    server.default = Act(answer().reply, accepted=True, before=look)
    await send(make_client(), path, template)
    assert len(seen) == 20
    assert all(requests <= begun for requests, begun in seen)


async def test_the_file_holds_no_number_and_is_the_owners(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Digests, positions and outcomes; no number, no text, no credential, in any of its files."""
    path = tmp_path / "run.db"
    await send(make_client(), path, template, [*NUMBERS, "+1919bad5551111"])
    secrets = [*NUMBERS, *(number[1:] for number in NUMBERS), template.from_, "5551111", "user", "pass", "{CODE}"]
    for file in await asyncio.to_thread(lambda: list(tmp_path.iterdir())):
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], file.name
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 or file.name.endswith("-lock"), file.name
    assert path.stat().st_size > 1000


async def test_what_is_done_is_skipped(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """A second run of the same input texts nobody, and still gives every id."""
    path = tmp_path / "run.db"
    first = await send(make_client(), path, template)
    second = await send(make_client(), path, template)
    assert len(server.seen) == 20
    assert {outcome.delivery for outcome in second} == {Delivery.SKIPPED}
    assert [o.response.message_id for o in second if o.response] == [o.response.message_id for o in first if o.response]
    assert [outcome.key for outcome in second] == [outcome.key for outcome in first]
    assert {outcome.previous for outcome in second} == {Delivery.ACCEPTED}


async def test_a_repeat_in_the_input_is_sent_once(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """However close together the repeats are: under way at once, or long after."""
    outcomes = await send(make_client(), tmp_path / "run.db", template, [*NUMBERS[:3] * 30, *NUMBERS, *NUMBERS])
    assert sorted(str(seen.document["to"]) for seen in server.seen) == NUMBERS
    kinds = [outcome.delivery for outcome in outcomes]
    assert kinds.count(Delivery.ACCEPTED) == 20
    assert kinds.count(Delivery.SKIPPED) == 90 + 40 - 20


async def test_another_run_name_sends_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The default key holds number, template and run name."""
    path = tmp_path / "run.db"
    await send(make_client(), SQLiteJournal(path, run="monday"), template)
    await send(make_client(), SQLiteJournal(path, run="tuesday"), template)
    await send(make_client(), SQLiteJournal(path, run="tuesday"), template)
    assert len(server.seen) == 40


async def test_keys_of_the_users_own(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The same key with the same request is done; with another request it is an error of that item."""
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
async def test_what_is_refused_for_good(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    status: int,
    final: bool,
) -> None:
    """An item's own fault stays its fault; what was the account's or the service's fault is tried again."""
    path = tmp_path / "run.db"
    server.default = answer(status, {"error": "no", "requestId": "r"})
    first = await send(make_client(), path, template, NUMBERS[:2])
    assert {outcome.delivery for outcome in first} == {Delivery.REJECTED}
    assert await counts(path) == {"rejected": 2}
    server.default = answer()
    second = await send(make_client(), path, template, NUMBERS[:2])
    assert {outcome.delivery for outcome in second} == {Delivery.SKIPPED if final else Delivery.ACCEPTED}
    assert {outcome.previous for outcome in second} == {Delivery.REJECTED if final else None}


async def test_invalid_items_are_counted_once(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """A bad number is named in every run, and is one row."""
    path = tmp_path / "run.db"
    for _ in range(2):
        outcomes = await send(make_client(), path, template, ["bad", *NUMBERS])
        assert outcomes[0].delivery is Delivery.INVALID
    assert await counts(path) == {"accepted": 20, "invalid": 1}


async def test_the_charts_agree_with_the_items(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The tables that a report reads add up to what happened."""
    path = tmp_path / "run.db"
    server.play(answer(429, {}), answer(400, {"error": "no", "requestId": "r"}))
    await send(make_client(limits=Limits(adaptive=False)), path, template, [*NUMBERS, "bad"])
    totals = rows(path, "SELECT sum(accepted), sum(rejected), sum(invalid), sum(throttled) FROM second")
    assert totals == [(19, 1, 1, 1)]
    assert rows(path, "SELECT sum(count) FROM latency") == [(20,)]
    assert rows(path, "SELECT ending FROM session") == [("finished",)]
    assert rows(path, "SELECT DISTINCT attempts FROM item WHERE status = 2 ORDER BY 1") == [(1,), (2,)]


async def test_another_template_is_refused_with_the_difference_named(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Nothing is sent, and neither value is shown."""
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


# What was under way when a run was killed.


def id_of(known: int | Row) -> int:
    return known if isinstance(known, int) else known.id


def interrupted(path: pathlib.Path, template: CodeTemplate, numbers: list[str]) -> None:
    """Make the file of a run that was killed with these numbers under way."""
    keys = Keys("messaging", "")
    store = Store(str(path))
    store.open(1_700_000_000.0)
    batch = Batch()
    for position, number in enumerate(numbers):
        batch.keys += keys.of(template.to(number))
        batch.positions.append(position)
        batch.payloads += bytes(8)
    known = store.apply(batch)
    store.apply(Batch(begun=dict.fromkeys(map(id_of, known))))
    store._release()


async def test_what_was_under_way_at_a_kill_is_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """In this run and in every later one, and it is not sent again; the rest is."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(interrupted, path, template, NUMBERS[:3])
    for rest in (Delivery.ACCEPTED, Delivery.SKIPPED):
        outcomes = await send(make_client(), path, template)
        assert [outcome.delivery for outcome in outcomes] == [Delivery.UNKNOWN] * 3 + [rest] * 17
        assert all(isinstance(outcome.error, DeliveryUnknownError) for outcome in outcomes[:3])
        assert all("earlier run" in str(outcome.error) for outcome in outcomes[:3])
    assert sorted(str(seen.document["to"]) for seen in server.seen) == NUMBERS[3:]
    assert rows(path, "SELECT DISTINCT cause FROM item WHERE status = 5") == [("InterruptedRun",)]


async def test_at_least_once_sends_the_unknown_again(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """And says that they may have got two; one that is refused now is as unknown as before."""
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


async def test_a_clock_that_was_set_back(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """What an earlier run could not know is as unknown as ever, and not taken for something of this run."""
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


async def test_an_unknown_number_twice_in_the_input(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """What came to be unknown in this run is skipped when it comes again, so that it is counted once."""
    server.play(Act(then="fin"))
    async with BulkSender(make_client(), journal=tmp_path / "run.db", max_in_flight=1, ordered=True) as bulk:
        outcomes = [o async for o in bulk.send([NUMBERS[0], *NUMBERS[1:6], NUMBERS[0]], template=template)]
    assert [outcomes[0].delivery, outcomes[-1].delivery] == [Delivery.UNKNOWN, Delivery.SKIPPED]
    assert outcomes[-1].previous is Delivery.UNKNOWN
    assert bulk.summary.unknown == 1


@pytest.mark.virtual_time
async def test_a_stopped_run_leaves_nothing_unknown(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """What waits for its turn when a run is stopped is sent by the next one."""
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


async def test_a_cut_run_knows_what_it_cut(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """Cancelled, a run writes down which items may have gone out; the others are sent by the next one."""
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
    store = Store(str(path))
    store.open(1_700_000_000.0)
    batch = Batch()
    for index in range(2_000):
        batch.keys += index.to_bytes(16, "big")
        batch.positions.append(index)
        batch.payloads += bytes(8)
    store.apply(batch)
    store.close("finished", 1_700_000_001.0)


def folder(path: pathlib.Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (newer, "newer bandwidth-mfa-async"),
        (foreign, "another program's database"),
        (text, "damaged, or no journal"),
        (torn, "damaged"),
        (scribbled, "damaged"),
        (folder, "is a folder"),
    ],
)
async def test_a_file_that_is_no_journal(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    make: Callable[[pathlib.Path], None],
    says: str,
) -> None:
    """It is named, it is not touched, and nothing is sent."""
    path = tmp_path / "run.db"
    await asyncio.to_thread(make, path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(JournalError, match=says) as caught:
        await send(make_client(), path, template)
    assert str(path) in str(caught.value)
    assert server.seen == []
    assert path.is_dir() or path.read_bytes() == before


@pytest.mark.parametrize("path", ["/proc/run.db", "/nowhere/at/all/run.db"])
async def test_a_place_that_cannot_be_written(make_client: MakeClient, template: CodeTemplate, path: str) -> None:
    """A folder that is read-only, for root too, or does not exist."""
    with pytest.raises(JournalError, match="folder"):
        await send(make_client(), path, template)


async def test_one_run_at_a_time(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """A second process, or a second run of this one, is told to wait; a reader is not kept out; death unlocks."""
    path = tmp_path / "run.db"
    holder = (
        "import asyncio, sys\n"
        "from bandwidth_mfa_async import SQLiteJournal\n"
        "async def main():\n"
        "    async with SQLiteJournal(sys.argv[1]):\n"
        "        print('open', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with processes.running_async(sys.executable, "-c", holder, path, stdout=processes.PIPE) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
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


async def test_a_full_disk(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run ends with what to do; what had no intent on disk was not sent; with space again it goes on."""
    path = tmp_path / "run.db"
    numbers = [f"+1919{index:07}" for index in range(2_000)]
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.execute("PRAGMA max_page_count = 60")
        return db

    monkeypatch.setattr(_store.sqlite3, "connect", small)
    outcomes = []
    async with BulkSender(make_client(), journal=path, max_in_flight=5) as bulk:
        with pytest.raises(JournalError, match="the disk is full; free some space"):
            async for outcome in bulk.send(numbers, template=template):
                outcomes.append(outcome)
    assert bulk.summary.ending == "failed"
    assert len(outcomes) == bulk.summary.taken < 2_000
    begun = rows(path, "SELECT count(*) FROM item WHERE status <> 0")[0][0]
    assert len(server.seen) <= begun
    monkeypatch.setattr(_store.sqlite3, "connect", connect)
    await send(make_client(), path, template, numbers)
    texted = [str(seen.document["to"]) for seen in server.seen]
    assert len(texted) == len(set(texted))
    found = await counts(path)
    assert found.get("accepted", 0) + found.get("unknown", 0) == 2_000
    assert found.get("unknown", 0) <= 5


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_a_journal_by_another_name(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, kind: str
) -> None:
    """A symbolic link leads to the same file, so to the same lock; what it leads to is its owner's from the start."""
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
async def test_a_result_that_cannot_be_written_is_told_once(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """By the stream, or by leaving the `async with` when nobody reads that far; an error on its way stays."""
    path = tmp_path / "run.db"
    apply = Store.apply

    def fails(store: Store, batch: Batch) -> Any:
        if batch.accepted:
            raise JournalError("no room")
        return apply(store, batch)

    monkeypatch.setattr(Store, "apply", fails)
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
    monkeypatch.setattr(Store, "apply", apply)
    assert await counts(path) == {"unknown": 1}


@pytest.mark.parametrize("turns", [0, 1, 2, 4, 7, 12, 20, 40])
async def test_a_cancellation_while_the_file_is_closed(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, turns: int
) -> None:
    """At whatever moment, and twice: every result is on disk and the file is let go of, for the next run to use."""
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


async def test_an_older_file_is_brought_up_to_date(
    make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version's step runs once, in one transaction, and keeps what is there; an interrupted one leaves all."""
    path = tmp_path / "run.db"
    await send(make_client(), path, template)
    broken = (*_schema.MIGRATIONS, ("ALTER TABLE item ADD COLUMN note TEXT", "this is no SQL"))
    monkeypatch.setattr(_store, "MIGRATIONS", broken)
    with pytest.raises(JournalError):
        await counts(path)
    assert rows(path, "PRAGMA user_version") == [(1,)]
    monkeypatch.setattr(_store, "MIGRATIONS", (*_schema.MIGRATIONS, ("ALTER TABLE item ADD COLUMN note TEXT",)))
    for _ in range(2):
        assert await counts(path) == {"accepted": 20}
    assert rows(path, "PRAGMA user_version") == [(2,)]
    assert rows(path, "SELECT DISTINCT note FROM item") == [(None,)]
    monkeypatch.setattr(_store, "MIGRATIONS", _schema.MIGRATIONS)
    with pytest.raises(JournalError, match="newer"):
        await counts(path)


async def test_an_old_sqlite(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite without what the journal needs is named."""
    monkeypatch.setattr(_store.sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(JournalError, match=r"SQLite 3\.33"):
        await counts(tmp_path / "run.db")


def test_bad_arguments(template: CodeTemplate) -> None:
    """Each is named."""
    for path in ("", ":memory:", "file:x?mode=memory", "a\0b", b"x"):
        with pytest.raises(ConfigurationError, match="journal"):
            SQLiteJournal(path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="run"):
        SQLiteJournal("x.db", run=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="template"):
        SQLiteJournal("x.db", template=template.to("+19195551234"))  # type: ignore[arg-type]


async def test_a_closed_journal(tmp_path: pathlib.Path) -> None:
    """Looking into one that is not open is an error that says so."""
    journal = SQLiteJournal(tmp_path / "run.db")
    with pytest.raises(ClientStateError, match="not open"):
        await journal.counts()
    await journal.aclose()
    async with journal:
        assert journal.is_open
    assert not journal.is_open
    async with journal:
        assert await journal.counts() == {}


def test_states_are_words_of_the_design() -> None:
    """The issue's list, in its words."""
    words = "pending sending accepted rejected not_sent unknown invalid"
    assert [status.name.lower() for status in Status] == words.split()


# Batches on their way to the disk.


def new_items(*names: int) -> Batch:
    batch = Batch()
    for name in names:
        batch.keys += name.to_bytes(16, "big")
        batch.positions.append(name)
        batch.payloads += bytes(8)
    return batch


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    """And nothing is written after one that failed, until the file is opened anew."""
    path = tmp_path / "run.db"
    store = Store(str(path))
    store.open(1_700_000_000.0)
    first, second = map(id_of, store.apply(new_items(1, 2)))
    assert store._db is not None
    store._db.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON item WHEN NEW.position = 5 "
        "BEGIN SELECT raise(ABORT, 'disk full'); END"
    )
    batch = new_items(3, 4, 5)
    batch.begun[first] = None
    batch.accept(second, "m-2", 1, 1_700_000_001.0)
    with pytest.raises(JournalError, match="free some space"):
        store.apply(batch)
    with pytest.raises(JournalError, match="free some space"):
        store.apply(Batch(begun={first: None}))
    assert rows(path) == [(Status.PENDING,), (Status.PENDING,)]
    store._release()
    store.open(1_700_000_002.0)
    store.apply(Batch(begun={first: None}))
    assert rows(path) == [(Status.SENDING,), (Status.PENDING,)]
    store._release()


def test_items_that_are_not_all_new(tmp_path: pathlib.Path) -> None:
    """Each is told what is known of it, by its place in the batch; no row has another's id."""
    store = Store(str(tmp_path / "run.db"))
    store.open(1_700_000_000.0)
    one, two = store.apply(new_items(1, 2))
    assert isinstance(one, int), "all are new, and so just numbered"
    assert isinstance(two, int)
    again, new, twice, more = store.apply(new_items(2, 3, 3, 4))
    assert again == Row(two, Status.PENDING)
    assert new == twice
    assert len({one, two, id_of(new), id_of(more)}) == 4
    assert [id_of(known) for known in store.apply(new_items(4, 5, 1))][::2] == [id_of(more), one]
    store._release()


@pytest.mark.parametrize("provider_id", ["1589228074636lm4k2je7j7jklbn2", "", 'é"\\\n\u2028,1', "x" * 3000])
@pytest.mark.parametrize(
    ("at", "first", "attempts"),
    [(1_732_812_345.139509, 1, 1), (1e10, 10**15 - 2, 999_999_987), (0.0, 7, 0), (-1.5, 7, 100_000)],
)
def test_an_accepted_item_in_full(
    tmp_path: pathlib.Path, provider_id: str, at: float, first: int, attempts: int
) -> None:
    """Its attempts add up over the runs, and nothing is left of how an earlier one failed."""
    path = tmp_path / "run.db"
    store = Store(str(path))
    store.open(1_700_000_000.0)
    store._next_id = first
    (row, other) = map(id_of, store.apply(new_items(1, 2)))
    failed = (Status.NOT_SENT, None, "ServerError", 503, True, 12, 1_700_000_001.0)
    store.apply(Batch(settled={row: failed, other: failed}))
    store.apply(Batch(begun={row: None}))
    batch = Batch()
    batch.accept(row, provider_id, attempts, at)
    store.apply(batch)
    store._release()
    columns = "status, provider_id, cause, http_status, again, attempts, settled_at"
    assert rows(path, f"SELECT {columns} FROM item ORDER BY id") == [
        (Status.ACCEPTED, provider_id, None, None, 0, attempts + 12, at),
        (Status.NOT_SENT, None, "ServerError", 503, 1, 12, 1_700_000_001.0),
    ]


def ignored(_item: None, _known: int | Row | JournalError) -> None:
    """What a run does with an item once it is on disk."""


async def test_a_journal_that_failed_keeps_nobody_waiting(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes afterwards, such as an item that was between two attempts, is told at once."""

    def fails(_store: Store, _batch: Batch) -> Any:
        raise JournalError("no room")

    told: list[int | Row | JournalError] = []
    journal = SQLiteJournal(tmp_path / "run.db")
    await journal.open()
    monkeypatch.setattr(Store, "apply", fails)
    with pytest.raises(JournalError, match="no room"):
        await asyncio.wait_for(journal.begin(1), 5)
    with pytest.raises(JournalError, match="no room"):
        await asyncio.wait_for(journal.begin(1), 5)
    journal.add(bytes(16), 0, None, lambda _item, known: told.append(known), None)
    assert [str(error) for error in told] == ["no room"]
    with pytest.raises(JournalError, match="no room"):
        await journal.aclose()


def test_a_new_item_that_comes_again(template: CodeTemplate) -> None:
    """The second is not sent while the first waits for its turn, of which nothing on disk tells yet."""

    class Deaf:
        def accept(self, *_columns: object) -> None:
            """Write nothing."""

    journal: Any = Deaf()
    record = Record(journal, ManualClock(), "messaging", "generate_messaging_code", resends_unknown=False)
    items = [Item(None, index, "", template.to(NUMBERS[0])) for index in range(3)]  # type: ignore[arg-type]  # no run
    assert record.begin(items[0], 7) is None
    outcome = record.begin(items[1], Row(7, Status.PENDING))
    assert outcome is not None
    assert (outcome.delivery, outcome.previous) == (Delivery.SKIPPED, None)
    record.accepted(items[0], "m-1")
    outcome = record.begin(items[2], Row(7, Status.ACCEPTED, provider_id="m-1", attempts=1))
    assert outcome is not None
    assert (outcome.delivery, outcome.previous) == (Delivery.SKIPPED, Delivery.ACCEPTED)


async def test_an_invalid_item_of_a_run_that_was_killed(tmp_path: pathlib.Path) -> None:
    """Its row came to the disk and its end did not: the next run ends it."""
    path = tmp_path / "run.db"
    for _ in range(2):
        journal = SQLiteJournal(path)
        record = Record(journal, SystemClock(), "messaging", "generate_messaging_code", resends_unknown=False)
        async with journal:
            record.invalid("no number", 0, pytest.fail)
            await journal.flush()
            assert await journal.counts() == {"invalid": 1}
        with sqlite3.connect(path) as db:
            db.execute("UPDATE item SET status = 0")
        db.close()


@pytest.mark.parametrize("end", ["accepted", "not_sent", "invalid"])
async def test_what_fills_a_batch_is_counted_in_it(tmp_path: pathlib.Path, template: CodeTemplate, end: str) -> None:
    """A batch is handed over in the moment it is large; nobody may tell anything more after its last end."""
    path = tmp_path / "run.db"
    journal = SQLiteJournal(path)
    record = Record(journal, SystemClock(), "messaging", "generate_messaging_code", resends_unknown=False)
    async with journal:
        items: list[Item] = []

        def known(item: Item, row: int | Row | JournalError) -> None:
            assert not isinstance(row, JournalError)
            record.begin(item, row)
            items.append(item)

        for index in range(32):
            if end == "invalid":
                record.invalid(f"no number {index}", index, pytest.fail)
            else:
                item = Item(None, index, "", template.to(NUMBERS[0]))  # type: ignore[arg-type]  # no run
                journal.add(index.to_bytes(16, "big"), index, None, known, item)
        await journal.flush()
        for item in items:
            if end == "accepted":
                record.accepted(item, "m-1")
            else:
                record.failed(item, Delivery.NOT_SENT, NotSentError("no connection", "generate_messaging_code"))
        while journal._writing:
            await asyncio.sleep(0)
    assert rows(path, f"SELECT total({end}) FROM second") == [(32,)]


async def test_a_busy_run_and_its_disk_work_side_by_side(tmp_path: pathlib.Path) -> None:
    """Much in one round of the loop does not wait for the round's end; little does, and is one transaction."""
    journal = SQLiteJournal(tmp_path / "run.db")
    sizes: list[int] = []
    apply = journal._store.apply

    def noted(batch: Batch) -> Sequence[int | Row]:
        sizes.append(batch.size)
        return apply(batch)

    journal._store.apply = noted  # type: ignore[method-assign]
    async with journal:
        for index in range(1, 5):
            journal.add(index.to_bytes(16, "big"), index, None, ignored, None)
        await journal.flush()
        assert sizes == [4]
        for index in range(5, 505):
            journal.add(index.to_bytes(16, "big"), index, None, ignored, None)
        await journal.flush()
        assert sizes[1:3] == [32, 96]
        assert sum(sizes) == 504
        assert len(sizes) == 4, "what comes while two are on their way gathers"
