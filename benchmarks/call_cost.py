"""CPU of one `generate_messaging_code`, everything on, against aiohttp written by hand: naive and tuned.

Run: python -m benchmarks.call_cost [--uvloop] [--rounds 7] [--calls 3000] [--in-flight 16]
The server is another process; rounds alternate; the ratio is that of the best rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from bandwidth_mfa_async import BasicAuth, CodeTemplate, MFAClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATH = "/api/v1/accounts/9900000/code/messaging"
MESSAGE = "Your {NAME} {SCOPE} code is {CODE}"
BASIC = "Basic " + base64.b64encode(b"user:pass").decode()


async def measure(call: Callable[[str], Awaitable[object]], calls: int, in_flight: int) -> float:
    """Return CPU seconds a call in this process."""
    numbers = iter(range(calls))

    async def worker() -> None:
        for n in numbers:
            await call(f"+1919{n:07}")

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return (time.process_time() - began) / calls


async def compare(port: int, rounds: int, calls: int, in_flight: int) -> dict[str, float]:
    """Return the best round of each way, in microseconds of CPU a call."""
    url = f"http://127.0.0.1:{port}{PATH}"
    fields = {"from": "+19195554321", "applicationId": "app", "scope": "login", "message": MESSAGE, "digits": 6}
    template = CodeTemplate("+19195554321", "app", scope="login")
    tuned_url, tuned_headers = URL(url), {"Authorization": BASIC, "Content-Type": "application/json"}
    none = aiohttp.ClientTimeout(total=None)
    best: dict[str, float] = {}
    async with (
        MFAClient("9900000", BasicAuth("user", "pass"), base_url=f"http://127.0.0.1:{port}/api/v1") as mfa,
        aiohttp.ClientSession(headers={"Authorization": BASIC}) as naive_session,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as tuned_session,
    ):

        async def ours(to: str) -> str:
            return (await mfa.generate_messaging_code(template.to(to))).message_id

        async def naive(to: str) -> str:
            async with naive_session.post(url, json={"to": to, **fields}) as response:
                response.raise_for_status()
                document: dict[str, str] = await response.json()
                return document["messageId"]

        async def tuned(to: str) -> str:
            body = json.dumps({"to": to, **fields}).encode()
            async with tuned_session.post(
                tuned_url, data=body, headers=tuned_headers, allow_redirects=False, timeout=none
            ) as response:
                document: dict[str, str] = json.loads(await response.read())
                return document["messageId"]

        ways = {"bandwidth_mfa_async": ours, "aiohttp, naive": naive, "aiohttp, tuned": tuned}
        for way in ways.values():
            await measure(way, 300, in_flight)
        for _ in range(rounds):
            for name, way in ways.items():
                cost = await measure(way, calls, in_flight)
                best[name] = min(best.get(name, cost), cost)
    return {name: cost * 1e6 for name, cost in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--in-flight", type=int, default=16)
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-m", "benchmarks._server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        work = compare(int(server.stdout.readline()), options.rounds, options.calls, options.in_flight)
        if options.uvloop:
            import uvloop

            best = uvloop.run(work)
        else:
            best = asyncio.run(work)
    finally:
        server.terminate()
        server.wait()
    print(f"{'':24}{'us CPU a call':>14}{'to naive':>10}")
    for name, cost in best.items():
        print(f"{name:24}{cost:14.0f}{cost / best['aiohttp, naive']:10.2f}")


if __name__ == "__main__":
    main()
