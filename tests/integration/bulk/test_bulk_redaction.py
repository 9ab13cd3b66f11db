"""Outcomes, errors, logs and files of a bulk run contain no number, code, text or credential."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    BulkSender,
    CodeRequest,
    CodeTemplate,
    JournalError,
    LoggingHook,
    MFAError,
    SQLiteJournal,
)
from tests.support.fault_server import Act, FaultServer, answer
from tests.support.secrets import SENTINELS, assert_clean, everything

if TYPE_CHECKING:
    import pathlib

    from tests.support.clients import MakeClient

TEMPLATE = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"], 8, SENTINELS["callback_url"])


def _key(request: CodeRequest) -> str:
    if request.to.endswith("9"):
        raise ValueError(request.to)
    return request.to


@pytest.mark.parametrize("key", [None, _key])
async def test_no_outcome_shows_a_secret(
    server: FaultServer, make_client: MakeClient, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, key: Any
) -> None:
    """Accepted, rejected with the number quoted, unknown, invalid and skipped items."""
    to = SENTINELS["to"]
    caplog.set_level(logging.DEBUG)
    quoting = {"error": f"{to} from {SENTINELS['from_']} is not reachable", "requestId": "r"}
    server.play(answer(), answer(400, quoting), Act(then="fin"))
    client = make_client(auth=BasicAuth(SENTINELS["username"], SENTINELS["password"]), hooks=[LoggingHook()])
    path = tmp_path / "run.db"
    source = [to, to, f"{to[:-1]}1", f"{to[:-1]}2", f"{to[:-1]}9", f"{to}x", object()]
    outcomes = []
    for _ in range(2):
        async with BulkSender(client, journal=SQLiteJournal(path, template=TEMPLATE), max_in_flight=1) as bulk:
            stream = bulk.send(source, key=key, template=TEMPLATE)
            outcomes += [outcome async for outcome in stream]
            assert_clean(repr(bulk) + repr(stream) + repr(bulk.journal), "the sender")
    assert len({outcome.delivery for outcome in outcomes}) == 5
    for outcome in outcomes:
        assert_clean(repr(outcome), "the outcome")
        if isinstance(outcome.error, MFAError):
            assert_clean(everything(outcome.error), "its error")
    assert_clean(caplog.text + str([record.__dict__ for record in caplog.records]), "the log")
    files = await asyncio.to_thread(lambda: [file.read_bytes() for file in tmp_path.iterdir()])
    for content in files:
        assert_clean(content.decode("latin-1"), "the journal")


async def test_a_journal_error_shows_no_secret(tmp_path: pathlib.Path) -> None:
    """It names the fields that differ, without their values."""
    path = tmp_path / "run.db"
    async with SQLiteJournal(path, template=TEMPLATE):
        pass
    with pytest.raises(JournalError, match="another from_, scope, message, digits, callback_url") as caught:
        await SQLiteJournal(path, template=CodeTemplate("+18887776656", "app")).open()
    assert_clean(everything(caught.value), "the error")
