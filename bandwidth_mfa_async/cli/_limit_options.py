"""Rate limits as options of commands."""

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


CHANNELS: Final = ("messaging", "voice")
REDIS_VARIABLE = "BW_REDIS_URL"


class _Warnings(logging.Handler):
    """Shows what the library warns of, such as a Redis it must do without: nobody else listens to a command's log."""

    def emit(self, record: logging.LogRecord) -> None:
        # Not click's echo, which writes past a live display, and that then draws over it.
        sys.stderr.write(f"warning: {record.getMessage()}\n")


_WARNINGS: Final = _Warnings(logging.WARNING)


def show_warnings() -> None:
    """Show what the library warns of on stderr."""
    logging.getLogger(LOGGER_NAME).addHandler(_WARNINGS)


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--rate`` and ``--redis`` to a command, which gets them as `rate` and `redis`."""
    shared = click.option(
        "--redis",
        metavar="URL",
        envvar=REDIS_VARIABLE,
        show_envvar=True,
        help="Share the limit with every process of the account: redis:// or rediss://.",
    )
    rate = click.option("--rate", metavar="RATE", help="The account's known limit, such as 5/s or 60/m.")
    return rate(shared(command))


def limits_from_options(
    rate: str | None, redis: str | None, *, channel: str = "messaging", account_id: str | None = None, **rest: Any
) -> Limits:
    """Return the limits that ``--rate`` and ``--redis`` ask for.

    Args:
        rate: a text like ``"60/m"``; None when the limit is not known.
        redis: the URL of a Redis that the account's processes share; None for none.
        channel: what `rate` is the limit of, ``"messaging"`` or ``"voice"``.
        account_id: whose limit it is; by default `BW_ACCOUNT_ID`.
        **rest: other arguments of `Limits`.

    Raises:
        ConfigurationError: names the option or the variable.
    """
    known = parse_rate("--rate", rate)
    if redis:
        show_warnings()
    messaging, voice = (None, known) if channel == "voice" else (known, None)
    return Limits(rate=messaging, voice_rate=voice, shared=shared_limits(redis, account_id), **rest)


def shared_limits(url: str | None, account_id: str | None = None) -> RedisLimits | None:
    """Return the `RedisLimits` that ``--redis`` names, or None without it."""
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
