"""`bandwidth-mfa limits` with a Redis that has a password."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli._app import app


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "missing: --redis (or BW_REDIS_URL)"),
        (("--redis", "http://:hunter2@localhost"), "--redis: must look like redis://"),
        (("--redis", "redis://:hunter3@127.0.0.1:{port}"), "wrong user or password"),
        (("--redis", "redis://:hunter2@127.0.0.1:1"), "it cannot be reached"),
    ],
)
def test_configuration_errors_are_one_line_without_the_password(guarded, monkeypatch, args, says):
    """The exit code is 2."""
    monkeypatch.setenv("BW_ACCOUNT_ID", "9900000")
    monkeypatch.delenv("BW_REDIS_URL", raising=False)
    result = CliRunner().invoke(app, ["limits", "--once", *(arg.format(port=guarded.port) for arg in args)])
    assert result.exit_code == 2
    assert says in result.output
    assert "hunter" not in result.output
    assert "Traceback" not in result.output
