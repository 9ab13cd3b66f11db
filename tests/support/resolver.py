"""A resolver with scripted answers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp.abc import AbstractResolver


class Resolver(AbstractResolver):
    """Resolves names as its script says: with addresses, "address:port" included, with an exception, or never."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        self.asked += 1
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if said == "hang":
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        places = [address.partition(":") for address in said]
        return [
            {"hostname": host, "host": address, "port": int(other or port), "family": family, "proto": 0, "flags": 0}
            for address, _, other in places
        ]

    async def close(self) -> None:
        pass
