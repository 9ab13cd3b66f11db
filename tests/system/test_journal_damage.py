"""Journals that are damaged, incomplete, or reached by a name of their own."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from tests.support import processes

ROOT = pathlib.Path(__file__).parents[2]


def test_damage_sends_no_second_text() -> None:
    """Flipped bits and missing or cut logs end in a refusal or in true outcomes."""
    sizes = ["--flips", "90", "--frames", "20", "--kills", "3", "--items", "300", "--json"]
    command = [sys.executable, "-m", "tests.system.journal_damage", *sizes]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    found = json.loads(run.stdout)
    assert found["sound"], found
    assert sum(counter["refused"] for counter in found["found"].values()) > 60, found
    assert run.stderr == ""


MOUNTED = """
import asyncio, sys
from bandwidth_mfa_async import JournalError, SQLiteJournal

async def opened(path):
    try:
        async with SQLiteJournal(path):
            return "opened"
    except JournalError as error:
        return str(error)


print(asyncio.run(opened(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
def test_a_journal_that_is_mounted_by_itself_is_refused(tmp_path: pathlib.Path) -> None:
    """SQLite keeps the log beside the mount point, where no other container sees it; a mounted folder is fine."""
    (tmp_path / "real").mkdir()
    (tmp_path / "mounted").mkdir()
    (tmp_path / "one.db").touch()
    (tmp_path / "program.py").write_text(MOUNTED)
    real = tmp_path / "real" / "run.db"

    def opened(path: pathlib.Path, mount: str) -> str:
        script = f"{mount} exec {sys.executable} {tmp_path}/program.py {path}"
        command = ["unshare", "--mount", "sh", "-c", script]
        run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        if "Operation not permitted" in run.stderr or "permission denied" in run.stderr:
            pytest.skip("needs the right to mount")
        assert run.returncode == 0, run.stderr
        return str(run.stdout)

    assert opened(real, "") == "opened\n"
    refused = opened(tmp_path / "one.db", f"mount --bind {real} {tmp_path}/one.db &&")
    assert "this file is a mount point by itself; mount its folder, not the file" in refused
    assert opened(tmp_path / "mounted" / "run.db", f"mount --bind {tmp_path}/real {tmp_path}/mounted &&") == "opened\n"
    assert (tmp_path / "one.db").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("one")) == ["one.db"]
