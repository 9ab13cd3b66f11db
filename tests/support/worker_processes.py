"""Real worker processes on Redis streams, for tests and benchmarks.

Run as a program it is one such process, as ``taskiq worker`` starts them: the receiver alone, without taskiq's manager,
so that the process that is killed is the one that sends.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
from typing import TYPE_CHECKING

from tests.support import processes

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.fake_clock import FakeClock


def numbers(count: int) -> Iterator[str]:
    return (f"+1{index:010}" for index in range(count))


class Workers:
    """Worker processes, each in a place of its own, so that one that has ended is started again.

    Args:
        count: how many places there are.
        environment: the variables of the processes; see `tests.support.worker_app`.
        log: the file that they write to.
        forks: how many workers each process forks, as `tests.support.worker_forks` does; 0 for one that is a worker.
        clocks: the wall clock of each place; by default the machine's.
    """

    def __init__(
        self,
        count: int,
        environment: Mapping[str, str],
        log: pathlib.Path,
        *,
        forks: int = 0,
        clocks: Sequence[FakeClock] = (),
    ) -> None:
        self.processes: list[asyncio.subprocess.Process | None] = [None] * count
        self.environment = environment
        self.log = log
        self.forks = forks
        self.clocks = clocks

    async def start(self, place: int) -> None:
        program = ("tests.support.worker_forks", self.forks) if self.forks else ("tests.support.worker_processes",)
        variables = {**self.environment, **(self.clocks[place].variables if self.clocks else {})}
        with self.log.open("ab") as log:
            self.processes[place] = await processes.start_async(
                sys.executable, "-m", *program, env=variables, stdout=log, stderr=log
            )

    async def restart_the_dead(self) -> None:
        """Do what taskiq's manager does: its receiver ends when its broker is lost."""
        for place, process in enumerate(self.processes):
            if process is not None and process.returncode is not None:
                await self.start(place)

    def alive(self) -> list[int]:
        return [n for n, process in enumerate(self.processes) if process is not None and process.returncode is None]

    async def kill(self, place: int) -> None:
        process = self.processes[place]
        if process is not None:
            await processes.end_async(process)

    def send(self, place: int, number: signal.Signals) -> None:
        process = self.processes[place]
        if process is not None and process.returncode is None:
            if number in {signal.SIGSTOP, signal.SIGCONT}:
                os.killpg(process.pid, number)  # its forks as well
            else:
                process.send_signal(number)

    async def show_stacks(self) -> None:
        """Have every worker write into the log where it is."""
        for place in self.alive():
            self.send(place, signal.SIGCONT)
            self.send(place, signal.SIGUSR1)
        await asyncio.sleep(0.5)

    async def end(self) -> None:
        for place in range(len(self.processes)):
            await self.kill(place)


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    from taskiq.cli.worker.args import WorkerArgs
    from taskiq.cli.worker.run import start_listen

    start_listen(WorkerArgs.from_cli(["tests.support.worker_app:broker", "--shutdown-timeout", "40"]))


if __name__ == "__main__":
    main()
