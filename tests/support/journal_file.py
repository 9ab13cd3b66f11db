"""Journals with known content, written row by row in the format of a bulk run."""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async.bulk.journal._schema import APPLICATION_ID, MIGRATIONS, seal_sql
from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from pathlib import Path

RESEAL = f"UPDATE item SET seal = {seal_sql()}"
BEGAN = 1_795_411_309
STATUSES = ("pending", "sending", "accepted", "rejected", "not_sent", "unknown", "invalid")
COUNTED = (*STATUSES[2:], "throttled")
# Failures of a run through a faulty simulator: status, cause, HTTP status, the column `again`, and their share.
CAUSES = (
    ("rejected", "BadRequestError", 400, 0, 0.006),
    ("rejected", "RateLimitError", 429, 1, 0.004),
    ("rejected", "ServerError", 500, 1, 0.001),
    ("not_sent", "ConnectTimeoutError", None, 1, 0.002),
    ("unknown", "ReadTimeoutError", None, 0, 0.0015),
    ("unknown", "DisconnectedError", None, 0, 0.001),
    ("unknown", "ServerError", 502, 0, 0.0005),
    ("invalid", "InvalidRequestError", None, 0, 0.003),
)

_HOLDER = """
import asyncio, sys
from bandwidth_mfa_async import SQLiteJournal
async def main():
    async with SQLiteJournal(sys.argv[1]):
        print('open', flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@asynccontextmanager
async def held_by_another_process(path: Path) -> AsyncIterator[None]:
    """Keep a journal open in another process, and kill that at the end."""
    async with processes.running_async(sys.executable, "-c", _HOLDER, path, stdout=processes.PIPE) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        yield


def make_journal(
    path: Path,
    *,
    items: Iterable[tuple[str, str | None, int | None, int]] = (),
    seconds: Mapping[int, Mapping[str, int]] | None = None,
    latency: Iterable[float] = (),
    sessions: Iterable[tuple[float, float | None, str | None]] = ((BEGAN + 0.2, BEGAN + 60.0, "finished"),),
    possible_duplicate: bool | None = False,
    **meta: str,
) -> Path:
    """Write a journal: items as status, cause, HTTP status and the column `again`; latencies in seconds."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        for statement in itertools.chain.from_iterable(MIGRATIONS):
            connection.execute(statement)
        known = {"created_at": repr(BEGAN + 0.1), "run": "launch", "channel": "messaging", "template": "{}"}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", (known | {"made_by": "0.1.0"} | meta).items())
        connection.executemany(
            "INSERT INTO item (id, key, position, status, possible_duplicate, cause, http_status, again) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    number + 1,
                    number.to_bytes(16, "big"),
                    number,
                    STATUSES.index(status),
                    {"accepted": possible_duplicate, "unknown": True}.get(status, False),
                    *rest,
                )
                for number, (status, *rest) in enumerate(items)
            ),
        )
        connection.execute(RESEAL)
        for at, row in (seconds or {}).items():
            connection.execute(
                f"INSERT INTO second (at, {', '.join(COUNTED)}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (at, *(row.get(name, 0) for name in COUNTED)),
            )
        connection.executemany(
            "INSERT INTO latency VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            ((math.floor(10 * math.log10(seconds * 1e6)),) for seconds in latency),
        )
        connection.executemany("INSERT INTO session (started_at, ended_at, ending) VALUES (?, ?, ?)", sessions)
    return path


def make_launch(path: Path, *, items: int = 20_000, causes: Sequence[tuple[Any, ...]] = CAUSES) -> Path:
    """Write the journal of a typical run: killed once, resumed after a pause, with failures and a rate limit."""
    rate, pause, seed = 110, 5_400, 3
    rng = random.Random(seed)
    rows: list[tuple[str, str | None, int | None, int]] = []
    seconds: dict[int, dict[str, int]] = {}
    at, killed_at, settled, resumed = BEGAN, items * 2 // 5, 0, BEGAN
    while settled < items:
        if settled >= killed_at and resumed == BEGAN:
            at = resumed = at + pause
        # The learned rate rises to the account's limit, drops after a 429, and rises again.
        phase = (at - resumed) % 40
        number = min(items - settled, max(1, round(rate * (0.55 + 0.011 * phase) + rng.gauss(0, rate / 25))))
        row = dict.fromkeys(COUNTED, 0)
        for _ in range(number):
            drawn = rng.random()
            status, cause, http_status, again = "accepted", None, None, 0
            for *candidate, share in causes:
                if (drawn := drawn - share) < 0:
                    status, cause, http_status, again = candidate
                    break
            rows.append((status, cause, http_status, again))
            row[status] += 1
        row["throttled"] = rng.randrange(4, 14) if phase == 39 else 0
        seconds[at] = row
        settled += number
        at += 1
    answered = [rng.lognormvariate(math.log(0.085), 0.42) for _ in range(items)]
    sessions = [(BEGAN + 0.2, None, None), (resumed + 0.1, at + 0.0, "finished")]
    return make_journal(path, items=rows, seconds=seconds, latency=answered, sessions=sessions)
