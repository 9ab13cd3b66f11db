"""Kills, suspends and disconnects workers while they send, and compares outcomes with the texts that went out.

Run: python -m tests.system.worker_kills [--items 20000] [--workers 4] [--kills 12] [--rate 200] [--signal KILL]
     [--lease 5] [--resend REJECTED] [--seed N] [--json]
Real ``taskiq worker`` processes on Redis streams, the ledger and the shared rate in the same Redis, a simulated
service with faults and with a rate limit that the workers do not know. Processes are killed at random moments and
started again; one is suspended past its lease and continued; Redis is killed once and starts again with its data.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import Any

from bandwidth_mfa_async import Delivery
from bandwidth_mfa_async.simulator import AccountLimits, Fault, Simulator
from tests.support.redis_server import RedisServer
from tests.support.worker_processes import Workers, numbers

INTERRUPTED, IN_FLIGHT = "unknown for a kill or a freeze", "those in flight then"
START_UP = 3.0
"""Seconds from the start of a worker until it sends its first chunk."""
NOT_SENT = {Delivery.REJECTED, Delivery.NOT_SENT, Delivery.INVALID, Delivery.SKIPPED}


async def run(options: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    rng = random.Random(options.seed)
    redis = await asyncio.to_thread(RedisServer, folder)
    limits = AccountLimits(rate=options.rate, model="token_bucket") if options.rate else None
    seed, everything = rng.getrandbits(31), 10 * options.items
    async with Simulator(seed=seed, messaging_limits=limits, request_log_limit=everything) as simulator:
        failure = {"error": "Internal Error", "requestId": "r"}
        simulator.faults.chance(Fault(status=503, body=failure), 0.01, operation="messaging")
        simulator.faults.chance(Fault(status=400, body={"error": "no", "requestId": "r"}), 0.005, operation="messaging")
        simulator.faults.chance(Fault(drop="after_read"), 0.002, operation="messaging")
        simulator.faults.chance(Fault(delay=0.05), 0.3, operation="messaging")
        if options.resend != "REJECTED":
            # The text goes out, and the client repeats it. Otherwise no text may go out twice.
            simulator.faults.chance(Fault(status=502, body="", accepted=True), 0.01, operation="messaging")
        environment = os.environ | {
            "BW_MFA_URL": simulator.base_url,
            "BW_ACCOUNT_ID": simulator.account_id,
            "BW_USERNAME": simulator.username,
            "BW_PASSWORD": simulator.password,
            "WORKER_REDIS": redis.url,
            "WORKER_LEASE": str(options.lease),
            "WORKER_RESEND": options.resend,
        }
        workers = Workers(options.workers, environment, folder / "workers.log")
        os.environ["WORKER_REDIS"] = redis.url
        from tests.support import worker_app as app

        try:
            for place in range(options.workers):
                await workers.start(place)
            async with asyncio.timeout(options.timeout):
                found = await scene(options, rng, redis, workers, simulator, app)
        except BaseException:
            await workers.show_stacks()
            print((folder / "workers.log").read_text()[-4_000:], file=sys.stderr)
            raise
        finally:
            await workers.end()
            redis.kill()
    return found


async def scene(
    options: argparse.Namespace,
    rng: random.Random,
    redis: RedisServer,
    workers: Workers,
    simulator: Simulator,
    app: Any,
) -> dict[str, Any]:
    items = options.items
    kills = frozen = restarts = graceful = 0
    in_flight_at_kills = 0
    async with app.codes as codes:
        began = time.monotonic()
        job = await codes.submit(numbers(items), name="kills", chunk=options.chunk, template=app.LOGIN)
        marks = sorted(rng.sample(range(items // 10, items * 9 // 10), options.kills))
        freeze_at = items // 3 if options.freeze else items * 2
        restart_at = items * 2 // 3 if options.restart else items * 2
        thawing: asyncio.Task[None] | None = None
        down = 0.0
        steady: list[tuple[float, int, float]] = []
        disturbed = began
        while True:
            progress = await job.progress()
            if progress.ending is not None:
                break
            accepted = len(simulator.inbox)
            steady.append((time.monotonic(), accepted, disturbed))
            if marks and accepted >= marks[0]:
                marks.pop(0)
                place = rng.choice(workers.alive() or [0])
                await asyncio.sleep(rng.random() * 0.05)
                if options.signal == "KILL":
                    await workers.kill(place)
                    kills += 1
                    in_flight_at_kills += (await job.progress()).sending
                else:
                    workers.send(place, signal.SIGTERM)
                    process = workers.processes[place]
                    assert process is not None
                    await process.wait()
                    graceful += 1
                await workers.start(place)
                disturbed = time.monotonic()
            if accepted >= freeze_at:
                freeze_at = items * 2
                frozen = 1
                place = rng.choice(workers.alive() or [0])
                workers.send(place, signal.SIGSTOP)
                in_flight_at_kills += (await job.progress()).sending

                async def thaw(place: int = place) -> None:
                    await asyncio.sleep(2.5 * options.lease)
                    workers.send(place, signal.SIGCONT)

                thawing = asyncio.create_task(thaw())
            if accepted >= restart_at:
                restart_at = items * 2
                restarts = 1
                gone = time.monotonic()
                redis.kill()
                await asyncio.sleep(1.0)
                await asyncio.to_thread(redis.start)
                down = time.monotonic() - gone
                disturbed = time.monotonic()
            await workers.restart_the_dead()
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
        if thawing is not None:
            await thawing
            await asyncio.sleep(1.0)
        stopped = time.monotonic()
        for place in workers.alive():
            workers.send(place, signal.SIGTERM)
        for process in workers.processes:
            if process is not None:
                await process.wait()
        stopped = time.monotonic() - stopped
        deliveries: list[Delivery | None] = [None] * items
        outcomes = [outcome async for outcome in job.outcomes()]
    recipients = list(numbers(items))
    interrupted = sum(outcome.error == "LeaseExpired" for outcome in outcomes)
    duplicates = {
        recipients[outcome.index]
        for outcome in outcomes
        if outcome.possible_duplicate or outcome.delivery is Delivery.UNKNOWN
    }
    for outcome in outcomes:
        deliveries[outcome.index] = outcome.delivery
    resends_nothing = options.resend == "REJECTED"
    texts = collections.Counter(message.to for message in simulator.inbox)
    by_number = dict(zip(recipients, deliveries, strict=True))
    requests = simulator.requests
    refused = sum(request.status == 429 for request in requests)
    pace = _pace(steady, options.rate)
    return {
        "items": items,
        "workers": options.workers,
        "kills": kills,
        "terminated": graceful,
        "frozen": frozen,
        "redis restarts": restarts,
        "texted twice": sum(count > 1 for to, count in texts.items() if resends_nothing or to not in duplicates),
        "texted twice, and says so": sum(count > 1 for to, count in texts.items() if to in duplicates),
        "possible duplicates": progress.possible_duplicates,
        "missing in silence": deliveries.count(None),
        "accepted without a text": sum(
            delivery is Delivery.ACCEPTED and not texts[to] for to, delivery in by_number.items()
        ),
        "texted and called not sent": sum(
            bool(texts[to]) and delivery in NOT_SENT for to, delivery in by_number.items()
        ),
        "unknown": deliveries.count(Delivery.UNKNOWN),
        INTERRUPTED: interrupted,
        IN_FLIGHT: in_flight_at_kills,
        "outcomes": {str(delivery): count for delivery, count in collections.Counter(deliveries).items()},
        "seconds": round(seconds, 1),
        "redis away, seconds": round(down, 2),
        "all stopped after SIGTERM in, seconds": round(stopped, 1),
        "goodput / limit, all": round(len(simulator.inbox) / seconds / options.rate, 3) if options.rate else None,
        "goodput / limit, all workers up": pace,
        "429s / requests": round(refused / max(1, len(requests)), 4),
    }


def _pace(steady: list[tuple[float, int, float]], rate: float) -> float | None:
    """Return the pace as a share of the limit, without the seconds after the start of a worker."""
    if not rate:
        return None
    seconds = texts = 0.0
    for (before, first, _), (now, last, disturbed) in itertools.pairwise(steady):
        if before - disturbed > START_UP:
            seconds += now - before
            texts += last - first
    return round(texts / seconds / rate, 3) if seconds else None


def sound(found: dict[str, Any]) -> bool:
    wrong = ("texted twice", "missing in silence", "accepted without a text", "texted and called not sent")
    return not any(found[name] for name in wrong) and found[INTERRUPTED] <= found[IN_FLIGHT]  # 0 after SIGTERM


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--chunk", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200.0, help="the account's limit, which the workers do not know")
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--resend", choices=["REJECTED", "AT_LEAST_ONCE"], default="REJECTED")
    parser.add_argument("--timeout", type=float, help="seconds until the run fails and shows where the workers are")
    parser.add_argument("--no-freeze", action="store_false", dest="freeze")
    parser.add_argument("--no-restart", action="store_false", dest="restart")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(run(options, pathlib.Path(name)))
    found = {"seed": options.seed, "sound": sound(found), **found}
    if options.as_json:
        print(json.dumps(found))
    else:
        for fact, value in found.items():
            print(f"{fact}: {value}")
    if not found["sound"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
