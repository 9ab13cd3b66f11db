"""The delivery that the client reports for each call agrees with the ledger of a service with random faults."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import NotSentError, RequestError, ResponseMeta
from bandwidth_mfa_async._item_state import JournalState, LedgerState
from tests.system._bulk_scenario import BulkScenario
from tests.system._client_scenario import CallResult, Verdict, judge
from tests.system._ledger_server import AT_LEAST_ONCE, Arrival, Fault, faults
from tests.system._outcomes import Outcome, Places, contradictions
from tests.system._store_scenario import KeyedScenario, SignInScenario
from tests.system._worker_scenario import WorkerScenario, impatient_workers
from tests.system.oracle import run_scenario

if TYPE_CHECKING:
    from tests.support.redis_server import RedisServer

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


@pytest.mark.virtual_time
async def test_all_places_of_a_bulk_run_agree_with_the_ledger() -> None:
    """Runs that are stopped, cancelled or left, and resumed: items, counts, journal, report and command line."""
    total = Verdict()
    for seed in range(SEED, SEED + 6):
        total.add(await run_scenario(seed, 60, virtual=True, kind=BulkScenario))
    assert not total.wrong, f"ORACLE_SEED={SEED} repeats this:\n" + "\n".join(total.wrong[:10])
    assert total.words["item accepted"] > 0
    assert total.words["item unknown"] > 0


@pytest.mark.virtual_time
async def test_calls_with_keys_agree_with_the_ledger() -> None:
    """Two clients, one store that fails, several calls for each key."""
    total = Verdict()
    for seed in range(SEED, SEED + 3):
        total.add(await run_scenario(seed, 40, virtual=True, kind=KeyedScenario))
    assert not total.wrong, f"ORACLE_SEED={SEED} repeats this:\n" + "\n".join(total.wrong[:10])
    assert total.words["key accepted"] > 0
    assert total.words["key unknown"] > 0


@pytest.mark.virtual_time
async def test_sign_ins_agree_with_the_ledger() -> None:
    """Two processes' sign-ins on one store that fails: texts, resends, checks at the same moment."""
    total = Verdict()
    for seed in range(SEED, SEED + 3):
        total.add(await run_scenario(seed, 40, virtual=True, kind=SignInScenario))
    assert not total.wrong, f"ORACLE_SEED={SEED} repeats this:\n" + "\n".join(total.wrong[:10])
    assert total.words["check valid"] > 0
    assert total.words["start accepted"] > 0


async def test_all_places_of_workers_agree_with_the_ledger(redis_server: RedisServer) -> None:
    """A job and single codes: the results of `kiq`, outcomes, progress, rows in Redis and command line."""
    WorkerScenario.redis_url = redis_server.url
    total = Verdict()
    with impatient_workers():
        for verdict in await asyncio.gather(
            *[run_scenario(SEED + n, 60, virtual=False, kind=WorkerScenario) for n in range(4)]
        ):
            total.add(verdict)
    assert not total.wrong, f"ORACLE_SEED={SEED} repeats this:\n" + "\n".join(total.wrong[:10])
    for word in ("job item accepted", "code accepted"):
        assert total.words[word] > 0


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


def lost_result(journal: Any, row_id: int, *_: object, **__: object) -> None:
    """Store that an accepted item is still pending."""
    journal.settle(row_id, JournalState.PENDING)


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


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("where", "instead", "finds"),
    [
        # An item that waits for its retry when the run is stopped was rejected, and the journal called it pending.
        (
            "bandwidth_mfa_async.bulk._run_journal.RunJournal.record_abandoned",
            lambda run, item, _delivery, _error: run._journal.settle(item.row_id, JournalState.PENDING),
            "journal, +1",
        ),
        # A resumed run that forgets what an earlier one stored.
        (
            "bandwidth_mfa_async.bulk._run_journal.ResponseMeta",
            lambda **_: ResponseMeta(),
            "but ItemOutcome has",
        ),
        ("bandwidth_mfa_async.bulk.BulkSummary.count", lambda *_: None, "BulkSummary: {"),
        ("bandwidth_mfa_async.bulk.journal._journal.SQLiteJournal.accept", lost_result, "accepted"),
    ],
    ids=["an abandoned item", "possible duplicates", "the counts", "a result that is not stored"],
)
async def test_a_place_of_a_bulk_run_with_a_false_outcome_is_detected(
    where: str, instead: object, finds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle fails if one place reports something else than the ledger or the other places."""
    monkeypatch.setattr(where, instead)
    wrong: list[str] = []
    for seed in range(4, 40):
        wrong += (await run_scenario(seed, 60, virtual=True, kind=BulkScenario)).wrong
        if any(finds in line for line in wrong):
            return
    pytest.fail(f"found only {wrong[:5]}")


@pytest.mark.parametrize(
    ("where", "instead", "finds"),
    [
        ("bandwidth_mfa_async.worker._job.POSSIBLE_DUPLICATE_OF", {}, "but JobOutcome has"),
        ("bandwidth_mfa_async.worker._job._ACCEPTED", [LedgerState.ACCEPTED_UNRECORDED], "jobs --json: {'accepted'"),
        (
            "bandwidth_mfa_async.worker._send_code._id_or_raise",
            lambda outcome: outcome.provider_id or "made-up",
            "kiq, +1",
        ),
    ],
    ids=["JobOutcome", "JobProgress", "kiq"],
)
async def test_a_place_of_workers_with_a_false_outcome_is_detected(
    where: str, instead: object, finds: str, monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    """The same for jobs and single codes."""
    WorkerScenario.redis_url = redis_server.url
    monkeypatch.setattr(where, instead)
    wrong: list[str] = []
    with impatient_workers():
        for seed in (2, 7, 12, 17, 22):
            runs = [run_scenario(seed + n, 40, virtual=False, kind=WorkerScenario) for n in range(4)]
            wrong += [line for verdict in await asyncio.gather(*runs) for line in verdict.wrong]
            if any(finds in line for line in wrong):
                return
    pytest.fail(f"found only {wrong[:5]}")


@pytest.mark.parametrize(
    ("outcome", "texts", "policy", "complaint"),
    [
        (Outcome(""), [], "rejected", "no outcome"),
        (Outcome("invalid"), ["a"], "rejected", "invalid, and 1 went out"),
        (Outcome("accepted", "b"), ["a"], "rejected", "an id that is not in the ledger"),
        (Outcome("accepted"), [], "rejected", "an id that is not in the ledger"),
        (Outcome("accepted", "a", duplicate=None), ["a", "b"], AT_LEAST_ONCE, "without a warning"),
        (Outcome("unknown"), ["a", "b"], "never_twice", "2 went out under never_twice"),
    ],
    ids=["missing", "invalid", "another id", "no text", "a duplicate that is not recorded", "two texts"],
)
def test_one_rule_judges_every_place(outcome: Outcome, texts: list[str], policy: str, complaint: str) -> None:
    """A place contradicts the texts that went out."""
    assert any(complaint in wrong for wrong in contradictions(outcome, texts, policy))


def test_places_must_agree() -> None:
    """Outcomes with other outcomes, and totals with outcomes."""
    places = Places()
    places.outcomes = {
        "one": {"+1": Outcome("accepted", "a"), "+2": Outcome("unknown")},
        "two": {"+1": Outcome("accepted", None), "+2": Outcome("unknown")},
    }
    places.totals["sum"] = {"accepted": 1, "unknown": 1}
    assert list(places.check({"+1": ["a"]}, "rejected")) == []
    places.outcomes["two"]["+2"] = Outcome("rejected")
    places.totals["sum"] = {"accepted": 2}
    assert len(list(places.check({"+1": ["a"]}, "rejected"))) == 2


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
