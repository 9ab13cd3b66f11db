"""A program whose client runs out of file descriptors after its first success; prints the outcomes of its calls.

Run: python -m tests.support.out_of_descriptors BASE_URL
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.abc
import json
import os
import resource
import sys
from typing import Any

from bandwidth_mfa_async import BasicAuth, BulkSender, CodeTemplate, MFAClient, Resend, RetryPolicy

TEMPLATE = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2")
ONE = TEMPLATE.to("+19195551234")


class Blocker(importlib.abc.MetaPathFinder):
    """Remembers each module that is looked for, and finds none."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> None:
        self.names.append(fullname)
        raise ImportError(fullname)


def use_up() -> list[int]:
    """Open files until no more can be opened; return their descriptors."""
    descriptors: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            descriptors.append(os.open(os.devnull, os.O_RDONLY))
    return descriptors


async def outcome(call: Any) -> list[Any]:
    try:
        result = await call
    except Exception as error:  # noqa: BLE001 - printed
        return [type(error).__name__, getattr(error, "delivery", None), str(error)]
    return [type(result).__name__, "accepted", ""]


async def main(base_url: str) -> None:
    policy = RetryPolicy(wait_initial=0.001, wait_max=0.002)
    blocker = Blocker()
    found: dict[str, Any] = {}
    async with MFAClient("9900000", BasicAuth("user", "pass"), base_url=base_url, retry=policy) as mfa:
        again = mfa.with_options(retry=RetryPolicy(resend=Resend.AT_LEAST_ONCE, wait_initial=0.001, wait_max=0.002))
        found["first"] = await outcome(mfa.generate_messaging_code(ONE))
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        sys.meta_path.insert(0, blocker)
        descriptors = use_up()
        for name in ("retried", "rejected", "date"):
            found[name] = await outcome(mfa.generate_messaging_code(ONE))
        # The connection ends, and its descriptor is used by something else before the retry.
        loop = asyncio.get_running_loop()
        ended = loop.create_task(outcome(again.generate_messaging_code(ONE)))
        while not ended.done():
            descriptors += use_up()
            await asyncio.sleep(0)
        found["unknown"] = ended.result()
        found["not sent"] = await outcome(mfa.generate_messaging_code(ONE))
        async with BulkSender(mfa, max_in_flight=2) as bulk:
            numbers = [f"+1919555{index:04}" for index in range(20)]
            found["bulk"] = [item.delivery async for item in bulk.send(numbers, template=TEMPLATE)]
        found["ending"] = bulk.summary.ending
        for descriptor in descriptors:
            os.close(descriptor)
        found["last"] = await outcome(mfa.generate_messaging_code(ONE))
    sys.meta_path.remove(blocker)
    print(json.dumps(found | {"imports": blocker.names}))  # noqa: T201 - for the test


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
