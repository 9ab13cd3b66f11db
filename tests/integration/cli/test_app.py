"""`send`, `call`, `verify`, `demo` and `simulate` against a simulator: exit codes, JSON and errors."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async.simulator import Fault, InvalidOptionError, Simulator
from tests.conftest import APPLICATION, FROM, TO
from tests.support.cli_fixtures import FLAGS
from tests.support.fault_server import refused_port

if TYPE_CHECKING:
    from collections.abc import Callable


def test_send_and_verify_exit_codes(simulator: Simulator, invoke: Callable[..., Any]) -> None:
    """0 if accepted or valid, 1 if not valid."""
    sent = invoke("send", TO, *FLAGS, "--scope", "login")
    assert (sent.exit_code, sent.output) == (0, f"accepted {simulator.inbox[-1].message_id}\n")
    right = invoke("verify", TO, simulator.last_code(TO), "--scope", "login")
    assert (right.exit_code, right.output) == (0, "valid\n")
    spaced = " ".join(simulator.last_code(TO))
    assert invoke("verify", TO, f" {spaced}\n", "--scope", "login").output == "valid\n"
    wrong = invoke("verify", TO, "0000", "--scope", "login", "--json")
    assert wrong.exit_code == 1
    assert json.loads(wrong.output)["valid"] is False


def test_call_prints_the_calls_id(simulator: Simulator, invoke: Callable[..., Any]) -> None:
    """Options can come from the environment."""
    os.environ["BW_NUMBER"], os.environ["BW_VOICE_APPLICATION_ID"] = FROM, APPLICATION
    try:
        called = invoke("call", TO, "--json")
    finally:
        del os.environ["BW_NUMBER"], os.environ["BW_VOICE_APPLICATION_ID"]
    document = json.loads(called.output)
    assert (called.exit_code, document["delivery"]) == (0, "accepted")
    assert document["call_id"] == simulator.inbox[-1].message_id


def test_rejected_or_not_sent_exits_with_1(
    simulator: Simulator, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service rejected the request, or it never left this machine."""
    monkeypatch.setenv("BW_PASSWORD", "wrong")
    refused = invoke("send", TO, *FLAGS)
    assert refused.exit_code == 1
    assert "403" in refused.output
    monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{refused_port()}")
    dead = invoke("send", TO, *FLAGS, "--json", "--timeout", "0.4")
    assert (dead.exit_code, json.loads(dead.output)["delivery"]) == (1, "not_sent")


def test_an_unknown_outcome_exits_with_3(simulator: Simulator, invoke: Callable[..., Any]) -> None:
    """A script can distinguish it from a failure."""
    simulator.faults.script(Fault(drop="after_read"), operation="messaging")
    result = invoke("send", TO, *FLAGS, "--json")
    document = json.loads(result.output)
    assert (result.exit_code, document["delivery"], document["error"]) == (3, "unknown", "DisconnectedError")


@pytest.mark.parametrize(
    "args",
    [
        ["send", "+12", "--from", FROM],
        ["send", "nonsense", *FLAGS],
        ["send", TO, *FLAGS, "--digits", "9"],
        ["send", TO, *FLAGS, "--message", "no placeholder"],
        ["send", TO, *FLAGS, "--timeout", "0"],
        ["send", TO, *FLAGS, "--rate", "0/s"],
        ["call", TO, *FLAGS, "--rate", "60/x"],
        ["send", TO, *FLAGS, "--redis", "http://localhost"],
        ["verify", TO, "12a456"],
        ["verify", TO],
        ["send"],
        ["dance"],
        ["simulate", "--port", "70000"],
        ["demo", "--count", "0"],
    ],
    ids=lambda args: " ".join(args)[:40],
)
def test_bad_usage_exits_with_2(simulator: Simulator, invoke: Callable[..., Any], args: list[str]) -> None:
    """The message says what is wrong, without a traceback."""
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.output
    assert "Traceback" not in result.output
    assert not simulator.inbox


def test_the_counts_of_the_demo_are_consistent(invoke: Callable[..., Any]) -> None:
    """Every code has an outcome, and every retry a cause."""
    result = invoke("demo", "--count", "120", "--json", "--seed", "3")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    outcomes = [summary[name] for name in ("accepted", "rejected", "not_sent", "unknown")]
    assert sum(outcomes) == 120
    assert summary["rejected"] == 3
    assert summary["attempts"] == 120 + sum(summary["retries"].values())
    assert set(summary["retries"]) <= {"429", "503"}
    assert summary["accepted"] <= summary["texts"] <= summary["accepted"] + summary["unknown"]
    assert summary["valid"] + summary["invalid"] == summary["texts"]
    assert summary["invalid"] >= 1


def test_the_demo_prints_a_table(invoke: Callable[..., Any]) -> None:
    """Without a terminal there is one table and no animation."""
    result = invoke("demo", "--count", "20")
    assert result.exit_code == 0
    assert "accepted" in result.output
    assert "\x1b[" not in result.output
    assert "run `bandwidth-mfa simulate`" in result.stdout.splitlines()[-1]


def test_the_inbox_of_simulate_is_bounded(invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run for days; the count at its end includes what was dropped."""
    made: dict[str, Any] = {}

    def simulator(*_: object, **options: Any) -> Simulator:
        made.update(options)
        raise InvalidOptionError("made")

    monkeypatch.setattr("bandwidth_mfa_async.simulator.Simulator", simulator)
    assert invoke("simulate", "--port", "0").exit_code == 2
    assert made["inbox_limit"] == 10_000


def test_each_option_of_simulate_reaches_the_simulator(
    invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    def simulator(*_: object, **options: Any) -> Simulator:
        made.update(options)
        raise InvalidOptionError("made")

    monkeypatch.setattr("bandwidth_mfa_async.simulator.Simulator", simulator)
    options = ["--consume-on-success", "--latest-code-only", "--lockout-after", "2", "--lockout-seconds", "9.5"]
    options += ["--applications", "a,b", "--require-message", "--no-basic", "--no-bearer", "--remote-callbacks"]
    options += ["--tls", "--state", "file", "--control-host", "one", "--control-host", "two", "--no-account-limits"]
    assert invoke("simulate", "--seed", "3", *options).exit_code == 2
    assert made["control_hosts"] >= {"one", "two"}
    expected = {"consume_on_success", "latest_code_only", "require_message", "allow_remote_callbacks", "tls"}
    assert {name for name, value in made.items() if value is True} == expected | {"control_token"}
    assert (made["lockout_after"], made["lockout_seconds"], made["seed"]) == (2, 9.5, 3)
    assert (made["applications"], made["state"], made["messaging_limits"]) == (["a", "b"], "file", None)
    made.clear()
    invoke("simulate")
    assert {name for name, value in made.items() if value is True} == {"accept_basic", "accept_bearer"}
    assert (made["applications"], made["control_hosts"], made["state"]) == (None, (), None)


def test_the_help_of_simulate_has_groups(invoke: Callable[..., Any]) -> None:
    result = invoke("simulate", "--help")
    titles = [line[:-1] for line in result.output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[:3] == ["Server", "Other machines and containers", "Account"]
    assert "Waiting for a simulator" in titles


def test_a_ca_file_needs_tls(invoke: Callable[..., Any]) -> None:
    result = invoke("simulate", "--ca-file", "ca.pem")
    assert (result.exit_code, "--ca-file needs --tls" in result.output) == (2, True)


def test_simulate_on_a_used_port_exits_with_2(invoke: Callable[..., Any], simulator: Simulator) -> None:
    """The message names the problem."""
    result = invoke("simulate", "--port", str(simulator.port))
    assert result.exit_code == 2
    assert "error" in result.output
