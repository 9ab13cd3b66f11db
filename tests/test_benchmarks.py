"""The benchmarks that are run by hand still run."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_rates(tmp_path: pathlib.Path) -> None:
    """One small case prints its target and whether it is met, and writes the same as JSON."""
    file = tmp_path / "rates.json"
    command = [sys.executable, "-m", "benchmarks.rates", "--quick", "--only", "minute", "weight", "--json", str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "NOT MET" not in run.stdout
    figures = json.loads(file.read_text())["figures"]
    assert {figure["case"] for figure in figures} == {"60 a minute, known", "weight 5 among 100 of 1"}
    assert all(figure["met"] for figure in figures)
    # What the targets are for shows in the others: both fill the provider's queue.
    queue = figures[2]["values"]
    assert queue["ours"] < 1 < queue["naive"]
    assert run.stderr == ""
