"""Objects that were made, and partly used, before a fork."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from tests.support import processes

CHILDREN = 3


@pytest.fixture(scope="module")
def report(common_redis):
    """Return what each child, and at last the parent, prints."""
    common_redis.empty()
    root = str(pathlib.Path(__file__).parents[3])
    done = processes.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.forked_app", common_redis.url, str(CHILDREN)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=root,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_ledger_of_the_parent_works_in_every_child_and_in_the_parent(report):
    """Each process has its own connections and its own writer, whose batches Redis does not take for late ones."""
    *children, parent = report
    assert [child["queued"] for child in children] == [True] * CHILDREN
    assert [child["job"] for child in children] == [True] * CHILDREN
    assert parent == {"parent": True}


def test_an_unopened_client_works_in_every_child_and_an_opened_one_is_refused(report):
    """The unopened one tries to connect."""
    *children, _ = report
    assert [child["unopened"] for child in children] == ["NotSentError"] * CHILDREN
    assert [child["opened"] for child in children] == ["ClientStateError"] * CHILDREN


def test_call_ids_and_process_names_differ(report):
    """The children do not share the parent's random state."""
    *children, _ = report
    assert len({id_ for child in children for id_ in child["call_id"]}) == CHILDREN
    assert len({child["process"] for child in children}) == CHILDREN
