"""The command `simulate`: its options, and running a simulator until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from ..._files import atomic_write
from .. import _outcome
from .._formats import plural
from .._limit_options import show_warnings
from .._option_groups import GroupedCommand, GroupedOption
from ._addresses import is_local, other_names
from ._printed import VARIABLES, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...simulator import Simulator

# Messages that `simulate` keeps; a soak test may run for days.
INBOX_LIMIT: Final = 10_000
_SERVER, _OTHERS = "Server", "Other machines and containers"
_ACCOUNT, _UNKNOWN, _WAITING = "Account", "Behaviour that Bandwidth does not document", "Waiting for a simulator"

_EPILOG = """
\b
Exit codes: 0 stopped by a signal, or ready (--wait-ready); 1 not ready in time;
2 bad usage, a port in use, or a damaged state file.
\b
Examples:
  bandwidth-mfa simulate
  bandwidth-mfa simulate --port 0 --seed 1 --no-account-limits
  BW_USERNAME=me BW_PASSWORD=secret bandwidth-mfa simulate
  bandwidth-mfa simulate --no-basic
  bandwidth-mfa simulate --host 0.0.0.0 --control-host simulator --tls --ca-file ca.pem
  bandwidth-mfa simulate --state simulator.state
  bandwidth-mfa simulate --wait-ready http://127.0.0.1:4010
"""


def _option(group: str, *declarations: str, **attributes: Any) -> Callable[..., Any]:
    return click.option(*declarations, cls=GroupedOption, group=group, **attributes)


def _split(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return names or None


@click.command(cls=GroupedCommand, epilog=_EPILOG)
@_option(_SERVER, "--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@_option(
    _SERVER,
    "--port",
    type=click.IntRange(0, 65535),
    default=4010,
    show_default=True,
    help="0 selects a free port.",
)
@_option(_SERVER, "--tls", is_flag=True, help="Serve HTTPS, with a certificate made at start; needs trustme.")
@_option(_SERVER, "--ca-file", metavar="FILE", help="Where to write the certificate that clients must trust.")
@_option(
    _SERVER,
    "--state",
    metavar="FILE",
    help="Keep inbox, codes, lock-outs, limits and made-up credentials across restarts, also after kill -9.",
)
@_option(_SERVER, "--seed", type=int, help="Makes codes, ids and random faults repeatable.")
@_option(
    _OTHERS,
    "--control-host",
    "control_hosts",
    metavar="NAME",
    multiple=True,
    help="A name by which others open the page, such as a container's; may be repeated.",
)
@_option(_OTHERS, "--remote-callbacks", is_flag=True, help="Post delivery receipts to other machines too.")
@_option(
    _ACCOUNT,
    "--account-limits/--no-account-limits",
    default=True,
    show_default=True,
    help="The limits of a default Bandwidth account: 1 text and 5 calls a second, with queues.",
)
@_option(
    _ACCOUNT, "--basic/--no-basic", default=True, help="Whether Basic credentials are accepted; else they get 403."
)
@_option(_ACCOUNT, "--bearer/--no-bearer", default=True, help="Whether OAuth2 tokens are accepted, else 403.")
@_option(
    _ACCOUNT,
    "--applications",
    metavar="ID,...",
    multiple=True,
    callback=_split,
    help="The existing applications; others get 400. By default every id exists.",
)
@_option(
    _ACCOUNT,
    "--require-message",
    is_flag=True,
    help="Refuse the requests of 2020, without message, digits or expirationTimeInMinutes.",
)
@_option(_UNKNOWN, "--consume-on-success", is_flag=True, help="A code is valid only once.")
@_option(_UNKNOWN, "--latest-code-only", is_flag=True, help="A newer code of a number and scope replaces older ones.")
@_option(
    _UNKNOWN,
    "--lockout-after",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Wrong codes after which a number is locked.",
)
@_option(
    _UNKNOWN,
    "--lockout-seconds",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long a number stays locked.",
)
@_option(
    _WAITING, "--wait-ready", metavar="URL", help="Start nothing; wait until the simulator at this address answers."
)
@_option(
    _WAITING,
    "--wait-timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait.",
)
def simulate(wait_ready: str | None, wait_timeout: float, **options: Any) -> None:
    """Run a simulator of the service until Ctrl-C, without an account.

    Its credentials are BW_ACCOUNT_ID, BW_USERNAME, BW_PASSWORD, BW_CLIENT_ID and BW_CLIENT_SECRET if they are set;
    those that it made up are printed. If other machines can reach it, or with --control-host, its page and its control
    API need a token: BW_SIMULATOR_TOKEN, or one that is printed.
    """
    if wait_ready is not None:
        sys.exit(asyncio.run(_wait_until_ready(wait_ready, wait_timeout)))
    if options["ca_file"] is not None and not options["tls"]:
        raise click.UsageError("--ca-file needs --tls")
    source = click.get_current_context().get_parameter_source("account_limits")
    show_warnings()
    try:
        code = asyncio.run(_simulate(options, are_limits_chosen=source is ParameterSource.COMMANDLINE))
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


async def _wait_until_ready(url: str, timeout: float) -> int:
    from ...simulator import InvalidOptionError, wait_until_ready

    try:
        await wait_until_ready(url, timeout)
    except InvalidOptionError as error:
        click.echo(f"error: --wait-ready: {error}", err=True)
        return _outcome.EXIT_USAGE
    except TimeoutError:
        click.echo(f"error: no simulator answered at that address within {timeout:g} s", err=True)
        return _outcome.EXIT_FAILED
    return _outcome.EXIT_OK


async def _simulate(options: dict[str, Any], *, are_limits_chosen: bool) -> int:
    from ...simulator import AccountLimits, Simulator, SimulatorError

    host, port, control_hosts = options["host"], options["port"], options["control_hosts"]
    given = {name: value for name, variable in VARIABLES.items() if (value := os.environ.get(variable))}
    is_reachable = bool(control_hosts) or not is_local(host)
    limits = (AccountLimits(), AccountLimits.voice()) if options["account_limits"] else (None, None)
    arguments: dict[str, Any] = {
        "host": host,
        "seed": options["seed"],
        "tls": options["tls"],
        "state": options["state"],
        "accept_basic": options["basic"],
        "accept_bearer": options["bearer"],
        "applications": options["applications"],
        "require_message": options["require_message"],
        "consume_on_success": options["consume_on_success"],
        "latest_code_only": options["latest_code_only"],
        "lockout_after": options["lockout_after"],
        "lockout_seconds": options["lockout_seconds"],
        "allow_remote_callbacks": options["remote_callbacks"],
        "control_hosts": {*control_hosts, socket.gethostname()} if is_reachable else (),
        "control_token": is_reachable,
        "inbox_limit": INBOX_LIMIT,
        "messaging_limits": limits[0],
        "voice_limits": limits[1],
        **given,
    }
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Simulator(port, **arguments) as simulator:
            if are_limits_chosen:  # also over those of the state file
                simulator.set_limits(messaging=limits[0], voice=limits[1])
            before = simulator.sent_count
            with _authority(simulator, options["ca_file"]) as file:
                for line in Start(simulator, given, other_names(host, control_hosts), file).lines():
                    click.echo(line)
                await stop.wait()
    except (SimulatorError, OSError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        text = f"port {port} is in use; choose another with --port, or 0 for a free one" if in_use else str(error)
        click.echo(f"error: {text}", err=True)
        return _outcome.EXIT_USAGE
    click.echo(f"stopped; {plural(simulator.sent_count - before, 'message')} sent")
    return _outcome.EXIT_OK


@contextlib.contextmanager
def _authority(simulator: Simulator, ca_file: str | None) -> Generator[str | None]:
    """Write the certificate of the simulator's authority, and return the name of its file; None without TLS."""
    pem = simulator.ca_pem
    if pem is None:
        yield None
    elif ca_file is not None:
        atomic_write(ca_file, pem)
        yield ca_file
    else:
        with tempfile.NamedTemporaryFile(prefix="bandwidth-mfa-ca-", suffix=".pem") as file:
            os.fchmod(file.fileno(), 0o644)  # not secret
            file.write(pem)
            file.flush()
            yield file.name
