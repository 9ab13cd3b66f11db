"""`bandwidth-mfa doctor`: what is broken is named, with its remedy, and nothing is sent or shown on the way."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import socket
import sys
import time
from email.utils import format_datetime
from typing import Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli import _checks, _reach
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import ManualClock, ThreadedSimulator
from tests.conftest import APPLICATION, FROM, TO
from tests.support import processes
from tests.support.fault_server import environment, full_backlog, refused_port


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BW_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def simulator(mfa_simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> ThreadedSimulator:
    for name, value in environment(mfa_simulator).items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)
    return mfa_simulator


def doctor(*args: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run it; return its exit code, its findings by name, and all that it printed."""
    result = CliRunner().invoke(app, ["doctor", "--timeout", "2", *args, "--json"])
    document = json.loads(result.output)
    assert document["ok"] is (result.exit_code == 0)
    for check in document["checks"]:
        # Whatever fails says what to do.
        assert (check["status"] in {"warn", "fail"}) == bool(check["remedy"]), check
    return result.exit_code, {check["name"]: check for check in document["checks"]}, result.output


def test_all_is_well(simulator: ThreadedSimulator) -> None:
    """Nothing failed, and nobody got a text."""
    code, found, _ = doctor()
    assert code == 0
    assert {name: check["status"] for name, check in found.items()} == {
        "versions": "ok",
        "environment": "ok",
        "proxy": "ok",
        "credentials": "warn",  # Basic, and its end
        "dns": "ok",
        "tcp": "ok",
        "tls": "skip",
        "probe": "ok",
        "clock": "ok",
        "send": "skip",
    }
    assert not simulator.inbox


def test_the_probe_is_for_a_fictional_number(simulator: ThreadedSimulator) -> None:
    """One verify, of a number that is kept for fiction, in a scope of its own."""
    doctor()
    (record,) = [record for record in simulator.requests if record.operation == "verify"]
    assert record.to is not None
    assert record.to[5:10] == "55501"
    assert len(record.to) == 12


def test_nothing_secret_is_printed(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither credentials nor numbers, whether they are right or wrong."""
    monkeypatch.setenv("BW_NUMBER", FROM)
    for password in (simulator.password, "s3ntinel-password", "s3ntinel\n"):
        monkeypatch.setenv("BW_PASSWORD", password)
        for output in (
            doctor("--send", TO, "--application-id", APPLICATION)[2],
            CliRunner().invoke(app, ["doctor"]).output,
        ):
            for secret in (simulator.password, simulator.username, "s3ntinel", TO[1:], FROM[1:], "55501"):
                assert secret not in output


def test_one_real_code(simulator: ThreadedSimulator) -> None:
    """Only on request, and one."""
    code, found, _ = doctor("--send", TO, "--from", FROM, "--application-id", APPLICATION)
    assert code == 0
    assert found["send"]["detail"].startswith(f"accepted {simulator.inbox[-1].message_id}")
    assert [message.to for message in simulator.inbox] == [TO]


def test_a_code_whose_outcome_is_unknown(simulator: ThreadedSimulator) -> None:
    """It is not sent again, and the remedy is to look at the phone."""
    simulator.faults.script(Fault(drop="after_read"), operation="messaging")
    code, found, _ = doctor("--send", TO, "--from", FROM, "--application-id", APPLICATION)
    assert code == 1
    assert found["send"]["detail"].startswith("unknown")
    assert "phone" in found["send"]["remedy"]
    assert len(simulator.inbox) == 1


@pytest.mark.parametrize("args", [["--send", TO], ["--send", "x", "--from", FROM, "--application-id", "a"]])
def test_bad_usage_is_2(args: list[str]) -> None:
    """Before anything is looked at."""
    result = CliRunner().invoke(app, ["doctor", *args])
    assert result.exit_code == 2
    assert "versions" not in result.output


def test_an_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is missing is named, and the service is not asked."""
    monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{refused_port()}/api/v1")
    code, found, _ = doctor()
    assert code == 1
    assert "BW_ACCOUNT_ID, BW_USERNAME, BW_PASSWORD" in found["credentials"]["detail"]
    assert found["probe"]["status"] == "skip"


def test_wrong_credentials(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """403, as Bandwidth answers it, and no code is sent even on request."""
    monkeypatch.setenv("BW_PASSWORD", "wrong")
    code, found, _ = doctor("--send", TO, "--from", FROM, "--application-id", APPLICATION)
    assert code == 1
    assert found["probe"]["status"] == "fail"
    assert "BW_ACCOUNT_ID" in found["probe"]["remedy"]
    assert found["send"]["status"] == "skip"
    assert not simulator.inbox


@pytest.mark.parametrize(
    ("answer", "status", "remedy"),
    [
        (Fault(status=401), "fail", "username"),
        (Fault(status=404), "fail", "BW_MFA_URL"),
        (Fault(status=400), "warn", "again"),
        (Fault(status=429), "warn", "two minutes"),
        (Fault(status=500), "fail", "later"),
        (Fault(status=302, headers={"Location": "https://example.com"}), "fail", "portal"),
        (Fault(status=200, body="<html>log in</html>"), "fail", "portal"),
        (Fault(status=200, body={"valid": True}), "warn", "do not trust"),
        (Fault(drop="after_read"), "fail", "again"),
    ],
    ids=lambda value: str(value.status or value.drop) if isinstance(value, Fault) else "",
)
def test_what_the_service_may_answer(simulator: ThreadedSimulator, answer: Fault, status: str, remedy: str) -> None:
    """A refusal is told apart from trouble, and from what proves nothing about the credentials."""
    simulator.faults.script(answer, operation="verify")
    code, found, _ = doctor()
    assert (code, found["probe"]["status"]) == (int(status == "fail"), status)
    assert remedy in found["probe"]["remedy"]


def test_oauth2(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which credentials win is said; a token is fetched; a wrong secret is named by variable."""
    monkeypatch.setenv("BW_CLIENT_ID", simulator.client_id)
    monkeypatch.setenv("BW_CLIENT_SECRET", simulator.client_secret)
    monkeypatch.setenv("BW_TOKEN_URL", simulator.token_url)
    assert "wins over the OAuth2" in doctor()[1]["credentials"]["detail"]
    monkeypatch.setenv("BW_AUTH", "oauth2")
    code, found, _ = doctor()
    assert code == 0
    assert "BW_AUTH=oauth2" in found["credentials"]["detail"]
    assert [found[name]["status"] for name in ("credentials", "token", "probe")] == ["ok"] * 3
    monkeypatch.setenv("BW_CLIENT_SECRET", "wrong")
    code, found, _ = doctor()
    assert (code, found["token"]["status"]) == (1, "fail")
    assert "BW_CLIENT_SECRET" in found["token"]["remedy"]
    monkeypatch.setenv("BW_AUTH", "magic")
    assert "BW_AUTH" in doctor()[1]["credentials"]["detail"]


def test_a_service_that_takes_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MFA was seen to in June 2026: the remedy says so."""
    with ThreadedSimulator(accept_bearer=False) as simulator:
        for name, value in {
            "BW_MFA_URL": simulator.base_url,
            "BW_ACCOUNT_ID": simulator.account_id,
            "BW_CLIENT_ID": simulator.client_id,
            "BW_CLIENT_SECRET": simulator.client_secret,
            "BW_TOKEN_URL": simulator.token_url,
        }.items():
            monkeypatch.setenv(name, value)
        code, found, _ = doctor()
    assert code == 1
    assert "BW_AUTH=basic" in found["probe"]["remedy"]


def test_a_dead_port(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, and what lies behind it is not looked at."""
    monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{refused_port()}/api/v1")
    code, found, _ = doctor()
    assert code == 1
    assert (found["tcp"]["status"], found["probe"]["status"]) == ("fail", "skip")
    assert "refused" in found["tcp"]["detail"]


def test_a_port_that_does_not_answer(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that drops packets looks like this."""
    with full_backlog() as port:
        monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{port}/api/v1")
        code, found, _ = doctor("--timeout", "0.2")
    assert (code, found["tcp"]["status"]) == (1, "fail")
    assert "no answer within 0.2 s" in found["tcp"]["detail"]


def test_a_name_that_does_not_exist(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver said no; asked through Python's own function, so that no packet leaves."""

    def no_such_name(*_args: object, **_kwargs: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("BW_MFA_URL", "https://mfa.bandwidth.invalid/api/v1")
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    code, found, _ = doctor()
    assert (code, found["dns"]["status"]) == (1, "fail")
    assert "mfa.bandwidth.invalid" in found["dns"]["detail"]
    assert "tcp" not in found


def test_one_of_two_addresses_is_dead(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning: the other one is used."""
    real = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host == "localhost":
            return [*real("127.0.0.2", port, *args, **kwargs), *real("127.0.0.1", port, *args, **kwargs)]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.setenv("BW_MFA_URL", simulator.base_url.replace("127.0.0.1", "localhost"))
    code, found, _ = doctor()
    assert (code, found["tcp"]["status"], found["probe"]["status"]) == (0, "warn", "ok")
    assert "127.0.0.2" in found["tcp"]["detail"]


@pytest.mark.parametrize("url", ["http://mfa.bandwidth.com/api/v1", "https://u:p@example.com", "nonsense"])
def test_a_bad_address(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Found before anything goes anywhere."""
    monkeypatch.setenv("BW_MFA_URL", url)
    code, found, _ = doctor()
    assert code == 1
    assert found["address"]["status"] == "fail"
    assert "dns" not in found


@pytest.mark.parametrize(("hours", "word"), [(2, "behind"), (-2, "ahead of")])
def test_a_skewed_clock(simulator: ThreadedSimulator, hours: int, word: str) -> None:
    """Measured against the answer's Date; a warning, since no wait of ours depends on it."""
    date = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
    simulator.faults.script(Fault(headers={"Date": format_datetime(date, usegmt=True)}), operation="verify")
    code, found, _ = doctor()
    assert (code, found["clock"]["status"]) == (0, "warn")
    assert f"s {word}" in found["clock"]["detail"]
    assert abs(int("".join(filter(str.isdigit, found["clock"]["detail"]))) - 7200) <= 5


def test_an_answer_without_a_usable_date(simulator: ThreadedSimulator) -> None:
    """Nothing to compare with."""
    simulator.faults.script(Fault(headers={"Date": "yesterday"}), operation="verify")
    assert doctor()[1]["clock"]["status"] == "skip"


def test_the_environment(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names only: what is set, what is not read, a blank at the end, a proxy that is not used."""
    monkeypatch.setenv("BW_PASSWORT", "s3ntinel")
    assert "not read here: BW_PASSWORT" in doctor()[1]["environment"]["detail"]
    monkeypatch.setenv("BW_USERNAME", f"{simulator.username} ")
    monkeypatch.setenv("HTTPS_PROXY", "http://s3ntinel:s3ntinel@127.0.0.1:1")
    _, found, output = doctor()
    assert found["environment"]["status"] == "warn"
    assert "BW_USERNAME" in found["environment"]["detail"]
    assert (found["proxy"]["status"], "HTTPS_PROXY" in found["proxy"]["detail"]) == ("warn", True)
    assert "s3ntinel" not in output


@pytest.mark.parametrize(("left", "text"), [(30.4, "in 30 days"), (0.5, "within a day"), (-3, "which has passed")])
async def test_the_end_of_basic(left: float, text: str) -> None:
    """The announced day, by this machine's clock."""
    clock = ManualClock(wall=_checks.BASIC_ENDS - left * 86_400)
    environ = {"BW_ACCOUNT_ID": "9900000", "BW_USERNAME": "user", "BW_PASSWORD": "pass"}
    environ["BW_MFA_URL"] = f"http://127.0.0.1:{refused_port()}"
    found = {finding.name: finding async for finding in _checks.examine(environ, timeout=1.0, clock=clock)}
    assert text in found["credentials"].detail
    assert dt.datetime.fromtimestamp(_checks.BASIC_ENDS, dt.UTC).isoformat() == "2026-12-02T00:00:00+00:00"


def over_tls(
    simulator: ThreadedSimulator, tmp_path: pathlib.Path, *, trusted: bool = True
) -> tuple[int, dict[str, Any]]:
    """Run it in a process of its own: which authorities are trusted is read when a process begins."""
    authority = tmp_path / "ca.pem"
    authority.write_bytes(simulator.ca_pem)
    variables = environment(simulator)  # type: ignore[arg-type]
    if trusted:
        variables["SSL_CERT_FILE"] = str(authority)
    done = processes.run(
        [sys.executable, "-m", "bandwidth_mfa_async", "doctor", "--json", "--timeout", "5"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | variables,
    )
    assert not done.stderr
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_tls(tmp_path: pathlib.Path) -> None:
    """The certificate's last day is read, and the probe goes the same way; an unknown authority is refused."""
    with ThreadedSimulator(tls=True) as simulator:
        code, found = over_tls(simulator, tmp_path)
        assert (code, found["tls"]["status"], found["probe"]["status"]) == (0, "ok", "ok")
        assert "TLSv1.3, certificate valid for" in found["tls"]["detail"]
        code, found = over_tls(simulator, tmp_path, trusted=False)
        assert (code, found["tls"]["status"], found["probe"]["status"]) == (1, "fail", "skip")
        assert "SSL_CERT_FILE" in found["tls"]["remedy"]


@pytest.mark.parametrize(
    ("certificate", "detail", "remedy"),
    [("expired", "expired", "clock"), ("wrong_host", "mismatch", "host name")],
)
def test_a_bad_certificate(tmp_path: pathlib.Path, certificate: Any, detail: str, remedy: str) -> None:
    """Which of the two it is, and what to do."""
    with ThreadedSimulator(tls=True, certificate=certificate) as simulator:
        code, found = over_tls(simulator, tmp_path)
    assert (code, found["tls"]["status"]) == (1, "fail")
    assert detail in found["tls"]["detail"]
    assert remedy in found["tls"]["remedy"]


async def test_a_certificate_that_ends_soon(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two weeks ahead is time enough to tell somebody."""
    async with Simulator(tls=True) as simulator:
        (tmp_path / "ca.pem").write_bytes(simulator.ca_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        days = (await _reach._tls("127.0.0.1", simulator.port, "127.0.0.1", 5.0, ManualClock(wall=time.time()))).detail
        days_left = int(days.split("valid for ")[1].split()[0])
        later = ManualClock(wall=time.time() + (days_left - 3) * 86_400)
        finding = await _reach._tls("127.0.0.1", simulator.port, "127.0.0.1", 5.0, later)
    assert finding.status == "warn"
    assert "valid for 3 more days" in finding.detail


def test_plain_http_on_a_tls_url(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshake fails, and the remedy says where to look."""
    monkeypatch.setenv("BW_MFA_URL", simulator.base_url.replace("http://", "https://"))
    code, found, _ = doctor()
    assert (code, found["tls"]["status"]) == (1, "fail")
    assert "TLS port" in found["tls"]["remedy"]


def test_for_people(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each check, a remedy below what needs one, and no colour where nobody sees it."""
    monkeypatch.setenv("BW_PASSWORD", "wrong")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "\nfail  probe       " in result.output
    assert "\n                  -> check username and password" in result.output
    assert result.output.endswith("1 failed, 1 warnings\n")
    assert "\x1b[" not in result.output


def test_it_leaves_nothing_behind(simulator: ThreadedSimulator) -> None:
    """No task, connection or warning, in a process where each is an error."""
    done = processes.run(
        [sys.executable, "-W", "error", "-m", "bandwidth_mfa_async", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stderr) == (0, "")
