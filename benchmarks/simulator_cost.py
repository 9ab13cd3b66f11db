"""CPU of the simulator for a code request, compared with a bare `aiohttp.web` handler with the same JSON.

Run: python -m benchmarks.simulator_cost [--requests 20000] [--rounds 3]
Each server is a separate process that reports its CPU time; the figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import time

from aiohttp import web

from bandwidth_mfa_async.simulator import AccountLimits, Simulator
from tests.support import processes

CONNECTIONS = 20
BODY = json.dumps(
    {
        "to": "+19195551234",
        "from": "+19195554321",
        "applicationId": "93de2206-9669-4e07-948d-329f4b722ee2",
        "scope": "login",
        "message": "Your {NAME} {SCOPE} code is {CODE}",
        "digits": 6,
    }
).encode()
REQUEST = (
    b"POST /api/v1/accounts/9900000/code/messaging HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Authorization: Basic %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
) % (base64.b64encode(b"user:pass"), len(BODY), BODY)


async def bare() -> int:
    """Serve a handler that parses the body and answers with an id; return the port."""

    async def answer(request: web.Request) -> web.Response:
        document = await request.json()
        return web.json_response({"messageId": f"{time.time_ns()}{document['to'][1:]}"})

    app = web.Application()
    app.router.add_post("/api/v1/accounts/{account}/code/messaging", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return int(runner.addresses[0][1])


async def simulated(*, limited: bool) -> int:
    """Serve the simulator, with or without an account limit that is never reached; return the port."""
    limits = AccountLimits(rate=1e6) if limited else None
    simulator = Simulator(username="user", password="pass", messaging_limits=limits)
    await simulator.start()
    return simulator.port


async def serve(kind: str) -> None:
    """Print the port, then the CPU seconds spent so far for each line on standard input."""
    port = await (bare() if kind == "bare" else simulated(limited=kind == "simulator, limited"))
    print(port, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(time.process_time(), flush=True)


async def load(port: int, requests: int) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests // CONNECTIONS):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head, head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def measure(kind: str, requests: int) -> float:
    """Return microseconds of the server's CPU a request."""
    with processes.running(
        [sys.executable, "-m", "benchmarks.simulator_cost", "--serve", kind],
        stdin=processes.PIPE,
        stdout=processes.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())

        def spent() -> float:
            server.stdin.write("\n")  # type: ignore[union-attr]
            server.stdin.flush()  # type: ignore[union-attr]
            return float(server.stdout.readline())  # type: ignore[union-attr]

        asyncio.run(load(port, requests // 10))
        before = spent()
        asyncio.run(load(port, requests))
        return (spent() - before) / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    kinds = ("bare", "simulator", "simulator, limited")
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            costs[kind].append(measure(kind, options.requests))
    bare_cost = statistics.median(costs["bare"])
    print(f"{'':20}{'us CPU a request':>18}{'to bare':>10}   target 2.00")
    for kind in kinds:
        cost = statistics.median(costs[kind])
        print(f"{kind:20}{cost:18.0f}{cost / bare_cost:10.2f}")


if __name__ == "__main__":
    main()
