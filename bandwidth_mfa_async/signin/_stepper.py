"""Runs the steps of this package on a store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from ..errors import ConfigurationError
from ._identity import secret_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..stores import Reply, Step, Store

GROUP = "signin"
"""The records of all flows and guards are in one group, because one decision reads several of them."""


class Keys:
    """The records of a step by their role; the first name of a role is written, others belong to older secrets."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.roles: dict[str, list[int]] = {}

    def add(self, role: str, *names: str) -> Self:
        """Add a role."""
        self.roles[role] = list(range(len(self.names), len(self.names) + len(names)))
        self.names += names
        return self

    def add_secret(self, role: str, kind: str, secrets: Sequence[bytes], value: str) -> Self:
        """Add a role whose record is found by a personal value."""
        return self.add(role, *secret_names(kind, secrets, value))


class Stepper:
    """Runs steps, each within a number of seconds.

    Args:
        store: the store.
        timeout: seconds for one step.
    """

    def __init__(self, store: Store, timeout: float) -> None:
        self.store = store
        self._timeout = timeout

    async def secrets(self) -> Sequence[bytes]:
        """Return the store's secrets, the current one first.

        Raises:
            ConfigurationError: the store has none.
            StoreError: the store cannot be used.
        """
        secrets = getattr(self.store, "secrets", None)
        if secrets is None:
            raise ConfigurationError("store: has no secret; a store of your own needs `async def secrets(deadline)`")
        found: Sequence[bytes] = await secrets(deadline=self._deadline())
        return found

    async def run(self, step: Step, keys: Keys, arguments: dict[str, Any], *, confirm: bool = False) -> Reply:
        """Run a step and return its reply.

        Raises:
            StoreError: the store cannot be used, or did not answer in time.
        """
        text = json.dumps(arguments | {"roles": keys.roles})
        return await self.store.run(step, keys.names, [text], deadline=self._deadline(), group=GROUP, confirm=confirm)

    def _deadline(self) -> float:
        return self.store.clock.monotonic() + self._timeout
