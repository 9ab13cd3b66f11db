"""The options `--rate` and `--redis` of the commands that send."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from .._config import Limits, parse_rate
from ..errors import ConfigurationError
from ..telemetry import LOGGER_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits.shared._redis_limits import RedisLimits


REDIS_VARIABLE = "BW_REDIS_URL"


class _Warnings(logging.Handler):
    """Prints the library's warnings, such as an unreachable Redis; a command has no other log handler."""

    def emit(self, record: logging.LogRecord) -> None:
        # Rich redirects sys.stderr while a live display runs; click.echo would bypass that and be overwritten.
        sys.stderr.write(f"warning: {record.getMessage()}\n")


_WARNINGS: Final = _Warnings(logging.WARNING)


def show_warnings() -> None:
    """Print the library's warnings on standard error."""
    logging.getLogger(LOGGER_NAME).addHandler(_WARNINGS)


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--rate`` and ``--redis`` to a command, as its parameters `rate` and `redis`."""
    shared = click.option(
        "--redis",
        metavar="URL",
        envvar=REDIS_VARIABLE,
        show_envvar=True,
        help="Share the limit with all processes of the account: redis:// or rediss://.",
    )
    rate = click.option("--rate", metavar="RATE", help="The account's known limit, such as 5/s or 60/m.")
    return rate(shared(command))


def limits_from_options(
    rate: str | None, redis: str | None, *, channel: str = "messaging", account_id: str | None = None, **rest: Any
) -> Limits:
    """Return the `Limits` for ``--rate`` and ``--redis``.

    Args:
        rate: a string like ``"60/m"``; None if the limit is not known.
        redis: the URL of a Redis that the account's processes share, or None.
        channel: the channel that `rate` limits, ``"messaging"`` or ``"voice"``.
        account_id: the account of the shared limit; by default `BW_ACCOUNT_ID`.
        **rest: other arguments of `Limits`.

    Raises:
        ConfigurationError: an option or a variable is wrong or missing; the message names it.
    """
    known = parse_rate("--rate", rate)
    if redis:
        show_warnings()
    messaging, voice = (None, known) if channel == "voice" else (known, None)
    return Limits(rate=messaging, voice_rate=voice, shared=shared_limits(redis, account_id), **rest)


def shared_limits(url: str | None, account_id: str | None = None) -> RedisLimits | None:
    """Return the `RedisLimits` for the URL of ``--redis``, or None without a URL."""
    if not url:
        return None
    from ..limits.shared._redis_limits import RedisLimits

    key = account_id or os.environ.get("BW_ACCOUNT_ID")
    if not key:
        raise ConfigurationError("missing from the environment: BW_ACCOUNT_ID")
    try:
        return RedisLimits(url, key=key)
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(
            f"--redis: {text.removeprefix('url: ')}" if text.startswith("url: ") else text
        ) from None
