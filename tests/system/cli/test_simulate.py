"""`simulate` as a process: what it prints works, and its state survives SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.conftest import TO
from tests.support import processes
from tests.support.cli_fixtures import FLAGS
from tests.support.fault_server import basic_auth
from tests.support.simulate_process import CLEAN, COMMAND, simulating

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping


def run(*args: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    done = processes.run([*COMMAND, *args], capture_output=True, text=True, env=CLEAN | dict(env or {}))
    return done.returncode, done.stdout, done.stderr


def send(env: Mapping[str, str], *flags: str) -> str:
    """Send a code with the variables of a simulator, and return its message id."""
    code, out, err = run("send", TO, *FLAGS, *flags, env=env)
    assert code == 0, err
    return out.split()[1]


def test_the_printed_env_block_is_all_that_a_program_needs() -> None:
    with simulating() as simulator:
        assert simulator.env_file == simulator.exported
        identifier = send(simulator.env_file)
        assert simulator.control(f"messages/latest?to=%2B{TO[1:]}")["messageId"] == identifier
        simulator.control("messages", "DELETE")
        simulator.process.send_signal(signal.SIGINT)
        out, _ = simulator.process.communicate(timeout=20)
        # Clearing the inbox does not undo that they were sent.
        assert out == "stopped; 1 message sent\n"


def test_what_the_environment_gave_is_named_and_not_printed() -> None:
    given = {"BW_PASSWORD": "secret-one", "BW_CLIENT_SECRET": "secret-two", "BW_SIMULATOR_TOKEN": "secret-three"}
    with simulating(env=given) as simulator:
        printed = "\n".join(simulator.lines)
        assert not [value for value in given.values() if value in printed]
        assert not given.keys() & (simulator.exported.keys() | simulator.env_file.keys())
        assert "# BW_PASSWORD is set in the environment" in printed
        send(simulator.env_file | given)
        assert simulator.request("messages")[0] == 401
        assert len(simulator.control("messages", Authorization="Bearer secret-three")["messages"]) == 1


@pytest.mark.parametrize("tls", [False, True])
def test_on_all_addresses_the_printed_urls_work_with_the_token(tls: bool, tmp_path: pathlib.Path) -> None:
    options = ["--tls", "--ca-file", str(tmp_path / "ca.pem")] if tls else []
    with simulating("--host", "0.0.0.0", "--control-host", "simulator.test", *options) as simulator:
        send(simulator.exported)
        assert len(simulator.control("messages", Host="simulator.test")["messages"]) == 1
        # Over plain http this library accepts loopback only, and says so; the note at the start does too.
        code, _, err = run("send", TO, *FLAGS, "--timeout", "2", env=simulator.env_file)
        assert (code, "https" in err) == (1 if tls else 2, not tls)
        assert any("--tls" in line for line in simulator.lines) is not tls
        assert simulator.page.partition("?token=")[2] == simulator.exported["BW_SIMULATOR_TOKEN"]
        code, _, err = run("simulate", "--wait-ready", simulator.exported["BW_MFA_URL"], "--wait-timeout", "20")
        assert (code, err) == (0, "")


def test_waiting_for_a_simulator_exits_when_it_answers_or_not_in_time() -> None:
    with simulating() as first:
        port = int(first.origin.rpartition(":")[2])
    waiting = [*COMMAND, "simulate", "--wait-ready", f"http://127.0.0.1:{port}/"]
    assert run(*waiting[3:], "--wait-timeout", "0.2")[0] == 1
    code, _, err = run("simulate", "--wait-ready", "4010")
    assert (code, "must be a URL like" in err) == (2, True)
    with processes.running(waiting, env=CLEAN) as process, simulating(port=port):
        assert process.wait(30) == 0


def test_killed_and_started_again_it_has_its_inbox_and_credentials(tmp_path: pathlib.Path) -> None:
    """The process is killed at once after each answer; the client keeps its variables and its code."""
    state = str(tmp_path / "state")
    sent: list[str] = []
    exported: dict[str, str] = {}
    port = 0
    for _ in range(3):
        with simulating("--state", state, port=port) as simulator:
            assert exported in ({}, simulator.exported)
            exported = simulator.exported
            port = int(simulator.origin.rpartition(":")[2])
            messages = simulator.control("messages")["messages"]
            assert [message["messageId"] for message in messages] == sent
            if messages:
                code, out, _ = run("verify", TO, messages[-1]["code"], "--scope", "login", env=exported)
                assert (code, out) == (0, "valid\n")
                assert simulator.control("messages")["messages"][-1]["verified"]
            sent.append(send(exported, "--scope", "login"))
            simulator.process.send_signal(signal.SIGKILL)
            assert simulator.process.wait() == -signal.SIGKILL


# Rewrites the file every fifty records, so that it is killed during a rewrite too.
OFTEN = """
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.simulator import _state_file
_state_file._MIN_GROWTH = 50
app()
"""


async def test_no_message_that_was_answered_is_missing_after_a_kill_at_any_moment(tmp_path: pathlib.Path) -> None:
    state = tmp_path / "state"
    answered: set[str] = set()
    body = {"to": TO, "from": FLAGS[1], "applicationId": FLAGS[3], "scope": "login"}
    for moment in (0.02, 0.1, 0.25, 0.5):
        with simulating("--state", str(state), "--no-account-limits", program=[sys.executable, "-c", OFTEN]) as running:
            url = f"{running.origin}/api/v1/accounts/9900000/code/messaging"
            login = basic_auth(running.exported["BW_USERNAME"], running.exported["BW_PASSWORD"])
            async with aiohttp.ClientSession(headers={"Authorization": login}) as session:

                async def send_all(session: aiohttp.ClientSession = session, url: str = url) -> None:
                    with contextlib.suppress(aiohttp.ClientError):
                        while True:
                            async with session.post(url, json=body) as response:
                                answered.add((await response.json())["messageId"])

                senders = [asyncio.create_task(send_all()) for _ in range(8)]
                await asyncio.sleep(moment)
                running.process.kill()
                await asyncio.wait(senders)
    assert len(answered) > 100
    with simulating("--state", str(state)) as running:
        kept = {message["messageId"] for message in running.control("messages")["messages"]}
    assert answered <= kept
    assert not state.with_name("state.new").exists()


def test_a_damaged_or_used_state_file_ends_the_command_and_is_left_alone(tmp_path: pathlib.Path) -> None:
    state = tmp_path / "state"
    with simulating("--state", str(state)) as simulator:
        send(simulator.exported)
        code, out, err = run("simulate", "--port", "0", "--state", str(state))
        assert (code, out) == (2, "")
        assert "another simulator uses this file" in err
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    code, out, err = run("simulate", "--port", "0", "--state", str(state))
    assert (code, out) == (2, "")
    assert f"error: {state}: is damaged at line" in err
    assert TO not in err
    assert state.read_bytes() == content


def test_limits_of_the_command_line_replace_those_of_the_state_file(tmp_path: pathlib.Path) -> None:
    state = str(tmp_path / "state")
    with simulating("--state", state, "--no-account-limits") as simulator:
        assert simulator.control("limits") == {"messaging": None, "voice": None}
    with simulating("--state", state) as simulator:
        assert simulator.control("limits") == {"messaging": None, "voice": None}
    with simulating("--state", state, "--account-limits") as simulator:
        limits: dict[str, Any] = simulator.control("limits")
        assert limits["messaging"]["rate"] == 1


def test_only_existing_applications_can_send() -> None:
    with simulating("--applications", "one, two", "--applications", "three") as simulator:
        for name, expected in (("two", 0), ("three", 0), ("four", 1)):
            flags = ["--from", FLAGS[1], "--application-id", name]
            assert run("send", TO, *flags, env=simulator.exported)[0] == expected
