"""Fixtures of the tests of `bandwidth-mfa report`: a journal, and a function that runs the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli._app import app
from tests.support.journal_file import make_launch

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def invoke() -> Callable[..., Any]:
    runner = CliRunner()
    return lambda *args: runner.invoke(app, ["report", *map(str, args)])


@pytest.fixture
def launch(tmp_path: Path) -> Path:
    return make_launch(tmp_path / "launch.db", items=2_000)
