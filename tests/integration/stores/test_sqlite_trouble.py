"""An `SQLiteStore` whose file is in use by others, replaced, damaged, or full of what has expired."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pathlib
import re
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import MFAClient, SQLiteStore, StoreError
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.stores import KeyStatus, _sqlite_file
from tests.conftest import TO
from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bandwidth_mfa_async import CodeTemplate

KILLED = """
import asyncio, os, sys
from bandwidth_mfa_async import SQLiteStore
from bandwidth_mfa_async._lease import Lease

async def main():
    store = SQLiteStore(sys.argv[1])
    for number in range(20):
        until = store.clock.monotonic() + 20
        lease = Lease(store.lease, store.clock)
        await store.claim(f"{number:04x}", "d", lease, begins=1, resends_unknown=False, deadline=until)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def claim(store: SQLiteStore, key: str = "1f", seconds: float = 5.0) -> Any:
    lease = Lease(store.lease, store.clock)
    return await store.claim(key, "d", lease, begins=1, resends_unknown=False, deadline=soon(seconds))


async def get(store: SQLiteStore, key: str = "1f", seconds: float = 5.0) -> Any:
    return await store.get(key, "d", deadline=soon(seconds))


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "codes.db"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as sim:
        yield sim


# In use by others.


async def test_a_read_waits_for_a_program_that_keeps_readers_out(path: pathlib.Path) -> None:
    """As one does that recovers the log, or that vacuums the file."""
    async with SQLiteStore(path) as store:
        await claim(store)
    db = sqlite3.connect(path, isolation_level=None, timeout=0)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("UPDATE fact SET value = value")
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreError, match="did not answer in time"):
            await get(store, seconds=0.2)
        waiting = asyncio.create_task(get(store))
        writing = asyncio.create_task(claim(store, "2f"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        db.close()
        assert (await waiting).status is KeyStatus.SENDING
        assert (await writing).status is KeyStatus.CLAIMED


async def test_a_read_that_meets_a_busy_file_begins_again(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process recovers the log, not the beginning of a read fails, but its first statement."""
    read, left = _sqlite_file.StoreFile._get, [3]

    def read_busy(self: Any, db: Any, key: str) -> Any:
        if left[0]:
            left[0] -= 1
            raise sqlite3.OperationalError("database is locked")
        return read(self, db, key)

    async with SQLiteStore(path) as store:
        await claim(store)
        monkeypatch.setattr(_sqlite_file.StoreFile, "_get", read_busy)
        assert (await get(store)).status is KeyStatus.SENDING
        left[0] = 3
        assert (await claim(store, "2f")).status is KeyStatus.CLAIMED
        left[0] = 10**9
        with pytest.raises(StoreError, match="did not answer in time"):
            await get(store, seconds=0.1)


async def test_a_process_waits_while_another_checks_the_file(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreError, match="did not answer in time"):
            await claim(store, seconds=0.1)
        waiting = asyncio.create_task(claim(store))
        await asyncio.sleep(0.05)
        os.close(fd)
        assert (await waiting).status is KeyStatus.CLAIMED


# Replaced or removed.


def link(name: pathlib.Path, path: pathlib.Path) -> None:
    name.symlink_to(path)


def move(path: pathlib.Path, to: pathlib.Path) -> None:
    path.rename(to)


def put_away(path: pathlib.Path, folder: pathlib.Path, what: str) -> None:
    if what == "removed":
        path.unlink()
    elif what == "replaced":
        (folder / "new.db").touch()
        (folder / "new.db").replace(path)
    elif what == "moved":
        path.rename(folder / "elsewhere.db")
    elif what == "link":
        (folder / "name.db").unlink()
        (folder / "name.db").symlink_to(folder / "another.db")
    else:
        pathlib.Path(f"{path}{what}").unlink()


@pytest.mark.parametrize("what", ["removed", "replaced", "moved", "-wal", "-shm", "link"])
async def test_a_file_that_is_not_the_one_in_use_is_noticed(
    path: pathlib.Path, tmp_path: pathlib.Path, sim: Simulator, template: CodeTemplate, what: str
) -> None:
    name = path
    if what == "link":
        name = tmp_path / "name.db"
        link(name, path)
    async with SQLiteStore(name) as store, MFAClient(**sim.client_kwargs(), store=store) as client:
        await client.generate_messaging_code(template.to(TO), idempotency_key="1")
        put_away(path, tmp_path, what)
        for _ in range(2):
            with pytest.raises(StoreError, match="was replaced or removed while it was in use"):
                await client.generate_messaging_code(template.to(TO), idempotency_key="2")
            with pytest.raises(StoreError, match="was replaced or removed while it was in use"):
                await get(store)
        if what == "moved":  # and put back
            move(tmp_path / "elsewhere.db", path)
            await client.generate_messaging_code(template.to(TO), idempotency_key="2")
    assert len(sim.inbox) == 1 + (what == "moved")


async def test_a_store_closes_without_touching_the_file_in_its_place(
    path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    old = SQLiteStore(path)
    await claim(old)
    for name in ("", "-wal", "-shm"):
        move(pathlib.Path(f"{path}{name}"), tmp_path / f"old.db{name}")
    code = KILLED.replace("os.kill(os.getpid(), 9)", "os._exit(0)")
    done = await asyncio.to_thread(processes.run, [sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 0
    with pytest.raises(StoreError, match="replaced or removed"):
        await claim(old)
    await old.aclose()
    async with SQLiteStore(path) as new:
        assert (await get(new, "0013")).status is KeyStatus.SENDING


async def test_a_change_of_the_working_folder_is_none_of_the_file(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    async with SQLiteStore(path.name) as store:
        await claim(store)
        monkeypatch.chdir("/")
        assert (await get(store)).status is KeyStatus.SENDING


# Damaged.


def kill_a_process(path: pathlib.Path) -> None:
    done = processes.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9


def flip(path: pathlib.Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(wal: pathlib.Path) -> None:
    """Leave an incomplete transaction at the end."""
    os.truncate(wal, wal.stat().st_size - 100)


def damage(path: pathlib.Path, what: str) -> None:
    wal = pathlib.Path(f"{path}-wal")
    if what == "header":
        flip(wal, 20)
    elif what == "frame":
        flip(wal, 32 + (24 + 4096) * 12 + 2_000)
    elif what == "missing":
        path.unlink()
    elif what == "empty":
        path.write_bytes(b"")
    else:
        found = re.search(rb'k:0040[0-9a-f]{8}[{].*?"s":"1', path.read_bytes())  # the index has the name too
        assert found is not None
        flip(path, found.start() if what == "page" else found.end() - 1)


async def test_the_log_of_a_killed_process_is_used(path: pathlib.Path) -> None:
    await asyncio.to_thread(kill_a_process, path)
    cut(pathlib.Path(f"{path}-wal"))
    async with SQLiteStore(path) as store:
        assert (await get(store, "0012")).status is KeyStatus.SENDING


@pytest.mark.parametrize("what", ["header", "frame", "page", "record", "missing", "empty"])
async def test_damage_is_found_before_anything_is_sent(
    path: pathlib.Path, sim: Simulator, template: CodeTemplate, what: str
) -> None:
    if what in {"header", "frame", "missing", "empty"}:
        await asyncio.to_thread(kill_a_process, path)
    else:
        async with SQLiteStore(path) as store:
            for n in range(100):
                await claim(store, f"{n:04x}")
    damage(path, what)
    async with SQLiteStore(path) as store, MFAClient(**sim.client_kwargs(), store=store) as client:
        if what == "record":
            with pytest.raises(StoreError, match=r"damaged .*checksum"):
                await get(store, "0040")
            return
        with pytest.raises(StoreError, match=r"the store is damaged \(.*restore a copy"):
            await client.generate_messaging_code(template.to(TO), idempotency_key="1")
        assert not sim.inbox
        assert "journal" not in str(await asyncio.gather(get(store), return_exceptions=True))
