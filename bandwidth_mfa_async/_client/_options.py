"""The client's arguments as a type, for those who hand them on. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ssl import SSLContext

    import aiohttp

    from .._clock import Clock
    from .._config import Limits, RetryPolicy
    from .._credentials import Auth
    from ..telemetry import Hook


class ClientOptions(TypedDict, total=False):
    """Arguments of `MFAClient`, each of which may be left out."""

    account_id: str
    auth: Auth
    base_url: str
    retry: RetryPolicy
    limits: Limits
    hooks: Iterable[Hook]
    session: aiohttp.ClientSession | None
    ssl: SSLContext | None
    proxy: str | None
    clock: Clock | None
