"""`bandwidth-mfa doctor` reports each failure with a remedy, sends no code and prints no secret."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import re
import socket
import sys
import time
from email.utils import format_datetime
from typing import Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.cli.doctor import _checks, _network
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
    """Run the command; return its exit code, its findings by name, and its output."""
    result = CliRunner().invoke(app, ["doctor", "--timeout", "2", *args, "--json"])
    document = json.loads(result.output)
    assert document["ok"] is (result.exit_code == 0)
    for check in document["checks"]:
        # Every failure and warning has a remedy.
        assert (check["status"] in {"warn", "fail"}) == bool(check["remedy"]), check
    return result.exit_code, {check["name"]: check for check in document["checks"]}, result.output


def test_all_checks_pass_and_no_code_is_sent(simulator: ThreadedSimulator) -> None:
    """Basic credentials give a warning, plain HTTP has no TLS check, and no code is sent without --send."""
    code, found, _ = doctor()
    assert code == 0
    assert {name: check["status"] for name, check in found.items()} == {
        "versions": "ok",
        "environment": "ok",
        "proxy": "ok",
        "credentials": "ok",
        "dns": "ok",
        "tcp": "ok",
        "tls": "skip",
        "probe": "warn",  # Basic, which Bandwidth ends
        "clock": "ok",
        "send": "skip",
    }
    assert not simulator.inbox


def test_the_probe_verifies_one_fictional_number(simulator: ThreadedSimulator) -> None:
    """The number is reserved for fiction."""
    doctor()
    (record,) = [record for record in simulator.requests if record.operation == "verify"]
    assert record.to is not None
    assert record.to[5:10] == "55501"
    assert len(record.to) == 12


def test_no_secret_is_printed(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output contains no credentials and no phone numbers, valid or not."""
    monkeypatch.setenv("BW_NUMBER", FROM)
    for password in (simulator.password, "s3ntinel-password", "s3ntinel\n"):
        monkeypatch.setenv("BW_PASSWORD", password)
        for output in (
            doctor("--send", TO, "--application-id", APPLICATION)[2],
            CliRunner().invoke(app, ["doctor"]).output,
        ):
            for secret in (simulator.password, simulator.username, "s3ntinel", TO[1:], FROM[1:], "55501"):
                assert secret not in output


def test_send_texts_one_real_code(simulator: ThreadedSimulator) -> None:
    """With --send, exactly one text is sent."""
    code, found, _ = doctor("--send", TO, "--from", FROM, "--application-id", APPLICATION)
    assert code == 0
    assert found["send"]["detail"].startswith(f"accepted {simulator.inbox[-1].message_id}")
    assert [message.to for message in simulator.inbox] == [TO]


def test_a_code_with_an_unknown_outcome_is_not_sent_again(simulator: ThreadedSimulator) -> None:
    """The remedy is to check the phone."""
    simulator.faults.script(Fault(drop="after_read"), operation="messaging")
    code, found, _ = doctor("--send", TO, "--from", FROM, "--application-id", APPLICATION)
    assert code == 1
    assert found["send"]["detail"].startswith("unknown")
    assert "phone" in found["send"]["remedy"]
    assert len(simulator.inbox) == 1


@pytest.mark.parametrize("args", [["--send", TO], ["--send", "x", "--from", FROM, "--application-id", "a"]])
def test_bad_usage_exits_with_2_before_any_check(args: list[str]) -> None:
    """An incomplete or invalid --send is an error of usage."""
    result = CliRunner().invoke(app, ["doctor", *args])
    assert result.exit_code == 2
    assert "versions" not in result.output


def test_an_empty_environment_names_all_missing_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is not called."""
    monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{refused_port()}/api/v1")
    code, found, _ = doctor()
    assert code == 1
    assert "BW_ACCOUNT_ID, BW_USERNAME, BW_PASSWORD" in found["credentials"]["detail"]
    assert found["probe"]["status"] == "skip"


def test_wrong_credentials_fail_the_probe_and_prevent_sending(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator answers 403 like Bandwidth; --send is skipped."""
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
def test_each_answer_of_the_service_has_its_status_and_remedy(
    simulator: ThreadedSimulator, answer: Fault, status: str, remedy: str
) -> None:
    """Rejected credentials, failures of the service, and answers that prove nothing have different remedies."""
    simulator.faults.script(answer, operation="verify")
    code, found, _ = doctor()
    assert (code, found["probe"]["status"]) == (int(status == "fail"), status)
    assert remedy in found["probe"]["remedy"]


def test_oauth2_credentials_are_checked_by_fetching_a_token(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output names the variable of a wrong secret."""
    monkeypatch.setenv("BW_CLIENT_ID", simulator.client_id)
    monkeypatch.setenv("BW_CLIENT_SECRET", simulator.client_secret)
    monkeypatch.setenv("BW_TOKEN_URL", simulator.token_url)
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


def test_a_service_that_rejects_tokens_suggests_basic(monkeypatch: pytest.MonkeyPatch) -> None:
    """MFA rejected bearer tokens in June 2026."""
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
    assert "no dated source says that MFA accepts OAuth2" in found["probe"]["remedy"]


@pytest.mark.parametrize(("basic", "bearer"), [(True, True), (True, False), (False, True), (False, False)])
def test_each_kind_of_credentials_is_checked(monkeypatch: pytest.MonkeyPatch, basic: bool, bearer: bool) -> None:
    """With both kinds set there is one line for each; only if neither works the command fails."""
    with ThreadedSimulator(accept_basic=basic, accept_bearer=bearer) as simulator:
        for name, value in environment(simulator).items():  # type: ignore[arg-type]
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("BW_AUTH", "auto")
        monkeypatch.setenv("BW_CLIENT_ID", simulator.client_id)
        monkeypatch.setenv("BW_CLIENT_SECRET", simulator.client_secret)
        monkeypatch.setenv("BW_TOKEN_URL", simulator.token_url)
        code, found, _ = doctor()
    assert code == (0 if basic or bearer else 1)
    assert "OAuth2 first" in found["credentials"]["detail"]
    for name, kind, accepted in (("basic", "Basic", basic), ("oauth2", "OAuth2", bearer)):
        assert found[name]["detail"].startswith(f"{kind} {'accepted now' if accepted else 'rejected'}: ")
        failed = "warn" if basic or bearer else "fail"
        assert found[name]["status"] == (failed if not accepted else "warn" if name == "basic" else "ok")
    assert "announced to end on 2026-12-02" in str(found["basic"])
    assert ("no dated source" in str(found["oauth2"])) is not bearer
    for name in ("basic", "oauth2"):  # both kinds are set already
        assert not re.search(r"set BW_(USERNAME|CLIENT_ID)|BW_AUTH", found[name].get("remedy") or "")


def test_a_secret_in_a_file_is_read(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As mounted by Docker or Kubernetes, with a line break at its end."""
    (tmp_path / "password").write_text(f"{simulator.password}\n")
    monkeypatch.delenv("BW_PASSWORD")
    monkeypatch.setenv("BW_PASSWORD_FILE", str(tmp_path / "password"))
    assert doctor()[1]["probe"]["detail"].startswith("Basic accepted now")


def test_a_closed_port_fails_tcp_and_skips_the_probe(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is refused."""
    monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{refused_port()}/api/v1")
    code, found, _ = doctor()
    assert code == 1
    assert (found["tcp"]["status"], found["probe"]["status"]) == ("fail", "skip")
    assert "refused" in found["tcp"]["detail"]


def test_a_port_that_does_not_answer_times_out(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that drops packets has the same effect."""
    with full_backlog() as port:
        monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{port}/api/v1")
        code, found, _ = doctor("--timeout", "0.2")
    assert (code, found["tcp"]["status"]) == (1, "fail")
    assert "no answer within 0.2 s" in found["tcp"]["detail"]


def test_an_unknown_host_name_fails_dns(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """`socket.getaddrinfo` is replaced, so that no packet leaves the machine."""

    def no_such_name(*_args: object, **_kwargs: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("BW_MFA_URL", "https://mfa.bandwidth.invalid/api/v1")
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    code, found, _ = doctor()
    assert (code, found["dns"]["status"]) == (1, "fail")
    assert "mfa.bandwidth.invalid" in found["dns"]["detail"]
    assert "tcp" not in found


def test_one_unreachable_address_of_two_is_a_warning(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other address is used."""
    real = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host == "localhost":
            return [*real("127.0.0.2", port, *args, **kwargs), *real("127.0.0.1", port, *args, **kwargs)]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.setenv("BW_MFA_URL", simulator.base_url.replace("127.0.0.1", "localhost"))
    code, found, _ = doctor()
    assert (code, found["tcp"]["status"], found["probe"]["status"]) == (0, "warn", "warn")
    assert "127.0.0.2" in found["tcp"]["detail"]


@pytest.mark.parametrize("url", ["http://mfa.bandwidth.com/api/v1", "https://u:p@example.com", "nonsense"])
def test_an_invalid_url_fails_before_any_network_check(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The URL is checked before DNS."""
    monkeypatch.setenv("BW_MFA_URL", url)
    code, found, _ = doctor()
    assert code == 1
    assert found["address"]["status"] == "fail"
    assert "dns" not in found


@pytest.mark.parametrize(("hours", "word"), [(2, "behind"), (-2, "ahead of")])
def test_a_wrong_clock_is_a_warning(simulator: ThreadedSimulator, hours: int, word: str) -> None:
    """The clock is compared with the answer's Date; no wait depends on it."""
    date = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
    simulator.faults.script(Fault(headers={"Date": format_datetime(date, usegmt=True)}), operation="verify")
    code, found, _ = doctor()
    assert (code, found["clock"]["status"]) == (0, "warn")
    assert f"s {word}" in found["clock"]["detail"]
    assert abs(int("".join(filter(str.isdigit, found["clock"]["detail"]))) - 7200) <= 5


def test_an_invalid_date_skips_the_clock_check(simulator: ThreadedSimulator) -> None:
    """Without a valid Date there is nothing to compare."""
    simulator.faults.script(Fault(headers={"Date": "yesterday"}), operation="verify")
    assert doctor()[1]["clock"]["status"] == "skip"


def test_the_environment_is_reported_by_names_only(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unused variables, trailing white space and ignored proxies are reported without values."""
    monkeypatch.setenv("BW_PASSWORT", "s3ntinel")
    assert "not used: BW_PASSWORT" in doctor()[1]["environment"]["detail"]
    monkeypatch.setenv("BW_USERNAME", f"{simulator.username} ")
    monkeypatch.setenv("HTTPS_PROXY", "http://s3ntinel:s3ntinel@127.0.0.1:1")
    _, found, output = doctor()
    assert found["environment"]["status"] == "warn"
    assert "BW_USERNAME" in found["environment"]["detail"]
    assert (found["proxy"]["status"], "HTTPS_PROXY" in found["proxy"]["detail"]) == ("warn", True)
    assert "s3ntinel" not in output


@pytest.mark.parametrize(("left", "text"), [(30.4, "in 30 days"), (0.5, "within a day"), (-3, "which has passed")])
async def test_the_days_until_basic_credentials_end_are_reported(
    simulator: ThreadedSimulator, left: float, text: str
) -> None:
    """The announced day is 2026-12-02; the days are counted by this machine's clock."""
    clock = ManualClock(wall=_checks.BASIC_ENDS - left * 86_400)
    environ = environment(simulator)  # type: ignore[arg-type]
    found = {finding.name: finding async for finding in _checks.run_checks(environ, timeout=1.0, clock=clock)}
    assert text in found["probe"].detail
    assert dt.datetime.fromtimestamp(_checks.BASIC_ENDS, dt.UTC).isoformat() == "2026-12-02T00:00:00+00:00"


def over_tls(
    simulator: ThreadedSimulator, tmp_path: pathlib.Path, *, trusted: bool = True
) -> tuple[int, dict[str, Any]]:
    """Run the command in a new process, which reads SSL_CERT_FILE when it starts."""
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


def test_tls_passes_with_a_trusted_certificate_only(tmp_path: pathlib.Path) -> None:
    """The days until the certificate expires are reported; an unknown CA fails the check."""
    with ThreadedSimulator(tls=True) as simulator:
        code, found = over_tls(simulator, tmp_path)
        assert (code, found["tls"]["status"], found["probe"]["status"]) == (0, "ok", "warn")
        assert "TLSv1.3, certificate valid for" in found["tls"]["detail"]
        code, found = over_tls(simulator, tmp_path, trusted=False)
        assert (code, found["tls"]["status"], found["probe"]["status"]) == (1, "fail", "skip")
        assert "SSL_CERT_FILE" in found["tls"]["remedy"]


@pytest.mark.parametrize(
    ("certificate", "detail", "remedy"),
    [("expired", "expired", "clock"), ("wrong_host", "mismatch", "host name")],
)
def test_a_bad_certificate_is_reported_with_its_cause(
    tmp_path: pathlib.Path, certificate: Any, detail: str, remedy: str
) -> None:
    """An expired certificate and a wrong host name have different remedies."""
    with ThreadedSimulator(tls=True, certificate=certificate) as simulator:
        code, found = over_tls(simulator, tmp_path)
    assert (code, found["tls"]["status"]) == (1, "fail")
    assert detail in found["tls"]["detail"]
    assert remedy in found["tls"]["remedy"]


async def test_a_certificate_that_expires_soon_is_a_warning(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning starts 14 days before the certificate expires."""
    async with Simulator(tls=True) as simulator:
        (tmp_path / "ca.pem").write_bytes(simulator.ca_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        days = (
            await _network._check_tls("127.0.0.1", simulator.port, "127.0.0.1", 5.0, ManualClock(wall=time.time()))
        ).detail
        days_left = int(days.split("valid for ")[1].split()[0].replace(",", ""))
        later = ManualClock(wall=time.time() + (days_left - 3) * 86_400)
        finding = await _network._check_tls("127.0.0.1", simulator.port, "127.0.0.1", 5.0, later)
    assert finding.status == "warn"
    assert "valid for 3 more days" in finding.detail


def test_https_to_a_plain_http_port_fails_tls(simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy names the TLS port."""
    monkeypatch.setenv("BW_MFA_URL", simulator.base_url.replace("http://", "https://"))
    code, found, _ = doctor()
    assert (code, found["tls"]["status"]) == (1, "fail")
    assert "TLS port" in found["tls"]["remedy"]


def test_the_text_output_has_one_line_per_check_and_its_remedy(
    simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal there is no colour."""
    monkeypatch.setenv("BW_PASSWORD", "wrong")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "\nfail  probe       " in result.output
    assert "\n                  -> check username and password" in result.output
    assert result.output.endswith("1 failed, 0 warnings\n")
    assert "\x1b[" not in result.output


def test_no_task_or_connection_is_left_open(simulator: ThreadedSimulator) -> None:
    """With ``-W error``, a leak would be printed as an error."""
    done = processes.run(
        [sys.executable, "-W", "error", "-m", "bandwidth_mfa_async", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stderr) == (0, "")
