"""Processes that tests start end with their test, with their parent, and with pytest."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import signal
import sys
import time

import pytest

from tests.support import processes

TESTS = pathlib.Path(__file__).parents[2]
ROOT = TESTS.parent

SLEEPER = "import time; time.sleep(600)"
PARENT = """
import sys, time
from tests.support import processes
child = processes.start([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and that its parent did not ask about does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_ended(*pids: int) -> None:
    until = time.monotonic() + 20
    while any(map(is_running, pids)):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.01)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@linux_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_grandchild_ends_with_its_parent(number: signal.Signals) -> None:
    """Whatever ends the parent: it has no chance to clean up."""
    command = [sys.executable, "-c", PARENT, SLEEPER]
    with processes.running(command, cwd=ROOT, stdout=processes.PIPE, text=True) as parent:
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        assert is_running(grandchild)
        os.kill(parent.pid, number)
        parent.wait(timeout=20)
        wait_until_ended(grandchild)


@linux_only
def test_the_end_of_a_process_ends_its_group() -> None:
    """A process that its own child starts without this module, as taskiq starts its workers."""
    fork = f"import os; os.fork(); os.write(1, b'%d\\n' % os.getpid()); {SLEEPER}"
    with processes.running([sys.executable, "-c", fork], stdout=processes.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(2)}
        assert all(map(is_running, pids))
    wait_until_ended(*pids)


@linux_only
async def test_the_same_in_a_loop() -> None:
    """`running_async` kills the process and its group, and leaves no transport."""
    async with processes.running_async(sys.executable, "-c", SLEEPER, stdout=processes.PIPE) as process:
        assert is_running(process.pid)
    assert process.returncode == -signal.SIGKILL
    wait_until_ended(process.pid)


@linux_only
def test_a_timeout_kills_and_shows_the_output() -> None:
    """The error says what the process wrote."""
    command = [sys.executable, "-c", f"print('half way', flush=True); {SLEEPER}"]
    with pytest.raises(processes.TimeoutExpired) as caught:
        processes.run(command, capture_output=True, text=True, timeout=2)
    assert "half way" in "".join(caught.value.__notes__)


INNER_CONFTEST = """
import pytest
from tests.support import processes

@pytest.fixture(scope="session", autouse=True)
def check():
    processes.adopt_orphans()
    yield
    left = processes.kill_descendants(grace=0.5)
    assert not left, "\\n".join(left)
"""
INNER_TEST = f"""
import subprocess, sys, time
from tests.support import processes

def test_leaves():
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])"
    subprocess.run([sys.executable, "-c", program], check=True)

def test_is_killed():
    print(processes.start([sys.executable, "-c", {SLEEPER!r}]).pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def inner(tmp_path: pathlib.Path) -> list[str]:
    """Return the command of a pytest run with its own conftest and tests."""
    (tmp_path / "conftest.py").write_text(INNER_CONFTEST)
    (tmp_path / "test_inner.py").write_text(INNER_TEST)
    (tmp_path / "pytest.ini").touch()
    options = ["-p", "no:cacheprovider", "-p", "no:randomly", "-s", "--rootdir", tmp_path, tmp_path / "test_inner.py"]
    return [sys.executable, "-m", "pytest", *map(str, options)]


@linux_only
def test_a_run_that_leaves_an_orphan_fails(inner: list[str]) -> None:
    """The failure names the test and the command; the orphan is killed."""
    done = processes.run([*inner, "-k", "leaves"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    left = re.search(r"AssertionError: process (\d+) of test_inner.py::test_leaves \(call\): (.*)", done.stdout)
    assert left, done.stdout
    assert "time.sleep(600)" in left[2]
    wait_until_ended(int(left[1]))


@linux_only
def test_a_killed_pytest_leaves_no_process(inner: list[str]) -> None:
    """Its guard kills what it started."""
    with processes.running([*inner, "-k", "is_killed"], cwd=ROOT, stdout=processes.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = next(int(words[-1]) for line in run.stdout if (words := line.split()) and words[-1].isdigit())
        assert is_running(pid)
        run.kill()
        run.wait()
        wait_until_ended(pid)


def direct_starts(path: pathlib.Path) -> list[str]:
    """Return the places of a file that start a process without `tests.support.processes`."""
    names = {"Popen", "run", "call", "check_call", "check_output", "create_subprocess_exec", "create_subprocess_shell"}
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in names
        and ast.unparse(node.func.value) in {"subprocess", "asyncio", "asyncio.subprocess"}
        and ast.unparse(node.func) != "asyncio.run"
    ]


def test_every_process_is_started_here() -> None:
    """No test and no benchmark starts one by itself, except the smoke test, which runs alone."""
    files = {*TESTS.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")}
    files -= {TESTS / "smoke.py", TESTS / "support" / "processes.py"}
    assert [place for path in sorted(files) for place in direct_starts(path)] == []
