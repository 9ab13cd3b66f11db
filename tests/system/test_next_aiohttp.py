"""The calls and the faults on an aiohttp that looks like its development branch."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from tests.support import processes

CLIENT = "tests/integration/client/"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "tests",
    [
        [CLIENT + "test_client.py", CLIENT + "test_delivery.py"],
        # Not on uvloop as well: that takes as long again, and the loop makes no difference here.
        ["tests/integration/faults", "-k", "virtual-"],
    ],
    ids=["client", "faults"],
)
def test_the_documented_interface_serves_the_next_aiohttp(tests: list[str]) -> None:
    """The package is imported after the change; the plugin checks that the fast path cannot be used."""
    plugin = ["-p", "tests.support.next_aiohttp", "-p", "no:cacheprovider"]
    done = processes.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-x", *plugin, *tests],
        capture_output=True,
        text=True,
        timeout=250,
        # The Python parser, which the development branch has without a compiler.
        env=os.environ | {"AIOHTTP_NO_EXTENSIONS": "1"},
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
