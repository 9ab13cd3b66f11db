"""The client's word against the service's ledger under random faults; `benchmarks.oracle` is the long version."""

from __future__ import annotations

import os
import random

import pytest

from bandwidth_mfa_async import Delivery, NotSentError, RequestError
from benchmarks._oracle import FAULTS, run

from .support.virtual_time import VirtualTimeLoop

# A failure names its seed; ORACLE_SEED repeats it.
SEED = int(os.environ.get("ORACLE_SEED", random.randrange(2**32)))


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
def test_every_word_agrees_with_the_ledger(way: None) -> None:
    """Sends, calls and verifies by 16 tasks, each resend policy, each kind of fault, some of them cancelled."""
    verdict, world = run(SEED, 1_500, VirtualTimeLoop, attempt_timeout=5.0)
    assert not verdict.wrong, f"ORACLE_SEED={SEED}: {verdict.wrong[:5]}"
    assert sum(verdict.words.values()) == 1_500
    assert len(world.ledger.faults) > 0.9 * len(FAULTS), "hardly any of them did not come"
    said = {word.partition(": ")[2] for word in verdict.words}
    assert {"answered", "cancelled", *(word.value for word in (Delivery.REJECTED, Delivery.UNKNOWN))} <= said


def blind(_failure: object, operation: str) -> RequestError:
    return NotSentError("nothing left", operation)


@pytest.mark.parametrize(
    ("where", "instead", "finds"),
    [
        ("bandwidth_mfa_async._retry.is_retryable", lambda *_, **__: True, "at most 1 under this policy"),
        ("bandwidth_mfa_async._transport._transport.after", blind, "not marked as a possible duplicate"),
    ],
    ids=["whatever failed is tried again", "what was written counts as not sent"],
)
def test_the_judge_sees_a_lie(where: str, instead: object, finds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the client's rules bent as other clients' are, it fails."""
    for name in {where, where.replace("_retry.", "_client._caller.")}:
        monkeypatch.setattr(name, instead)
    verdict, _ = run(1, 300, VirtualTimeLoop, attempt_timeout=5.0)
    assert any(finds in wrong for wrong in verdict.wrong)
