"""`bandwidth-mfa jobs`: what is in a ledger, seen from the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async._redis import _connection
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.worker import RedisLedger
from bandwidth_mfa_async.worker.ledger._protocol import VERSION


def bandwidth_mfa(*arguments):
    return CliRunner().invoke(app, ["jobs", *arguments])


@pytest.fixture
async def job(producer, template):
    return await producer.submit((f"+1919555{n:04}" for n in range(1_200)), name="launch", template=template)


async def shown(server, *arguments):
    import asyncio

    return await asyncio.to_thread(bandwidth_mfa, "--ledger", server.url, *arguments)


async def test_jobs_are_listed_cancelled_and_resumed(redis_server, job):
    """By name, with their counts."""
    assert (await shown(redis_server)).output == "launch: running, 0 of 1,200 done (1,200 pending)\n"
    cancelled = await shown(redis_server, "launch", "--cancel")
    assert cancelled.output == "launch: cancelled, 0 of 1,200 done (1,200 pending)\n"
    assert (await job.progress()).ending == "cancelled"
    assert "running" in (await shown(redis_server, "launch", "--resume")).output
    told = json.loads((await shown(redis_server, "--json")).output)
    assert (told["name"], told["total"], told["done"], told["ending"]) == ("launch", 1200, 0, None)


async def test_a_job_of_a_newer_version_hides_no_other(redis_server, producer, job, template):
    """The others are shown and can be stopped; of that one it is said what to do."""
    await producer.submit(["+19195551234"], name="next", template=template)
    with redis_server.client() as client:
        client.hset("bandwidth-mfa:{next}:job", "version", VERSION + 1)
    listed = await shown(redis_server)
    assert listed.exit_code == 2
    assert listed.stdout == "launch: running, 0 of 1,200 done (1,200 pending)\n"
    assert listed.stderr.startswith("error: job 'next' was made by a newer bandwidth-mfa-async")
    assert (await shown(redis_server, "launch", "--cancel")).exit_code == 0
    assert (await job.progress()).ending == "cancelled"
    refused = await shown(redis_server, "next", "--cancel")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "upgrade with pip install -U" in refused.stderr


async def test_no_jobs(redis_server):
    """Said, not shown as nothing."""
    assert (await shown(redis_server)).output == "no jobs\n"
    unknown = await shown(redis_server, "nothing")
    assert unknown.exit_code == 2
    assert "no job 'nothing'" in unknown.output


@pytest.mark.parametrize("arguments", [["--cancel"], ["launch", "--cancel", "--resume"]])
def test_bad_usage(arguments):
    """Refused before anything is asked."""
    result = bandwidth_mfa("--ledger", "redis://127.0.0.1:1/0", *arguments)
    assert result.exit_code == 2
    assert "one job" in result.output


def test_a_ledger_url_that_is_none():
    """Named, and the password in it is not shown."""
    result = bandwidth_mfa("--ledger", "http://:secret@x")
    assert result.exit_code == 2
    assert "redis://" in result.output
    assert "secret" not in result.output


def test_a_redis_that_is_not_there(monkeypatch):
    """Told while it is waited for, and at the end in one line, without redis-py's own words."""
    monkeypatch.setattr(_connection, "_LOG_OUTAGE_AFTER", 0.0)
    monkeypatch.setitem(RedisLedger.check.__kwdefaults__, "max_wait", 0.2)
    result = bandwidth_mfa("--ledger", "redis://:secret@127.0.0.1:1/0")
    assert result.exit_code == 2
    waits, error = result.stderr.splitlines()
    assert waits.startswith(
        "warning: the ledger cannot be reached: start its Redis, or correct the URL; the operation is retried"
    )
    assert error == "error: the ledger cannot be reached: start its Redis, or correct the URL"
