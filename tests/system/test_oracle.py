"""The delivery that the client reports for each call agrees with the ledger of a service with random faults."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from bandwidth_mfa_async import NotSentError, RequestError
from tests.system._ledger_server import Arrival, Fault, faults
from tests.system.oracle import CallResult, Verdict, judge, run_scenario

# A failure prints its seed. This variable repeats it: ORACLE_SEED=123 pytest tests/system/test_oracle.py
SEED = int(os.environ.get("ORACLE_SEED") or random.SystemRandom().getrandbits(31))


def check(verdict: Verdict) -> None:
    """Assert that there are no contradictions, and that the scenarios had enough variety."""
    assert not verdict.wrong, f"ORACLE_SEED={SEED} repeats this:\n" + "\n".join(verdict.wrong[:10])
    assert verdict.words["send accepted"] > 0
    assert verdict.words["send unknown"] > 0
    assert len(verdict.faults) > 20


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_results_agree_with_the_ledger_in_virtual_time(way: None) -> None:
    """Scenarios with different policies, and with kept and new connections."""
    total = Verdict()
    for seed in range(SEED, SEED + 5):
        total.add(await run_scenario(seed, virtual=True))
    check(total)


async def run_concurrently() -> Verdict:
    total = Verdict()
    for verdict in await asyncio.gather(*[run_scenario(SEED + n, 120, virtual=False) for n in range(4)]):
        total.add(verdict)
    return total


@pytest.mark.uvloop
async def test_results_agree_with_the_ledger_in_real_time() -> None:
    """Scenarios on real event loops, with waits of milliseconds."""
    check(await run_concurrently())


async def test_a_seed_makes_faults_repeatable() -> None:
    """The n-th request of a key gets the same fault in any order of tasks."""
    first, second = await run_scenario(SEED, 60, virtual=False), await run_scenario(SEED, 60, virtual=False)
    common = set(first.faults) & set(second.faults)
    assert len(common) >= 0.7 * len(first.faults)


def blind(_failure: object, operation: str) -> RequestError:
    return NotSentError("nothing left", operation)


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("where", "instead", "finds"),
    [
        ("bandwidth_mfa_async._retry.is_retryable", lambda *_, **__: True, "repeated after"),
        ("bandwidth_mfa_async._transport._session.error_after_send", blind, "possible_duplicate is False"),
    ],
    ids=["every failure is retried", "a written request counts as not sent"],
)
async def test_a_client_with_wrong_rules_is_detected(
    where: str, instead: object, finds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle fails for a client with other retry or delivery rules."""
    for name in {where, where.replace("_retry.", "_client._executor.")}:
        monkeypatch.setattr(name, instead)
    wrong = [line for seed in range(3) for line in (await run_scenario(seed, virtual=True)).wrong]
    assert any(finds in line for line in wrong)


def arrivals(*proofs: str, status: int = 0, retry_after: float = 0.0) -> list[Arrival]:
    return [
        Arrival(Fault(proof, proof, status=status, retry_after=retry_after), float(at), float(at))
        for at, proof in enumerate(proofs)
    ]


OK = CallResult("accepted", 1, "a")

# Wrong results of a client, and the contradiction that `judge` finds.
WRONG_RESULTS = [
    ("a text twice", OK, arrivals("ok"), ["a", "b"], "rejected", "2 went out under rejected"),
    ("an unknown id", OK, arrivals("ok"), ["b"], "rejected", "accepted with an id that is not in the ledger"),
    ("nothing went out", OK, arrivals("ok"), [], "rejected", "accepted with an id that is not in the ledger"),
    ("accepted without an answer", OK, arrivals("open"), ["a"], "rejected", "accepted, but unknown by the answers"),
    (
        "a silent duplicate",
        CallResult("accepted", 2, "b"),
        arrivals("open", "ok"),
        ["a", "b"],
        "at_least_once",
        "accepted without a warning, and 2 went out",
    ),
    (
        "a false warning",
        CallResult("accepted", 1, "a", duplicate=True),
        arrivals("ok"),
        ["a"],
        "rejected",
        "possible_duplicate is True",
    ),
    (
        "not sent although it was",
        CallResult("not_sent", 1, error="x"),
        arrivals("open"),
        ["a"],
        "rejected",
        "not_sent, and 1 went",
    ),
    (
        "rejected although it was not",
        CallResult("rejected", 1, error="x"),
        arrivals("open"),
        ["a"],
        "rejected",
        "rejected, and 1",
    ),
    (
        "unknown without a reason",
        CallResult("unknown", 1, error="x"),
        arrivals("no"),
        [],
        "rejected",
        "unknown, but rejected",
    ),
    (
        "resent although unknown",
        CallResult("accepted", 2, "b", duplicate=True),
        arrivals("open", "ok"),
        ["b"],
        "rejected",
        "repea",
    ),
    (
        "resent after a rejection",
        CallResult("accepted", 2, "b"),
        arrivals("no", "ok"),
        ["b"],
        "at_least_once",
        "repeated after",
    ),
    (
        "resent after a 5xx",
        CallResult("accepted", 2, "b"),
        arrivals("down", "ok"),
        ["b"],
        "never_twice",
        "repeated after down",
    ),
    (
        "not retried",
        CallResult("rejected", 1, error="x"),
        arrivals("busy"),
        [],
        "never_twice",
        "not repeated after busy",
    ),
    (
        "retried before Retry-After",
        CallResult("accepted", 2, "b"),
        arrivals("busy", "ok", retry_after=5.0),
        ["b"],
        "rejected",
        "repeated before the Retry-After",
    ),
    (
        "too many attempts",
        CallResult("unknown", 4, error="x"),
        arrivals(*["gate"] * 4),
        [],
        "rejected",
        "4 requests, 4 attempts",
    ),
    ("too few attempts reported", OK, arrivals("down", "ok"), ["a"], "rejected", "2 requests, 1 attempts"),
]


@pytest.mark.parametrize(
    ("result", "seen", "entries", "policy", "complaint"),
    [case[1:] for case in WRONG_RESULTS],
    ids=[case[0] for case in WRONG_RESULTS],
)
def test_the_judge_detects_a_wrong_result(
    result: CallResult, seen: list[Arrival], entries: list[str], policy: str, complaint: str
) -> None:
    """Each wrong result has its contradiction."""
    assert any(complaint in wrong for wrong in judge(result, seen, entries, policy, sends=True))


@pytest.mark.parametrize(("status", "wrong"), [(500, False), (503, False), (502, True), (429, True), (0, True)])
def test_the_judge_detects_a_verify_that_must_not_be_retried(status: int, wrong: bool) -> None:
    """A verify is retried only after 500 and 503, under any policy for sends."""
    seen = arrivals("down", "ok", status=status)
    found = judge(CallResult("accepted", 2, valid=True), seen, ["a"], "at_least_once", sends=False)
    assert bool(found) is wrong


def test_the_judge_accepts_correct_results() -> None:
    """Results that the rules allow have no contradiction."""
    assert judge(OK, arrivals("ok"), ["a"], "never_twice", sends=True) == []
    twice = CallResult("accepted", 2, "b", duplicate=True)
    assert judge(twice, arrivals("open", "ok"), ["a", "b"], "at_least_once", sends=True) == []
    assert judge(twice, arrivals("gate", "ok"), ["a", "b"], "rejected", sends=True) == []
    lost = CallResult("unknown", 1, error="DisconnectedError")
    assert judge(lost, [], [], "rejected", sends=True) == []


@pytest.mark.parametrize("sends", [True, False])
def test_an_early_timeout_is_accepted_only_if_the_loop_stalled(sends: bool) -> None:
    """Only on a stalled event loop may a client time out although the answer was in time."""
    result = CallResult("unknown", 1, error="ReadTimeoutError")
    seen = arrivals("down", status=503)
    assert judge(result, seen, [], "rejected", sends=sends, stalled=True) == []
    assert any("not repeated" in wrong for wrong in judge(result, seen, [], "rejected", sends=sends))
    if sends:
        found = judge(result, seen, [], "at_least_once", sends=True, stalled=True)
        assert any("not repeated" in wrong for wrong in found)


def test_no_two_faults_share_a_name() -> None:
    """Names identify the faults in the printed contradictions."""
    names = [fault.name for fault in faults(b"{}", 3.0)]
    assert len(set(names)) == len(names) > 70
