"""README and the guides are correct: their Python runs, their commands print what they show, no command is missing."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import pathlib
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

import bandwidth_mfa_async.signin
import bandwidth_mfa_async.stores
import bandwidth_mfa_async.worker._worker  # noqa: F401 - these load Lua scripts, which must not block a test's loop
from bandwidth_mfa_async import errors
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.simulator import Simulator
from tests.support import processes
from tests.support.fault_server import environment
from tests.support.journal_file import CAUSES, make_launch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GUIDES = {page.stem: page.read_text() for page in sorted((ROOT / ".github" / "guides").glob("*.md"))}
PAGES = {"README": README, **GUIDES}


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the code blocks of a language, each with a name for its test."""
    return [
        (f"{name}-{block.strip().splitlines()[0][:40]}", block)
        for name, text in PAGES.items()
        for block in re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


PYTHON = blocks("python")
CONSOLE = blocks("console")
(NUMBERS,) = (block for _, block in blocks("csv"))
(SIGNIN,) = (block for _, block in PYTHON if '@app.post("/check")' in block)
SIGNIN_PAGES = ROOT / "tests" / "system" / "recipes" / "signin_with_fastapi.py"
TESTS = [block for _, block in PYTHON if "def test_" in block]


@pytest.fixture
async def simulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    async with Simulator() as sim:
        for name, value in environment(sim).items():
            monkeypatch.setenv(name, value)
        yield sim


@pytest.fixture
def numbers_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the file that README's commands read, in a temporary working directory."""
    (tmp_path / "numbers.csv").write_text(NUMBERS)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
async def test_python_blocks_run(
    simulator: Simulator, block: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block runs unchanged, against the simulator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "signin.py").write_text(SIGNIN)
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace: dict[str, Any] = {"__name__": "readme"}
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        await result
    if "launch" in namespace and "bulk" in namespace:
        assert namespace["bulk"].summary.accepted == len(simulator.inbox) == 200


def test_the_readmes_tests_pass(tmp_path: pathlib.Path) -> None:
    """The examples of README and the guides pass as test files next to README's web app and the sign-in pages."""
    (tmp_path / "signin.py").write_text(SIGNIN)
    for page in (SIGNIN_PAGES, SIGNIN_PAGES.with_name("signin_pages.py")):
        (tmp_path / page.name).write_text(page.read_text())
    for number, block in enumerate(TESTS):
        (tmp_path / f"test_{number}.py").write_text(block)
    (tmp_path / "pyproject.toml").write_text(next(block for name, block in blocks("toml") if name.startswith("README")))
    here = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ["-p", "bandwidth_mfa_async.pytest_plugin", "-p", "pytest_asyncio.plugin"]
    done = processes.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", *plugins],
        capture_output=True,
        text=True,
        check=False,
        env=without_proxies() | here,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert f"{sum(block.count('def test_') for block in TESTS)} passed" in done.stdout


def shape(output: str) -> list[str]:
    """Return an output without the parts that change from run to run."""
    output = re.sub(r"\b\d{13}[a-z0-9]{16}\b", "MESSAGE-ID", output)
    output = re.sub(r"\bc-[0-9a-f]{8}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "CALL-ID", output)
    output = re.sub(r"\d+(\.\d+)*", "N", output)
    output = re.sub(r"(in N days?|within a day|which has passed)$", "WHEN", output, flags=re.MULTILINE)
    return [re.sub(r"\s+", " ", line).strip() for line in output.splitlines() if line.strip(" ─┌┐└┘┬┴│")]


def without_proxies() -> dict[str, str]:
    """Return the environment without proxies and without Bandwidth's variables."""
    import os

    return {k: v for k, v in os.environ.items() if not k.startswith("BW_") and not k.lower().endswith("_proxy")}


def run(command: str, env: dict[str, str], folder: pathlib.Path) -> str:
    words = shlex.split(command)
    assert words[0] == "bandwidth-mfa"
    done = processes.run(
        [sys.executable, "-m", "bandwidth_mfa_async", *words[1:]],
        stdout=processes.PIPE,
        stderr=processes.STDOUT,
        text=True,
        check=False,
        env=without_proxies() | env | {"COLUMNS": "120"},
        cwd=folder,
    )
    return done.stdout


@pytest.mark.parametrize("block", [block for _, block in CONSOLE], ids=[name for name, _ in CONSOLE])
async def test_console_blocks_show_what_is_printed(
    simulator: Simulator, numbers_file: None, block: str, tmp_path: pathlib.Path
) -> None:
    """Each command prints what README shows, numbers and ids excepted."""
    if "bandwidth-mfa report" in block:
        await asyncio.to_thread(make_launch, tmp_path / "launch.db", causes=CAUSES[:5:2])
    parts = re.split(r"^\$ (.*)$", block, flags=re.MULTILINE)[1:]
    for command, shown in zip(parts[::2], parts[1::2], strict=True):
        printed = await asyncio.to_thread(run, command, environment(simulator), tmp_path)
        expected, actual = shape(shown), shape(printed)
        if command.endswith("demo"):
            # The causes of retries depend on timing; all other rows are always printed.
            expected = [line for line in expected if "retries after" not in line]
            actual = [line for line in actual if "retries after" not in line]
        if "bandwidth-mfa report" in command:
            # The line breaks in a column depend on rich's version.
            expected, actual = (sorted(" ".join(lines).split()) for lines in (expected, actual))
        assert actual == expected, command


def test_every_command_is_documented() -> None:
    """README or a guide names every command, and every command has a help text."""
    for name, command in app.commands.items():
        assert f"bandwidth-mfa {name}" in "".join(PAGES.values()), f"{name} is in no document"
        assert command.help
        assert isinstance(command, click.Command)


def test_the_errors_in_the_readme_exist() -> None:
    """Every error class in README and the guides exists."""
    assert "`NotSentError`" in GUIDES["migrating"]
    for name in re.findall(r"`([A-Z][A-Za-z]+Error)`", "".join(PAGES.values())):
        assert hasattr(errors, name) or hasattr(builtins, name), name


def test_the_setup_commands_are_those_of_the_gate() -> None:
    """The set-up is two lines, and .ci/run reads them from README."""
    gate = (ROOT / ".ci" / "run").read_text()
    lines = [line for line in README.splitlines() if line.startswith("pip install -e ")]
    assert lines == ["pip install -e '.[cli]' && bandwidth-mfa demo", "pip install -e '.[test]' && pytest"]
    assert "readme_command" in gate
