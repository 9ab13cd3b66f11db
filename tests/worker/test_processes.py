"""Real worker processes on Redis streams: killed, frozen, stopped, and as README shows them."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from ..support.fault_server import environment

ROOT = pathlib.Path(__file__).parent.parent.parent


def kills(*options):
    command = [sys.executable, "-m", "benchmarks.worker_kills", "--json", "--lease", "2", "--rate", "0", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


def test_workers_that_are_killed_frozen_and_cut_off():
    """Nobody is texted twice, nobody is missing in silence, and what is unknown was under way at a kill."""
    found = kills("--items", "3000", "--workers", "2", "--kills", "3", "--chunk", "100")
    assert found["sound"], found
    assert (found["kills"], found["frozen"], found["redis restarts"]) == (3, 1, 1)


def test_workers_that_are_terminated():
    """They finish what is under way and give back the rest: nothing is unknown but what the server left so."""
    options = ["--signal", "TERM", "--no-freeze", "--no-restart"]
    found = kills("--items", "3000", "--workers", "2", "--kills", "3", "--chunk", "100", *options)
    assert found["sound"], found
    assert (found["terminated"], found["unknown for a kill or a freeze"]) == (3, 0)


@pytest.mark.timeout(60)
async def test_the_worker_of_the_readme(redis_server, simulator, tmp_path):
    """Its file, started with its command, sends a code and a job, and ends on SIGTERM."""
    readme = (ROOT / "README.md").read_text()
    block = next(text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "# worker.py" in text)
    command = next(line for line in readme.splitlines() if line.startswith("taskiq worker worker:broker"))
    command = command.partition("#")[0].replace("--workers 4", "--workers 1").split()
    (tmp_path / "worker.py").write_text(block.replace("redis://localhost:6379/0", redis_server.url))
    ask = """
import asyncio, worker
async def main():
    async with worker.codes:
        print(await worker.sign_in("42", "+19195551234"))
        await worker.launch(f"+1919555{n:04}" for n in range(50))
asyncio.run(main())
"""
    env = os.environ | environment(simulator) | {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=env, stderr=asyncio.subprocess.DEVNULL)
    try:
        asker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ask), cwd=tmp_path, env=env, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asker.communicate()
        lines = said.decode().splitlines()
        assert lines[0] == simulator.inbox[0].message_id
        assert lines[-1] == "50 of 50"
        assert len(simulator.inbox) == 51
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


STUBBORN = """
import asyncio, sys
from taskiq import InMemoryBroker, TaskiqEvents
from taskiq.cli.worker.args import WorkerArgs
from taskiq.cli.worker.run import start_listen
from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.worker import MFAWorker, _worker

_worker._PATIENCE = 0.0

class Stubborn(InMemoryBroker):
    async def listen(self):
        print("listening", flush=True)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("not yet", flush=True)
        yield b""

    async def shutdown(self):
        await super().shutdown()
        print("shut down", flush=True)

broker = Stubborn()
codes = MFAWorker(broker, ledger=sys.argv[1], client=MFAClient.from_env)
broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, lambda _: print("closed:", codes._service is None, flush=True))
if __name__ == "__main__":
    args = WorkerArgs.from_cli(["__main__:broker"])
    args.broker = broker
    start_listen(args)
"""


@pytest.mark.timeout(60)
async def test_a_receiver_that_does_not_end(redis_server, simulator):
    """taskiq waits for a read of its queue that it has cancelled; where that goes on, the worker ends all the same."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STUBBORN, redis_server.url),
        env=os.environ | environment(simulator),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"listening\n"
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        assert out.decode().splitlines() == ["not yet", "closed: True", "shut down"], err.decode()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
