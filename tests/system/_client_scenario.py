"""One client's calls against a service with random faults, and the judgement of their results."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import dataclasses
import itertools
import pathlib
import random
import tempfile
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RequestError, Resend, RetryPolicy
from bandwidth_mfa_async.telemetry import CallEvent, CallStartedEvent
from tests.system._ledger_server import RESENDABLE, UNCERTAIN, LedgerServer, is_valid
from tests.system._outcomes import Outcome, contradictions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bandwidth_mfa_async.telemetry import Event
    from tests.system._ledger_server import Arrival

LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
SCENARIO_SIZE = 200
TASKS = 16
ATTEMPTS = 3
MAX_RETRY_AFTER = 60.0
# A verify may be retried only after these statuses, or if its request was not sent.
RETRYABLE_VERIFY_STATUSES = {500, 503}
CANCELLED = "CancelledError"
CALL: contextvars.ContextVar[str] = contextvars.ContextVar("CALL", default="")
"""The operation and the number of the call that the current task makes."""


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
    outcome = Outcome(result.delivery, result.identifier, result.duplicate)
    ledger_errors = contradictions(outcome, entries, policy, gateways=proofs.count("gate")) if sends else ()
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
        self.calls_by_id: dict[str, str] = {}
        self.events: dict[str, list[CallEvent]] = collections.defaultdict(list)
        self.verdict = Verdict()

    async def run(self) -> Verdict:
        """Run the calls and compare their results with the ledger."""
        await self.server.start()
        base_url = f"http://127.0.0.1:{self.server.port}/api/v1"
        values = {"account_id": "9900000", "auth": BasicAuth("user", "pass"), "base_url": base_url}
        settings: dict[str, Any] = values | {"retry": self.policy, "limits": self.limits, "hooks": [self]}
        with tempfile.TemporaryDirectory() as name:
            await self.start(settings, pathlib.Path(name))
            async with MFAClient(**settings) as mfa:
                watch = asyncio.ensure_future(self.watch_for_stalls())
                await asyncio.gather(self.play(mfa), self.interrupt_service())
                watch.cancel()
                executor = mfa._executor
                session = executor.state.transport._session
                if executor.slots.taken or (session is not None and session.connector._acquired):
                    self.verdict.wrong.append(f"seed {self.seed}: slots or connections were not released")
            await self.server.stop()
            await self.finish()
        return self.verdict

    async def start(self, settings: dict[str, Any], folder: pathlib.Path) -> None:
        """Prepare the scenario: the arguments of its clients, and a folder for its files."""

    async def play(self, mfa: MFAClient) -> None:
        """Make the calls."""
        await asyncio.gather(*[self.run_calls(mfa) for _ in range(TASKS)])

    async def finish(self) -> None:
        """Compare the results with the ledger."""
        for key, result in self.results.items():
            self.compare(key, result)

    def on_event(self, event: Event) -> None:
        """Record the events of each call; a `CallStartedEvent` comes in the task that makes the call."""
        if isinstance(event, CallStartedEvent):
            self.calls_by_id[event.call_id] = CALL.get()
        elif isinstance(event, CallEvent):
            self.events[self.calls_by_id.pop(event.call_id)].append(event)

    async def watch_for_stalls(self) -> None:
        """Record whether the event loop stalls for more than an eighth of the attempt timeout."""
        loop, max_stall = asyncio.get_running_loop(), self.policy.attempt_timeout / 8
        while not self.verdict.stalled:
            began = loop.time()
            await asyncio.sleep(max_stall / 4)
            self.verdict.stalled = int(loop.time() - began > max_stall)

    async def run_calls(self, mfa: MFAClient) -> None:
        for number, operation, cancel_after in self.calls:
            CALL.set(f"{operation} {number}")
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
        while self.done() < calls:
            await asyncio.sleep(self.wait)

    def done(self) -> int:
        """Return the number of calls that have a result."""
        return len(self.results)

    def compare(self, key: str, result: CallResult) -> None:
        operation, number = key.split()
        sends = operation != "verify"
        arrivals, entries = self.server.arrivals[key], self.server.ledger[key]
        timeout, stalled = self.policy.attempt_timeout, self.verdict.stalled > 0
        wrong = judge(result, arrivals, entries, self.resend.value, sends=sends, timeout=timeout, stalled=stalled)
        if result.valid is not None and result.valid is not is_valid(self.seed, number):
            wrong.append("valid differs from the service's answer")
        wrong += self.compare_event(key, result, entries, arrivals) if sends else []
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

    def compare_event(self, key: str, result: CallResult, entries: list[str], arrivals: list[Arrival]) -> list[str]:
        """Return how the event of a call contradicts the ledger, or the result that the caller got."""
        events = self.events[key]
        if len(events) != 1:
            return [f"{len(events)} events"] if events or result.error != CANCELLED else []
        (event,) = events
        gateways = sum(arrival.fault.proof == "gate" for arrival in arrivals)
        reported = Outcome(event.delivery.value, None, event.possible_duplicate)
        wrong = [f"event: {what}" for what in contradictions(reported, entries, self.resend.value, gateways=gateways)]
        if result.error != CANCELLED and (reported.delivery, event.attempts, event.possible_duplicate) != (
            result.delivery,
            result.attempts,
            result.duplicate,
        ):
            wrong.append(f"the result differs from {event}")
        return wrong
