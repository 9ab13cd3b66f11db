"""A store that was used before a fork works in both processes, and the child closes nothing of its parent."""

from __future__ import annotations

import sys

import pytest

from tests.support import processes


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_store_works_after_a_fork(kind, tmp_path, request):
    url = f"sqlite:///{tmp_path}/codes.db" if kind == "sqlite" else request.getfixturevalue("redis_server").url
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.system.stores._forked_process", url]
    done = processes.run(command, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
