"""What an `SQLiteStore` does about its file: foreign, newer, full, read-only, on a network, in use by others."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sqlite3
import stat
import threading
from typing import Any

import pytest

from bandwidth_mfa_async import BulkSender, ConfigurationError, MFAClient, SQLiteStore, StoreError
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.stores import KeyStatus, _sqlite_checks
from bandwidth_mfa_async.testing import FakeTransport


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def claim(store: SQLiteStore, key: str = "1f", seconds: float = 5.0) -> Any:
    lease = Lease(store.lease, store.clock)
    return await store.claim(key, "d", lease, begins=True, resends_unknown=False, deadline=soon(seconds))


async def test_the_file_is_its_owners_and_is_opened_at_first_use(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "codes.db"
    async with SQLiteStore(path) as store:
        assert not path.exists()
        await claim(store)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await claim(store)).status is KeyStatus.SENDING
    async with SQLiteStore(path) as again:
        assert (await claim(again)).status is KeyStatus.SENDING
    assert not [thread for thread in threading.enumerate() if thread.name == "bandwidth-mfa-store"]


async def test_two_stores_of_a_process_share_one_thread(tmp_path: pathlib.Path) -> None:
    first, second = SQLiteStore(tmp_path / "codes.db"), SQLiteStore(tmp_path / "codes.db")
    await claim(first)
    assert (await claim(second)).status is KeyStatus.SENDING
    assert len([thread for thread in threading.enumerate() if thread.name == "bandwidth-mfa-store"]) == 1
    await first.aclose()
    assert (await claim(second)).status is KeyStatus.SENDING
    await asyncio.gather(second.aclose(), first.aclose())
    assert (await claim(first)).status is KeyStatus.SENDING, "it reopens"
    await first.aclose()


async def test_a_foreign_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mine (x)")
    db.close()
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="another program's data"):
        await claim(store)
    await store.aclose()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="damaged, or not of this package"):
        await claim(store)
    await store.aclose()


async def test_a_newer_format_is_refused_and_the_next_one_is_not(tmp_path: pathlib.Path) -> None:
    """`reader` is the oldest format whose code may use the file, so formats N and N+1 work on one file."""
    path = tmp_path / "codes.db"
    async with SQLiteStore(path) as store:
        await claim(store)
    for reader, is_refused in (("1", False), ("2", True)):
        db = sqlite3.connect(path)
        db.execute("UPDATE fact SET value = '2' WHERE name = 'format'")
        db.execute("UPDATE fact SET value = ? WHERE name = 'reader'", (reader,))
        db.commit()
        db.close()
        async with SQLiteStore(path) as store:
            if is_refused:
                with pytest.raises(StoreError, match=r"newer.*pip install -U"):
                    await claim(store)
            else:
                assert (await claim(store)).status is KeyStatus.SENDING


async def test_a_full_store_keeps_what_it_has(tmp_path: pathlib.Path) -> None:
    async with SQLiteStore(tmp_path / "codes.db", max_size=80_000) as store:
        held = [await claim(store, f"{n:04x}") for n in range(50)]
        assert {record.status for record in held} == {KeyStatus.CLAIMED}
        with pytest.raises(StoreError, match="max_size"):
            for n in range(50, 2_000):
                await claim(store, f"{n:04x}")
        assert (await claim(store, "0001")).status is KeyStatus.SENDING


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everything")
async def test_a_read_only_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "codes.db"
    path.touch(0o400)
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreError, match="cannot be written"):
            await claim(store)


async def test_a_missing_folder(tmp_path: pathlib.Path) -> None:
    async with SQLiteStore(tmp_path / "none" / "codes.db") as store:
        with pytest.raises(StoreError, match="name a file in a folder that exists"):
            await claim(store)


async def test_a_hard_link_is_refused(tmp_path: pathlib.Path) -> None:
    async with SQLiteStore(tmp_path / "codes.db") as store:
        await claim(store)
    (tmp_path / "other.db").hardlink_to(tmp_path / "codes.db")
    async with SQLiteStore(tmp_path / "other.db") as store:
        with pytest.raises(StoreError, match="hard links"):
            await claim(store)


async def test_a_network_mount_is_refused_unless_allowed(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(_sqlite_checks, "network_mount", lambda folder: "nfs4")
    async with SQLiteStore(tmp_path / "codes.db") as store:
        with pytest.raises(StoreError, match=r"nfs4.*allow_network_mount"):
            await claim(store)
    async with SQLiteStore(tmp_path / "codes.db", allow_network_mount=True) as store:
        assert (await claim(store)).status is KeyStatus.CLAIMED


@pytest.mark.parametrize(("kind", "expected"), [("nfs4", "nfs4"), ("fuse.sshfs", "fuse.sshfs"), ("ext4", None)])
def test_the_kind_of_a_mount(kind: str, expected: str | None, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    device = tmp_path.stat().st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw - {kind} host:/x rw\n"
    table = tmp_path / "mountinfo"
    table.write_text(f"20 19 0:9999 / /proc rw shared:5 - proc proc rw\n{line}")
    real = open
    monkeypatch.setattr("builtins.open", lambda *arguments, **options: real(table, encoding="utf-8"))
    assert _sqlite_checks.network_mount(str(tmp_path)) == expected


async def test_another_writer_is_waited_for_within_the_time(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "codes.db"
    async with SQLiteStore(path) as store:
        await claim(store)
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreError, match="did not answer in time"):
            await claim(store, "2f", seconds=0.2)
        assert asyncio.get_running_loop().time() - began < 1.0
        waiting = asyncio.create_task(claim(store, "3f"))
        await asyncio.sleep(0.05)
        db.execute("COMMIT")
        assert (await waiting).status is KeyStatus.CLAIMED
        assert (await store.get("2f", "d", deadline=soon())).status is KeyStatus.ABSENT, "it must not run late"
        db.close()


async def test_a_journal_that_is_in_use_is_no_store(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "launch.db"
    fake = FakeTransport()
    async with fake.client() as client, BulkSender(client, journal=path) as bulk:
        stream = bulk.send([], template=None)
        async for _ in stream:
            pass
        async with SQLiteStore(path) as store:
            with pytest.raises(StoreError):
                await claim(store)


@pytest.mark.parametrize("path", ["", 5, b"codes.db", None])
def test_a_wrong_path(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        SQLiteStore(path)


def test_a_client_of_the_environment(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BW_ACCOUNT_ID": "1", "BW_USERNAME": "u", "BW_PASSWORD": "p"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BW_STORE_URL", f"sqlite:///{tmp_path}/my%20codes.db")
    store = MFAClient.from_env()._executor.state.store_use.store
    assert isinstance(store, SQLiteStore)
    assert store.path == f"{tmp_path}/my codes.db"
    assert MFAClient.from_env(store=None)._executor.state.store_use.store is None
    monkeypatch.setenv("BW_STORE_URL", "postgres://u:hunter2@h/d")
    with pytest.raises(ConfigurationError, match=r"^BW_STORE_URL: must look like") as caught:
        MFAClient.from_env()
    assert "hunter2" not in str(caught.value)


async def get(store: SQLiteStore, key: str = "1f", seconds: float = 5.0) -> Any:
    return await store.get(key, "d", deadline=soon(seconds))


async def test_a_read_does_not_wait_for_a_writer(tmp_path: pathlib.Path) -> None:
    """A read that swept expired records would need the lock that the writer holds."""
    path = tmp_path / "codes.db"
    async with SQLiteStore(path) as store:
        await claim(store)
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert [(await get(store)).status for _ in range(3)] == [KeyStatus.SENDING] * 3
        writer.execute("ROLLBACK")
        writer.close()


class WallClock(SystemClock):
    """A wall clock that only the test moves."""

    wall = 1_750_000_000.0

    def time(self) -> float:
        return self.wall


async def expired(store: SQLiteStore, path: pathlib.Path) -> int:
    db = sqlite3.connect(path)
    (found,) = db.execute("SELECT count(*) FROM record WHERE expires <= ?", (store.clock.time() * 1000,)).fetchone()
    db.close()
    return int(found)


async def test_expired_records_are_removed_as_fast_as_new_ones_come(tmp_path: pathlib.Path) -> None:
    path, clock = tmp_path / "codes.db", WallClock()
    async with SQLiteStore(path, retention=60, clock=clock) as store:
        await asyncio.gather(*(claim(store, f"{n:04x}") for n in range(1_000)))
        clock.wall += 61
        assert await expired(store, path) == 1_000
        await asyncio.gather(*(claim(store, f"a{n:04x}") for n in range(1_000)))
        assert await expired(store, path) == 0


async def test_a_full_store_whose_records_have_expired_takes_new_ones(tmp_path: pathlib.Path) -> None:
    path, clock = tmp_path / "codes.db", WallClock()
    async with SQLiteStore(path, retention=60, max_size=80_000, clock=clock) as store:
        with pytest.raises(StoreError, match="max_size"):
            for n in range(2_000):
                await claim(store, f"{n:04x}")
        clock.wall += 61
        assert (await claim(store, "ffff")).status is KeyStatus.CLAIMED


@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
async def test_a_file_that_is_removed_or_replaced_is_noticed_before_anything_is_sent(
    tmp_path: pathlib.Path, is_replaced: bool
) -> None:
    """Other processes use the new file, so a key claimed in the old one could be sent twice."""
    path = tmp_path / "codes.db"
    async with SQLiteStore(path) as store:
        await claim(store)
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"codes.db{suffix}").unlink()
        if is_replaced:
            async with SQLiteStore(tmp_path / "new.db") as other:
                await claim(other, "2f")
            (tmp_path / "new.db").rename(path)
        for _ in range(2):
            with pytest.raises(StoreError, match="was replaced or removed"):
                await claim(store, "2f")
    async with SQLiteStore(path) as store:
        status = (await claim(store, "2f")).status
        assert status is (KeyStatus.SENDING if is_replaced else KeyStatus.CLAIMED), "it uses the file of the others"
