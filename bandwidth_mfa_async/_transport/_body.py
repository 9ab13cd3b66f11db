"""A request's headers, and its body, which knows whether it may have been written."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Callable


Headers: TypeAlias = CIMultiDict[str]


class Body:
    """A request's body that knows whether it was begun: whether the attempt was handed a connection.

    Before, whatever is raised, the service cannot have acted; from then on it may have. Exception types prove
    nothing: the same ones are raised before and after.

    Args:
        value: its bytes.
        check_before_write: called at the last moment before it is begun; what it raises keeps it from being written.
    """

    __slots__ = ("begun", "check_before_write", "value")

    def __init__(self, value: bytes, check_before_write: Callable[[], None] | None = None) -> None:
        self.value: bytes = value
        self.check_before_write: Callable[[], None] | None = check_before_write
        self.begun: bool = False

    def begin(self) -> None:
        """Mark it as begun, unless its check_before_write objects."""
        if self.check_before_write is not None:
            self.check_before_write()
        self.begun = True
