"""The faults of answers, with aiohttp's parser in Python instead of the one in C."""

from __future__ import annotations

import os
import pathlib
import sys

from tests.support import processes


def test_an_answer_means_the_same_to_aiohttps_parser_in_python() -> None:
    """Without its C extensions aiohttp takes answers that the parser in C refuses; the library does not."""
    code = """
import sys
import pytest
from aiohttp.http import HttpResponseParser
assert HttpResponseParser.__module__ == "aiohttp.http_parser", HttpResponseParser
options = ["-q", "-n0", "-p", "no:cacheprovider", "-k", "virtual-"]
sys.exit(pytest.main([*options, "tests/integration/faults/test_answers.py"]))
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
