"""A metaclass that leaves the methods which attrs generates out of `help()`, pydoc and completion."""

from __future__ import annotations

from typing import Final

_GENERATED: Final = frozenset(
    (
        *("__annotations__", "__annotate__", "__annotations_cache__", "__delattr__", "__eq__", "__firstlineno__"),
        *("__ge__", "__getstate__", "__gt__", "__hash__", "__init__", "__le__", "__lt__", "__match_args__", "__ne__"),
        *("__replace__", "__repr__", "__setattr__", "__setstate__", "__static_attributes__", "__weakref__"),
    )
)


class ConciseType(type):
    """The type of public attrs classes: `dir()` of the class, which pydoc reads, has only what is written by hand."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name not in _GENERATED and not name.startswith("__attrs_")]
