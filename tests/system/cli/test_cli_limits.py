"""`--rate`, `--redis` and `limits` in processes that share a Redis: what they share, show, and never show."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from bandwidth_mfa_async.simulator import Simulator
from tests.support import processes
from tests.support.fault_server import environment

SENDER = ("--from", "+19195554321", "--application-id", "app")


def run(*args, **env):
    """Run the command in a separate process."""
    return processes.run(
        [sys.executable, "-m", "bandwidth_mfa_async", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "COLUMNS": "80", **env},
    )


async def test_limits_shows_what_send_used(guarded):
    """The password comes from the environment and is not printed."""
    async with Simulator() as sim:
        env = {**environment(sim), "BW_REDIS_URL": guarded.url}
        for command in ("send", "call"):
            sent = await asyncio.to_thread(lambda c=command: run(c, "+19195551234", *SENDER, "--rate", "50/s", **env))
            assert (sent.returncode, sent.stderr) == (0, "")
        table = await asyncio.to_thread(lambda: run("limits", "--once", **env))
        assert table.returncode == 0
        assert max(map(len, table.stdout.splitlines())) <= 80
        assert "no 429s" in table.stdout
        assert table.stdout.startswith("limits, all processes together")
        found = await asyncio.to_thread(lambda: run("limits", "--once", "--json", **env))
        document = json.loads(found.stdout)
        assert {name: channel["accepted"] for name, channel in document.items()} == {"messaging": 1, "voice": 1}
        assert document["messaging"]["rate"] == document["voice"]["rate"] == 50
        assert "hunter2" not in table.stdout + found.stdout


def test_without_a_terminal_limits_prints_lines(guarded):
    """One line per channel every few seconds, until the command is stopped."""
    env = {**os.environ, "BW_REDIS_URL": guarded.url, "BW_ACCOUNT_ID": "unused", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "bandwidth_mfa_async", "limits"]
    with processes.running(command, stdout=processes.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert process.poll() is None
        process.terminate()
    assert lines[0] == "messaging: unused, no limit, waiting 0 interactive and 0 bulk, 0 accepted, 0 rejected\n"


async def test_send_works_without_redis():
    """A warning says that the limit is not shared."""
    async with Simulator() as sim:
        env = {**environment(sim), "BW_REDIS_URL": "redis://:hunter2@127.0.0.1:1"}
        sent = await asyncio.to_thread(lambda: run("send", "+19195551234", *SENDER, **env))
        assert sent.returncode == 0
        assert len(sim.inbox) == 1
        assert sent.stderr.startswith("warning: messaging limit: Redis cannot be used (it cannot be reached")
        assert sent.stderr.count("\n") == 1
        assert "hunter2" not in sent.stdout + sent.stderr


async def test_a_wrong_redis_password_is_a_warning_in_a_bulk_run(guarded, tmp_path):
    """Every code is sent, and one line says that the limit is not shared."""
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("+19195551234\n+19195551235\n")
    async with Simulator() as sim:
        env = {**environment(sim), "BW_REDIS_URL": f"redis://:hunter3@127.0.0.1:{guarded.port}"}
        sent = await asyncio.to_thread(lambda: run("bulk", str(numbers), *SENDER, **env))
        assert (sent.returncode, len(sim.inbox)) == (0, 2)
        assert sent.stderr.count("warning: messaging limit: Redis cannot be used (wrong user or password)") == 1
        assert "hunter3" not in sent.stdout + sent.stderr
