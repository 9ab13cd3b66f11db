"""Ten thousand sends through a service that rejects and fails at random: each has a correct outcome."""

from __future__ import annotations

import json
import os
import pathlib
import sys

import pytest

from tests.support import processes

SCRIPT = """
import asyncio, collections, json, os, sys

from bandwidth_mfa_async import CodeTemplate, Limits, MFAClient, RequestError, RetryPolicy
from bandwidth_mfa_async.simulator import Fault, Simulator

COUNT, IN_FLIGHT, SEED = 10_000, 200, int(sys.argv[1])


def sockets():
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return sum(name.startswith("socket:") for name in names)


async def main():
    before = sockets()
    peak = 0
    results = {}
    failed = collections.Counter()
    template = CodeTemplate("+19195554321", "app", scope="volume")
    async with (
        Simulator(seed=SEED) as sim,
        MFAClient(
            **sim.client_kwargs(),
            limits=Limits(max_in_flight=IN_FLIGHT, adaptive=False),
            retry=RetryPolicy(max_attempts=5, wait_initial=0.02, wait_max=0.2),
        ) as mfa,
    ):
        error = {"error": "Internal Error", "requestId": "r"}
        sim.faults.chance(Fault(status=429), 0.10, operation="messaging")
        sim.faults.chance(Fault(status=503, body=error), 0.05, operation="messaging")
        numbers = iter(range(COUNT))

        async def worker():
            nonlocal peak
            for n in numbers:
                to = f"+1919{n:07}"
                try:
                    sent = await mfa.generate_messaging_code(template.to(to))
                except RequestError as failure:
                    failed[str(failure.delivery)] += 1
                    results[to] = None
                else:
                    assert not sent.meta.possible_duplicate
                    results[to] = sent.message_id
                if n % 1000 == 0:
                    peak = max(peak, sockets())

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
        inbox = {message.to: message.message_id for message in sim.inbox}
        texts = len(sim.inbox)
        attempts = len(sim.requests)
    await asyncio.sleep(0)
    accepted = {to: name for to, name in results.items() if name is not None}
    print(json.dumps({
        "calls": len(results), "accepted": len(accepted), "failed": failed, "texts": texts,
        "agree": inbox == accepted, "attempts": attempts, "peak": peak, "left": sockets() - before,
    }))


asyncio.run(main())
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts sockets the way Linux shows them")
def test_ten_thousand_sends_match_the_inbox() -> None:
    """Inbox and results match one to one, no text is lost or sent twice, stderr is empty, and no socket remains."""
    seed = int.from_bytes(os.urandom(2), "big")
    done = processes.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert done.stderr == "", f"seed {seed}"
    results = json.loads(done.stdout)
    assert results["calls"] == 10_000
    assert results["agree"], f"seed {seed}: {results}"
    assert results["accepted"] == results["texts"]
    assert results["accepted"] + sum(results["failed"].values()) == 10_000
    assert set(results["failed"]) <= {"rejected"}
    # 15 % of the attempts are rejected, and a call makes at most five: two or three of ten thousand calls fail.
    assert sum(results["failed"].values()) < 30
    assert results["peak"] <= 2 * 200 + 20
    assert results["left"] == 0
