"""Uses a store, forks, and uses it again in both processes. Argument: the store's URL."""

from __future__ import annotations

import asyncio
import os
import sys

from bandwidth_mfa_async._lease import Lease
from bandwidth_mfa_async.stores import KeyStatus, store_from_url

store = store_from_url(sys.argv[1])


async def claim(key, *, closes=True):
    lease = Lease(store.lease, store.clock)
    deadline = asyncio.get_running_loop().time() + 10
    record = await store.claim(key, "d", lease, begins=True, resends_unknown=False, deadline=deadline)
    if closes:
        await store.aclose()
    return record.status


if os.fork() == 0:  # before its first use
    assert asyncio.run(claim("0f")) is KeyStatus.CLAIMED
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0

loop = asyncio.new_event_loop()
assert loop.run_until_complete(claim("0f", closes=False)) is KeyStatus.SENDING
child = os.fork()
if child == 0:
    assert asyncio.run(claim("0f")) is KeyStatus.SENDING
    assert asyncio.run(claim("1f")) is KeyStatus.CLAIMED
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert loop.run_until_complete(claim("1f")) is KeyStatus.SENDING
loop.close()
