"""A program whose parent process makes its objects, uses the ledger, and forks, as ``gunicorn --preload`` does.

Arguments: the URL of a Redis, the number of children. Each child prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from taskiq import InMemoryBroker

from bandwidth_mfa_async import BasicAuth, ClientStateError, CodeTemplate, Limits, MFAClient
from bandwidth_mfa_async.limits.shared._redis_limits import RedisLimits
from bandwidth_mfa_async.telemetry import CallStartedEvent
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger

URL, COUNT = sys.argv[1], int(sys.argv[2])
TEMPLATE = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


class Ids:
    """Keeps the ids of calls."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def on_event(self, event: object) -> None:
        if isinstance(event, CallStartedEvent):
            self.found.append(event.call_id)


IDS = Ids()
LEDGER = RedisLedger(URL)
WORKER = MFAWorker(InMemoryBroker(), ledger=LEDGER, client=MFAClient.from_env)
UNOPENED, OPENED = (
    MFAClient("9900000", BasicAuth("user", "pass"), base_url="http://127.0.0.1:1", hooks=[IDS]) for _ in range(2)
)
SHARED = MFAClient(
    "9900000",
    BasicAuth("user", "pass"),
    base_url="http://127.0.0.1:1",
    limits=Limits(rate="5/s", shared=RedisLimits(URL, key="9900000")),
)


async def send(client: MFAClient) -> str:
    """Send a code to an address where nothing listens; return the class of the error."""
    try:
        await client.generate_messaging_code(TEMPLATE.to("+19195551234"), timeout=5)
    except Exception as error:  # noqa: BLE001 - its class is the result
        return type(error).__name__
    return "sent"


async def child(number: int) -> None:
    """Use everything that the parent made."""
    found: dict[str, object] = {}
    try:
        await WORKER.send_code.enqueue(TEMPLATE.to(f"+1919555{number:04}"), key=f"child:{number}", timeout=5)
        outcome = await WORKER.send_code.outcome(f"child:{number}", timeout=5)
        found["queued"] = outcome is not None and outcome.delivery is None
    except Exception as error:  # noqa: BLE001 - its class is the result
        found["queued"] = type(error).__name__
    try:
        await asyncio.wait_for(LEDGER.submit(f"job{number}", "open", "{}", 1, "messaging"), 5)
        found["job"] = await LEDGER.exists(f"job{number}")
    except Exception as error:  # noqa: BLE001 - its class is the result
        found["job"] = type(error).__name__
    IDS.found.clear()
    found["unopened"] = await send(UNOPENED)
    found["call_id"] = IDS.found[:1]
    try:
        await OPENED.generate_messaging_code(TEMPLATE.to("+19195551234"))
    except ClientStateError:
        found["opened"] = "ClientStateError"
    except Exception as error:  # noqa: BLE001 - its class is the result
        found["opened"] = type(error).__name__
    await send(SHARED)
    limiter: Any = SHARED._executor.limiters["messaging"]
    process = limiter._process_id
    found["process"] = process if isinstance(process, str) else process.get()
    await UNOPENED.aclose()
    await SHARED.aclose()
    await LEDGER.aclose()
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


async def parent() -> None:
    """Use the ledger and one client before the fork, as far as a first batch."""
    await WORKER.send_code.enqueue(TEMPLATE.to("+19195559999"), key="parent", timeout=5)
    await send(OPENED)


def main() -> None:
    """Fork the children, one after another, inside and outside a running loop."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(parent())
    for number in range(COUNT):
        if os.fork() == 0:
            asyncio.run(child(number))
            os._exit(0)
        os.wait()
    # The parent's own connections have survived.
    outcome = loop.run_until_complete(WORKER.send_code.outcome("parent", timeout=5))
    sys.stdout.write(json.dumps({"parent": outcome is not None}) + "\n")
    loop.run_until_complete(LEDGER.aclose())


if __name__ == "__main__":
    main()
