"""The root command and the commands send, call, verify, limits and demo."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .._config import RetryPolicy
from .._models import DEFAULT_MESSAGE, CodeRequest, VerifyCodeRequest, normalize_code
from ..errors import ConfigurationError, MFAError
from . import _outcome
from ._conversions import conversions
from ._demo_display import show_demo
from ._jobs import jobs
from ._limit_options import REDIS_VARIABLE, limit_options, limits_from_options, shared_limits
from ._limits import show_limits
from ._open_client import open_client
from ._store import show_store, store_of, store_options
from .bulk._command import bulk
from .doctor._command import doctor
from .report._command import report
from .simulate._command import simulate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from .._client import MFAClient
    from .._config import Limits

_EXIT_CODES = """
\b
Exit codes: 0 accepted or valid, 1 rejected, not sent or not valid,
2 bad usage or configuration, 3 outcome unknown.
"""
_ENVIRONMENT = """
\b
Credentials come from the environment: BW_ACCOUNT_ID, and BW_USERNAME and
BW_PASSWORD, or BW_CLIENT_ID and BW_CLIENT_SECRET, or all four: then a call
uses the kind that works (BW_AUTH=basic or oauth2 selects one). BW_PASSWORD_FILE
and BW_CLIENT_SECRET_FILE name files with the secret. BW_MFA_URL and
BW_TOKEN_URL are for a simulator. On a terminal, a missing password is prompted
for.
"""


def _examples(*lines: str) -> str:
    return "\n\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines)


_NUMBERS = "--from +19195554321 --application-id APP"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES
    + _examples(
        "bandwidth-mfa demo",
        "bandwidth-mfa doctor",
        f"bandwidth-mfa send +19195551234 {_NUMBERS}",
        "bandwidth-mfa verify +19195551234 123456",
    ),
)
@click.version_option(__version__, prog_name="bandwidth-mfa")
def app() -> None:
    """Text, call and verify sign-in codes through Bandwidth's multi-factor-authentication API."""


app.add_command(bulk)
app.add_command(doctor)
app.add_command(report)
app.add_command(jobs)
app.add_command(conversions)
app.add_command(show_store)
app.add_command(simulate)


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run a coroutine and exit with the code that it returns."""
    try:
        code = asyncio.run(work)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _client(timeout: float | None, limits: Limits | None, store: str | None) -> MFAClient:
    overrides: dict[str, Any] = {} if timeout is None else {"retry": RetryPolicy(timeout=timeout)}
    if limits is not None:
        overrides["limits"] = limits
    if store is not None:
        overrides["store"] = store_of(store)
    return open_client(**overrides)


async def _with_client(
    action: Callable[[MFAClient], Awaitable[tuple[dict[str, Any], str, int]]],
    timeout: float | None,
    *,
    as_json: bool,
    make_limits: Callable[[], Limits] | None = None,
    store: str | None = None,
) -> int:
    """Open a client, run the action, print its result, and return the exit code."""
    try:
        limits = None if make_limits is None else make_limits()
        async with _client(timeout, limits, store) as client:
            document, text, code = await action(client)
    except MFAError as error:
        return _outcome.fail(error, as_json=as_json)
    click.echo(_outcome.json_line(document) if as_json else text)
    return code


def _send_options(application_variable: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    options = [
        click.argument("to"),
        click.option("--from", "from_", envvar="BW_NUMBER", show_envvar=True, help="The sender's number, E.164."),
        click.option("--application-id", envvar=application_variable, show_envvar=True, help="The application."),
        click.option("--scope", help="What the code is for, at most 25 characters; use the same to verify."),
        click.option("--message", default=DEFAULT_MESSAGE, show_default=True, help="The text; must contain {CODE}."),
        click.option("--digits", type=int, default=6, show_default=True, help="The code's length, 4 to 8."),
        click.option("--timeout", type=float, help="Seconds for the whole call.  [default: 60]"),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        as_json = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
        command = store_options(limit_options(as_json(command)))
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _code_request(*, to: str, from_: str | None, application_id: str | None, **rest: Any) -> CodeRequest:
    missing = [name for name, value in (("--from", from_), ("--application-id", application_id)) if not value]
    if missing:
        raise ConfigurationError(f"missing: {', '.join(missing)} (see --help for the environment variables)")
    return CodeRequest(to, str(from_), str(application_id), **rest)


def _send_command(kind: str, timeout: float | None, as_json: bool, fields: dict[str, Any]) -> None:  # noqa: FBT001
    rate, redis, key, store = (fields.pop(name) for name in ("rate", "redis", "key", "store"))
    channel = "messaging" if kind == "send" else "voice"

    def make_limits() -> Limits:
        return limits_from_options(rate, redis, channel=channel)

    async def action(client: MFAClient) -> tuple[dict[str, Any], str, int]:
        request = _code_request(**fields)
        generate = client.generate_messaging_code if kind == "send" else client.generate_voice_code
        sent = await generate(request, idempotency_key=key)
        document = _outcome.send_document(sent)
        text = f"accepted {document.get('message_id') or document.get('call_id')}"
        if sent.meta.possible_duplicate:
            text += " (possible duplicate: an earlier attempt's outcome is unknown)"
        if sent.meta.replayed:
            text += " (sent by an earlier call with this key)"
        return document, text, _outcome.EXIT_OK

    _run(_with_client(action, timeout, as_json=as_json, make_limits=make_limits, store=store))


@app.command(
    epilog=_ENVIRONMENT
    + _EXIT_CODES
    + _examples(
        f"bandwidth-mfa send +19195551234 {_NUMBERS}",
        "BW_NUMBER=+19195554321 BW_MESSAGING_APPLICATION_ID=APP bandwidth-mfa send +19195551234",
        f"bandwidth-mfa send +19195551234 {_NUMBERS} --scope login --json",
        f"bandwidth-mfa send +19195551234 {_NUMBERS} --key login:42",
    )
)
@_send_options("BW_MESSAGING_APPLICATION_ID")
def send(timeout: float | None, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click passes flags this way
    """Text a code to TO, an E.164 number such as +19195551234."""
    _send_command("send", timeout, as_json, fields)


@app.command(
    epilog=_ENVIRONMENT
    + _EXIT_CODES
    + _examples(
        f"bandwidth-mfa call +19195551234 {_NUMBERS}",
        f"bandwidth-mfa call +19195551234 {_NUMBERS} --digits 4 --timeout 10",
    )
)
@_send_options("BW_VOICE_APPLICATION_ID")
def call(timeout: float | None, as_json: bool, **fields: Any) -> None:  # noqa: FBT001 - click passes flags this way
    """Call TO, an E.164 number, and speak a code."""
    _send_command("call", timeout, as_json, fields)


@app.command(
    epilog=_ENVIRONMENT
    + _EXIT_CODES
    + _examples(
        "bandwidth-mfa verify +19195551234 123456",
        "bandwidth-mfa verify +19195551234 123456 --scope login && echo welcome",
    )
)
@click.argument("to")
@click.argument("code")
@click.option("--scope", help="The scope that the code was sent with.")
@click.option(
    "--minutes", type=float, default=3, show_default=True, help="The maximum age of the code, at most 15 minutes."
)
@click.option("--timeout", type=float, help="Seconds for the whole call.  [default: 60]")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def verify(  # noqa: PLR0913 - options
    to: str,
    code: str,
    scope: str | None,
    minutes: float,
    timeout: float | None,
    as_json: bool,  # noqa: FBT001 - click passes flags this way
) -> None:
    """Check the CODE that TO typed; blanks and dashes in it are ignored."""

    async def action(client: MFAClient) -> tuple[dict[str, Any], str, int]:
        """Verify the code."""
        answer = await client.verify_code(VerifyCodeRequest(to, normalize_code(code), scope, minutes))
        exit_code = _outcome.EXIT_OK if answer.valid else _outcome.EXIT_FAILED
        return _outcome.verify_document(answer), "valid" if answer.valid else "not valid", exit_code

    _run(_with_client(action, timeout, as_json=as_json))


@app.command(epilog=_examples("bandwidth-mfa limits --redis redis://127.0.0.1/0", "bandwidth-mfa limits --once --json"))
@click.option("--redis", metavar="URL", envvar=REDIS_VARIABLE, show_envvar=True, help="The shared Redis.")
@click.option("--account-id", envvar="BW_ACCOUNT_ID", show_envvar=True, help="The account whose limits are shown.")
@click.option("--once", is_flag=True, help="Show the limits once and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON every few seconds, or once.")
def limits(redis: str | None, account_id: str | None, once: bool, as_json: bool) -> None:  # noqa: FBT001 - click passes flags this way
    """Show the limits shared through Redis: learned rates, queues and recent 429s.

    On a terminal the table is live until Ctrl-C. The command only reads.
    """

    async def show() -> int:
        """Show the limits."""
        try:
            shared = shared_limits(redis, account_id)
            if shared is None:
                raise ConfigurationError(f"missing: --redis (or {REDIS_VARIABLE})")
            return await show_limits(shared, once=once, as_json=as_json)
        except MFAError as error:
            return _outcome.fail(error, as_json=as_json)

    _run(show())


@app.command(
    short_help="Send and verify codes on a simulator, without an account.",
    epilog=_examples("bandwidth-mfa demo", "bandwidth-mfa demo --count 2000 --seed 1 --json"),
)
@click.option("--count", type=click.IntRange(1, 60_000), default=400, show_default=True, help="The number of codes.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed repeats a run's faults.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON and no progress.")
def demo(count: int, seed: int, as_json: bool) -> None:  # noqa: FBT001 - click passes flags this way
    """Send and verify codes on a simulator with injected faults, without an account.

    Starts a simulator on this machine, sends codes concurrently while it answers with 429s and 503s and drops
    connections, verifies the codes that arrived, and counts the outcomes.
    """
    _run(show_demo(count, seed, as_json=as_json))
