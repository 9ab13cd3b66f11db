"""`bandwidth-mfa bulk --worker`: a file's rows go to workers through their ledger, and are watched there."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys

import pytest

from bandwidth_mfa_async import Limits, Rate
from bandwidth_mfa_async.simulator import Fault

SENDER = ("--from", "+19195554321", "--application-id", "any")
NUMBERS = [f"+1919555{n:04}" for n in range(1_200)]
# Settings that the workers have and this command must do without.
UNSET = ("BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET", "BW_ACCOUNT_ID")


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "launch.csv"
    path.write_text("to\n" + "\n".join(NUMBERS) + "\n")
    return path


async def begun(*arguments, **environment):
    env = {name: value for name, value in os.environ.items() if name not in UNSET} | environment
    command = [sys.executable, "-m", "bandwidth_mfa_async", "bulk", *map(str, arguments), *SENDER]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, env=env, stdin=pipe, stdout=pipe, stderr=pipe)


async def bulk(*arguments, **environment):
    process = await begun(*arguments, **environment)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_workers_send_it(redis_server, make_worker, simulator, numbers):
    """Without credentials of its own, and once each, however often the command is given."""
    await make_worker()
    code, out, err = await bulk(numbers, "--worker", redis_server.url, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["ending"], told["taken"], told["accepted"]) == ("finished", 1200, 1200)
    assert sorted(message.to for message in simulator.inbox) == NUMBERS
    code, out, err = await bulk(numbers, "--worker", BW_LEDGER_URL=redis_server.url)
    assert (code, err) == (0, "")
    assert "1,200" in out
    assert len(simulator.inbox) == 1200


async def test_what_is_wrong_with_rows_is_told_and_kept(redis_server, make_worker, simulator, tmp_path):
    """Bad rows with their line, and those that the service refused; a number that stands there twice gets one code."""
    path, rejects = tmp_path / "list.csv", tmp_path / "mend.csv"
    path.write_text("to,name\n+19195550001,Ann\n9195550002,Bob\n+19195550003,Cy\n+19195550001,Ann\n")
    simulator.faults.script(Fault(status=400), operation="messaging", to="+19195550003")
    await make_worker()
    code, out, err = await bulk(path, "--worker", redis_server.url, "--rejects", rejects, "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["accepted"], told["rejected"], told["invalid"], told["skipped"]) == (1, 1, 1, 1)
    assert "line 3: to" in err
    rows = list(csv.reader(rejects.read_text().splitlines()))
    assert [(row[0], row[2]) for row in rows[1:]] == [("3", "9195550002"), ("4", "+19195550003")]
    assert "400" in rows[2][1]


async def test_rejects_of_a_file_with_no_good_row(redis_server, producer, tmp_path):
    """They have them all, and there is no job."""
    path, rejects = tmp_path / "list.csv", tmp_path / "mend.csv"
    path.write_text("to\n9195550001\n9195550002\n")
    code, _, err = await bulk(path, "--worker", redis_server.url, "--rejects", rejects)
    assert code == 2
    assert "none of the 2 rows can be sent" in err
    assert [row[2] for row in csv.reader(rejects.read_text().splitlines())] == ["to", "9195550001", "9195550002"]
    assert await producer.jobs() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_workers_go_on_without_it(redis_server, make_worker, simulator, numbers, number):
    """Told to stop it stops watching and says so; the workers send the rest, and the same command sees them do it."""
    worker = await make_worker(limits=Limits(rate=Rate(1_000)))
    process = await begun(numbers, "--worker", redis_server.url, "--run", "november")
    async with asyncio.timeout(30):
        while not simulator.inbox:
            await asyncio.sleep(0.01)
    process.send_signal(number)
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    assert "bandwidth-mfa jobs november --cancel" in out.decode()
    code, out, _ = await bulk(numbers, "--worker", redis_server.url, "--run", "november", "--json")
    assert (code, json.loads(out)["accepted"]) == (0, 1200)
    assert sorted(message.to for message in simulator.inbox) == NUMBERS
    assert (await worker.job("november").progress()).ending == "finished"


async def test_a_cancelled_job_is_said_to_be_one(redis_server, producer, numbers):
    """And the same command goes on with it."""
    process = await begun(numbers, "--worker", redis_server.url)
    job = producer.job("launch")
    async with asyncio.timeout(30):
        while not any(known.name == "launch" for known in await producer.jobs()) or not (await job.progress()).complete:
            await asyncio.sleep(0.01)
    await job.cancel()
    out, _ = await process.communicate()
    assert process.returncode == 1
    assert "was cancelled; run the same command again" in out.decode()
    again = await begun(numbers, "--worker", redis_server.url)
    async with asyncio.timeout(30):
        while (await job.progress()).ending is not None:
            await asyncio.sleep(0.01)
    again.send_signal(signal.SIGTERM)
    await again.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--journal", "x.db"], "--journal: leave it out with --worker: the ledger records every code"),
        (["--rate", "5/s"], "--rate: leave it out with --worker"),
        (["--max-in-flight", "100"], "--max-in-flight: leave it out"),
        (["--resend", "rejected"], "--resend: leave it out"),
    ],
)
async def test_options_of_a_run_of_ones_own(numbers, arguments, says):
    """Named, with the remedy, before anything is read."""
    code, out, err = await bulk(numbers, "--worker", "redis://127.0.0.1:1/0", *arguments)
    assert (code, out) == (2, "")
    assert says in err


async def test_where_to_and_what(numbers):
    """A ledger that is not named or none, and standard input without a name for its job."""
    code, _, err = await bulk(numbers, "--worker", BW_LEDGER_URL="")
    assert code == 2
    assert "BW_LEDGER_URL" in err
    code, _, err = await bulk(numbers, "--worker", "http://:secret@x")
    assert code == 2
    assert "redis://" in err
    assert "secret" not in err
    code, _, err = await bulk("-", "--worker", "redis://127.0.0.1:1/0")
    assert code == 2
    assert "--run" in err


@pytest.mark.parametrize("name", ["my list", "two{braces}", "x" * 101])
async def test_a_file_whose_name_can_be_no_jobs(redis_server, producer, tmp_path, name):
    """It is told to name the job before anything is written; with a name it is one."""
    path = tmp_path / f"{name}.csv"
    path.write_text("to\n+12025550199\n")
    code, out, err = await bulk(str(path), "--worker", redis_server.url)
    assert (code, out) == (2, "")
    assert "--run: name the job" in err
    assert await producer.jobs() == []
    code, _, err = await bulk(str(path), "--worker", redis_server.url, "--run", name)
    assert code == 2
    assert "--run: must" in err
    assert await producer.jobs() == []


async def test_the_same_name_for_another_text(redis_server, producer, numbers):
    """Refused with the difference named."""
    process = await begun(numbers, "--worker", redis_server.url)
    async with asyncio.timeout(30):
        while not any(known.name == "launch" for known in await producer.jobs()):
            await asyncio.sleep(0.01)
    code, _, err = await bulk(numbers, "--worker", redis_server.url, "--scope", "other")
    assert code == 2
    assert "another scope" in err
    process.send_signal(signal.SIGTERM)
    await process.communicate()
