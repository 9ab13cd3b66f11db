"""`bandwidth-mfa jobs`: lists, cancels and resumes the jobs of a ledger."""

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
    document = json.loads((await shown(redis_server, "--json")).output)
    assert (document["name"], document["total"], document["done"], document["ending"]) == ("launch", 1200, 0, None)


async def test_a_job_of_a_newer_version_does_not_hide_the_others(redis_server, producer, job, template):
    """The others are shown and can be cancelled; the error says to upgrade."""
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


async def test_an_empty_ledger_is_reported_as_no_jobs(redis_server):
    assert (await shown(redis_server)).output == "no jobs\n"
    unknown = await shown(redis_server, "nothing")
    assert unknown.exit_code == 2
    assert "no job 'nothing'" in unknown.output


@pytest.mark.parametrize("arguments", [["--cancel"], ["launch", "--cancel", "--resume"]])
def test_cancel_and_resume_need_exactly_one_job(arguments):
    """Checked before Redis is asked."""
    result = bandwidth_mfa("--ledger", "redis://127.0.0.1:1/0", *arguments)
    assert result.exit_code == 2
    assert "one job" in result.output


def test_an_invalid_ledger_url_is_reported_without_its_password():
    result = bandwidth_mfa("--ledger", "http://:secret@x")
    assert result.exit_code == 2
    assert "redis://" in result.output
    assert "secret" not in result.output


def test_an_unreachable_redis_is_reported_while_waiting_and_at_the_end(monkeypatch):
    """In one line each, without the text of redis-py."""
    monkeypatch.setattr(_connection, "_LOG_OUTAGE_AFTER", 0.0)
    monkeypatch.setitem(RedisLedger.check.__kwdefaults__, "max_wait", 0.2)
    result = bandwidth_mfa("--ledger", "redis://:secret@127.0.0.1:1/0")
    assert result.exit_code == 2
    waits, error = result.stderr.splitlines()
    assert waits.startswith(
        "warning: the ledger cannot be reached: start its Redis, or correct the URL; the operation is retried"
    )
    assert error == "error: the ledger cannot be reached: start its Redis, or correct the URL"
