"""`BulkSender`, the public interface of bulk sending."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self, overload

from .._client import MFAClient, executor_of
from .._clock import alarm
from .._frames import clears_locals
from .._items._intake import check_input
from .._logger import WAITS
from .._validation import checked_channel, checked_count, checked_lane, checked_seconds
from ..errors import ClientStateError, ConfigurationError, JournalError
from ._outcome import BulkSummary
from ._stream import OutcomeStream, RunOptions
from .journal._journal import SQLiteJournal

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Iterable
    from types import TracebackType

    from .._models import CodeRequest, CodeTemplate
    from .._validation import Channel, Lane

_MAX_IN_FLIGHT = 10_000


class BulkSender:
    """Send any number of codes through one client and report the outcome of each.

    Memory use does not grow with the input, a slow reader of the outcomes slows the sending (backpressure), and an
    invalid item does not end the run::

        async with BulkSender(mfa, journal="launch.db") as bulk:
            async for outcome in bulk.send(numbers, template=login):
                if outcome.delivery is Delivery.UNKNOWN:
                    ...
        print(bulk.summary)

    With a journal, the intent of every item is on disk before its request is written, and its result after. After a
    kill, start the run again with the same input and the same file: finished items are `Delivery.SKIPPED`, items that
    were in flight at the kill are `Delivery.UNKNOWN` and are sent again only under `Resend.AT_LEAST_ONCE`, and all
    others are sent.

    Leaving the ``async with``, normally, by an error or by a cancellation, drains the run: it takes no more items,
    waits up to `drain_timeout` for the requests in flight, and cancels those that remain. Their outcomes can still be
    read from the stream. If the journal failed and the stream has not raised its `JournalError`, the exit raises it.

    Args:
        client: sends the codes, with its retry policy, limits and credentials. It is not closed.
        journal: a path or a `SQLiteJournal`; None keeps no record after the run.
        max_in_flight: items sent at once; by default the client's `Limits.max_in_flight`, which is always a bound.
        ordered: whether outcomes come in the order of the input instead of the order of completion.
        lane: ``"bulk"`` lets interactive calls of the same client go first.
        channel: ``"messaging"`` or ``"voice"``.
        drain_timeout: seconds that an early exit waits for the requests in flight.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    @clears_locals
    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        client: MFAClient,
        *,
        journal: str | os.PathLike[str] | SQLiteJournal | None = None,
        max_in_flight: int | None = None,
        ordered: bool = False,
        lane: Lane = "bulk",
        channel: Channel = "messaging",
        drain_timeout: float = 30.0,
    ) -> None:
        if not isinstance(client, MFAClient):
            raise ConfigurationError("client: must be an MFAClient")
        checked_lane(lane)
        checked_channel(channel)
        if max_in_flight is not None:
            checked_count("max_in_flight", max_in_flight, _MAX_IN_FLIGHT)
        if journal is not None and not isinstance(journal, SQLiteJournal):
            journal = SQLiteJournal(journal)
        executor = executor_of(client)
        concurrency = executor.limits.max_in_flight if max_in_flight is None else max_in_flight
        self.journal = journal
        self.summary: BulkSummary = BulkSummary()
        self._options = RunOptions(
            executor=executor, channel=channel, lane=lane, concurrency=concurrency, ordered=bool(ordered)
        )
        self._drain_timeout = checked_seconds("drain_timeout", drain_timeout)
        self._stream: OutcomeStream | None = None
        self._entered = False
        self._exited = False
        self._stopped = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(channel={self._options.channel!r}, journal={self.journal!r}, {self.summary!r})"

    async def __aenter__(self) -> Self:
        """Open the journal.

        Raises:
            JournalError: the journal cannot be used; nothing was sent.
            ClientStateError: the sender was entered before, or the client is closed.
        """
        if self._entered:
            raise ClientStateError("this BulkSender was entered before; make a new one for another run")
        self._options.executor.state.check()
        self._entered = True
        if self.journal is not None:
            await self.journal.open(self._options.executor.state.clock)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exited = True
        stream = self._stream
        try:
            if stream is not None:
                stream.stop()
                await self._drain(stream)
        finally:
            if self.journal is not None:
                await self._close_journal(self.journal, error)

    async def _close_journal(self, journal: SQLiteJournal, error: BaseException | None) -> None:
        try:
            await journal.aclose(self.summary.ending or ("finished" if error is None else "stopped"))
        except JournalError as failure:
            self.summary.ending = "failed"
            if error is None:
                raise
            error.add_note(str(failure))

    async def _drain(self, stream: OutcomeStream) -> None:
        clock = self._options.executor.state.clock
        if self.summary.in_flight:
            WAITS.debug("the run waits up to %g s for %d requests", self._drain_timeout, self.summary.in_flight)
        try:
            with alarm(clock, clock.monotonic() + self._drain_timeout, stream.cancel):
                await stream.wait_idle()
        except asyncio.CancelledError:
            # Cancelled again during the drain: cancel the requests in flight, and record their outcomes.
            stream.cancel()
            await stream.wait_idle()
            raise

    @overload
    def send(
        self,
        requests: Iterable[CodeRequest] | AsyncIterable[CodeRequest],
        *,
        key: Callable[[CodeRequest], str] | None = None,
        template: None = None,
    ) -> OutcomeStream: ...

    @overload
    def send(
        self,
        requests: Iterable[str] | AsyncIterable[str],
        *,
        key: Callable[[CodeRequest], str] | None = None,
        template: CodeTemplate,
    ) -> OutcomeStream: ...

    @clears_locals
    def send(
        self,
        requests: Iterable[CodeRequest] | AsyncIterable[CodeRequest] | Iterable[str] | AsyncIterable[str],
        *,
        key: Callable[[CodeRequest], str] | None = None,
        template: CodeTemplate | None = None,
    ) -> OutcomeStream:
        """Return a stream of outcomes; sending starts when the first outcome is read.

        Prefer numbers and a `template` to ``(template.to(n) for n in numbers)``: an invalid number is then one
        `Delivery.INVALID` outcome, whereas it would end the generator, which Python cannot resume.

        Args:
            requests: `CodeRequest`s, or numbers if `template` is given; any iterable or async iterable. An async
                generator is closed when the run ends, by the task that reads it and before the block ends.
            key: returns an item's idempotency key of at most 512 characters; by default the key is made from number,
                template, channel and the journal's run name. The same key with another payload is `Delivery.INVALID`.
            template: makes requests from numbers; the journal refuses another template later.

        Raises:
            ClientStateError: the sender is not inside its ``async with``, or another stream of it has not ended.
            ConfigurationError: an argument is invalid.
            JournalError: raised by the stream if the journal fails; nothing is sent after that.
        """
        check_input(requests, key, template)
        if not self._entered or self._exited:
            raise ClientStateError("use the BulkSender in an async with")
        if self._stream is not None and not self._stream.ended:
            raise ClientStateError("this BulkSender is sending already; read its stream to the end first")
        self.summary.ending = None
        self._stream = OutcomeStream(self._options, self.journal, self.summary, requests, key, template)
        if self._stopped:
            self._stream.stop()
        return self._stream

    def stop(self) -> None:
        """Take no more items and start no more attempts; the stream ends after the requests in flight.

        Can be called at any time, also from a signal handler of the loop; a stream that is made later sends nothing.
        Items taken but not started are `Delivery.NOT_SENT`. To end one stream and start another, use
        `OutcomeStream.aclose`.
        """
        self._stopped = True
        if self._stream is not None:
            self._stream.stop()

    def cancel(self) -> None:
        """Stop, and cancel the requests in flight: their outcome is `Delivery.UNKNOWN`."""
        self._stopped = True
        if self._stream is not None:
            self._stream.cancel()
