"""Bulk runs that are killed."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from tests.support import processes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("signal_name", "items", "options"),
    [("KILL", "1500", ()), ("TERM", "1500", ()), ("KILL", "500", ("--command",))],
    ids=["KILL", "TERM", "the command line"],
)
def test_bulk_kills(signal_name: str, items: str, options: tuple[str, ...]) -> None:
    """A run that is killed repeatedly sends no duplicate, and reports every number in the end."""
    command = [sys.executable, "-m", "tests.system.bulk_kills", "--runs", "1", "--items", items, "--json", *options]
    run = processes.run(
        [*command, "--signal", signal_name], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    found = json.loads(run.stdout)
    assert found["sound"], found
    assert found["runs"][0]["kills"] >= 3, found
    assert run.stderr == ""
