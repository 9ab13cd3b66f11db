"""Whether a Redis keeps what was written to it: persistence and eviction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


async def read_info(client: Any, section: str) -> dict[str, Any]:
    """Return a section of a Redis's ``INFO``, of a cluster by node; empty if this user may not read it."""
    from redis.exceptions import ResponseError

    try:
        facts: dict[str, Any] = await client.info(section)
    except ResponseError:
        return {}
    return facts


def eviction_policy(memory: dict[str, Any]) -> str | None:
    """Return the policy by which a Redis evicts keys; None if it evicts none.

    Args:
        memory: its section ``memory``.
    """
    for node in _nodes(memory):
        policy = str(node.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction" and int(node.get("maxmemory", 0)):
            return policy
    return None


def has_aof(persistence: dict[str, Any]) -> bool:
    """Return whether a Redis writes an append-only file; False if it does not say so.

    Args:
        persistence: its section ``persistence``.
    """
    return all(str(node.get("aof_enabled", 0)) == "1" for node in _nodes(persistence))


def _nodes(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    values = list(facts.values())
    if values and isinstance(values[0], dict):
        yield from values
    else:
        yield facts
