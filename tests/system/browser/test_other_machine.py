"""The simulator on one machine; an app, a browser and a foreign web site on another, by name."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from tests.support import namespaces, processes
from tests.support.simulate_process import CLEAN, COMMAND, simulating
from tests.system.browser.conftest import CHROMIUM

NAME = "simulator.test"
ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_another_machine_reaches_the_simulator_by_name(tmp_path: pathlib.Path, scheme: str) -> None:
    if not namespaces.are_available():
        pytest.skip("network namespaces need root on Linux")
    authority = tmp_path / "ca.pem"
    options = ["--host", "0.0.0.0", "--control-host", NAME]
    if scheme == "https":
        options += ["--tls", "--ca-file", str(authority)]
    with namespaces.two_machines(NAME) as (one, other), simulating(*options, prefix=one) as simulator:
        page = next(line for line in simulator.lines if line.startswith("from other machines at")).split()[-1]
        assert page.startswith(f"{scheme}://{NAME}:")
        env = CLEAN | simulator.env_file | {"PAGE": page}
        if scheme == "https":
            env["SSL_CERT_FILE"] = str(authority)
        base = env["BW_MFA_URL"]
        processes.run([*other, *COMMAND, "simulate", "--wait-ready", base], check=True, env=env)
        assert CHROMIUM is not None
        program = [*other, sys.executable, "-m", "tests.system.browser.other_machine", CHROMIUM]
        done = processes.run(program, capture_output=True, text=True, check=True, env=env, cwd=ROOT)
    assert json.loads(done.stdout) == {
        "page": True,
        "channel": "voice",
        "valid": True,
        "messages": 2,
        "/ without the token": 401,
        "/_simulator/messages without the token": 401,
        "/_simulator/ready without the token": 200,
        "foreign site": [],
        "afterwards": 2,
    }
