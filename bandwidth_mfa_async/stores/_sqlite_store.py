"""`SQLiteStore`: keys, sign-ins and guards of all processes of one machine."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from .._clock import wait_until
from .._process import PerProcess
from .._validation import checked_count
from ..errors import ConfigurationError, StoreError
from ._decisions import DEFAULT_LEASE, DEFAULT_RETENTION
from ._secret import secret_beside
from ._sqlite_file import Job, StoreFile, count_records
from ._transactional import TransactionalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._clock import Clock
    from ._secret import StoreSecret
    from ._step import Reply
    from ._transactional import Change

DEFAULT_MAX_SIZE: Final = 4 * 1024**3
_CLOSE_TIMEOUT: Final = 5.0
"""Seconds to wait for the thread to close the file; a disk may hang."""


class _Files:
    """The files of this process: open ones, and the threads that close one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files: dict[str, StoreFile] = {}
        self.closing: dict[str, threading.Thread] = {}


_files: Final[PerProcess[_Files]] = PerProcess(_Files)


def open_file(path: str, make: Callable[[threading.Thread | None], StoreFile]) -> StoreFile:
    """Return this process's only `StoreFile` of a path, and count its user.

    Args:
        path: the file.
        make: makes the file; its argument is the thread that must end before.
    """
    state = _files.get()
    with state.lock:
        file = state.files.get(path)
        if file is None:
            file = state.files[path] = make(state.closing.pop(path, None))
        file.users += 1
        return file


def close_file(file: StoreFile) -> threading.Thread | None:
    """Uncount a user. The last one stops the file; the thread that closes it is returned."""
    state = _files.get()
    with state.lock:
        file.users -= 1
        if file.users:
            return None
        state.files.pop(file.path, None)
        thread = state.closing[file.path] = file.stop()
        return thread


class _Handle:
    """This store's use of the file in one process."""

    def __init__(self) -> None:
        self.file: StoreFile | None = None


class SQLiteStore(TransactionalStore):
    """A store in an SQLite file, for all processes of one machine. The file is opened, or made, at the first use.

    Every commit is on the disk (``synchronous=FULL``) before a text is sent, and no lock is held during a request. Each
    process has one thread and one connection for a file. The file and the two beside it (``-wal``, ``-shm``) belong
    together; they hold digests, ids and outcomes, no numbers and no texts, and only their owner can read them. A
    container mounts their folder, not the file.

    Args:
        path: the file, on a local disk.
        lease: seconds for which a claim is valid unless it is renewed; at least 1.
        retention: seconds for which a key is kept after its last change; at least 60, and at least `lease`.
        max_size: the largest size of the file in bytes; a key takes about 300. A full store refuses new keys.
        allow_network_mount: open a file on a network or FUSE mount. Their locks often do not work: two processes could
            send one text twice.
        clock: the time source; for tests.
        secret: one or several secrets of at least 16 characters, the current one first, for digests of the numbers
            and visitors of sign-ins and guards. By default those in `BW_STORE_SECRET`, or one that is made at its
            first use and kept beside the file, in ``<path>.secret``, which only its owner can read.

    Raises:
        ConfigurationError: a value is wrong.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        path: str | os.PathLike[str],
        *,
        lease: float = DEFAULT_LEASE,
        retention: float = DEFAULT_RETENTION,
        max_size: int = DEFAULT_MAX_SIZE,
        allow_network_mount: bool = False,
        clock: Clock | None = None,
        secret: StoreSecret = None,
    ) -> None:
        super().__init__(lease=lease, retention=retention, clock=clock, secret=secret)
        name: Any = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(name, str) or not name:
            raise ConfigurationError("path: must be the path of a file, like 'codes.db'")
        checked_count("max_size", max_size)
        self.path: str = name
        self._max_size = max_size
        self._allow_network_mount = bool(allow_network_mount)
        self._handle = PerProcess(_Handle)
        self._own_secrets: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    async def transact(self, keys: Sequence[str], change: Change, *, deadline: float, is_read: bool) -> Reply:
        """Run a change in the file's thread; see `TransactionalStore.transact`.

        Raises:
            StoreError: the file cannot be used, is full, or did not answer by the deadline.
        """
        reply: Reply = await self._submit(keys, change, deadline, is_read=is_read)
        return reply

    async def _submit(self, keys: Sequence[str], change: Callable[..., Any], deadline: float, *, is_read: bool) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        until = time.monotonic() + deadline - self.clock.monotonic()
        self._file().submit(Job(keys, change, until, is_read=is_read, future=future))
        if not await wait_until(self.clock, deadline, future):
            future.cancel()
            raise StoreError(
                f"{self.path}: the store did not answer in time; the disk is slow, or a program is writing"
            )
        return future.result()

    def _file(self) -> StoreFile:
        handle = self._handle.get()
        if handle.file is None:

            def make(after: threading.Thread | None) -> StoreFile:
                """Return the file of this process."""
                return StoreFile(
                    self.path,
                    max_size=self._max_size,
                    allow_network_mount=self._allow_network_mount,
                    wall_clock=self.clock.time,
                    after=after,
                )

            handle.file = open_file(self.path, make)
        return handle.file

    async def _make_secrets(self, *, deadline: float) -> Sequence[bytes]:
        """Return the secret beside the file.

        Raises:
            StoreError: it cannot be read or made.
        """
        if not self._own_secrets:
            path = f"{self.path}.secret"
            seconds = max(0.0, deadline - self.clock.monotonic())
            try:
                self._own_secrets = (await asyncio.wait_for(asyncio.to_thread(secret_beside, self.path), seconds),)
            except (OSError, TimeoutError) as error:
                failure = StoreError(f"{path}: the store's secret cannot be read or made ({type(error).__name__})")
            else:
                return self._own_secrets
            raise failure
        return self._own_secrets

    async def counts(self, *, deadline: float) -> Mapping[str, Mapping[str, int]]:
        """Return the number of records by kind and state. It reads every record.

        Raises:
            StoreError: the file cannot be used, or did not answer by the deadline.
        """
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for kind, state, number in await self._submit((), count_records, deadline, is_read=True):
            found[kind][state] += number
        return found

    async def aclose(self) -> None:
        """Close the file once what was submitted has run. The store may be used again: it reopens."""
        handle = self._handle.get()
        file, handle.file = handle.file, None
        thread = None if file is None else close_file(file)
        if thread is None:
            return
        latest = time.monotonic() + _CLOSE_TIMEOUT
        while thread.is_alive() and time.monotonic() < latest:
            await asyncio.to_thread(thread.join, 0.5)
