"""The client's word about every text agrees with the ledger of a service that misbehaves at random."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from bandwidth_mfa_async import NotSentError, RequestError
from tests.system._ledger_server import Arrival, Fault, faults
from tests.system.oracle import Verdict, Word, judge, world

# A failure prints its seed; this variable brings it back: ORACLE_SEED=123 pytest tests/system/test_oracle.py
SEED = int(os.environ.get("ORACLE_SEED") or random.SystemRandom().getrandbits(31))


def check(verdict: Verdict) -> None:
    """Nothing is contradicted, and there was something that could be."""
    assert not verdict.wrong, f"ORACLE_SEED={SEED} brings this back:\n" + "\n".join(verdict.wrong[:10])
    assert verdict.words["send accepted"] > 0
    assert verdict.words["send unknown"] > 0
    assert len(verdict.faults) > 20


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_words_agree_with_the_ledger(way: None) -> None:
    """Worlds of all policies, of warm and cold connections, in virtual time."""
    total = Verdict()
    for seed in range(SEED, SEED + 5):
        total.add(await world(seed, virtual=True))
    check(total)


async def all_at_once() -> Verdict:
    total = Verdict()
    for verdict in await asyncio.gather(*[world(SEED + n, 120, virtual=False) for n in range(4)]):
        total.add(verdict)
    return total


@pytest.mark.uvloop
async def test_words_agree_in_real_time() -> None:
    """The same on the loops that people use, with waits of milliseconds."""
    check(await all_at_once())


async def test_a_seed_makes_the_same_faults() -> None:
    """Each key's n-th request meets the same fault, whatever the order of the tasks."""
    first, second = await world(SEED, 60, virtual=False), await world(SEED, 60, virtual=False)
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
    ids=["whatever failed is tried again", "what was written counts as not sent"],
)
async def test_a_client_that_is_bent_is_noticed(
    where: str, instead: object, finds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rules of other clients it fails."""
    for name in {where, where.replace("_retry.", "_client._executor.")}:
        monkeypatch.setattr(name, instead)
    wrong = [line for seed in range(3) for line in (await world(seed, virtual=True)).wrong]
    assert any(finds in line for line in wrong)


def arrivals(*proofs: str, status: int = 0, retry_after: float = 0.0) -> list[Arrival]:
    return [
        Arrival(Fault(proof, proof, status=status, retry_after=retry_after), float(at), float(at))
        for at, proof in enumerate(proofs)
    ]


OK = Word("accepted", 1, "a")

# What the client might say falsely, and what the judge has to say to it.
LIES = [
    ("a text twice", OK, arrivals("ok"), ["a", "b"], "rejected", "2 went out under rejected"),
    ("a foreign id", OK, arrivals("ok"), ["b"], "rejected", "accepted under an id that is in no entry"),
    ("nothing went out", OK, arrivals("ok"), [], "rejected", "accepted under an id that is in no entry"),
    ("no answer said so", OK, arrivals("open"), ["a"], "rejected", "accepted, but unknown by the answers"),
    (
        "a silent duplicate",
        Word("accepted", 2, "b"),
        arrivals("open", "ok"),
        ["a", "b"],
        "at_least_once",
        "accepted without a warning, and 2 went out",
    ),
    (
        "a false warning",
        Word("accepted", 1, "a", duplicate=True),
        arrivals("ok"),
        ["a"],
        "rejected",
        "possible_duplicate is True",
    ),
    ("not sent, and was", Word("not_sent", 1, error="x"), arrivals("open"), ["a"], "rejected", "not_sent, and 1 went"),
    ("rejected, and was not", Word("rejected", 1, error="x"), arrivals("open"), ["a"], "rejected", "rejected, and 1"),
    ("doubt without a reason", Word("unknown", 1, error="x"), arrivals("no"), [], "rejected", "unknown, but rejected"),
    ("repeated in doubt", Word("accepted", 2, "b", duplicate=True), arrivals("open", "ok"), ["b"], "rejected", "repea"),
    ("repeated after a no", Word("accepted", 2, "b"), arrivals("no", "ok"), ["b"], "at_least_once", "repeated after"),
    ("a 5xx repeated", Word("accepted", 2, "b"), arrivals("down", "ok"), ["b"], "never_twice", "repeated after down"),
    ("given up early", Word("rejected", 1, error="x"), arrivals("busy"), [], "never_twice", "not repeated after busy"),
    (
        "too early",
        Word("accepted", 2, "b"),
        arrivals("busy", "ok", retry_after=5.0),
        ["b"],
        "rejected",
        "repeated before the Retry-After",
    ),
    ("too often", Word("unknown", 4, error="x"), arrivals(*["gate"] * 4), [], "rejected", "4 requests, 4 attempts"),
    ("attempts hidden", OK, arrivals("down", "ok"), ["a"], "rejected", "2 requests, 1 attempts"),
]


@pytest.mark.parametrize(
    ("word", "seen", "entries", "policy", "complaint"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES]
)
def test_a_false_word_is_noticed(
    word: Word, seen: list[Arrival], entries: list[str], policy: str, complaint: str
) -> None:
    """The judge can be convinced of the opposite."""
    assert any(complaint in wrong for wrong in judge(word, seen, entries, policy, sends=True))


@pytest.mark.parametrize(("status", "wrong"), [(500, False), (503, False), (502, True), (429, True), (0, True)])
def test_a_verify_that_is_repeated_is_noticed(status: int, wrong: bool) -> None:
    """After 500 and 503 only, whatever the policy for sends."""
    seen = arrivals("down", "ok", status=status)
    found = judge(Word("accepted", 2, valid=True), seen, ["a"], "at_least_once", sends=False)
    assert bool(found) is wrong


def test_a_true_word_passes() -> None:
    """Each thing that may happen is let pass."""
    assert judge(OK, arrivals("ok"), ["a"], "never_twice", sends=True) == []
    twice = Word("accepted", 2, "b", duplicate=True)
    assert judge(twice, arrivals("open", "ok"), ["a", "b"], "at_least_once", sends=True) == []
    assert judge(twice, arrivals("gate", "ok"), ["a", "b"], "rejected", sends=True) == []
    lost = Word("unknown", 1, error="DisconnectedError")
    assert judge(lost, [], [], "rejected", sends=True) == []


@pytest.mark.parametrize("sends", [True, False])
def test_a_timeout_is_believed_only_where_the_loop_stood_still(sends: bool) -> None:
    """A stalled machine gives up on an answer that came in time; elsewhere that is a false word."""
    word = Word("unknown", 1, error="ReadTimeoutError")
    seen = arrivals("down", status=503)
    assert judge(word, seen, [], "rejected", sends=sends, stalled=True) == []
    assert any("not repeated" in wrong for wrong in judge(word, seen, [], "rejected", sends=sends))
    if sends:
        found = judge(word, seen, [], "at_least_once", sends=True, stalled=True)
        assert any("not repeated" in wrong for wrong in found)


def test_no_two_faults_share_a_name() -> None:
    """A story of names tells what happened."""
    names = [fault.name for fault in faults(b"{}", 3.0)]
    assert len(set(names)) == len(names) > 70
