"""`BulkSender`: what a user of bulk sending holds in hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, overload

from .._client import MFAClient, executor_of
from .._models import CodeTemplate
from .._validation import LANES
from ..errors import ClientStateError, ConfigurationError, JournalError
from ._outcome import BulkSummary
from ._stream import OutcomeStream, RunOptions
from .journal._journal import SQLiteJournal

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Iterable
    from types import TracebackType

    from .._models import CodeRequest
    from .._validation import Lane

_CHANNELS = ("messaging", "voice")
_MAX_IN_FLIGHT = 10_000


class BulkSender:
    """Sends any number of codes through one client, and says of each what became of it.

    Memory does not grow with the input, a slow reader of the outcomes slows the sending, and one bad item ends
    nothing::

        async with BulkSender(mfa, journal="launch.db") as bulk:
            async for outcome in bulk.send(numbers, template=login):
                if outcome.delivery is Delivery.UNKNOWN:
                    ...
        print(bulk.summary)

    With a journal every item's intent is on disk before its request is written and its result after. A run that was
    killed is started again with the same input and the same file: what was done is `Delivery.SKIPPED`, what was under
    way at the kill is `Delivery.UNKNOWN` and is sent again only under `Resend.AT_LEAST_ONCE`, and the rest is sent.

    Leaving the ``async with``, by its end, an error or a cancellation, takes no more items, lets the requests under way
    end within `drain_timeout`, and then cuts them; the stream can still be read for what became of them. A journal that
    failed raises its `JournalError` there, if the stream has not.

    Args:
        client: sends; its retry policy, limits and credentials are used. It is not closed.
        journal: a path, or a `SQLiteJournal`; None remembers nothing once the run has ended.
        max_in_flight: how many items at once; by default the client's own `Limits.max_in_flight`, which always bounds.
        ordered: give outcomes in the order of the input instead of as they come.
        lane: where items wait: ``"bulk"`` lets interactive calls of the same client go first.
        channel: ``"messaging"`` or ``"voice"``.
        drain_timeout: seconds for requests under way to end when the run is left early.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        client: MFAClient,
        *,
        journal: str | os.PathLike[str] | SQLiteJournal | None = None,
        max_in_flight: int | None = None,
        ordered: bool = False,
        lane: Lane = "bulk",
        channel: str = "messaging",
        drain_timeout: float = 30.0,
    ) -> None:
        if not isinstance(client, MFAClient):
            raise ConfigurationError("client: must be an MFAClient")
        if lane not in LANES:
            raise ConfigurationError("lane: must be 'interactive' or 'bulk'")
        if channel not in _CHANNELS:
            raise ConfigurationError("channel: must be 'messaging' or 'voice'")
        if max_in_flight is not None and (type(max_in_flight) is not int or not 1 <= max_in_flight <= _MAX_IN_FLIGHT):
            raise ConfigurationError(f"max_in_flight: must be a whole number from 1 to {_MAX_IN_FLIGHT}")
        if type(drain_timeout) not in {int, float} or not 0 <= drain_timeout < 1e9:
            raise ConfigurationError("drain_timeout: must be a number of seconds of at least 0")
        if journal is not None and not isinstance(journal, SQLiteJournal):
            journal = SQLiteJournal(journal)
        executor = executor_of(client)
        concurrency = executor.limits.max_in_flight if max_in_flight is None else max_in_flight
        self.journal = journal
        self.summary: BulkSummary = BulkSummary()
        self._options = RunOptions(
            executor=executor, channel=channel, lane=lane, concurrency=concurrency, ordered=bool(ordered)
        )
        self._drain_timeout = float(drain_timeout)
        self._stream: OutcomeStream | None = None
        self._entered = False
        self._exited = False
        self._stopped = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(channel={self._options.channel!r}, journal={self.journal!r}, {self.summary!r})"

    async def __aenter__(self) -> Self:
        """Open the journal.

        Raises:
            JournalError: it cannot be used; nothing was sent.
            ClientStateError: entered twice, or the client is closed.
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
        timer = clock.call_at(clock.monotonic() + self._drain_timeout, stream.cancel)
        try:
            await stream.wait_idle()
        except asyncio.CancelledError:
            # Somebody is in a hurry: cut what is under way, and write down what is known of it.
            stream.cancel()
            await stream.wait_idle()
            raise
        finally:
            timer.cancel()

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

    def send(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[CodeRequest], str] | None = None,
        template: CodeTemplate | None = None,
    ) -> OutcomeStream:
        """Return the outcomes of sending to everybody in the input; sending begins with the first one asked for.

        Give numbers and a `template` rather than ``(template.to(n) for n in numbers)``: a bad number is then one
        `Delivery.INVALID`, where it would end the generator, which Python cannot resume.

        Args:
            requests: `CodeRequest`s, or numbers when `template` is given; any iterable or async iterable.
            key: makes an item's idempotency key, at most 512 characters; by default number, template, channel and the
                journal's run name. The same key with another payload is `Delivery.INVALID`.
            template: makes requests of numbers; a journal is held to it.

        Raises:
            ClientStateError: not inside ``async with``, or another stream of this sender has not ended.
            ConfigurationError: an argument is wrong.
            JournalError: raised by the stream when the journal fails; nothing more was sent from then on.
        """
        if template is not None and not isinstance(template, CodeTemplate):
            raise ConfigurationError("template: must be a CodeTemplate")
        if key is not None and not callable(key):
            raise ConfigurationError("key: must be a function of a CodeRequest")
        if isinstance(requests, (str, bytes)) or not (hasattr(requests, "__iter__") or hasattr(requests, "__aiter__")):
            raise ConfigurationError("requests: must be an iterable or an async iterable of CodeRequests")
        if not self._entered or self._exited:
            raise ClientStateError("use the BulkSender in an async with")
        if self._stream is not None and not self._stream.ended:
            raise ClientStateError("this BulkSender is sending already; read that stream to its end first")
        self.summary.ending = None
        self._stream = OutcomeStream(self._options, self.journal, self.summary, requests, key, template)
        if self._stopped:
            self._stream.stop()
        return self._stream

    def stop(self) -> None:
        """Take no more items and begin no more attempts; what is under way ends, and the stream after it.

        May be called from a signal handler of the loop, at any time: a stream made after it sends nothing. What was
        taken and not begun is `Delivery.NOT_SENT`. To end one stream and begin another, use `OutcomeStream.aclose`.
        """
        self._stopped = True
        if self._stream is not None:
            self._stream.stop()

    def cancel(self) -> None:
        """Do as `stop` does, and cut what is under way: its outcome is `Delivery.UNKNOWN`."""
        self._stopped = True
        if self._stream is not None:
            self._stream.cancel()
