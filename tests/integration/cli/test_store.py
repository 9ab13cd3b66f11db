"""`bandwidth-mfa store`, and `--key` and `--store` of `send` and `call`."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from bandwidth_mfa_async import CodeTemplate, MFAClient
from bandwidth_mfa_async.signin import SignIns
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.stores import SQLiteStore

TO = "+19195551234"
FIELDS = ("--from", "+19195554321", "--application-id", "any", "--json")


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"sqlite:///{tmp_path / 'codes.db'}"


@pytest.mark.parametrize("command", ["send", "call"])
def test_a_key_sends_once(command: str, invoke: Callable[..., Any], simulator: Simulator, url: str) -> None:
    arguments = (command, TO, *FIELDS, "--key", "login:42", "--store", url)
    first, second = (json.loads(invoke(*arguments).output) for _ in range(2))
    name = "message_id" if command == "send" else "call_id"
    assert first[name] == second[name]
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert len(simulator.inbox) == 1
    shown = invoke("store", "--store", url, "--json")
    assert json.loads(shown.output) == {"keys": {"accepted": 1}}
    assert "accepted" in invoke("store", "--store", url).output


def test_the_environment_names_the_store(
    invoke: Callable[..., Any], simulator: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "BW_STORE_URL" in json.loads(invoke("send", TO, *FIELDS, "--key", "a").output)["detail"]
    monkeypatch.setenv("BW_STORE_URL", url)
    assert invoke("store").output == "the store is empty\n"
    assert not json.loads(invoke("send", TO, *FIELDS, "--key", "a").output)["replayed"]
    shown = invoke("send", TO, *FIELDS[:-1], "--key", "a").output
    assert "sent by an earlier call" in shown


def test_another_request_names_the_option(invoke: Callable[..., Any], simulator: Simulator, url: str) -> None:
    invoke("send", TO, *FIELDS, "--key", "a", "--store", url)
    found = invoke("send", "+19195550000", *FIELDS, "--key", "a", "--store", url)
    assert found.exit_code == 2
    assert json.loads(found.output)["detail"].startswith("--key: ")


@pytest.mark.parametrize("url", ["codes.db", "sqlite://codes.db", "postgres://h/d", "redis://h/zero"])
def test_a_wrong_url_is_refused(invoke: Callable[..., Any], url: str) -> None:
    found = invoke("store", "--store", url)
    assert found.exit_code == 2
    assert found.output.startswith("error: --store: must look like")


def test_the_records_of_sign_ins_have_names(
    invoke: Callable[..., Any], simulator: Simulator, url: str, tmp_path: pathlib.Path
) -> None:
    """No kind is shown as the letter under which it is stored."""

    async def sign_in() -> None:
        async with MFAClient.from_env(store=SQLiteStore(tmp_path / "codes.db")) as mfa:
            signins = SignIns(mfa, CodeTemplate(from_="+19195554321", application_id="any"))
            await signins.start(TO, visitor="203.0.113.7", idempotency_key="form")

    asyncio.run(sign_in())
    shown = json.loads(invoke("store", "--store", url, "--json").output)
    assert shown["sign-ins"] == {"open": 1}
    assert all(len(kind) > 1 for kind in shown)
