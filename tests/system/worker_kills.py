"""Kills, suspends and disconnects workers while they send, and compares outcomes with the texts that went out.

Run: python -m tests.system.worker_kills [--items 20000] [--workers 4] [--kills 12] [--rate 200] [--signal KILL]
     [--lease 5] [--resend REJECTED] [--codes 0] [--forks 0] [--steps 0] [--command] [--seed N] [--json]
Real ``taskiq worker`` processes on Redis streams, the ledger and the shared rate in the same Redis, a simulated
service with faults and with a rate limit that the workers do not know. Processes are killed at random moments and
started again; one is suspended past its lease and continued; Redis is killed once and starts again with its data.
With --codes, single codes are requested meanwhile; with --forks, each process made and used the workers' objects and
then forked its workers; with --steps, the wall clocks of Redis and of the workers are set forward and back. All
places that report outcomes are compared with each other and with the texts that went out.
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
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import Delivery
from bandwidth_mfa_async.simulator import AccountLimits, Fault, Simulator
from bandwidth_mfa_async.worker.ledger._code_queue import CodeQueue
from tests.support import processes
from tests.support.fake_clock import FakeClock
from tests.support.redis_server import RedisServer
from tests.support.worker_processes import Workers, numbers
from tests.system._outcomes import (
    Places,
    add_progress,
    code_row,
    ledger_rows,
    of_job_item,
    summary_totals,
)
from tests.system._single_codes import SingleCodes, key_of

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate

PREFIX = "bandwidth-mfa"
STEPS = (5, -5, 3600, -3600, 0)
"""Offsets of a clock from the true time, in seconds."""
INTERRUPTED, IN_FLIGHT = "unknown for a kill or a freeze", "those in flight then"
START_UP = 3.0
"""Seconds from the start of a worker until it sends its first chunk."""
NOT_SENT = {Delivery.REJECTED, Delivery.NOT_SENT, Delivery.INVALID, Delivery.SKIPPED}


async def run(options: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    rng = random.Random(options.seed)
    clocks = [FakeClock(folder / f"clock-{place}") for place in range(options.workers + 1)] if options.steps else []
    clock = clocks[-1] if clocks else None
    redis = await asyncio.to_thread(RedisServer, folder, clock=clock)
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
        log = folder / "workers.log"
        workers = Workers(options.workers, environment, log, forks=options.forks, clocks=clocks[:-1])
        os.environ["WORKER_REDIS"] = redis.url
        from tests.support import worker_app as app

        try:
            for place in range(options.workers):
                await workers.start(place)
            async with asyncio.timeout(options.timeout):
                found = await scene(options, rng, redis, workers, simulator, app, clocks)
        except BaseException:
            await workers.show_stacks()
            print((folder / "workers.log").read_text()[-12_000:], file=sys.stderr)
            raise
        finally:
            await workers.end()
            redis.kill()
    return found


async def scene(  # noqa: PLR0912 - each way to disturb the workers is a branch
    options: argparse.Namespace,
    rng: random.Random,
    redis: RedisServer,
    workers: Workers,
    simulator: Simulator,
    app: Any,
    clocks: list[FakeClock],
) -> dict[str, Any]:
    items = options.items
    kills = frozen = restarts = graceful = steps = 0
    in_flight_at_kills = 0
    async with app.codes as codes:
        began = time.monotonic()
        watcher: asyncio.Task[dict[str, Any]] | None = None
        if options.command:
            watcher = asyncio.create_task(watch(redis.url, app.LOGIN, items, workers))
            job = codes.job("kills")
            while "kills" not in [known.name for known in await codes.jobs()]:
                await asyncio.sleep(0.02)
        else:
            job = await codes.submit(numbers(items), name="kills", chunk=options.chunk, template=app.LOGIN)
        marks = sorted(rng.sample(range(items // 10, items * 9 // 10), options.kills))
        freeze_at = items // 3 if options.freeze else items * 2
        restart_at = items * 2 // 3 if options.restart else items * 2
        step_marks = sorted(rng.sample(range(items // 10, items * 9 // 10), options.steps))
        requester = SingleCodes(codes, app.LOGIN, options.codes)
        requests = asyncio.create_task(requester.run())
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
                if options.signal == "KILL" and options.forks and rng.random() < 0.5:
                    workers.send(place, signal.SIGHUP)  # one of the forks
                    kills += 1
                    await asyncio.sleep(0.2)
                    in_flight_at_kills += (await job.progress()).sending
                    continue
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
            if step_marks and accepted >= step_marks[0]:
                step_marks.pop(0)
                rng.choice([clocks[-1], rng.choice(clocks)]).step(rng.choice(STEPS))  # Redis more often than a worker
                steps += 1
                in_flight_at_kills += (await job.progress()).sending
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
        await requests
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
        # A worker that was killed may hold a code whose request has timed out, until its lease expires: it was read.
        await requester.read()
        places = Places()
        recipients = list(numbers(items))
        places.outcomes["JobOutcome"] = {recipients[outcome.index]: of_job_item(outcome) for outcome in outcomes}
        progress = await job.progress()
        with redis.client() as client:
            places.outcomes["ledger"] = ledger_rows(client, "kills", recipients, options.chunk, prefix=PREFIX)
            requester.places.outcomes["ledger"] = {
                number: code_row(client, CodeQueue.name(key_of(number)), prefix=PREFIX) for number in requester.returned
            }
        await asyncio.to_thread(add_progress, places, progress, redis.url, prefix=PREFIX)
        if watcher is not None:
            places.totals["bulk --worker --json"] = summary_totals(await watcher, {}, items)
    interrupted = sum(outcome.error == "LeaseExpired" for outcome in outcomes)
    duplicates = {
        number
        for found in (places, requester.places)
        for number, outcome in next(iter(found.outcomes.values()), {}).items()
        if outcome.duplicate or outcome.delivery == "unknown"
    }
    for outcome in outcomes:
        deliveries[outcome.index] = outcome.delivery
    resends_nothing = options.resend == "REJECTED"
    texts = collections.Counter(message.to for message in simulator.inbox)
    ids: dict[str, list[str]] = collections.defaultdict(list)
    for message in simulator.inbox:
        ids[message.to].append(message.message_id)
    wrong = [*places.check(ids, options.resend.lower()), *requester.check(ids, options.resend.lower())]
    by_number = dict(zip(recipients, deliveries, strict=True))
    requests = simulator.requests
    refused = sum(request.status == 429 for request in requests)
    pace = _pace(steady, options.rate)
    return {
        "items": items,
        "single codes": requester.counts(),
        "clock steps": steps,
        "contradictions": len(wrong),
        "examples": wrong[:10],
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


async def watch(url: str, template: CodeTemplate, items: int, workers: Workers) -> dict[str, Any]:
    """Submit and watch the job with the command line; return the JSON that it prints."""
    file = workers.log.with_name("kills.csv")
    file.write_text("\n".join(["to", *numbers(items)]))
    command = ["bulk", file, "--worker", url, "--json", "--from", template.from_, "--scope", template.scope]
    command += ["--application-id", template.application_id, "--message", template.message]
    async with processes.running_async(
        *(sys.executable, "-m", "bandwidth_mfa_async", *command),
        env=workers.environment,
        stdout=processes.PIPE,
        stderr=processes.DEVNULL,
    ) as process:
        stdout, _ = await process.communicate()
    found: dict[str, Any] = json.loads(stdout)
    return found


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
    wrong = (
        "contradictions",
        "texted twice",
        "missing in silence",
        "accepted without a text",
        "texted and called not sent",
    )
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
    parser.add_argument("--command", action="store_true", help="submit and watch the job with the command line")
    parser.add_argument("--codes", type=int, default=0, help="single codes, 20 a second")
    parser.add_argument("--forks", type=int, default=0, help="workers that each process forks")
    parser.add_argument("--steps", type=int, default=0, help="steps of a wall clock, of Redis or a worker")
    parser.add_argument("--timeout", type=float, help="seconds until the run fails and shows where the workers are")
    parser.add_argument("--no-freeze", action="store_false", dest="freeze")
    parser.add_argument("--no-restart", action="store_false", dest="restart")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    if options.command:
        options.chunk = 500  # the command line's
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
