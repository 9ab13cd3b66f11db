"""Whether a Redis keeps what was written to it: persistence and eviction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..errors import ConfigurationError
from ._errors import classify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._connection import Connection
    from ._owner import Owner


@frozen
class Durability:
    """What a Redis says about itself.

    Attributes:
        has_aof: whether it writes an append-only file; False if it does not say so.
        eviction_policy: the policy by which it evicts keys; None if it evicts none, or does not say so.
        refusal: why it does not say so; empty if it does.
    """

    has_aof: bool
    eviction_policy: str | None
    refusal: str = ""


async def read_durability(client: Any) -> Durability:
    """Ask a Redis with ``INFO``. Of a cluster every node counts."""
    from redis.exceptions import ResponseError

    try:
        memory, persistence = await client.info("memory"), await client.info("persistence")
    except ResponseError as error:
        failure = classify(error)
        if failure.fault.is_transient:
            raise
        return Durability(has_aof=False, eviction_policy=None, refusal=failure.describe("+info"))
    has_aof = all(str(node.get("aof_enabled", 0)) == "1" for node in _nodes(persistence))
    return Durability(has_aof, next(filter(None, map(_eviction_policy, _nodes(memory))), None))


async def check_durability(connection: Connection, owner: Owner, *, require_aof: bool, max_wait: float) -> None:
    """Check that a Redis does not evict and writes an append-only file.

    Args:
        connection: its connection.
        owner: what keeps data in it.
        require_aof: whether to refuse one without an append-only file; otherwise a warning is logged.
        max_wait: seconds to wait for a Redis that cannot be reached.

    Raises:
        MFAError: the owner's: Redis cannot be reached, or evicts.
        ConfigurationError: it has no append-only file, which `require_aof` demands.
    """
    found = await connection.call(read_durability, max_wait=max_wait)
    if found.eviction_policy is not None:
        lost = owner.lost.format(verb="evicts")
        raise owner.error(
            f"the {owner.name}'s Redis evicts keys (maxmemory-policy {found.eviction_policy}), and {lost}; "
            "set maxmemory-policy noeviction"
        )
    if not found.has_aof:
        loss = f"{owner.lost.format(verb='loses in a restart')}; start it with appendonly yes"
        if found.refusal:
            loss = f"the {owner.name}'s Redis does not say whether it has an append-only file: {found.refusal}; {loss}"
        else:
            loss = f"the {owner.name}'s Redis has no append-only file, and {loss}"
        if require_aof:
            msg = f"{loss}, or pass require_aof=False"
            raise ConfigurationError(msg)
        owner.log.warning("%s", loss)


def _eviction_policy(memory: dict[str, Any]) -> str | None:
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return policy if policy != "noeviction" and int(memory.get("maxmemory", 0)) else None


def _nodes(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    values = list(facts.values())
    if values and isinstance(values[0], dict):
        yield from values
    else:
        yield facts
