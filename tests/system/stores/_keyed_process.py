"""One process that requests codes with keys; it writes a line of JSON per outcome.

Arguments: store URL, base URL, account, user, password, first key, last key, in flight, lease.
It waits for a line of input before it begins, so that all processes begin at the same moment.
"""

from __future__ import annotations

import asyncio
import json
import sys

from bandwidth_mfa_async import (
    BasicAuth,
    CodeTemplate,
    Limits,
    MFAClient,
    RedisStore,
    RequestError,
    RetryPolicy,
    SQLiteStore,
)

LOGIN = CodeTemplate(from_="+19195554321", application_id="any", scope="login")


async def main(url, base_url, account, user, password, first, last, in_flight, lease):
    if url.startswith("redis"):
        store = RedisStore(url, lease=float(lease))
    else:
        store = SQLiteStore(url.removeprefix("sqlite:///"), lease=float(lease))
    options = {"retry": RetryPolicy(timeout=60, wait_initial=0.01), "limits": Limits(adaptive=False)}
    numbers = iter(range(int(first), int(last)))
    async with MFAClient(account, BasicAuth(user, password), base_url=base_url, store=store, **options) as client:

        async def send():
            for number in numbers:
                outcome = {"key": number}
                try:
                    sent = await client.generate_messaging_code(
                        LOGIN.to(f"+1919{number:07}"), idempotency_key=f"login:{number}"
                    )
                except RequestError as error:
                    outcome |= {"delivery": error.delivery.value, "error": repr(error)}
                else:
                    outcome |= {"delivery": "accepted", "id": sent.message_id, "replayed": sent.meta.replayed}
                    outcome["duplicate"] = sent.meta.possible_duplicate
                print(json.dumps(outcome), flush=True)  # noqa: T201 - what the test reads

        await asyncio.gather(*(send() for _ in range(int(in_flight))))


if __name__ == "__main__":
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    sys.stdin.readline()
    asyncio.run(main(*sys.argv[1:]))
