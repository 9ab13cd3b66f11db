"""Single codes that are requested from workers while something else disturbs them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bandwidth_mfa_async import LedgerError, RequestError
from tests.system._outcomes import Outcome, Places, contradictions, of_code, of_error, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bandwidth_mfa_async import CodeTemplate
    from bandwidth_mfa_async.worker import MFAWorker


class SingleCodes:
    """Requests single codes, one after the other, while the job runs.

    Args:
        codes: the worker's interface.
        template: makes the requests.
        count: the number of codes.
    """

    def __init__(self, codes: MFAWorker, template: CodeTemplate, count: int) -> None:
        self._codes = codes
        self._template = template
        self._count = count
        self.returned: dict[str, Outcome | None] = {}
        self.places = Places()

    async def run(self) -> None:
        pending: set[asyncio.Task[None]] = set()
        for index in range(self._count):
            pending.add(asyncio.create_task(self._request(f"+1999{index:07}")))
            await asyncio.sleep(0.05)
        await asyncio.gather(*pending)

    async def _request(self, number: str) -> None:
        codes = self._codes.send_code
        try:
            identifier = await codes.kiq(self._template.to(number), key=key_of(number), timeout=20.0)
        except RequestError as error:
            self.returned[number] = of_error(error)
        except LedgerError:
            self.returned[number] = None  # unknown to this process; the ledger knows
        else:
            self.returned[number] = Outcome("accepted", identifier, duplicate=True)  # the result has no flag

    async def read(self) -> None:
        """Read what the ledger knows of every code."""
        for number in self.returned:
            code = await self._codes.send_code.outcome(key_of(number))
            self.places.outcomes.setdefault("CodeOutcome", {})[number] = of_code(code)

    def check(self, ids: dict[str, list[str]], policy: str) -> Iterator[str]:
        """Yield the contradictions of all places that report single codes."""
        for number, outcome in self.returned.items():
            if outcome is not None:
                yield from (f"kiq, {number}: {wrong}" for wrong in contradictions(outcome, ids[number], policy))
        if self.places.outcomes:
            yield from self.places.check(ids, policy)

    def counts(self) -> dict[str, int]:
        """Return the number of codes by outcome."""
        return totals_of(next(iter(self.places.outcomes.values()), {}).values())


def key_of(number: str) -> str:
    return f"login:{number}"
