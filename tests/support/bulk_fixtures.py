"""Fixtures and helpers of the tests of `bandwidth-mfa bulk`."""

from __future__ import annotations

import csv
import inspect
import json
import pathlib
import re
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli._app import app
from tests.conftest import APPLICATION, FROM
from tests.support.fault_server import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async.testing import ThreadedSimulator

A, B, C = "+19195551234", "+19195551235", "+19195551236"
EXAMPLE = "+19195551234"  # the one number that messages show
NOT_TO_BE_SHOWN = re.compile(r"\+?1?919[0-9]{7}")


def many(count: int) -> list[str]:
    return [f"+1202555{n:04}" if n < 10_000 else f"+1203{n:07}" for n in range(count)]


@pytest.fixture
def simulator(mfa_simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> ThreadedSimulator:
    for name, value in environment(mfa_simulator).items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BW_NUMBER", FROM)
    monkeypatch.setenv("BW_MESSAGING_APPLICATION_ID", APPLICATION)
    monkeypatch.setenv("BW_VOICE_APPLICATION_ID", "voice")
    monkeypatch.delenv("BW_REDIS_URL", raising=False)
    return mfa_simulator


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The working folder, with a folder for temporary files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bulk(simulator: ThreadedSimulator, folder: pathlib.Path) -> Callable[..., Any]:
    """Run the command in this process; its output never contains a phone number."""

    def run(*args: str) -> Any:
        # Click 8.2 and later separate the two streams.
        old = "mix_stderr" in inspect.signature(CliRunner).parameters
        runner = CliRunner(**({"mix_stderr": False} if old else {}))
        result = runner.invoke(app, ["bulk", *args], env={"COLUMNS": "120"})
        assert not isinstance(result.exception, Exception), result.exc_info
        assert not NOT_TO_BE_SHOWN.search(both(result).replace(EXAMPLE, "")), both(result)
        return result

    return run


def both(result: Any) -> str:
    return result.stdout + result.stderr


def last_json(result: Any) -> dict[str, Any]:
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def rejected(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sent_to(simulator: ThreadedSimulator) -> Counter[str]:
    return Counter(message.to for message in simulator.inbox)
