"""Bulk runs that are killed at random moments and resumed: at most one text per number, an outcome for every number.

Run: python -m tests.system.bulk_kills [--runs 20] [--items 20000] [--signal KILL|TERM] [--command] [--seed N] [--json]
The simulator runs in this process and answers with 429s, 503s, 400s, lost answers and delays; the run, with a journal,
is a child process: a `BulkSender`, or with --command the command line. Each run is killed several times and resumed
until it finishes. The items' outcomes, the counts, the journal, its report and what the command line prints are
compared with each other and with the texts that went out.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import csv
import dataclasses
import json
import pathlib
import random
import signal
import sys
import tempfile
from typing import Any

import attrs

from bandwidth_mfa_async import BulkSender, CodeTemplate, Limits, MFAClient, RetryPolicy
from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.support import processes
from tests.system._outcomes import Outcome, Places, add_journal, of_item, summary_totals, totals_of

LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
IN_FLIGHT = 64
KILLS = 4


def numbers(count: int) -> list[str]:
    return [f"+1{index:010}" for index in range(count)]


async def child(items: int, journal: str, client: dict[str, Any]) -> None:
    """Send; stop on SIGTERM; print the outcomes in the order of the input."""
    mfa = MFAClient.from_env(
        **client,
        limits=Limits(adaptive=False, max_in_flight=IN_FLIGHT),
        retry=RetryPolicy(wait_initial=0.01, wait_max=0.05, max_attempts=8),
    )
    outcomes: list[tuple[Any, ...] | None] = [None] * items
    skipped: collections.Counter[str] = collections.Counter()
    async with mfa, BulkSender(mfa, journal=journal) as bulk:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, bulk.stop)
        async for outcome in bulk.send(numbers(items), template=LOGIN):
            outcomes[outcome.index] = dataclasses.astuple(of_item(outcome))
            if outcome.previous is not None:
                skipped[outcome.previous.value] += 1
    print(json.dumps(attrs.asdict(bulk.summary) | {"skipped_because": skipped, "outcomes": outcomes}))


async def one_run(
    items: int, kill_signal: signal.Signals, rng: random.Random, folder: pathlib.Path, *, by_command: bool = False
) -> dict[str, Any]:
    journal = folder / f"{rng.getrandbits(32):08x}.db"
    recipients = numbers(items)
    file = folder / "numbers.csv"
    file.write_text("\n".join(["to", *recipients]))
    unknowns = folder / "unknowns.csv"
    kills, passes = 0, 0
    async with Simulator(seed=rng.getrandbits(31), request_log_limit=10 * items) as simulator:
        rejection = {"error": "no such number", "requestId": "r"}
        simulator.faults.chance(Fault(status=429), 0.05, operation="messaging")
        failure = {"error": "Internal Error", "requestId": "r"}
        simulator.faults.chance(Fault(status=503, body=failure), 0.03, operation="messaging")
        simulator.faults.chance(Fault(status=400, body=rejection), 0.01, operation="messaging")
        simulator.faults.chance(Fault(drop="after_read"), 0.002, operation="messaging")
        simulator.faults.chance(Fault(delay=0.02), 0.3, operation="messaging")
        environment = {
            "BW_MFA_URL": simulator.base_url,
            "BW_ACCOUNT_ID": simulator.account_id,
            "BW_USERNAME": simulator.username,
            "BW_PASSWORD": simulator.password,
        }
        kill_points = sorted(rng.sample(range(items // 20, items * 9 // 10), KILLS))
        while True:
            passes += 1
            command = [sys.executable, "-m", "tests.system.bulk_kills", "--child", items, journal]
            if by_command:
                command = [sys.executable, "-m", "bandwidth_mfa_async", "bulk", file, "--journal", journal, "--json"]
                command += ["--from", LOGIN.from_, "--application-id", LOGIN.application_id, "--unknowns", unknowns]
            variables = environment | {"PATH": "/usr/bin:/bin"}
            quiet = {"stderr": processes.DEVNULL} if by_command else {}
            async with processes.running_async(*command, env=variables, stdout=processes.PIPE, **quiet) as process:
                output = asyncio.create_task(process.communicate())
                while not output.done():
                    if kill_points and len(simulator.inbox) >= kill_points[0]:
                        kill_points.pop(0)
                        # A random moment, not always the end of a loop iteration.
                        await asyncio.sleep(rng.random() * 0.05)
                        if process.returncode is None:
                            process.send_signal(kill_signal)
                            kills += 1
                        break
                    await asyncio.wait([output], timeout=0.005)
                stdout, _ = await output
            if process.returncode in {0, 3, 4} and (found := json.loads(stdout))["ending"] == "finished":
                break
            assert passes < 100, "the run does not finish"
        texts: dict[str, list[str]] = collections.defaultdict(list)
        for message in simulator.inbox:
            texts[message.to].append(message.message_id)
        lost = sum(request.status is None for request in simulator.requests)
    places, own = Places(), "bulk --json" if by_command else "BulkSummary"
    if not by_command:
        found["outcomes"] = [Outcome(*(item or [""])) for item in found["outcomes"]]
        places.outcomes["ItemOutcome"] = dict(zip(recipients, found["outcomes"], strict=True))
    await asyncio.to_thread(add_journal, places, journal, recipients)
    places.totals[own] = summary_totals(found, found["skipped_because"], found["taken"])
    outcomes = places.outcomes["journal"]
    wrong = [*places.check(texts, "rejected")]
    if by_command:
        exported = (
            {line["to"] for line in csv.DictReader(unknowns.read_text().splitlines())} if unknowns.exists() else set()
        )
        if exported != {number for number, outcome in outcomes.items() if outcome.delivery == "unknown"}:
            wrong.append(f"--unknowns has {len(exported)} rows")
    counts = totals_of(outcomes.values())
    return {
        "items": items,
        "kills": kills,
        "passes": passes,
        "contradictions": len(wrong),
        "examples": wrong[:10],
        "texted twice": sum(len(sent) > 1 for sent in texts.values()),
        "missing in silence": counts[""] + counts["not_sent"],
        "unknown": counts["unknown"],
        "unknown at most": lost + (kills * IN_FLIGHT if kill_signal is signal.SIGKILL else 0),
        "accepted": counts["accepted"],
        "rejected": counts["rejected"],
    }


def sound(run: dict[str, Any]) -> bool:
    wrong = ("contradictions", "texted twice", "missing in silence")
    return not any(run[name] for name in wrong) and run["unknown"] <= run["unknown at most"]


async def many(options: argparse.Namespace) -> list[dict[str, Any]]:
    rng = random.Random(options.seed)
    kill_signal = signal.Signals[f"SIG{options.signal}"]
    results = []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.runs):
            results.append(
                await one_run(options.items, kill_signal, rng, pathlib.Path(name), by_command=options.command)
            )
            if not options.as_json:
                print("sound" if sound(results[-1]) else "NOT SOUND", results[-1], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--command", action="store_true", help="run the command line instead of a BulkSender")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        asyncio.run(child(int(options.child[0]), options.child[1], {}))
        return
    results = asyncio.run(many(options))
    if options.as_json:
        print(json.dumps({"seed": options.seed, "sound": all(map(sound, results)), "runs": results}))
        return
    print(f"seed {options.seed}: {sum(map(sound, results))} of {len(results)} runs sound;", end=" ")
    print(f"{sum(run['kills'] for run in results)} kills, {sum(run['unknown'] for run in results)} unknown")
    if not all(map(sound, results)):
        sys.exit(1)


if __name__ == "__main__":
    main()
