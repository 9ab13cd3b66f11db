"""Compares the delivery that the client reports for each call with the ledger of a service with random faults.

Run: python -m tests.system.oracle [--sends 100000] [--seed N] [--loop asyncio uvloop] [--json]
A scenario has one client and 200 calls (messaging, voice and verify) in 16 tasks; the seed selects the `Resend` policy,
whether connections are kept, and which calls are cancelled. A result that contradicts the ledger or the retry rules is
printed with its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import itertools
import json
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RequestError, Resend, RetryPolicy
from tests.system._ledger_server import AT_LEAST_ONCE, RESENDABLE, UNCERTAIN, LedgerServer, is_valid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system._ledger_server import Arrival

LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
SCENARIO_SIZE = 200
TASKS = 16
ATTEMPTS = 3
MAX_RETRY_AFTER = 60.0
# A verify may be retried only after these statuses, or if its request was not sent.
RETRYABLE_VERIFY_STATUSES = {500, 503}
CANCELLED = "CancelledError"


@dataclasses.dataclass(frozen=True)
class CallResult:
    """What the client reports for one call."""

    delivery: str
    attempts: int
    identifier: str = ""
    valid: bool | None = None
    duplicate: bool = False
    error: str = ""
    stopped_by: str | None = None
    local: bool = False


@dataclasses.dataclass
class Verdict:
    """The counts and contradictions of one or more scenarios."""

    sends: int = 0
    verifies: int = 0
    requests: int = 0
    twice: int = 0
    stalled: int = 0
    words: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: Verdict) -> None:
        self.sends += other.sends
        self.verifies += other.verifies
        self.requests += other.requests
        self.twice += other.twice
        self.stalled += other.stalled
        self.words.update(other.words)
        self.faults.update(other.faults)
        self.wrong += other.wrong


def judge(
    result: CallResult,
    arrivals: list[Arrival],
    entries: list[str],
    policy: str,
    *,
    sends: bool,
    timeout: float = 20.0,
    stalled: bool = False,
) -> list[str]:
    """Return how a client's result contradicts the ledger and the retry rules.

    If the event loop stalled, the client may have timed out before it read an answer that was written in time.
    """
    proofs = [arrival.fault.proof for arrival in arrivals]
    all_in_time = True
    for index, (arrival, following) in enumerate(itertools.pairwise(arrivals)):
        # On a busy machine even a conclusive answer may arrive after the timeout.
        if (stalled or following.at - arrival.at >= 0.99 * timeout) and proofs[index] not in UNCERTAIN:
            all_in_time = False
            if proofs[index] in {"ok", "no"}:
                proofs[index] = "late"
    if stalled and arrivals and "Timeout" in result.error and result.attempts == len(arrivals):
        proofs[-1] = "late"
    attempt_errors = _check_attempts(result, arrivals, proofs, policy, sends=sends)
    ledger_errors = _check_ledger(result, proofs, entries, policy) if sends else ()
    return [*attempt_errors, *ledger_errors, *(_check_delivery(result, arrivals, sends=sends) if all_in_time else ())]


def _check_attempts(
    result: CallResult, arrivals: list[Arrival], proofs: list[str], policy: str, *, sends: bool
) -> Iterator[str]:
    not_received = result.attempts - len(arrivals)

    def may_resend(arrival: Arrival, proof: str) -> bool:
        if arrival.fault.retry_after > MAX_RETRY_AFTER:
            return False
        if sends:
            return policy in RESENDABLE[proof]
        return proof != "late" and arrival.fault.status in RETRYABLE_VERIFY_STATUSES

    if result.attempts > ATTEMPTS or not_received < 0:
        yield f"{len(arrivals)} requests, {result.attempts} attempts reported"
    for (arrival, following), proof in zip(itertools.pairwise(arrivals), proofs, strict=False):
        if not may_resend(arrival, proof):
            yield f"repeated after {arrival.fault.name}"
        waited = following.at - arrival.answered_at
        # Timers may be early by one clock tick.
        if arrival.fault.retry_after and waited < arrival.fault.retry_after - 0.002:
            yield f"repeated before the Retry-After of {arrival.fault.name}"
    # The error shows whether the time of a call ran out while it waited for its next attempt.
    is_retry_expected = (
        result.stopped_by is None and not result.local and result.error not in {"", "DeadlineExceededError", CANCELLED}
    )
    if is_retry_expected and not not_received and arrivals and may_resend(arrivals[-1], proofs[-1]):
        yield f"not repeated after {arrivals[-1].fault.name}"


def _check_ledger(result: CallResult, proofs: list[str], entries: list[str], policy: str) -> Iterator[str]:
    if result.delivery in {"not_sent", "rejected"} and entries:
        yield f"{result.delivery}, and {len(entries)} went out"
    if result.delivery == "accepted":
        if result.identifier not in entries:
            yield "accepted with an id that is not in the ledger"
        if len(entries) != 1 and not result.duplicate:
            yield f"accepted without a warning, and {len(entries)} went out"
    # The service documents its 5xx as not sent, so the default policy retries them. A gateway may have sent the 5xx.
    by_gateways = proofs.count("gate") if policy == "rejected" else 0
    if policy != AT_LEAST_ONCE and len(entries) > 1 + by_gateways:
        yield f"{len(entries)} went out under {policy}"


def _check_delivery(result: CallResult, arrivals: list[Arrival], *, sends: bool) -> Iterator[str]:
    """If each attempt was answered in time, the answers determine the delivery."""
    late = "Timeout" in result.error or result.local or result.error == "DeadlineExceededError"
    if late or not arrivals or result.attempts != len(arrivals) or result.error == CANCELLED:
        return
    proofs = [arrival.fault.proof for arrival in arrivals]
    uncertain = not UNCERTAIN.isdisjoint(proofs)
    expected = "accepted" if proofs[-1] == "ok" else "unknown" if uncertain else "rejected"
    if result.delivery != expected:
        yield f"{result.delivery}, but {expected} by the answers"
    if result.delivery == "accepted" and result.duplicate != (uncertain and sends):
        yield f"possible_duplicate is {result.duplicate}"
    if not sends and arrivals[-1].fault.status == 429 and result.error != "VerificationLockedError":
        yield f"a lock-out is reported as {result.error}"


async def result_of(call: Any, cancel_after: int | None) -> CallResult:
    """Return the result of a call; cancel it after `cancel_after` iterations of the event loop."""
    task = asyncio.ensure_future(call)
    for _ in range(cancel_after or 0):
        await asyncio.sleep(0)
    if cancel_after is not None:
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return CallResult("cancelled", ATTEMPTS, error=CANCELLED)
    try:
        response = task.result()
    except RequestError as error:
        name, local = type(error).__name__, getattr(error, "local", False)
        return CallResult(
            error.delivery.value, error.attempts, error=name, stopped_by=error.retry_stopped_by, local=bool(local)
        )
    meta = response.meta
    identifier = getattr(response, "message_id", None) or getattr(response, "call_id", "")
    valid = getattr(response, "valid", None)
    return CallResult("accepted", meta.attempts, identifier, valid, meta.possible_duplicate)


class Scenario:
    """One client and one server; the seed decides the calls and the faults.

    Args:
        seed: the seed of all random decisions.
        size: the number of calls.
        virtual: whether the event loop uses virtual time, so that long waits cost nothing.
    """

    def __init__(self, seed: int, size: int, *, virtual: bool) -> None:
        rng = random.Random(seed)
        self.seed = seed
        self.resend = rng.choice(list(Resend))
        timeout, self.wait, retry_after = (20.0, 0.5, 3.0) if virtual else (0.4, 0.002, 0.03)
        self.server = LedgerServer(seed, timeout, retry_after, rng.choice([0.1, 0.35, 0.6]), cold=rng.random() < 0.3)
        self.policy = RetryPolicy(
            max_attempts=ATTEMPTS,
            wait_initial=self.wait,
            wait_max=self.wait * 8,
            timeout=rng.choice([60.0, 200.0]),
            attempt_timeout=timeout,
            connect_timeout=timeout / 4,
            max_retry_after=MAX_RETRY_AFTER,
            resend=self.resend,
        )
        self.limits = Limits(adaptive=virtual and rng.random() < 0.5, max_in_flight=rng.choice([4, 100]))
        operations = ("messaging", "messaging", "voice", "verify")
        self.size = size
        self.calls = iter(
            [
                (f"+1{index:010}", rng.choice(operations), rng.randrange(40) if rng.random() < 0.03 else None)
                for index in range(size)
            ]
        )
        self.outage = rng.random() < 0.3
        self.results: dict[str, CallResult] = {}
        self.verdict = Verdict()

    async def run(self) -> Verdict:
        """Run the calls and compare their results with the ledger."""
        await self.server.start()
        base_url = f"http://127.0.0.1:{self.server.port}/api/v1"
        auth = BasicAuth("user", "pass")
        async with MFAClient("9900000", auth, base_url=base_url, retry=self.policy, limits=self.limits) as mfa:
            watch = asyncio.ensure_future(self.watch_for_stalls())
            await asyncio.gather(*[self.run_calls(mfa) for _ in range(TASKS)], self.interrupt_service())
            watch.cancel()
            executor = mfa._executor
            session = executor.state.transport._session
            if executor.slots.taken or (session is not None and session.connector._acquired):
                self.verdict.wrong.append(f"seed {self.seed}: slots or connections were not released")
        await self.server.stop()
        for key, result in self.results.items():
            self.compare(key, result)
        return self.verdict

    async def watch_for_stalls(self) -> None:
        """Record whether the event loop stalls for more than an eighth of the attempt timeout."""
        loop, max_stall = asyncio.get_running_loop(), self.policy.attempt_timeout / 8
        while not self.verdict.stalled:
            began = loop.time()
            await asyncio.sleep(max_stall / 4)
            self.verdict.stalled = int(loop.time() - began > max_stall)

    async def run_calls(self, mfa: MFAClient) -> None:
        for number, operation, cancel_after in self.calls:
            if operation == "messaging":
                call: Any = mfa.generate_messaging_code(LOGIN.to(number))
            elif operation == "voice":
                call = mfa.generate_voice_code(LOGIN.to(number))
            else:
                call = mfa.verify_code(to=number, code="123456", scope="login")
            self.results[f"{operation} {number}"] = await result_of(call, cancel_after)

    async def interrupt_service(self) -> None:
        """In some scenarios, refuse connections for a while in the middle."""
        if self.outage:
            await self.wait_for_results(self.size // 3)
            self.server.refuse()
            await self.wait_for_results(self.size // 3 + 10)
            await self.server.start()

    async def wait_for_results(self, calls: int) -> None:
        while len(self.results) < calls:
            await asyncio.sleep(self.wait)

    def compare(self, key: str, result: CallResult) -> None:
        operation, number = key.split()
        sends = operation != "verify"
        arrivals, entries = self.server.arrivals[key], self.server.ledger[key]
        timeout, stalled = self.policy.attempt_timeout, self.verdict.stalled > 0
        wrong = judge(result, arrivals, entries, self.resend.value, sends=sends, timeout=timeout, stalled=stalled)
        if result.valid is not None and result.valid is not is_valid(self.seed, number):
            wrong.append("valid differs from the service's answer")
        fault_names = [arrival.fault.name for arrival in arrivals]
        verdict = self.verdict
        verdict.wrong += [
            f"seed {self.seed}, {self.resend.value}, {key}: {what}; {result}; {fault_names}" for what in wrong
        ]
        verdict.sends += sends
        verdict.verifies += not sends
        verdict.requests += len(arrivals)
        verdict.twice += sends and len(entries) > 1
        verdict.words[f"{'send' if sends else 'verify'} {result.delivery}"] += 1
        verdict.words["perhaps twice, and says so"] += result.duplicate
        verdict.faults.update(fault_names)


async def run_scenario(seed: int, size: int = SCENARIO_SIZE, *, virtual: bool) -> Verdict:
    """Run the scenario of a seed and return its verdict."""
    return await Scenario(seed, size, virtual=virtual).run()


async def run_scenarios(seed: int, sends: int, *, virtual: bool) -> Verdict:
    """Run scenarios of consecutive seeds until there are `sends` sends; in real time, several concurrently."""
    total = Verdict()
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: total.wrong.append(
            f"seed {seed} or earlier: the loop's exception handler was called: {context}"
        )
    )
    concurrency = 1 if virtual else 6
    while total.sends < sends:
        for verdict in await asyncio.gather(*[run_scenario(seed + n, virtual=virtual) for n in range(concurrency)]):
            total.add(verdict)
        seed += concurrency
    return total


def run(loop: str, seed: int, sends: int) -> Verdict:
    """Run scenarios on asyncio's loop with virtual time, or on uvloop in real time."""
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_scenarios(seed, sends, virtual=False))
    from tests.support.virtual_time import VirtualTimeLoop

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(run_scenarios(seed, sends, virtual=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sends", type=int, default=100_000, help="total, divided equally among the loops")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--loop", nargs="+", choices=["asyncio", "uvloop"], default=["asyncio", "uvloop"])
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    results = {}
    for loop in options.loop:
        began = time.perf_counter()
        verdict = run(loop, options.seed, -(-options.sends // len(options.loop)))
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
