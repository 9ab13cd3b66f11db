"""Waiting until a simulator answers, for scripts and for health checks of containers."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from ._control import READY_PATH
from ._errors import InvalidOptionError
from ._http import BASE_PATH

_INTERVAL: Final = 0.1


def ready_url(url: str) -> str:
    """Return the address that says whether a simulator is ready, for any of the addresses that it prints.

    Raises:
        InvalidOptionError: it is not an http(s) URL.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_valid = urlsplit(""), False
    if not is_valid:
        raise InvalidOptionError("the address of a simulator must be a URL like http://127.0.0.1:4010")
    path = parts.path
    for known in (BASE_PATH, READY_PATH.rpartition("/")[0]):
        path = path.partition(known)[0]
    return urlunsplit((parts.scheme, parts.netloc, path.rstrip("/") + READY_PATH, "", ""))


async def wait_until_ready(url: str, timeout: float) -> None:
    """Wait until a simulator answers.

    It does not check the certificate, because nothing secret is sent or read.

    Args:
        url: any of the addresses that the simulator prints.
        timeout: seconds.

    Raises:
        InvalidOptionError: `url` is not an http(s) URL.
        TimeoutError: no simulator answered in time.
    """
    address = ready_url(url)
    async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
        while not await _is_ready(session, address):  # noqa: ASYNC110 - another program becomes ready
            await asyncio.sleep(_INTERVAL)


async def _is_ready(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(address, ssl=False, allow_redirects=False) as response:
            return response.status == 200 and await response.json() == {"ready": True}
    except (aiohttp.ClientError, OSError, ValueError):
        return False
