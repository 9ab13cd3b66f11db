"""The client's constructor arguments as a `TypedDict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ssl import SSLContext

    import aiohttp

    from .._clock import Clock
    from .._config import Limits, RetryPolicy
    from .._credentials import AuthOrProvider
    from ..stores import Store
    from ..telemetry import Hook


class ClientOptions(TypedDict, total=False):
    """Arguments of `MFAClient`; all are optional."""

    account_id: str
    auth: AuthOrProvider
    base_url: str
    retry: RetryPolicy
    limits: Limits
    hooks: Iterable[Hook]
    store: Store | None
    session: aiohttp.ClientSession | None
    ssl: SSLContext | None
    proxy: str | None
    clock: Clock | None
