"""The journal against a model: any sequence of operations and crashes leaves the same states in both."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bandwidth_mfa_async._item_state import JournalState
from bandwidth_mfa_async.bulk.journal._file import Batch, JournalFile, JournalRow
from bandwidth_mfa_async.errors import JournalError

NOW = 1_700_000_000.0
BESIDE = ("", "-wal", "-mark")
ENDS = [JournalState.ACCEPTED, JournalState.REJECTED, JournalState.NOT_SENT, JournalState.UNKNOWN, JournalState.PENDING]


class JournalMachine(RuleBasedStateMachine):
    """Operations collect in batches; a crash loses the batch that was not written, and perhaps the end of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.generation = 0
        # The states that must be on disk, by key, after each commit since the file was opened.
        self.commits: list[dict[int, JournalState]] = [{}]
        self.batch = Batch()
        self.planned: dict[int, JournalState] = {}
        self.rows: dict[int, int] = {}
        # Keys that were unknown when an attempt began.
        self.maybe_sent: set[int] = set()

    @property
    def path(self) -> pathlib.Path:
        return self.folder / f"{self.generation}.db"

    @property
    def now(self) -> dict[int, JournalState]:
        return self.commits[-1]

    @initialize()
    def opened(self) -> None:
        self.file = JournalFile(str(self.path))
        self.file.open(NOW)

    def teardown(self) -> None:
        self.file.close("finished", NOW)
        shutil.rmtree(self.folder)

    @rule(keys=st.lists(st.integers(0, 30), min_size=1, max_size=8))
    def add(self, keys: list[int]) -> None:
        for key in keys:
            self.batch.keys += key.to_bytes(16, "big")
            self.batch.positions.append(key)
            self.batch.payloads += bytes(8)

    def may_begin(self) -> list[int]:
        done = {JournalState.ACCEPTED, JournalState.SENDING}
        return [key for key in self.rows if self.planned.get(key, self.now[key]) not in done]

    @precondition(lambda self: self.may_begin())
    @rule(data=st.data())
    def begin(self, data: Any) -> None:
        key = data.draw(st.sampled_from(self.may_begin()))
        if self.planned.get(key, self.now[key]) is JournalState.UNKNOWN:
            self.maybe_sent.add(key)
        self.batch.intents[self.rows[key]] = None
        self.planned[key] = JournalState.SENDING

    def sending(self) -> list[int]:
        # As in a run, an item is settled only after its intent is on disk.
        return [key for key in self.rows if self.now[key] is JournalState.SENDING and key not in self.planned]

    @precondition(lambda self: self.sending())
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def end(self, data: Any, end: JournalState) -> None:
        key = data.draw(st.sampled_from(self.sending()))
        if end is JournalState.ACCEPTED:
            self.batch.accept(self.rows[key], f"id-{key}", 1, NOW)
        else:
            self.batch.settled[self.rows[key]] = (end, None, None, None, False, 1, NOW, False)
        self.planned[key] = end if key not in self.maybe_sent or end is JournalState.ACCEPTED else JournalState.UNKNOWN

    @rule()
    def write(self) -> None:
        known = self.file.apply(self.batch)
        keys = list(self.batch.positions)
        after = self.now | self.planned
        for key in keys:
            after.setdefault(key, JournalState.PENDING)
        self.commits.append(after)
        # An item that exists already is returned with its state, never as a new one.
        found = [JournalRow(row, JournalState.PENDING) if isinstance(row, int) else row for row in known]
        assert [row.status for row in found] == [after[key] for key in keys]
        for key, row in zip(keys, found, strict=True):
            assert row.provider_id == (f"id-{key}" if after[key] is JournalState.ACCEPTED else None)
            if after[key] is JournalState.ACCEPTED:
                assert row.possible_duplicate is (key in self.maybe_sent)
            assert self.rows.setdefault(key, row.id) == row.id
        self.batch, self.planned = Batch(), {}

    @rule(lost=st.one_of(st.just(0.0), st.floats(0.0, 1.0)), has_mark=st.booleans())
    def crash(self, lost: float, has_mark: bool) -> None:
        """A kill keeps every commit. With a truncated log and the mark nothing is lost: the journal may be refused."""
        before, log, mark = (self.path.with_name(f"{self.path.name}{ending}").read_bytes() for ending in BESIDE)
        self.file.close("failed", NOW)

        def restore(log: bytes, mark: bytes | None) -> None:
            self.generation += 1
            for ending, content in zip(BESIDE, (before, log, mark), strict=True):
                if content is not None:
                    self.path.with_name(f"{self.path.name}{ending}").write_bytes(content)
            self.file = JournalFile(str(self.path))
            self.file.open(NOW)

        is_refused = False
        try:
            restore(log[: int(len(log) * (1 - lost))], mark if has_mark else None)
        except JournalError:
            assert lost
            is_refused = True
            restore(log, mark)
        found = self.on_disk()
        possible = [self.interrupted(commit) for commit in self.commits]
        assert found in (possible if lost and not has_mark and not is_refused else possible[-1:])
        # Later commits are lost; earlier ones are still at the start of the log.
        while self.interrupted(self.commits[-1]) != found:
            self.commits.pop()
        self.commits.append(found)
        self.rows = {key: row for key, row in self.rows.items() if key in found}
        # The mark of the item is in the same record as its state.
        query = "SELECT position FROM item WHERE possible_duplicate = 1 AND status = 2"
        self.maybe_sent &= {key for key, state in found.items() if state is JournalState.UNKNOWN} | {
            key for (key,) in self.file._require_open().execute(query)
        }
        self.batch, self.planned = Batch(), {}

    @staticmethod
    def interrupted(commit: dict[int, JournalState]) -> dict[int, JournalState]:
        return {
            key: JournalState.UNKNOWN if status is JournalState.SENDING else status for key, status in commit.items()
        }

    def on_disk(self) -> dict[int, JournalState]:
        rows = self.file._require_open().execute("SELECT position, status FROM item")
        return {key: JournalState(status) for key, status in rows}

    @invariant()
    def agrees(self) -> None:
        assert self.on_disk() == self.now
        counts = self.file.counts()
        assert sum(counts.values()) == len(self.now)


JournalMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestJournal = JournalMachine.TestCase
