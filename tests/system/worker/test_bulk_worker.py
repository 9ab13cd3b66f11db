"""`bandwidth-mfa bulk --worker`: submits the rows of a file as a job and watches it."""

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
from tests.support import processes

SENDER = ("--from", "+19195554321", "--application-id", "any")
NUMBERS = [f"+1919555{n:04}" for n in range(1_200)]
# Settings that the workers need and this command does not.
UNSET = ("BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET", "BW_ACCOUNT_ID")


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "launch.csv"
    path.write_text("to\n" + "\n".join(NUMBERS) + "\n")
    return path


def begun(*arguments, **environment):
    """Start the command; to be used in `async with`."""
    env = {name: value for name, value in os.environ.items() if name not in UNSET} | environment
    command = [sys.executable, "-m", "bandwidth_mfa_async", "bulk", *arguments, *SENDER]
    pipe = processes.PIPE
    return processes.running_async(*command, env=env, stdin=pipe, stdout=pipe, stderr=pipe)


async def bulk(*arguments, **environment):
    async with begun(*arguments, **environment) as process:
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_workers_send_every_row_once_however_often_the_command_runs(
    redis_server, make_worker, simulator, numbers
):
    """The command itself needs no credentials."""
    await make_worker()
    code, out, err = await bulk(numbers, "--worker", redis_server.url, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["ending"], document["taken"], document["accepted"]) == ("finished", 1200, 1200)
    assert sorted(message.to for message in simulator.inbox) == NUMBERS
    code, out, err = await bulk(numbers, "--worker", BW_LEDGER_URL=redis_server.url)
    assert (code, err) == (0, "")
    assert "1,200" in out
    assert len(simulator.inbox) == 1200


async def test_invalid_and_rejected_rows_are_reported_and_written_to_the_rejects(
    redis_server, make_worker, simulator, tmp_path
):
    """With their lines. A number that is in the file twice gets one code."""
    path, rejects = tmp_path / "list.csv", tmp_path / "rejects.csv"
    path.write_text("to,name\n+19195550001,Ann\n9195550002,Bob\n+19195550003,Cy\n+19195550001,Ann\n")
    simulator.faults.script(Fault(status=400), operation="messaging", to="+19195550003")
    await make_worker()
    code, out, err = await bulk(path, "--worker", redis_server.url, "--rejects", rejects, "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["accepted"], document["rejected"], document["invalid"], document["skipped"]) == (1, 1, 1, 1)
    assert "line 3: to" in err
    rows = list(csv.reader(rejects.read_text().splitlines()))
    assert [(row[0], row[2]) for row in rows[1:]] == [("3", "9195550002"), ("4", "+19195550003")]
    assert "400" in rows[2][1]


async def test_the_result_counts_possible_duplicates(redis_server, make_worker, simulator, tmp_path):
    """The service sends the text, answers 502, and takes the repeat."""
    path = tmp_path / "list.csv"
    path.write_text("to\n+19195550001\n+19195550002\n")
    simulator.faults.script(Fault(status=502, body="", accepted=True))
    await make_worker()
    code, out, _ = await bulk(path, "--worker", redis_server.url, "--json")
    document = json.loads(out)
    assert (code, document["accepted"], document["possible_duplicates"]) == (0, 2, 1)


async def test_a_file_without_a_valid_row_makes_no_job(redis_server, producer, tmp_path):
    """The rejects contain every row."""
    path, rejects = tmp_path / "list.csv", tmp_path / "rejects.csv"
    path.write_text("to\n9195550001\n9195550002\n")
    code, _, err = await bulk(path, "--worker", redis_server.url, "--rejects", rejects)
    assert code == 2
    assert "none of the 2 rows can be sent" in err
    assert [row[2] for row in csv.reader(rejects.read_text().splitlines())] == ["to", "9195550001", "9195550002"]
    assert await producer.jobs() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_workers_continue_when_the_command_is_stopped(redis_server, make_worker, simulator, numbers, number):
    """A signal ends only the watching, and the output says so; the same command watches the job again."""
    worker = await make_worker(limits=Limits(rate=Rate(1_000)))
    async with begun(numbers, "--worker", redis_server.url, "--run", "november") as process:
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
    async with begun(numbers, "--worker", redis_server.url) as process:
        job = producer.job("launch")
        async with asyncio.timeout(30):
            while not any(known.name == "launch" for known in await producer.jobs()):
                await asyncio.sleep(0.01)
            while not (await job.progress()).complete:
                await asyncio.sleep(0.01)
        await job.cancel()
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert "was cancelled; run the same command again" in out.decode()
    async with begun(numbers, "--worker", redis_server.url) as again:
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
async def test_options_of_a_local_run_are_refused(numbers, arguments, says):
    """The error names the option and the remedy; the file is not read."""
    code, out, err = await bulk(numbers, "--worker", "redis://127.0.0.1:1/0", *arguments)
    assert (code, out) == (2, "")
    assert says in err


async def test_a_missing_or_invalid_ledger_and_a_missing_job_name_are_errors(numbers):
    """Standard input needs `--run`."""
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
async def test_a_file_name_that_a_job_may_not_have_needs_the_run_option(redis_server, producer, tmp_path, name):
    """Nothing is written to the ledger; `--run` has the same rule."""
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
    async with begun(numbers, "--worker", redis_server.url) as process:
        async with asyncio.timeout(30):
            while not any(known.name == "launch" for known in await producer.jobs()):
                await asyncio.sleep(0.01)
        code, _, err = await bulk(numbers, "--worker", redis_server.url, "--scope", "other")
        assert code == 2
        assert "another scope" in err
        process.send_signal(signal.SIGTERM)
        await process.communicate()


async def test_a_job_whose_redis_lost_writes_is_not_resumed_by_the_same_command(redis_server, producer, numbers):
    """It says what to compare, and which command resumes the job."""
    async with begun(numbers, "--worker", redis_server.url) as process:
        job = producer.job("launch")
        async with asyncio.timeout(30):
            while not any(known.name == "launch" for known in await producer.jobs()):
                await asyncio.sleep(0.01)
            while not (await job.progress()).complete:
                await asyncio.sleep(0.01)
        await producer.ledger.stop("launch", "RedisWentBack")
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert "bandwidth-mfa jobs launch --resume" in out.decode()
    async with begun(numbers, "--worker", redis_server.url) as again:
        out, _ = await again.communicate()
    assert again.returncode == 1
    assert (await job.progress()).ending == "RedisWentBack"
