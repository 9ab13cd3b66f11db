"""A program that uses one worker in several `asyncio.run`. The connections of its closed loops are never closed."""

from __future__ import annotations

import asyncio
import sys

from taskiq import InMemoryBroker

from bandwidth_mfa_async import CodeTemplate, MFAClient
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger
from tests.conftest import APPLICATION, FROM, TO

REQUEST = CodeTemplate(FROM, APPLICATION, scope="login").to(TO)


def main(url: str) -> None:
    """Leave a caller behind in the first loop, and queue a code in each of the next ones."""
    codes = MFAWorker(InMemoryBroker(), ledger=RedisLedger(url), client=MFAClient.from_env)
    unfinished = []

    async def leave() -> None:
        unfinished.append(asyncio.ensure_future(codes.send_code.enqueue(REQUEST, key="first", timeout=5)))
        await asyncio.sleep(0)

    async def enqueue(key: str) -> None:
        async with asyncio.timeout(10):
            await codes.send_code.enqueue(REQUEST, key=key, timeout=5)
            outcome = await codes.send_code.outcome(key)
        sys.stdout.write(f"{key} {None if outcome is None else outcome.delivery}\n")

    asyncio.run(leave())
    for key in ("second", "third"):
        asyncio.run(enqueue(key))
    asyncio.run(codes.aclose())


if __name__ == "__main__":
    main(sys.argv[1])
