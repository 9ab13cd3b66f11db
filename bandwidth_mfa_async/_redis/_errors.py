"""What an error of redis-py means: one classification for the limits, the ledger and the stores."""

from __future__ import annotations

import enum
import re
from typing import Final

from attrs import frozen

from .._tls_reason import tls_reason


class RedisFault(enum.Enum):
    """Why Redis cannot be used. The value says it, with the remedy, after "cannot be used: "."""

    CREDENTIALS = "wrong user or password"
    PERMISSION = "this user may not run {detail} there"
    KEY_PERMISSION = "this user may not use the keys of the prefix there"
    UNKNOWN_COMMAND = "the command {detail} is renamed or disabled there"
    TOO_OLD = "{detail}this Redis is too old for the scripts; 5 or later is needed"
    FOREIGN_KEY = "a key of its prefix holds something else; choose another prefix"
    NO_DATABASE = "there is no such database"
    SEVERAL_NODES = "its keys are on several nodes of a cluster; pass cluster=True"
    CLUSTER_NODE = "this is a node of a cluster; pass cluster=True"
    TLS = "{detail}"
    READ_ONLY = "this Redis is a read-only replica; use the URL of the primary"
    PRIMARY_LOST = "this Redis is a replica that has lost its primary"
    LOADING = "this Redis is loading its data"
    CLUSTER_DOWN = "the cluster does not serve: some of its nodes are down"
    OUT_OF_MEMORY = "this Redis accepts no writes: it is out of memory; raise maxmemory"
    CANNOT_SAVE = "this Redis accepts no writes: it cannot save; free space on its disk"
    BUSY = "this Redis is busy"
    TIMEOUT = "it did not answer in time"
    UNREACHABLE = "it cannot be reached: {detail}"
    OTHER = "Redis raised {detail}"

    @property
    def is_transient(self) -> bool:
        """Whether it ends by itself, or once the operator of the Redis acts."""
        return self in _TRANSIENT

    @property
    def needs_new_connection(self) -> bool:
        """Whether a new client may succeed.

        The server may have lost its role, so that the name in the URL may lead to another one by now, or the files of
        the certificate authorities may have changed.
        """
        return self in _FAILOVER or self is RedisFault.TLS

    @property
    def refused(self) -> bool:
        """Whether waiting does not help: a setting is wrong."""
        return self in _REFUSED


_FAILOVER: Final = frozenset(
    {RedisFault.READ_ONLY, RedisFault.PRIMARY_LOST, RedisFault.LOADING, RedisFault.CLUSTER_DOWN}
)
_TRANSIENT: Final = _FAILOVER | {
    RedisFault.OUT_OF_MEMORY,
    RedisFault.CANNOT_SAVE,
    RedisFault.BUSY,
    RedisFault.TIMEOUT,
    RedisFault.UNREACHABLE,
}
_REFUSED: Final = frozenset(RedisFault) - _TRANSIENT - {RedisFault.OTHER} | {
    RedisFault.OUT_OF_MEMORY,
    RedisFault.CANNOT_SAVE,
}

# Signs in the lower-case text of an error. The text itself is never shown: it may contain keys, names and addresses.
_SIGNS: Final = (
    (
        RedisFault.CREDENTIALS,
        ("wrongpass", "invalid password", "invalid username-password", "noauth", "authentication"),
    ),
    (RedisFault.KEY_PERMISSION, ("permissions to access a key", "permissions to access one of the keys")),
    (RedisFault.PERMISSION, ("noperm", "no permission", "user executing the script can't run")),
    (RedisFault.TOO_OLD, ("non deterministic", "script_kill")),
    (RedisFault.UNKNOWN_COMMAND, ("unknown command", "unknown redis command")),
    (RedisFault.FOREIGN_KEY, ("wrongtype",)),
    (RedisFault.NO_DATABASE, ("invalid db index", "out of range")),
    (RedisFault.SEVERAL_NODES, ("crossslot",)),
    (RedisFault.CLUSTER_NODE, ("moved",)),
    (RedisFault.LOADING, ("loading",)),
    (RedisFault.READ_ONLY, ("readonly", "read only")),
    (RedisFault.PRIMARY_LOST, ("masterdown",)),
    (RedisFault.CLUSTER_DOWN, ("clusterdown", "slotnotcovered", "tryagain")),
    (RedisFault.OUT_OF_MEMORY, ("oom ", "outofmemory")),  # redis-py removes "OOM" and raises OutOfMemoryError
    (RedisFault.CANNOT_SAVE, ("misconf",)),
    (RedisFault.BUSY, ("busy", "max number of clients")),
)
# How a URL of redis-py names them.
_TRUST: Final = "ssl_ca_certs in the URL, as in rediss://host?ssl_ca_certs=/path/ca.pem"
_CLIENT_CERTIFICATE: Final = "ssl_certfile and ssl_keyfile in the URL"
_COMMAND: Final = re.compile(r"(?:the |unknown command )['\"`]([a-z]{2,16})(?:\|[a-z]{2,16})?['\"`]")


@frozen
class RedisFailure:
    """A classified error.

    Attributes:
        fault: its kind.
        detail: the command, the reason of OpenSSL or the class of the error. Contains no key, name or address.
    """

    fault: RedisFault
    detail: str = ""

    def describe(self, rights: str = "") -> str:
        """Return what is wrong and what to do.

        Args:
            rights: the rights that the scripts need, in the syntax of ``ACL SETUSER``.
        """
        text = self.fault.value.format(detail=self.detail)
        if rights and self.fault in {RedisFault.PERMISSION, RedisFault.KEY_PERMISSION}:
            text += f"; grant it {rights}"
        return text


def classify(error: Exception) -> RedisFailure:
    """Return what an error of redis-py, or of an operation on one of its clients, means."""
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import RedisClusterException, RedisError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    tls = tls_reason(error, url="the URL", trust=_TRUST, context=_CLIENT_CERTIFICATE)
    if tls is not None:
        return RedisFailure(RedisFault.TLS, "; ".join(tls))
    if isinstance(error, (RedisError, RedisClusterException)):
        text = f"{type(error).__name__} {error}".lower()
        for fault, signs in _SIGNS:
            if any(sign in text for sign in signs):
                return RedisFailure(*_with_command(fault, text))
    if isinstance(error, (TimeoutError, RedisTimeoutError)):
        return RedisFailure(RedisFault.TIMEOUT)
    if isinstance(error, (RedisConnectionError, RedisClusterException, OSError)):
        return RedisFailure(RedisFault.UNREACHABLE, type(error).__name__)
    return RedisFailure(RedisFault.OTHER, type(error).__name__)


def _with_command(fault: RedisFault, text: str) -> tuple[RedisFault, str]:
    """Add the command to an error about one."""
    if fault not in {RedisFault.PERMISSION, RedisFault.UNKNOWN_COMMAND}:
        return fault, ""
    found = _COMMAND.search(text)
    command = found[1].upper() if found else ""
    if fault is RedisFault.UNKNOWN_COMMAND and command in {"EVALSHA", "EVAL"}:
        return RedisFault.TOO_OLD, f"the command {command} is renamed or disabled there, or "
    return fault, command or "a command of the scripts"
