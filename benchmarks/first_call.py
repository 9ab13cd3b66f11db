"""Wall and CPU time of a process's first call over TLS, with and without `warm_up`, beside handwritten aiohttp.

Run: python -m benchmarks.first_call [--quick] [--rounds 15] [--json FILE]
Every round starts a process for each way, against one TLS server on loopback, where a round trip takes almost no time:
the saving measured here is the work of the handshake. On a network `warm_up` also saves its two round trips.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import platform
import ssl
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import aiohttp
import trustme

from bandwidth_mfa_async import BasicAuth, CodeTemplate, MFAClient
from tests.support import processes

from ._call_rivals import BASIC, FIELDS, PATH
from ._server import Answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COLD, WARM, AIOHTTP = "first call", "first call after warm_up", "first call, aiohttp by hand"
NEXT = "second call"


async def timed(call: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Return the milliseconds of wall and CPU time of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    await call()
    return {"wall_ms": (time.perf_counter() - wall) * 1e3, "cpu_ms": (time.process_time() - cpu) * 1e3}


async def once(way: str, port: int, trusted: str) -> dict[str, dict[str, float]]:
    """Make the first call of this process and the one after it."""
    trusting = ssl.create_default_context(cafile=trusted)
    base_url = f"https://127.0.0.1:{port}/api/v1"
    if way == AIOHTTP:
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": BASIC}) as session:

            async def post() -> object:
                async with session.post(base_url + PATH, json={"to": "+19195551234", **FIELDS}) as response:
                    response.raise_for_status()
                    return (await response.json())["messageId"]

            return {"first": await timed(post), "second": await timed(post)}
    request = CodeTemplate("+19195554321", "app", scope="login").to("+19195551234")
    async with MFAClient("9900000", BasicAuth("user", "pass"), base_url=base_url, ssl=trusting) as mfa:
        if way == WARM:
            await mfa.warm_up()
        return {
            "first": await timed(lambda: mfa.generate_messaging_code(request)),
            "second": await timed(lambda: mfa.generate_messaging_code(request)),
        }


async def serve(certificate: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def measure(rounds: int) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Alternate the ways and return the figures of each round."""
    seen: dict[str, list[dict[str, dict[str, float]]]] = {COLD: [], WARM: [], AIOHTTP: []}
    this = [sys.executable, "-m", "benchmarks.first_call"]
    with tempfile.TemporaryDirectory() as name:
        folder, authority = pathlib.Path(name), trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        serve = [*this, "--serve", str(folder / "server.pem")]
        with processes.running(serve, stdout=processes.PIPE, text=True) as server:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            for turn in range(rounds + 1):
                for way in list(seen)[:: -1 if turn % 2 else 1]:
                    command = [*this, "--child", way, port, str(folder / "ca.pem")]
                    done = processes.run(command, capture_output=True, text=True, check=True)
                    if turn:  # the first round writes bytecode
                        seen[way].append(json.loads(done.stdout))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five rounds")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    if options.child:
        way, port, trusted = options.child
        print(json.dumps(asyncio.run(once(way, int(port), trusted))))
        return
    seen = measure(5 if options.quick else options.rounds)
    columns = {way: [one["first"] for one in rounds] for way, rounds in seen.items()}
    columns[NEXT] = [one["second"] for one in seen[COLD]]
    figures = []
    print(f"{'':32}{'ms wall':>9}{'ms CPU':>9}{'to a first call':>17}")
    for name, column in columns.items():
        wall, cpu = (statistics.median(one[kind] for one in column) for kind in ("wall_ms", "cpu_ms"))
        pairs = zip(column, columns[COLD], strict=True)
        ratio = statistics.median(one["wall_ms"] / cold["wall_ms"] for one, cold in pairs)
        print(f"{name:32}{wall:9.2f}{cpu:9.2f}{ratio:17.2f}")
        figures.append({"name": name, "wall_ms": wall, "cpu_ms": cpu, "to_first_call": ratio})
    if options.json is not None:
        options.json.write_text(json.dumps({"python": platform.python_version(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
