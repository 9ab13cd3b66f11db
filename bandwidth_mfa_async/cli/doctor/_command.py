"""The command `doctor`: its options and its output."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from ..._models import CodeRequest
from ...errors import InvalidRequestError
from .. import _outcome
from .._formats import plural
from .._terminal import styled, wrapped
from ._checks import run_checks, versions

if TYPE_CHECKING:
    from ._types import Finding

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_NAME_WIDTH: Final = 12
_INDENT: Final = 6 + _NAME_WIDTH

_EPILOG = """
\b
Exit codes: 0 nothing failed (there may be warnings), 1 something failed,
2 bad usage.
\b
Examples:
  bandwidth-mfa doctor
  bandwidth-mfa doctor --json | jq '.checks[] | select(.status == "fail")'
  BW_NUMBER=+19195554321 BW_MESSAGING_APPLICATION_ID=... bandwidth-mfa doctor --send +19195551234
"""


@click.command(epilog=_EPILOG)
@click.option("--send", "to", metavar="TO", help="Text one real code to this number at the end.")
@click.option("--from", "from_", envvar="BW_NUMBER", show_envvar=True, help="The sender's number, for --send.")
@click.option(
    "--application-id", envvar="BW_MESSAGING_APPLICATION_ID", show_envvar=True, help="The application, for --send."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 600, min_open=True),
    default=10.0,
    show_default=True,
    help="The timeout of each network check in seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def doctor(to: str | None, from_: str | None, application_id: str | None, timeout: float, as_json: bool) -> None:  # noqa: FBT001 - click passes flags this way
    """Check the environment, credentials, network, TLS, clock and service.

    Sends no code unless --send is given: each kind of credentials is checked by verifying a made-up code for a number
    reserved for fiction.
    """
    request = None
    if to is not None:
        if not from_ or not application_id:
            raise click.UsageError(
                "--send needs --from and --application-id (or BW_NUMBER and BW_MESSAGING_APPLICATION_ID)"
            )
        try:
            request = CodeRequest(to, from_, application_id)
        except InvalidRequestError as error:
            raise click.UsageError(str(error)) from None
    sys.exit(asyncio.run(_doctor(request, timeout, as_json=as_json)))


async def _doctor(request: CodeRequest | None, timeout: float, *, as_json: bool) -> int:
    findings: list[Finding] = []
    async for finding in run_checks(os.environ, timeout=timeout, send=request):
        findings.append(finding)
        if not as_json:
            _show(finding)
    tally = Counter(finding.status for finding in findings)
    if as_json:
        document: dict[str, Any] = {
            "ok": not tally["fail"],
            "checks": [attrs.asdict(finding) for finding in findings],
            "versions": versions(),
        }
        click.echo(_outcome.json_line(document))
    else:
        click.echo(f"{tally['fail']} failed, {plural(tally['warn'], 'warning')}")
    return _outcome.EXIT_FAILED if tally["fail"] else _outcome.EXIT_OK


def _show(finding: Finding) -> None:
    status = styled(f"{finding.status:6}", _COLOURS[finding.status])
    click.echo(f"{status}{finding.name:{_NAME_WIDTH}}{wrapped(finding.detail, _INDENT)}")
    if finding.remedy is not None:
        click.echo(" " * _INDENT + wrapped(f"-> {finding.remedy}", _INDENT))
