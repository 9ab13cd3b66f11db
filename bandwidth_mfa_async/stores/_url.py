"""Makes a store of a URL, as in `BW_STORE_URL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from .._frames import clears_locals
from ..errors import ConfigurationError
from ._redis_store import RedisStore
from ._sqlite_store import SQLiteStore

if TYPE_CHECKING:
    from ._protocol import Store

_SQLITE: Final = "sqlite:///"
_REDIS: Final = ("redis://", "rediss://", "unix://")
_CLUSTER: Final = "+cluster"


@clears_locals
def store_from_url(url: str, *, name: str = "store") -> Store:
    """Return the store of a URL.

    Args:
        url: ``sqlite:///codes.db`` (a path from the current folder), ``sqlite:////var/lib/app/codes.db`` (from the
            root), or a Redis URL: ``redis://``, ``rediss://``, ``unix://``, or ``redis+cluster://`` and
            ``rediss+cluster://`` for a Redis Cluster.
        name: name of the setting, for errors.

    Raises:
        ConfigurationError: there is no store of this form.
    """
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE) and "?" not in url:
        return SQLiteStore(unquote(url.removeprefix(_SQLITE)))
    scheme, separator, rest = url.partition("://")
    plain = f"{scheme.removesuffix(_CLUSTER)}{separator}{rest}"
    if plain.startswith(_REDIS):
        try:
            return RedisStore(plain, cluster=scheme.endswith(_CLUSTER))
        except ConfigurationError as error:
            text = str(error)
        # Outside the handler, so that the error holds no frame with the URL.
        raise ConfigurationError(text if name == "store" else f"{name}: {text.removeprefix('store: ')}")
    msg = f"{name}: must look like sqlite:///codes.db or redis://[user:password@]host[:port][/database]"
    raise ConfigurationError(msg)
