"""One process of the shared-rate benchmark: a bulk run and sign-ins through one client."""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import logging
import random
import sys
import time

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RedisLimits

TEMPLATE = CodeTemplate("+19195554321", "app", scope="login")


class Outages(logging.Handler):
    """Counts how often the process fell back to its local limiter."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "cannot be used" in record.msg


async def work(options: argparse.Namespace) -> None:
    limits = Limits(shared=RedisLimits(options.redis, key=options.account))
    outages = Outages()
    logging.getLogger("bandwidth_mfa_async").addHandler(outages)
    errors: collections.Counter[str] = collections.Counter()
    logins: list[tuple[float, float]] = []
    sent = 0
    rng = random.Random(options.seed)
    async with MFAClient(
        options.account, BasicAuth(options.user, options.password), base_url=options.url, limits=limits
    ) as client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        until = asyncio.get_running_loop().time() + options.seconds

        async def send(lane: str) -> None:
            nonlocal sent
            try:
                await client.generate_messaging_code(TEMPLATE.to(f"+1919{sent % 10_000_000:07}"), lane=lane)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - count every error that reaches a caller
                errors[type(error).__name__] += 1
            else:
                sent += 1

        async def bulk() -> None:
            while asyncio.get_running_loop().time() < until:
                await send("bulk")

        async def login() -> None:
            began = time.monotonic()
            await send("interactive")
            logins.append((began, time.monotonic() - began))

        async with asyncio.TaskGroup() as group:
            for _ in range(options.bulk):
                group.create_task(bulk())
            while asyncio.get_running_loop().time() < until:
                await asyncio.sleep(rng.expovariate(options.logins))
                group.create_task(login())
    print(json.dumps({"sent": sent, "errors": errors, "logins": logins, "outages": outages.count}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "account", "user", "password", "redis"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--bulk", type=int, default=10)
    parser.add_argument("--logins", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
