"""The replies of the Lua scripts and the enums of the ledger's protocol agree."""

from __future__ import annotations

import enum
import importlib.resources
import re

import pytest

from bandwidth_mfa_async._client._recorded_call import AttemptDenied
from bandwidth_mfa_async._item_state import DenyReason, LedgerState
from bandwidth_mfa_async.worker import ledger
from bandwidth_mfa_async.worker.ledger._protocol import (
    READABLE_VERSIONS,
    VERSION,
    BatchReply,
    ClaimReply,
    PlanReply,
    ReleaseReply,
    Reply,
    ResumeReply,
    SubmitReply,
    deny_reason,
)
from bandwidth_mfa_async.worker.ledger._scripts import SCRIPTS

# A word that a script returns, alone or as the first element of a list.
WORD = re.compile(r"(?:return|local reply =)\s+(?:{ )?'([a-z]+)'")
# The quoted characters on a line that assigns the reply to one operation.
ASSIGNMENT = re.compile(r"\breply = (.*)")
CHARACTER = re.compile(r"'(\w)'")
WORDS: dict[str, type[enum.StrEnum]] = {
    "claim_chunk": ClaimReply,
    "plan": PlanReply,
    "release_chunk": ReleaseReply,
    "resume": ResumeReply,
    "rows": BatchReply,
    "submit": SubmitReply,
}


def words(script: str) -> set[str]:
    return set(WORD.findall(SCRIPTS[script].text))


def characters(script: str) -> set[str]:
    assignments = ASSIGNMENT.findall(SCRIPTS[script].text)
    return {character for assignment in assignments for character in CHARACTER.findall(assignment)}


def test_every_lua_file_is_loaded():
    files = importlib.resources.files(ledger).joinpath("lua").iterdir()
    assert {name for file in files if not (name := file.name.removesuffix(".lua")).startswith("_")} == SCRIPTS.keys()


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_the_words_that_a_script_returns_are_the_members_of_its_enum(script):
    assert words(script) == set(WORDS.get(script, ()))


def test_the_characters_that_the_scripts_reply_are_the_members_of_reply_and_states():
    found = {script: characters(script) for script in SCRIPTS}
    assert {script for script, letters in found.items() if letters} == {"rows", "codes"}
    replies = found["rows"] | found["codes"]
    states = set(LedgerState)
    assert replies - states == set(Reply)
    assert {"1", "4"} <= replies & states
    assert not set(Reply) & states


def test_the_scripts_check_the_version_of_the_format():
    for script in ("claim_chunk", "plan", "resume", "submit"):
        for version in READABLE_VERSIONS:
            assert f"~= '{version}'" in SCRIPTS[script].text
    assert str(VERSION) in READABLE_VERSIONS
    assert f"'version', {VERSION}" in SCRIPTS["submit"].text
    assert f"'version', {VERSION}" in SCRIPTS["claim_chunk"].text


def test_every_reply_that_denies_an_attempt_has_a_reason():
    reasons = {reply: deny_reason(reply) for reply in ("L", "X", "G", *LedgerState)}
    assert reasons["L"] is DenyReason.LEASE_LOST
    assert reasons["X"] is DenyReason.JOB_STOPPED
    assert reasons["G"] is DenyReason.GONE
    assert {reasons[state] for state in LedgerState} == {DenyReason.ALREADY_SETTLED}
    # The worker's own reasons: the ledger is not asked.
    assert set(DenyReason) - set(reasons.values()) == {DenyReason.STOPPING, DenyReason.LEASE_EXPIRED}


def test_an_attempt_that_is_denied_names_the_reason():
    denied = AttemptDenied(DenyReason.LEASE_LOST)
    assert denied.reason is DenyReason.LEASE_LOST
    assert denied.args == (DenyReason.LEASE_LOST,)
