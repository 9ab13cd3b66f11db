"""The command line's `--rate`, `--redis` and `limits`: what they share, what they show, and what they never show."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.live import Live

from bandwidth_mfa_async import ConfigurationError, Rate
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.cli._limit_options import _WARNINGS, CHANNELS, limits_from_options
from bandwidth_mfa_async.cli._limits import _table
from bandwidth_mfa_async.limits.shared._status import SharedStatus
from bandwidth_mfa_async.simulator import Simulator
from tests.support import processes
from tests.support.fault_server import environment
from tests.support.redis_server import RedisServer, server_binary

SENDER = ("--from", "+19195554321", "--application-id", "app")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    if server_binary() is None:
        pytest.skip("no redis-server here")
    server = RedisServer(tmp_path_factory.mktemp("redis"), password="hunter2")
    yield server
    server.kill()


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


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "missing: --redis (or BW_REDIS_URL)"),
        (("--redis", "http://:hunter2@localhost"), "--redis: must look like redis://"),
        (("--redis", "redis://:hunter3@127.0.0.1:{port}"), "wrong user or password"),
        (("--redis", "redis://:hunter2@127.0.0.1:1"), "it cannot be reached"),
    ],
)
def test_configuration_errors_are_one_line_without_the_password(guarded, monkeypatch, args, says):
    """The exit code is 2."""
    monkeypatch.setenv("BW_ACCOUNT_ID", "9900000")
    monkeypatch.delenv("BW_REDIS_URL", raising=False)
    result = CliRunner().invoke(app, ["limits", "--once", *(arg.format(port=guarded.port) for arg in args)])
    assert result.exit_code == 2
    assert says in result.output
    assert "hunter" not in result.output
    assert "Traceback" not in result.output


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


def test_a_warning_is_printed_above_a_live_display():
    """Text written past the display would be overwritten."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    with Live("sending", console=console, auto_refresh=False):
        _WARNINGS.handle(logging.LogRecord("x", logging.WARNING, "", 0, "%s is lost", ("Redis",), None))
    assert "warning: Redis is lost" in shown.getvalue()


def test_the_title_of_a_narrow_table_is_not_wrapped():
    """A wrapped title would change the height of the live table."""
    shown = io.StringIO()
    Console(file=shown, width=80).print(
        _table([SharedStatus(channel=name, state="known", rate=3) for name in CHANNELS])
    )
    assert "limits, all processes together" in shown.getvalue()


def test_options_are_converted_to_limits(monkeypatch):
    """The rate applies to the channel; a shared limit needs the account id."""
    assert limits_from_options("5/s", None, channel="voice").voice_rate == Rate(5)
    assert limits_from_options(None, None, max_in_flight=3).max_in_flight == 3
    assert "'77'" in repr(limits_from_options(None, "redis://h", account_id="77").shared)
    monkeypatch.delenv("BW_ACCOUNT_ID", raising=False)
    with pytest.raises(ConfigurationError, match="BW_ACCOUNT_ID"):
        limits_from_options(None, "redis://h")


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        ("60/x", "--rate: must look like '5/s', '60/m' or '1000/h'"),
        ("0/s", "--rate: count: must be greater than 0"),
        ("5/0s", "--rate: per: must be greater than 0"),
    ],
)
@pytest.mark.parametrize("channel", ["messaging", "voice"])
def test_an_invalid_rate_names_the_option(rate, says, channel):
    """For every channel, with what is wrong with the text."""
    with pytest.raises(ConfigurationError) as caught:
        limits_from_options(rate, None, channel=channel)
    assert str(caught.value) == says
