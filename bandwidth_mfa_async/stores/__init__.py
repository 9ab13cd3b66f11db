"""Stores of idempotency keys, sign-ins and guards, and the `Store` protocol that they implement.

Every decision is a `Step`: a pure function over a few records (``_transitions.py`` for keys), which memory and SQLite
run in a transaction, and a Lua script of the same name and meaning (``lua/<name>.lua``), which Redis runs.

To add a step: write the pure function ``apply(records, args, now) -> reply`` in a module of transitions, make a
``Step(name, apply)`` of it, write ``lua/<name>.lua``, call ``load_scripts(step)`` at import, and call
``await store.run(step, keys, args, deadline=..., group=...)``. All keys of one step share a group. The names of records
begin with their kind (``k:`` keys), which `Store.counts` reports. A step may run twice, so a step that counts takes a
token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._lua import load_scripts
    from ._memory import MemoryStore
    from ._protocol import KeyRecord, KeyStatus, Store
    from ._redis_store import RedisStore
    from ._sqlite_store import SQLiteStore
    from ._step import Argument, Records, Reply, Step, StoredRecord
    from ._transactional import Change, TransactionalStore
    from ._url import store_from_url

__all__ = [
    "Argument",
    "Change",
    "KeyRecord",
    "KeyStatus",
    "MemoryStore",
    "Records",
    "RedisStore",
    "Reply",
    "SQLiteStore",
    "Step",
    "Store",
    "StoredRecord",
    "TransactionalStore",
    "load_scripts",
    "store_from_url",
]

_NAMES: Final = {
    "._lua": "load_scripts",
    "._memory": "MemoryStore",
    "._protocol": "KeyRecord KeyStatus Store",
    "._redis_store": "RedisStore",
    "._sqlite_store": "SQLiteStore",
    "._step": "Argument Records Reply Step StoredRecord",
    "._transactional": "Change TransactionalStore",
    "._url": "store_from_url",
}
_HOMES: Final = {name: home for home, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    # Loaded on first use: a client without a store needs neither SQLite nor Redis.
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
