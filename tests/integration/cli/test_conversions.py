"""`bandwidth-mfa conversions`: texts, verified codes and refusals by region and hour."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async import GuardRefusedError, RedisStore, SQLiteStore
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.signin import Guard
from tests.support.redis_fixtures import common_redis, redis_server
from tests.support.signins import SECRET

__all__ = ["common_redis", "redis_server"]


async def fill(store: Any) -> None:
    async with store:
        guard = Guard(regions={"US", "CA"}, per_number=None, store=store)
        for n in range(4):
            ticket = await guard.admit(f"+1919555123{n}", visitor="198.51.100.7")
            if n:
                await ticket.verified()
        await guard.admit("+14165551234", visitor="198.51.100.7")
        for _ in range(2):
            with pytest.raises(GuardRefusedError):
                await guard.admit("+18765551234", visitor="198.51.100.7")


def show(url: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["conversions", "--store", url, *arguments])


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    if request.param == "sqlite":
        path = tmp_path / "codes.db"
        asyncio.run(fill(SQLiteStore(path)))
        return f"sqlite:///{path}"
    found: str = request.getfixturevalue("redis_server").url
    asyncio.run(fill(RedisStore(found, secret=SECRET)))
    return found


def test_the_table_and_json(url: str) -> None:
    rows = [json.loads(line) for line in show(url, "--json").output.splitlines()]
    assert [(row["region"], row["sent"], row["verified"], row["refused"]) for row in rows] == [
        ("CA", 1, 0, 0),
        ("JM", 0, 0, 2),
        ("US", 4, 3, 0),
    ]
    assert rows[0]["hour"].endswith(":00:00+00:00")
    shown = show(url)
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.output.splitlines()[3:] if line.strip()] == ["CA", "JM", "US"]
    assert "75.0 %" in shown.output


def test_an_empty_store(tmp_path: pathlib.Path) -> None:
    shown = show(f"sqlite:///{tmp_path / 'codes.db'}")
    assert (shown.exit_code, shown.output) == (0, "no texts of sign-ins in the last 48 hours\n")


@pytest.mark.parametrize("url", ["codes.db", "postgres://localhost/x", "redis://127.0.0.1:1/0"])
def test_a_store_that_cannot_be_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bandwidth_mfa_async.signin._conversions._SECONDS", 0.3)
    shown = show(url)
    assert shown.exit_code == 2
    assert shown.output.startswith("error: ")
