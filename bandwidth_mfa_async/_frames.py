"""Clears the local variables of this package's frames in tracebacks, which crash reporters collect."""

from __future__ import annotations

import contextlib
import functools
import inspect
from opcode import opmap
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Class = TypeVar("_Class", bound=type[Any])

_PACKAGE: Final = __name__.partition(".")[0]
_GENERATOR_FLAGS: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def clear_locals(error: BaseException) -> None:
    """Clear the local variables of this package's ended frames in the tracebacks of an error and of its causes.

    The tracebacks keep their lines. The calling frame still runs, so its variables stay: it must delete those that hold
    a number, a code, a text or a credential. The hidden context of an error of this package, after ``raise ... from
    None``, is removed: it may hold the value that could not be parsed.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if each.__suppress_context__ and each.__cause__ is None and _is_ours(type(each).__module__):
            each.__context__ = None
        pending += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            pending += cast("BaseExceptionGroup[BaseException]", each).exceptions
        traceback = each.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if _holds_our_values(frame) and not _may_be_suspended(frame):
                with contextlib.suppress(RuntimeError):  # it still runs
                    frame.clear()
            traceback = traceback.tb_next


def clears_locals(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a function or coroutine function whose arguments may be secret: it calls `clear_locals` if it raises.

    Not for the path of every call, which a wrapper would slow down.
    """
    call: Any = function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(call)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            """Await the function."""
            try:
                return await call(*args, **kwargs)
            except BaseException as error:
                del args, kwargs
                clear_locals(error)
                raise

        guarded: Any = guarded_coroutine
    else:

        @functools.wraps(call)
        def guarded_function(*args: Any, **kwargs: Any) -> Any:
            """Call the function."""
            try:
                return call(*args, **kwargs)
            except BaseException as error:
                del args, kwargs
                clear_locals(error)
                raise

        guarded = guarded_function
    result: Callable[_P, _T] = guarded
    return result


def init_clears_locals(cls: _Class) -> _Class:
    """Decorate an attrs class whose arguments may be secret: `clears_locals` for its generated `__init__`."""
    cls.__init__ = clears_locals(cls.__init__)
    return cls


def _holds_our_values(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    # Methods that attrs and cattrs generate are in files such as "<attrs generated init package.module.Class>".
    return _PACKAGE in name if name.startswith("<") else _is_ours(frame.f_globals.get("__name__", ""))


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


def _may_be_suspended(frame: FrameType) -> bool:
    """Return whether a frame may wait in an `await` or a `yield`: before 3.13, `clear` would end its coroutine."""
    code = frame.f_code
    return bool(code.co_flags & _GENERATOR_FLAGS) and code.co_code[frame.f_lasti] == opmap["YIELD_VALUE"]
