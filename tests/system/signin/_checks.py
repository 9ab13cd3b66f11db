"""A process of an application that checks codes: ``store simulator's-url flow-id code number-of-checks mode``.

It prints "ready", waits for a line, makes all checks at once, and prints how often each result came.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from bandwidth_mfa_async import BasicAuth, MFAClient, RedisStore, RetryPolicy, SQLiteStore
from bandwidth_mfa_async.signin import SignIns
from bandwidth_mfa_async.signin._flows import CountedCheck, Flows
from tests.support.signins import LOGIN, NUMBER, SECRET, VISITOR


def open_store(where: str) -> Any:
    if where.startswith("redis://"):
        return RedisStore(where, secret=SECRET)
    return SQLiteStore(where, secret=SECRET)


def hang_after_the_services_yes() -> None:
    original = Flows.settle_check

    async def settle_check(self: Flows, check: CountedCheck, outcome: str) -> tuple[str, int]:
        if outcome == "valid":
            print("valid at the service", flush=True)
            await asyncio.Event().wait()
        return await original(self, check, outcome)

    Flows.settle_check = settle_check  # type: ignore[method-assign]


async def main() -> None:
    where, url, account, username, password, what, codes, mode = sys.argv[1:]
    if mode == "hang":
        hang_after_the_services_yes()
    client = MFAClient(account, BasicAuth(username, password), base_url=url, retry=RetryPolicy(max_attempts=1))
    async with open_store(where) as store, client as mfa:
        signins = SignIns(mfa, LOGIN, store=store)
        await signins.get("warm up")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        results: Counter[str] = Counter()
        if mode == "start":
            flows = await asyncio.gather(
                *(signins.start(NUMBER, visitor=VISITOR, idempotency_key=what) for _ in codes.split(","))
            )
            results.update(flow.id for flow in flows)
        else:
            checks = await asyncio.gather(*(signins.check(what, code) for code in codes.split(",")))
            results.update("valid" if check.valid else str(check.reason) for check in checks)
        print(json.dumps(results), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
