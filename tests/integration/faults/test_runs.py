"""Rows 46 to 53 of the fault table: bulk runs, their journals and their input.

`tests/system` kills real processes, with their own loops and time. Here a real signal stops the run, and it is resumed
from the files that a kill at that moment would have left on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import pathlib
import shutil
import signal
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BulkSender,
    CodeTemplate,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    JournalError,
    MFAClient,
    NotSentError,
)
from bandwidth_mfa_async.cli._signals import SignalHandlers
from bandwidth_mfa_async.cli.bulk._rows import InputRow, RowReader
from bandwidth_mfa_async.cli.bulk._source import InputFileError, Source
from tests.conftest import APPLICATION, FROM
from tests.integration.faults.watch import MATRIX, Watch, prepare, send_all
from tests.support.fault_server import Act, FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import MakeClient

pytestmark = MATRIX

NUMBERS = [f"+1919555{index:04}" for index in range(20)]
SENT = (None, Delivery.ACCEPTED)
SKIPPED = (None, Delivery.SKIPPED)


def bulk(client: MFAClient, journal: pathlib.Path | None = None) -> BulkSender:
    return BulkSender(client, journal=journal, max_in_flight=1, ordered=True)


def texted(server: FaultServer) -> list[str]:
    """Return the numbers that a run texted, in order."""
    return [str(seen.document["to"]) for seen in server.seen if str(seen.document["to"]) in NUMBERS]


async def test_a_signal_drains_a_run(
    server: FaultServer, make_client: MakeClient, watch: Watch, tmp_path: pathlib.Path, warm: bool
) -> None:
    """Items in flight end, queued items are not sent, and the journal allows the rest to be sent."""
    client = make_client()
    await prepare(server, client, warm=warm)
    server.play(*[answer(delay=1.0)] * 4)
    server.play(answer(delay=1.0, before=lambda _server: os.kill(os.getpid(), signal.SIGTERM)))
    run = bulk(client, tmp_path / "run.db")
    with SignalHandlers() as signals, signals.during_run(run.stop):
        await watch.of(send_all(run, NUMBERS), client, server)
    outcome = {SENT: 5, (NotSentError, Delivery.NOT_SENT): 1}
    await watch.shows(outcome=outcome, ledger=(5, 5), pool=1, elapsed=5.0)
    assert run.summary.ending == "stopped"
    await watch.of(send_all(bulk(client, tmp_path / "run.db"), NUMBERS), client, server)
    await watch.shows(outcome={SKIPPED: 5, SENT: 15}, ledger=(15, 15), pool=1, elapsed=0)
    assert texted(server) == NUMBERS


@pytest.mark.parametrize("torn", [0, 96], ids=["47 kill -9", "48 in the middle of a write"])
async def test_a_killed_run_can_be_resumed(
    server: FaultServer, make_client: MakeClient, watch: Watch, tmp_path: pathlib.Path, torn: int, warm: bool
) -> None:
    """Completed items are skipped, items in flight are unknown and not sent again, and the rest is sent."""
    path, left = tmp_path / "run.db", tmp_path / "left.db"
    in_flight = asyncio.Event()

    def kill(_server: FaultServer) -> None:
        log = path.with_name("run.db-wal").read_bytes()
        shutil.copy(path, left)
        left.with_name("left.db-wal").write_bytes(log + log[32 : 32 + torn])
        in_flight.set()

    server.play(answer(), answer(), Act(then="hang", accepted=True, before=kill))
    killed = asyncio.create_task(send_all(bulk(make_client(), path), NUMBERS))
    await in_flight.wait()
    client = make_client()
    await prepare(server, client, warm=warm)
    await watch.of(send_all(bulk(client, left), NUMBERS), client, server)
    killed.cancel()
    await asyncio.wait([killed])
    outcome = {SKIPPED: 2, (DeliveryUnknownError, Delivery.UNKNOWN): 1, SENT: 17}
    await watch.shows(outcome=outcome, ledger=(17, 17), pool=1, elapsed=0)
    assert texted(server) == NUMBERS


async def test_a_full_disk_stops_sending(
    server: FaultServer,
    make_client: MakeClient,
    watch: Watch,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    warm: bool,
) -> None:
    """Nothing is sent whose intent is not on disk."""
    path, connect = tmp_path / "run.db", sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*arguments, **options)
        db.execute("PRAGMA max_page_count = 20")
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    client = make_client()
    await prepare(server, client, warm=warm)
    numbers = (f"+1919{index:07}" for index in range(2_000))
    error = await watch.of(send_all(bulk(client, path), numbers), client, server)
    with contextlib.closing(connect(path)) as db:
        (intents,) = db.execute("SELECT count(*) FROM item WHERE status <> 0").fetchone()
    assert 0 < intents < 2_000
    await watch.shows(outcome=(JournalError, None), ledger=(intents, intents), pool=1, elapsed=0)
    assert "the disk is full; free some space" in str(error)


async def test_a_duplicate_number_is_texted_once(
    server: FaultServer, make_client: MakeClient, watch: Watch, tmp_path: pathlib.Path, warm: bool
) -> None:
    """However close together the duplicates are, and however they are written."""
    client = make_client()
    await prepare(server, client, warm=warm)
    source = [*NUMBERS[:3] * 30, *NUMBERS, *NUMBERS]
    await watch.of(send_all(bulk(client, tmp_path / "run.db"), source), client, server)
    await watch.shows(outcome={SENT: 20, SKIPPED: 110}, ledger=(20, 20), pool=1, elapsed=0)
    assert texted(server) == NUMBERS


def requests(stream: Any) -> Iterator[Any]:
    """Yield the requests of a file, as the command line does."""
    reader = RowReader(Source(stream, "numbers.csv"), CodeTemplate(FROM, APPLICATION), "csv")
    for row in reader:
        yield row.template.to(row.to) if isinstance(row, InputRow) else InvalidRequestError("row", row.reason)


GOOD = NUMBERS[0].encode(), NUMBERS[1].encode()
BAD_ROWS = {
    "Latin-1": b"%b,Jos\xe9",
    "NUL": b"%b,\0",
    "too few cells": b"%b",
    "too many cells": b"%b,x,y",
    "a long field": b"%%b,%b" % (b"x" * 200_000),
    "no number": b"%.0b,x",
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte-order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS)
async def test_an_invalid_row_does_not_end_the_run(
    server: FaultServer, make_client: MakeClient, watch: Watch, row: bytes, end: bytes, mark: bytes, warm: bool
) -> None:
    """It is an invalid item and is not sent; the rows around it are."""
    client = make_client()
    await prepare(server, client, warm=warm)
    data = mark + end.join([b"to,name", GOOD[0] + b",x", row % NUMBERS[2].encode(), GOOD[1] + b",y", b""])
    await watch.of(send_all(bulk(client), requests(io.BytesIO(data))), client, server)
    outcome = {SENT: 2, (InvalidRequestError, Delivery.INVALID): 1}
    await watch.shows(outcome=outcome, ledger=(2, 2), pool=1, elapsed=0)
    assert texted(server) == NUMBERS[:2]


@pytest.mark.parametrize(
    ("data", "before"),
    [
        (b"", 0),
        ("to\n+19195550000\n".encode("utf-16"), 0),
        (b'to,message\n%b,"hi {CODE}\n%b,yo {CODE}\n' % GOOD, 0),
        (b'to,message\n%b,{CODE}\n%b,"hi {CODE}\n%b,yo\n' % (*GOOD, GOOD[0]), 1),
    ],
    ids=["51 empty", "51 UTF-16", "52 a quote that is not closed", "52 the same further on"],
)
async def test_a_file_that_cannot_be_parsed_ends_the_run(
    server: FaultServer, make_client: MakeClient, watch: Watch, data: bytes, before: int, warm: bool
) -> None:
    """The run ends at the broken row; no later row becomes part of a text."""
    client = make_client()
    await prepare(server, client, warm=warm)
    await watch.of(send_all(bulk(client), requests(io.BytesIO(data))), client, server)
    pool = int(warm or before > 0)
    await watch.shows(outcome=(InputFileError, None), ledger=(before, before), pool=pool, elapsed=0)


class Endless(io.RawIOBase):
    """A file with a row for every possible number."""

    def __init__(self) -> None:
        self.lines = itertools.chain([b"to\n"], (b"+1919%07d\n" % number for number in itertools.count()))
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += 1
        return b"".join(itertools.islice(self.lines, 100))


async def test_an_endless_file_takes_bounded_memory(
    server: FaultServer, make_client: MakeClient, watch: Watch, warm: bool
) -> None:
    """No more is read than is sent, so that ten million rows take no more memory than ten."""
    client, source = make_client(), Endless()
    await prepare(server, client, warm=warm)
    run = bulk(client)

    async def some() -> list[Any]:
        outcomes = []
        async with run:
            async for outcome in run.send(requests(source)):
                outcomes.append(outcome)
                if len(outcomes) == 250:
                    run.stop()
        return outcomes

    outcomes = await watch.of(some(), client, server)
    await watch.shows(outcome={SENT: len(outcomes)}, ledger=(len(outcomes),) * 2, pool=1, elapsed=0)
    assert run.summary.taken == len(outcomes) < 260
    assert source.given <= 4
