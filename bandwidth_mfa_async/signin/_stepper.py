"""Runs the steps of this package on a store."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final, Self

from .._logger import LOGGER_NAME
from ..errors import ConfigurationError, MFAError
from ._identity import secret_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._tasks import TaskSet
    from ..stores import Reply, Step, Store

_LOG: Final = logging.getLogger(LOGGER_NAME)
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
        tasks: runs what outlives its call.
    """

    def __init__(self, store: Store, timeout: float, tasks: TaskSet) -> None:
        self.store = store
        self._timeout = timeout
        self._tasks = tasks

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

    async def count(
        self, step: Step, keys: Keys, arguments: dict[str, Any], *, undo: Step, undo_arguments: dict[str, Any]
    ) -> Reply:
        """Run a step that counts a text. If it fails or is cancelled, nothing is sent, and the count is given back.

        Args:
            step: the step.
            keys: its records.
            arguments: its arguments.
            undo: the step that gives back what it counted, if it has run.
            undo_arguments: the further arguments of that one.

        Raises:
            StoreError: the store cannot be used, or did not answer in time.
        """
        try:
            return await self.run(step, keys, arguments, confirm=True)
        except BaseException:
            self._tasks.start(self._give_back(undo, keys, arguments | undo_arguments))
            raise

    async def _give_back(self, undo: Step, keys: Keys, arguments: dict[str, Any]) -> None:
        try:
            await self.run(undo, keys, arguments)
        except MFAError as error:
            _LOG.warning("a text that was not sent may stay counted: %s", error)

    def _deadline(self) -> float:
        return self.store.clock.monotonic() + self._timeout
