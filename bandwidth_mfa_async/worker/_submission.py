"""Writes an input of any length to the ledger as chunks; the same input again continues the job."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from .._item_state import LedgerState
from .._items._deduplication import DedupIndex
from .._items._intake import Intake, unexpected_error
from .._keys import TEMPLATE_FIELDS, fact_digest, template_values
from ..errors import InvalidRequestError, LedgerError
from .ledger._codec import pack_record, pack_requests
from .ledger._protocol import SubmitReply

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._models import CodeRequest, CodeTemplate
    from .ledger._ledger import RedisLedger


class Submission:
    """The submission of one job.

    Args:
        ledger: the ledger.
        job: the job's name.
        source: an iterable or an async iterable.
        chunk: the number of items of a chunk.
        channel: ``"messaging"`` or ``"voice"``.
        template: makes requests of numbers; another template cannot continue the job.
        key: makes the custom keys.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        ledger: RedisLedger,
        job: str,
        source: Any,
        chunk: int,
        channel: str,
        template: CodeTemplate | None,
        key: Callable[[CodeRequest], str] | None,
    ) -> None:
        self._ledger = ledger
        self._job = job
        self._chunk = chunk
        self._channel = channel
        self._template = template
        self._has_custom_keys = key is not None
        self._intake = Intake(source, channel, job, key, template)
        self._count = 0
        # Request, custom key, digest of the key, payload of the request, record of an invalid item.
        self._items: list[tuple[CodeRequest | None, str, bytes, bytes, str]] = []

    async def run(self) -> None:
        """Submit the whole input. Chunks that the ledger already holds are only compared.

        Raises:
            LedgerError: the job has other input, or the ledger cannot be used; what was submitted so far stays.
            Exception: raised by the input; submit the same input again to continue.
        """
        await self._create()
        index = DedupIndex()
        try:
            async with contextlib.aclosing(self._intake.values()) as input_values:
                async for value in input_values:
                    self._add(value)
                    if len(self._items) == self._chunk:
                        await self._flush(index)
            if self._items:
                await self._flush(index)
        finally:
            await index.aclose()
        chunks = -(-self._count // self._chunk)
        reply, *_ = await self._ledger.submit(self._job, "close", chunks)
        if reply is not SubmitReply.CLOSED:
            raise self._different_input(self._count)

    async def _create(self) -> None:
        facts = {"channel": self._channel, "chunk": str(self._chunk)}
        if self._template is not None:
            values = zip(TEMPLATE_FIELDS, template_values(self._template), strict=True)
            facts |= {f"template.{name}": fact_digest(value) for name, value in values}
        text = json.dumps(facts, sort_keys=True)
        reply, *rest = await self._ledger.submit(self._job, "open", text, self._chunk, self._channel)
        if reply is SubmitReply.KNOWN:
            known = json.loads(rest[0])
            different = sorted(name for name in {*facts, *known} if facts.get(name) != known.get(name))
            if different:
                names = ", ".join(name.removeprefix("template.") for name in different)
                raise LedgerError(
                    f"job {self._job!r} was submitted with another {names}; use the same, or another job name"
                )
        await self._ledger.register(self._job)

    def _add(self, value: Any) -> None:
        index = self._count
        self._count += 1
        request: CodeRequest | None = None
        try:
            request = self._intake.request(value)
            key, digest, payload = self._intake.key(request)
        except Exception as failure:  # noqa: BLE001 - an invalid item ends nothing but itself
            error = failure if isinstance(failure, InvalidRequestError) else unexpected_error(failure)
            record = f"{index},{LedgerState.INVALID.value},{pack_record(None, error, 0)}\n"
            self._items.append((None, "", b"", b"", record))
        else:
            self._items.append((request, key if self._has_custom_keys else "", digest, payload or b"", ""))

    async def _flush(self, index: DedupIndex) -> None:
        """Submit a chunk."""
        items, self._items = self._items, []
        first = self._count - len(items)
        found = await asyncio.to_thread(index.add, [(digest, payload) for _, _, digest, payload, _ in items])
        states, records, requests = "", "", list[Any]()
        for position, ((request, _, _, _, record), known) in enumerate(zip(items, found, strict=True)):
            state = LedgerState.INVALID if record else known
            if state is LedgerState.INVALID and not record:
                rule = InvalidRequestError("key", "belongs to another request in this job")
                records += f"{first + position},{state.value},{pack_record(None, rule, 0)}\n"
            states += state.value
            records += record
            requests.append(request if state is LedgerState.PENDING else None)
        packed, digest = pack_requests(requests, [key for _, key, _, _, _ in items] if self._has_custom_keys else None)
        number = first // self._chunk
        reply, *_ = await self._ledger.submit(self._job, "add", number, states, packed, digest, records, chunk=number)
        if reply not in {SubmitReply.ADDED, SubmitReply.KNOWN}:
            raise self._different_input(first)

    def _different_input(self, index: int) -> LedgerError:
        return LedgerError(
            f"job {self._job!r} was submitted with another input, which differs at item {index} or later; "
            "submit the same input again, or use another job name"
        )
