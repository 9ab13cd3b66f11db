"""The benchmarks run, and benchmarks/README.md shows the saved figures."""

from __future__ import annotations

import json
import pathlib
import sys

from tests.support import processes

ROOT = pathlib.Path(__file__).parents[2]


def test_rates(tmp_path: pathlib.Path) -> None:
    """A small case prints its target and whether it is met, and writes the same as JSON."""
    file = tmp_path / "rates.json"
    command = [sys.executable, "-m", "benchmarks.rates", "--quick", "--only", "minute", "weight", "--json", str(file)]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "NOT MET" not in run.stdout
    figures = json.loads(file.read_text())["figures"]
    assert {figure["case"] for figure in figures} == {"60 a minute, known", "weight 5 among 100 of 1"}
    assert all(figure["met"] for figure in figures)
    # Without a rate limit a client fills the provider's queue.
    queue = figures[2]["values"]
    assert queue["ours"] < 1 < queue["naive"]
    assert run.stderr == ""


def test_bulk(tmp_path: pathlib.Path) -> None:
    """Every part runs, and a restart finds the largest run done."""
    command = [sys.executable, "-m", "benchmarks.bulk", "--quick", "--items", "11000", "--json"]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    figures = json.loads(run.stdout)
    assert figures["peak memory, most items / 10,000"] < 2
    assert set(figures["items a second"]) == {"bare gather over aiohttp", "bulk without journal", "bulk with journal"}
    assert run.stderr == ""


def test_call_cost(tmp_path: pathlib.Path) -> None:
    """Every requested client is in the table, with its figures or as missing."""
    file = tmp_path / "calls.json"
    asked = ["aiohttp, tuned", "twilio, async"]
    command = [sys.executable, "-m", "benchmarks.call_cost", "--quick", "--only", *asked, "--json", str(file)]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    written = json.loads(file.read_text())
    measured = {cost["name"] for cost in written["calls"]}
    assert measured | set(written["missing"]) == {"bandwidth_mfa_async", "aiohttp, naive", *asked}
    assert {"bandwidth_mfa_async", "aiohttp, naive", "aiohttp, tuned"} <= measured
    assert all(cost["cpu"] > 0 for cost in written["calls"])
    assert all(name in run.stdout for name in (*measured, *written["missing"]))
    assert run.stderr == ""


def test_import_cost(tmp_path: pathlib.Path) -> None:
    """Each import has figures."""
    file = tmp_path / "imports.json"
    command = [sys.executable, "-m", "benchmarks.import_cost", "--rounds", "1", "--json", str(file)]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    statements = {figure["statement"] for figure in json.loads(file.read_text())["figures"]}
    assert {"import aiohttp", "import bandwidth_mfa_async", "from bandwidth_mfa_async import MFAClient"} <= statements
    assert all(statement in run.stdout for statement in statements)
    assert run.stderr == ""


def test_first_call(tmp_path: pathlib.Path) -> None:
    """A call on a connection that `warm_up` has opened is faster than one that opens it."""
    file = tmp_path / "first.json"
    command = [sys.executable, "-m", "benchmarks.first_call", "--rounds", "3", "--json", str(file)]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    took = {figure["name"]: figure["wall_ms"] for figure in json.loads(file.read_text())["figures"]}
    assert took["second call"] < took["first call"]
    assert took["first call after warm_up"] < took["first call"]
    assert took["first call, aiohttp by hand"] > 0
    assert run.stderr == ""


def test_the_tests_of_the_benchmarks_pass() -> None:
    """Tests of tables, charts and footnotes import the benchmarks, so they run in their own process."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "benchmarks/tests"]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
