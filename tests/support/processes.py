"""Start processes that cannot outlive the program that started them.

Each process leads a session, and so a process group, of its own. The group is killed when its context manager ends, and
by a guard process when the program that started it ends in any way, SIGKILL included. The program may be pytest, or a
process that pytest started: a grandchild ends as its parent does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

# The guard reads "N" when group N starts and "-N" when it has ended. Its input ends with the program that writes to it.
_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin.buffer:
    number = int(line)
    groups.add(number) if number > 0 else groups.discard(-number)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""
_PR_SET_CHILD_SUBREAPER = 36
DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
TimeoutExpired = subprocess.TimeoutExpired


class _Guard:
    """The guard process of this program; it starts with the first group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._owner == os.getpid() else None

    def add(self, group: int) -> None:
        self._write(group)

    def remove(self, group: int) -> None:
        self._write(-group)

    def _write(self, number: int) -> None:
        with self._lock:
            if self.pid is None:  # also in a fork, whose parent has a guard
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(b"%d\n" % number)

    def _start(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _GUARD]
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
        )
        self._owner = os.getpid()
        atexit.register(self._end)

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


_guard = _Guard()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    _guard.remove(group)


def start(command: Sequence[Any], **options: Any) -> subprocess.Popen[Any]:
    """Start a process as `subprocess.Popen` does; end it with `end`."""
    process = subprocess.Popen(list(command), start_new_session=True, **options)
    _guard.add(process.pid)
    return process


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process and every process of its group, and close its pipes."""
    _kill_group(process.pid)
    process.wait()
    pipes: list[IO[Any] | None] = [process.stdin, process.stdout, process.stderr]
    for pipe in pipes:
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it did not read is lost
                pipe.close()


@contextlib.contextmanager
def running(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a process, at most until the block ends."""
    process = start(command, **options)
    try:
        yield process
    finally:
        end(process)


def run(
    command: Sequence[Any],
    *,
    timeout: float | None = 100.0,
    check: bool = False,
    capture_output: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a process to its end as `subprocess.run` does, but kill its whole group in the end.

    Raises:
        TimeoutExpired: it took longer than `timeout`; holds the output so far.
        CalledProcessError: `check`, and it failed; the output is in the error's notes.
    """
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    data = options.pop("input", None)
    if data is not None:
        options["stdin"] = PIPE
    with running(command, **options) as process:
        try:
            out, err = process.communicate(data, timeout)
        except subprocess.TimeoutExpired as error:
            _kill_group(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a process of another group may hold the pipes
                error.output, error.stderr = process.communicate(timeout=5.0)
            error.add_note(f"output: {error.output}\nerrors: {error.stderr}")
            raise
        if check and process.returncode:
            failed = subprocess.CalledProcessError(process.returncode, process.args, out, err)
            failed.add_note(f"output: {out}\nerrors: {err}")
            raise failed
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


async def start_async(*command: Any, **options: Any) -> asyncio.subprocess.Process:
    """Start a process as `asyncio.create_subprocess_exec` does; end it with `end_async`."""
    process = await asyncio.create_subprocess_exec(*map(str, command), start_new_session=True, **options)
    _guard.add(process.pid)
    return process


async def end_async(process: asyncio.subprocess.Process) -> None:
    """Kill a process and every process of its group, and close its pipes."""
    _kill_group(process.pid)
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def running_async(*command: Any, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process, at most until the block ends."""
    process = await start_async(*command, **options)
    try:
        yield process
    finally:
        await end_async(process)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """Return the processes below this one that run, except the guard; Linux only, elsewhere none."""
    children: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold spaces.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, look = [], [os.getpid()]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return [pid for pid in found if pid != _guard.pid]


def describe(pid: int) -> str:
    """Return a process's command, and the test that started it."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return f"process {pid}, which has ended since"
    name = b"PYTEST_CURRENT_TEST="
    test = next((line.removeprefix(name).decode() for line in variables if line.startswith(name)), "no test")
    return f"process {pid} of {test}: {command[:200]}"


def kill_descendants(grace: float = 5.0) -> list[str]:
    """Wait until this process has no descendants; kill those left after `grace` seconds, and describe them."""
    until = time.monotonic() + grace
    while (left := descendants()) and time.monotonic() < until:
        time.sleep(0.02)
    described = [describe(pid) for pid in left]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return described
