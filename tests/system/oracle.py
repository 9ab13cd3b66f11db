"""What the client says became of each text, compared with the ledger of a service that misbehaves at random.

Run: python -m tests.system.oracle [--sends 100000] [--seed N] [--loop asyncio uvloop] [--json]
Worlds of 200 calls by 16 tasks: messaging, voice and verify, a `Resend` policy, cold or kept connections, some calls
cancelled, a client of its own. A word that the ledger or the rules of repeating contradict is printed with the seed
that brings it back.
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
from tests.system._ledger_server import AT_LEAST_ONCE, DOUBTFUL, RESENT_UNDER, LedgerServer, is_valid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system._ledger_server import Arrival

LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
WORLD = 200
TASKS = 16
ATTEMPTS = 3
MAX_RETRY_AFTER = 60.0
# A server's 500 or 503 is all that a verify may be asked again after, besides a request that never left.
VERIFY_AGAIN = {500, 503}
CANCELLED = "CancelledError"


@dataclasses.dataclass(frozen=True)
class Word:
    """What the client said of one call."""

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
    """What a world, or all of them, came to."""

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
    word: Word,
    arrivals: list[Arrival],
    entries: list[str],
    policy: str,
    *,
    sends: bool,
    timeout: float = 20.0,
    stalled: bool = False,
) -> list[str]:
    """Return what the ledger, and the rules of repeating, have against a client's word.

    Where the loop stood still for long, a client may have given up on any answer, however soon it was written.
    """
    proofs = [arrival.fault.proves for arrival in arrivals]
    heard = True
    for place, (arrival, following) in enumerate(itertools.pairwise(arrivals)):
        # On a busy machine even a clear answer may come after the client gave up.
        if (stalled or following.at - arrival.at >= 0.99 * timeout) and proofs[place] not in DOUBTFUL:
            heard = False
            if proofs[place] in {"ok", "no"}:
                proofs[place] = "late"
    if stalled and arrivals and "Timeout" in word.error and word.attempts == len(arrivals):
        proofs[-1] = "late"
    asked = _how_often(word, arrivals, proofs, policy, sends=sends)
    went_out = _what_went_out(word, proofs, entries, policy) if sends else ()
    return [*asked, *went_out, *(_what_was_due(word, arrivals, sends=sends) if heard else ())]


def _how_often(word: Word, arrivals: list[Arrival], proofs: list[str], policy: str, *, sends: bool) -> Iterator[str]:
    lost = word.attempts - len(arrivals)

    def may_follow(arrival: Arrival, proof: str) -> bool:
        if arrival.fault.retry_after > MAX_RETRY_AFTER:
            return False
        if sends:
            return policy in RESENT_UNDER[proof]
        return proof != "late" and arrival.fault.status in VERIFY_AGAIN

    if word.attempts > ATTEMPTS or lost < 0:
        yield f"{len(arrivals)} requests, {word.attempts} attempts said"
    for (arrival, following), proof in zip(itertools.pairwise(arrivals), proofs, strict=False):
        if not may_follow(arrival, proof):
            yield f"repeated after {arrival.fault.name}"
        waited = following.at - arrival.answered_at
        # Timers are allowed a clock tick.
        if arrival.fault.retry_after and waited < arrival.fault.retry_after - 0.002:
            yield f"repeated before the Retry-After of {arrival.fault.name}"
    # A call whose time ran out while it waited for its next attempt says so by its error.
    silent = word.stopped_by is None and not word.local and word.error not in {"", "DeadlineExceededError", CANCELLED}
    if silent and not lost and arrivals and may_follow(arrivals[-1], proofs[-1]):
        yield f"not repeated after {arrivals[-1].fault.name}"


def _what_went_out(word: Word, proofs: list[str], entries: list[str], policy: str) -> Iterator[str]:
    if word.delivery in {"not_sent", "rejected"} and entries:
        yield f"{word.delivery}, and {len(entries)} went out"
    if word.delivery == "accepted":
        if word.identifier not in entries:
            yield "accepted under an id that is in no entry"
        if len(entries) != 1 and not word.duplicate:
            yield f"accepted without a warning, and {len(entries)} went out"
    # The service documents its 5xx as not sent, so the default repeats them; a gateway may have answered in its place.
    by_gateways = proofs.count("gate") if policy == "rejected" else 0
    if policy != AT_LEAST_ONCE and len(entries) > 1 + by_gateways:
        yield f"{len(entries)} went out under {policy}"


def _what_was_due(word: Word, arrivals: list[Arrival], *, sends: bool) -> Iterator[str]:
    """Where each attempt was heard and answered in time, the word follows from the answers alone."""
    late = "Timeout" in word.error or word.local or word.error == "DeadlineExceededError"
    if late or not arrivals or word.attempts != len(arrivals) or word.error == CANCELLED:
        return
    proofs = [arrival.fault.proves for arrival in arrivals]
    doubt = not DOUBTFUL.isdisjoint(proofs)
    due = "accepted" if proofs[-1] == "ok" else "unknown" if doubt else "rejected"
    if word.delivery != due:
        yield f"{word.delivery}, but {due} by the answers"
    if word.delivery == "accepted" and word.duplicate != (doubt and sends):
        yield f"possible_duplicate is {word.duplicate}"
    if not sends and arrivals[-1].fault.status == 429 and word.error != "VerificationLockedError":
        yield f"a lock-out is told as {word.error}"


async def said(call: Any, patience: int | None) -> Word:
    """Return the client's word; a call that is cancelled after so many turns of the loop has none."""
    task = asyncio.ensure_future(call)
    for _ in range(patience or 0):
        await asyncio.sleep(0)
    if patience is not None:
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return Word("cancelled", ATTEMPTS, error=CANCELLED)
    try:
        response = task.result()
    except RequestError as error:
        name, local = type(error).__name__, getattr(error, "local", False)
        return Word(
            error.delivery.value, error.attempts, error=name, stopped_by=error.retry_stopped_by, local=bool(local)
        )
    meta = response.meta
    identifier = getattr(response, "message_id", None) or getattr(response, "call_id", "")
    valid = getattr(response, "valid", None)
    return Word("accepted", meta.attempts, identifier, valid, meta.possible_duplicate)


class World:
    """One client, one server and what they do to each other, all of it decided by a seed.

    Args:
        seed: decides.
        size: how many calls.
        virtual: whether time jumps, so that long waits cost nothing.
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
        self.words: dict[str, Word] = {}
        self.verdict = Verdict()

    async def run(self) -> Verdict:
        """Let the tasks call, and compare what they were told with the ledger."""
        await self.server.start()
        base_url = f"http://127.0.0.1:{self.server.port}/api/v1"
        auth = BasicAuth("user", "pass")
        async with MFAClient("9900000", auth, base_url=base_url, retry=self.policy, limits=self.limits) as mfa:
            watch = asyncio.ensure_future(self.watch())
            await asyncio.gather(*[self.task(mfa) for _ in range(TASKS)], self.interrupt())
            watch.cancel()
            executor = mfa._executor
            session = executor.state.transport._session
            if executor.slots.taken or (session is not None and session.connector._acquired):
                self.verdict.wrong.append(f"seed {self.seed}: slots or connections were not given back")
        await self.server.stop()
        for key, word in self.words.items():
            self.compare(key, word)
        return self.verdict

    async def watch(self) -> None:
        """Notice that the loop stood still for a good part of an attempt's time."""
        loop, longest = asyncio.get_running_loop(), self.policy.attempt_timeout / 8
        while not self.verdict.stalled:
            began = loop.time()
            await asyncio.sleep(longest / 4)
            self.verdict.stalled = int(loop.time() - began > longest)

    async def task(self, mfa: MFAClient) -> None:
        for number, operation, patience in self.calls:
            if operation == "messaging":
                call: Any = mfa.generate_messaging_code(LOGIN.to(number))
            elif operation == "voice":
                call = mfa.generate_voice_code(LOGIN.to(number))
            else:
                call = mfa.verify_code(to=number, code="123456", scope="login")
            self.words[f"{operation} {number}"] = await said(call, patience)

    async def interrupt(self) -> None:
        """Refuse connections for a while, in the middle, in some worlds."""
        if self.outage:
            await self.answered(self.size // 3)
            self.server.refuse()
            await self.answered(self.size // 3 + 10)
            await self.server.start()

    async def answered(self, calls: int) -> None:
        while len(self.words) < calls:
            await asyncio.sleep(self.wait)

    def compare(self, key: str, word: Word) -> None:
        operation, number = key.split()
        sends = operation != "verify"
        arrivals, entries = self.server.arrivals[key], self.server.ledger[key]
        timeout, stalled = self.policy.attempt_timeout, self.verdict.stalled > 0
        wrong = judge(word, arrivals, entries, self.resend.value, sends=sends, timeout=timeout, stalled=stalled)
        if word.valid is not None and word.valid is not is_valid(self.seed, number):
            wrong.append("not what the service said of the code")
        story = [arrival.fault.name for arrival in arrivals]
        verdict = self.verdict
        verdict.wrong += [f"seed {self.seed}, {self.resend.value}, {key}: {what}; {word}; {story}" for what in wrong]
        verdict.sends += sends
        verdict.verifies += not sends
        verdict.requests += len(arrivals)
        verdict.twice += sends and len(entries) > 1
        verdict.words[f"{'send' if sends else 'verify'} {word.delivery}"] += 1
        verdict.words["perhaps twice, and says so"] += word.duplicate
        verdict.faults.update(story)


async def world(seed: int, size: int = WORLD, *, virtual: bool) -> Verdict:
    """Make a world from its seed and return what it came to."""
    return await World(seed, size, virtual=virtual).run()


async def worlds(seed: int, sends: int, *, virtual: bool) -> Verdict:
    """Make worlds of consecutive seeds until there were so many sends; in real time, several at once."""
    total = Verdict()
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: total.wrong.append(f"seed {seed} or before: the loop was told: {context}")
    )
    width = 1 if virtual else 6
    while total.sends < sends:
        for verdict in await asyncio.gather(*[world(seed + n, virtual=virtual) for n in range(width)]):
            total.add(verdict)
        seed += width
    return total


def run(loop: str, seed: int, sends: int) -> Verdict:
    """Make worlds on a loop: asyncio's, whose time jumps instead of passing, or uvloop, in real time."""
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(worlds(seed, sends, virtual=False))
    from tests.support.virtual_time import VirtualTimeLoop

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(worlds(seed, sends, virtual=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sends", type=int, default=100_000, help="in all; each loop gets its share")
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
        print(f"{len(verdict.faults)} kinds of treatment, {time.perf_counter() - began:.0f} s")
        print("   ", ", ".join(f"{name} {count:,}" for name, count in sorted(verdict.words.items())))
        print(f"    texts that went out twice, each by the policy's leave: {verdict.twice:,}")
        if verdict.stalled:
            print(f"    worlds in which the machine stood still, and timeouts are believed: {verdict.stalled:,}")
        print(f"    words that the ledger contradicts: {len(verdict.wrong)}")
        for line in verdict.wrong[:20]:
            print("   ", line)
    if options.as_json:
        print(json.dumps({"seed": options.seed} | {loop: vars(verdict) for loop, verdict in results.items()}))
    sys.exit(any(verdict.wrong for verdict in results.values()))


if __name__ == "__main__":
    main()
