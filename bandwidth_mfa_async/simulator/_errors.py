"""The exceptions that the simulator raises in the program that runs it."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast

_T = TypeVar("_T")


class SimulatorError(Exception):
    """Base class of the simulator's errors."""


class SimulatorStateError(SimulatorError, RuntimeError):
    """The simulator is not running, or it is started twice."""


class InvalidOptionError(SimulatorError, ValueError):
    """An option, a limit or a receipt policy has an invalid value; the message names it."""


class InvalidFaultError(InvalidOptionError):
    """A fault's fields contradict each other, or its probability is out of range."""


class StateFileError(SimulatorError):
    """The file of `state` is damaged, in use, or cannot be read. It is never changed or replaced then."""


def drops_traceback(target: _T) -> _T:
    """Decorate a class or function whose arguments may be secret: no frame in the traceback of its errors holds them.

    Crash reporters show the local variables of each frame. Other errors than the simulator's own keep their traceback.
    """
    if isinstance(target, type):
        cls: Any = target
        cls.__init__ = drops_traceback(cls.__init__)
        return target
    function: Any = target

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        try:
            return function(*args, **kwargs)
        except (SimulatorError, LookupError) as error:
            del args, kwargs
            raise error.with_traceback(None) from None

    return cast("_T", guarded)
