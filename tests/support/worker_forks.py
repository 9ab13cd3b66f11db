"""A program like gunicorn with ``--preload``: it loads and uses the workers' module, then forks the workers.

Run: python -m tests.support.worker_forks CHILDREN
Each child is a worker as `tests.support.worker_processes` starts it. A child that dies is forked again. SIGHUP kills a
child at random; SIGTERM ends the children as it would end workers, and then this process.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import Any


def main() -> None:
    count = int(sys.argv[1])
    from tests.support import worker_app as app
    from tests.support.worker_processes import main as work

    async def use() -> None:
        """Open and close what a program that loads an application may open: the ledger and a client with its limits."""
        async with app.codes, app.client():
            await app.codes.jobs()

    asyncio.run(use())
    children: set[int] = set()
    is_ending = False

    def end(number: int, _frame: Any) -> None:
        nonlocal is_ending
        is_ending = True
        for child in children:
            os.kill(child, number)

    def kill_one(_number: int, _frame: Any) -> None:
        if children:
            os.kill(random.choice(sorted(children)), signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, kill_one)
    while children or not is_ending:
        while len(children) < count and not is_ending:
            child = os.fork()
            if not child:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                work()
                os._exit(0)
            children.add(child)
        child, _ = os.wait()
        children.discard(child)


if __name__ == "__main__":
    main()
