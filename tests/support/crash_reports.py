"""What a crash reporter shows of this package's frames."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING, Any

import bandwidth_mfa_async

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = str(pathlib.Path(bandwidth_mfa_async.__file__).parent)
_MAX_DEPTH = 4


def is_ours(frame: FrameType) -> bool:
    """Return whether a frame is of this package, or of a method that attrs or cattrs generated for it."""
    name = frame.f_code.co_filename
    return name.startswith(PACKAGE) or (name.startswith("<") and "bandwidth_mfa_async" in name)


def chain(error: BaseException) -> list[BaseException]:
    """Return the error, all causes and contexts, hidden ones as well, and the members of groups."""
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or any(each is other for other in found):
            continue
        found.append(each)
        pending += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
    return found


def our_frames(error: BaseException) -> list[FrameType]:
    """Return the frames of this package in the tracebacks of the whole chain."""
    frames = []
    for each in chain(error):
        traceback = each.__traceback__
        while traceback is not None:
            if is_ours(traceback.tb_frame):
                frames.append(traceback.tb_frame)
            traceback = traceback.tb_next
    return frames


def shown(error: BaseException) -> str:
    """Return what reporters such as Sentry's collect: local variables with their content, and all data of the chain."""
    parts = []
    for frame in our_frames(error):
        for name, value in frame.f_locals.items():
            parts.append(f"{frame.f_code.co_name}: {name} = {_serialized(value, _MAX_DEPTH)}")
    for each in chain(error):
        parts.append(f"{each!s} {each!r} {each.args!r} {vars(each)!r}")
        # The text that could not be encoded, and the document that could not be parsed.
        parts += [repr(getattr(each, name, "")) for name in ("object", "doc")]
    return "\n".join(parts)


def _serialized(value: Any, depth: int) -> str:
    if depth and isinstance(value, dict):
        return str({_serialized(key, 0): _serialized(item, depth - 1) for key, item in value.items()})
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return str([_serialized(item, depth - 1) for item in value])
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - as reporters do
        return f"<broken repr: {sys.exc_info()[0]}>"
