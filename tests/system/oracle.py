"""Compares the outcome of every code, in each place that reports one, with the ledger of a service with random faults.

Run: python -m tests.system.oracle [--sends 100000] [--seed N] [--loop asyncio uvloop]
                                   [--only calls bulk keys sign-ins workers] [--json]
A scenario has 200 codes; its seed selects the `Resend` policy, the faults, whether connections are kept, and how the
codes are sent: by calls of one client (of which some are cancelled), by a bulk run that is stopped and resumed, by
calls with idempotency keys of two clients that share a store which fails, or (in real time, with a Redis) by workers:
a job and single codes. What is read: results, errors and telemetry events of calls; `ItemOutcome`, `BulkSummary`, the
journal's rows, `JournalReport` and `report --json`; `JobOutcome`, `JobProgress`, `jobs --json`, `CodeOutcome`, the
result of `kiq` and the ledger's rows. A result that contradicts the ledger, the retry rules or another place is
printed with its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pathlib
import random
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from tests.support.redis_server import RedisServer, server_binary
from tests.system._bulk_scenario import BulkScenario
from tests.system._client_scenario import SCENARIO_SIZE, Scenario, Verdict
from tests.system._store_scenario import KeyedScenario, SignInScenario, StoreScenario
from tests.system._worker_scenario import WorkerScenario, impatient_workers

if TYPE_CHECKING:
    from collections.abc import Iterator


async def run_scenario(
    seed: int, size: int = SCENARIO_SIZE, *, virtual: bool, kind: type[Scenario] = Scenario
) -> Verdict:
    """Run the scenario of a seed and return its verdict."""
    return await kind(seed, size, virtual=virtual).run()


@contextlib.contextmanager
def redis_for_workers() -> Iterator[None]:
    """Start the Redis of `WorkerScenario`, if there is one."""
    if server_binary() is None:
        yield
        return
    with tempfile.TemporaryDirectory() as name, impatient_workers():
        server = RedisServer(pathlib.Path(name))
        try:
            WorkerScenario.redis_url = StoreScenario.redis_url = server.url
            yield
        finally:
            server.kill()


KINDS: dict[str, type[Scenario]] = {
    "calls": Scenario,
    "bulk": BulkScenario,
    "keys": KeyedScenario,
    "sign-ins": SignInScenario,
    "workers": WorkerScenario,
}


async def run_scenarios(seed: int, sends: int, *, virtual: bool, only: list[str] | None = None) -> Verdict:
    """Run scenarios of consecutive seeds until there are `sends` sends; in real time, several concurrently."""
    total = Verdict()
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: total.wrong.append(
            f"seed {seed} or earlier: the loop's exception handler was called: {context}"
        )
    )
    concurrency = 1 if virtual else 6
    while total.sends < sends:
        kinds = [KINDS[name] for name in only or KINDS]
        if virtual or not WorkerScenario.redis_url:  # the time of Redis is real
            kinds = [kind for kind in kinds if kind is not WorkerScenario]
        scenarios = [
            run_scenario(seed + n, virtual=virtual, kind=kinds[(seed + n) % len(kinds)]) for n in range(concurrency)
        ]
        for verdict in await asyncio.gather(*scenarios):
            total.add(verdict)
        seed += concurrency
    return total


def run(loop: str, seed: int, sends: int, only: list[str] | None = None) -> Verdict:
    """Run scenarios on asyncio's loop with virtual time, or on uvloop in real time."""
    if loop == "uvloop":
        import uvloop

        with redis_for_workers(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_scenarios(seed, sends, virtual=False, only=only))
    from tests.support.virtual_time import VirtualTimeLoop

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(run_scenarios(seed, sends, virtual=True, only=only))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sends", type=int, default=100_000, help="total, divided equally among the loops")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--loop", nargs="+", choices=["asyncio", "uvloop"], default=["asyncio", "uvloop"])
    parser.add_argument("--only", nargs="+", choices=KINDS)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    results = {}
    for loop in options.loop:
        began = time.perf_counter()
        verdict = run(loop, options.seed, -(-options.sends // len(options.loop)), options.only)
        results[loop] = verdict
        if options.as_json:
            continue
        print(
            f"{loop}: {verdict.sends:,} sends and {verdict.verifies:,} verifies, {verdict.requests:,} requests,",
            end=" ",
        )
        print(f"{len(verdict.faults)} kinds of faults, {time.perf_counter() - began:.0f} s")
        print("   ", ", ".join(f"{name} {count:,}" for name, count in sorted(verdict.words.items())))
        print(f"    texts that went out twice, as the policy allows: {verdict.twice:,}")
        if verdict.stalled:
            print(f"    scenarios with a stalled event loop, where timeouts are accepted: {verdict.stalled:,}")
        print(f"    results that contradict the ledger: {len(verdict.wrong)}")
        for line in verdict.wrong[:20]:
            print("   ", line)
    if options.as_json:
        print(json.dumps({"seed": options.seed} | {loop: vars(verdict) for loop, verdict in results.items()}))
    sys.exit(any(verdict.wrong for verdict in results.values()))


if __name__ == "__main__":
    main()
