"""aiohttp without its C extensions, as it is installed where no wheel fits."""

from __future__ import annotations

import os
import pathlib
import sys

from tests.support import processes


def test_responses_mean_the_same_with_the_pure_python_parser() -> None:
    """Without its C extensions aiohttp accepts responses that its C parser rejects; the library does not."""
    code = """
import sys
import pytest
from aiohttp.http import HttpResponseParser
assert HttpResponseParser.__module__ == "aiohttp.http_parser", HttpResponseParser
tests = "tests/integration/faults/test_answers.py"
sys.exit(pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "-k", "virtual-", tests]))
"""
    done = processes.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"AIOHTTP_NO_EXTENSIONS": "1"},
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
