"""A wall clock of a process that tests step while it runs, by libfaketime. Its monotonic clock is not changed."""

from __future__ import annotations

import asyncio
import pathlib
import time

LIBRARY = next(iter(sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
"""libfaketime, as Debian packages it; None where it is not installed."""


class FakeClock:
    """The wall clock of the processes that are started with its `variables`.

    Args:
        file: holds the clock's offset.
    """

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        self.step(0)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a process that has this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset: int) -> None:
        """Set the clock to so many seconds after the true time; the processes follow within a second."""
        self._file.write_text(f"{offset:+}\n")


async def set_clock(server, offset):
    """Set the clock of a Redis that has a `FakeClock`, and wait until it is set."""
    server.clock.step(offset)
    with server.client() as client:
        async with asyncio.timeout(10):
            while abs(client.time()[0] - time.time() - offset) > 2:
                await asyncio.sleep(0.01)
