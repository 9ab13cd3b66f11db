"""The command `simulate`: runs a simulator until a signal, with credentials from the environment."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from typing import Any, Final

import click

from . import _outcome

# Messages that are kept; a soak test may run for days.
_INBOX_LIMIT: Final = 10_000
# The arguments of `Simulator` that the environment can set.
_VARIABLES: Final = {
    "account_id": "BW_ACCOUNT_ID",
    "username": "BW_USERNAME",
    "password": "BW_PASSWORD",
    "client_id": "BW_CLIENT_ID",
    "client_secret": "BW_CLIENT_SECRET",
}


async def run_simulator(
    host: str, port: int, seed: int | None, options: dict[str, Any], *, account_limits: bool
) -> int:
    """Run a simulator until SIGINT or SIGTERM; print how to use it, and return the exit code."""
    from ..simulator import AccountLimits, Simulator, SimulatorError

    given = {name: value for name, variable in _VARIABLES.items() if (value := os.environ.get(variable))}
    options |= given
    if account_limits:
        options |= {"messaging_limits": AccountLimits(), "voice_limits": AccountLimits.voice()}
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Simulator(port, host=host, seed=seed, inbox_limit=_INBOX_LIMIT, **options) as simulator:
            click.echo(f"simulating Bandwidth MFA at {simulator.base_url}; inbox at {simulator.page_url}")
            click.echo("in another terminal:")
            click.echo(f"  export BW_MFA_URL={simulator.base_url} BW_ACCOUNT_ID={simulator.account_id}")
            click.echo(f"  export BW_TOKEN_URL={simulator.token_url}")
            made_up = {
                name: f"{variable}={getattr(simulator, name)}"
                for name, variable in _VARIABLES.items()
                if name not in given
            }
            for names in (("username", "password"), ("client_id", "client_secret")):
                if pair := [made_up[name] for name in names if name in made_up]:
                    click.echo(f"  export {' '.join(pair)}")
            if given:
                variables = ", ".join(_VARIABLES[name] for name in given)
                click.echo(f"  # from the environment of this simulator: {variables}")
            click.echo("  bandwidth-mfa send +19195551234 --from +19195554321 --application-id any")
            click.echo(f"  curl {simulator.control_url}/messages")
            await stop.wait()
    except (SimulatorError, OSError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        text = f"port {port} is in use; choose another with --port, or 0 for a free one" if in_use else str(error)
        click.echo(f"error: {text}", err=True)
        return _outcome.EXIT_USAGE
    click.echo(f"stopped; {simulator.sent_count} messages were sent")
    return _outcome.EXIT_OK
