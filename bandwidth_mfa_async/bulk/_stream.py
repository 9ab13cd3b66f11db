"""One bulk run: a producer reads items, workers send them concurrently, and a stream yields the outcomes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from .._config import Resend
from .._frames import clear_locals
from .._items._circuit_breaker import MAX_CONSECUTIVE_ACCOUNT_ERRORS, CircuitBreaker
from .._items._intake import Intake, unexpected_error
from .._items._task_pool import TaskPool
from .._logger import WAITS
from .._models import MessagingCodeResponse
from .._wire import OPERATION_OF
from ..errors import ClientStateError, Delivery, InvalidRequestError, JournalError, MFAError, RequestError
from ._item import Item
from ._outcome import ItemOutcome
from ._run_journal import RunJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from .._client._executor import CallExecutor
    from .._clock import Clock
    from .._models import CodeRequest, CodeTemplate, VoiceCodeResponse
    from .._validation import Channel, Lane
    from ._outcome import BulkSummary
    from .journal._group_commit import LookupResult
    from .journal._journal import SQLiteJournal


@frozen(kw_only=True)
class RunOptions:
    """Options of a bulk run.

    Attributes:
        executor: makes the client's calls.
        channel: ``"messaging"`` or ``"voice"``.
        lane: lane of the calls.
        concurrency: number of items sent at once.
        ordered: whether outcomes come in the order of the input.
    """

    executor: CallExecutor
    channel: Channel
    lane: Lane
    concurrency: int
    ordered: bool


class OutcomeStream:
    """Async iterator over the outcomes of a run; returned by `BulkSender.send`.

    Sending starts when the first outcome is read. The stream ends when the input is used up or the run was stopped, and
    every item taken has its outcome. An error that ended the run is raised at that point.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        options: RunOptions,
        journal: SQLiteJournal | None,
        summary: BulkSummary,
        source: Iterable[CodeRequest] | AsyncIterable[CodeRequest] | Iterable[str] | AsyncIterable[str],
        key: Callable[[CodeRequest], str] | None,
        template: CodeTemplate | None,
    ) -> None:
        self.clock: Clock = options.executor.state.clock
        self.journal = journal
        self.summary = summary
        self.stopping: bool = False
        self.ended: bool = False
        self._options = options
        self._operation = OPERATION_OF[options.channel]
        self._run_journal = RunJournal(
            journal,
            self.clock,
            options.channel,
            self._operation.name,
            resends_unknown=options.executor.policy.resend is Resend.AT_LEAST_ONCE,
        )
        self._template = template
        self._custom_keys = key is not None
        self._intake = Intake(source, options.channel, "" if journal is None else journal.run, key, template)
        # Backpressure: bounds the items that were taken from the input and whose outcome is not read yet.
        self._capacity = asyncio.Semaphore(2 * options.concurrency)
        self._started_at = 0.0
        self._taken = 0
        self._done = 0
        self._next_in_order = 0
        self._exhausted = False
        self._unsent = 0
        self._breaker = CircuitBreaker()
        self._failure: BaseException | None = None
        self._producer: asyncio.Task[None] | None = None
        self._pool: TaskPool[Item] = TaskPool(
            options.concurrency,
            self._send,
            is_in_flight=lambda item: item.in_flight,
            abandon=self._abandon,
            on_cancelled=self.stop,
        )
        self._outcomes: deque[ItemOutcome] = deque()
        self._reorder_buffer: dict[int, ItemOutcome] = {}
        self._reader: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended else "stopping" if self.stopping else f"{self._pool.active} active"
        return f"<{type(self).__name__} {self._taken} taken, {self._done} done, {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemOutcome:
        """Return the next outcome.

        Raises:
            JournalError: the journal failed, which ends the run.
            RequestError: the service rejects the credentials or the account for every item.
            Exception: the input raised it.
        """
        if self._producer is None and not self.ended:
            self._started_at = self.clock.monotonic() - self.summary.elapsed  # the streams of a sender add up
            self._producer = asyncio.create_task(self._produce())
            self._producer.add_done_callback(self._on_producer_done)
        if self._reader is not None:
            raise ClientStateError("this stream is being read by another task; read it in one place")
        while not self._outcomes:
            if self.ended:
                await self._flush_and_raise()
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._capacity.release()
        return self._outcomes.popleft()

    async def aclose(self) -> None:
        """Stop the run and wait for the requests in flight."""
        self.stop()
        await self.wait_idle()

    def stop(self) -> None:
        """Take no more items and start no more attempts; see `BulkSender.stop`."""
        if self.stopping or self.ended:
            return
        self.stopping = True
        if self._producer is None:
            self._end_if_done()
            return
        self._producer.cancel()
        self._pool.stop()
        self._end_if_done()

    def cancel(self) -> None:
        """Stop, and cancel the requests in flight; see `BulkSender.cancel`."""
        self.stop()
        if self._producer is not None:
            self._producer.cancel()
        self._pool.cancel()

    async def wait_idle(self) -> None:
        """Wait until no task of this run is active."""
        if self._producer is not None:
            await asyncio.wait([self._producer])
        await self._pool.wait_idle()

    # Input.

    async def _produce(self) -> None:
        try:
            if self.journal is not None:
                await self.journal.bind(self._template, channel=self._options.channel, custom_keys=self._custom_keys)
            async with contextlib.aclosing(self._intake.values()) as values:
                try:
                    await self._wait_for_capacity()
                    async for value in values:
                        self._take(value)
                        if self.stopping:
                            return  # even if the input suppressed the cancellation
                        await self._wait_for_capacity()
                finally:
                    # From Python 3.13 on, a task group that the input leaves now would be cancelled by a pending count.
                    producer = asyncio.current_task()
                    while producer is not None and producer.cancelling():
                        producer.uncancel()
            self._exhausted = True
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the input is user code; the stream raises the error at its end
            # Items taken before the error are still sent.
            self._failure = self._failure or error
            self._exhausted = True

    async def _wait_for_capacity(self) -> None:
        if self._capacity.locked():
            WAITS.debug(
                "the run reads no further input: %d items have no outcome yet, %d outcomes are not read yet",
                self._taken - self._done,
                len(self._outcomes) + len(self._reorder_buffer),
            )
        await self._capacity.acquire()

    def _on_producer_done(self, _producer: asyncio.Task[None]) -> None:
        if not self._exhausted:
            self.stop()
        self._end_if_done()

    def _take(self, value: Any) -> None:
        index = self._taken
        self._taken += 1
        self.summary.taken += 1
        journal = self.journal
        request: CodeRequest | None = None
        try:
            request = self._intake.request(value)
            key, digest, payload = self._intake.key(request)
        except Exception as failure:  # noqa: BLE001 - an invalid value concerns this item only
            error = failure if isinstance(failure, InvalidRequestError) else unexpected_error(failure)
            # Stored, not raised: its traceback holds the value. A key function's error stays hidden as well.
            error.with_traceback(None).__context__ = None
            self._run_journal.record_invalid(value, index, self._fail)
            self._emit(ItemOutcome(index, "", request, Delivery.INVALID, error=error))
            return
        item = Item(self, index, key, request, payload)
        if journal is None:
            self._pool.submit(item)
        else:
            journal.add(digest, index, payload, self._on_lookup, item)

    def _on_lookup(self, item: Item, result: LookupResult) -> None:
        """Continue with an item after its lookup in the journal."""
        if isinstance(result, JournalError):
            self._fail(result)
            self._abandon(item)
        elif (outcome := self._run_journal.admit(item, result)) is not None:
            self._emit(outcome)
        else:
            self._pool.submit(item)

    # Sending.

    async def _send(self, item: Item) -> None:
        """Send one item and emit exactly one outcome for it, whatever happens."""
        options = self._options
        error: MFAError
        try:
            response: MessagingCodeResponse | VoiceCodeResponse = await options.executor.call(
                self._operation, item.request, None, options.lane, item
            )
        except RequestError as failure:
            if item.was_stopped:
                self._abandon(item)
                return
            error, delivery = failure, failure.delivery
            if failure.__cause__ is not None:  # the journal, or a defect, after an attempt that may have been delivered
                self._fail(failure.__cause__)
        except asyncio.CancelledError:
            # Workers are cancelled by this run, or when the loop shuts down.
            self.stop()
            self._abandon(item)
            return
        except MFAError as failure:
            # The journal could not store the intent, or the client is closed: no further item can be sent.
            self._fail(failure)
            error, delivery = failure, Delivery.NOT_SENT
        except Exception as failure:  # noqa: BLE001 - a bug of ours or of a hook must not lose the outcome
            self._fail(failure)
            item.maybe_delivered = item.maybe_delivered or item.in_flight
            error, delivery = item.abandoned_error(self._operation.name), Delivery.NOT_SENT
        else:
            self._finish_accepted(item, response)
            return
        item.end_attempt()
        self._finish_failed(item, Delivery.UNKNOWN if item.maybe_delivered else delivery, error)

    def _finish_accepted(self, item: Item, response: MessagingCodeResponse | VoiceCodeResponse) -> None:
        item.end_attempt()
        self._breaker.record(None)
        provider_id = response.message_id if isinstance(response, MessagingCodeResponse) else response.call_id
        self._run_journal.record_accepted(item, provider_id, possible_duplicate=bool(response.meta.possible_duplicate))
        self.summary.attempts += item.attempts
        self._emit(ItemOutcome(item.index, item.key, item.request, Delivery.ACCEPTED, response))

    def _finish_failed(self, item: Item, delivery: Delivery, error: MFAError) -> None:
        if self._breaker.record(error):
            error.add_note(
                f"the run was ended: {MAX_CONSECUTIVE_ACCOUNT_ERRORS} items in a row were rejected with an error that "
                "concerns the account, not the item"
            )
            self._fail(error)
        self._run_journal.record_failed(item, delivery, error)
        self.summary.attempts += item.attempts
        self._emit(ItemOutcome(item.index, item.key, item.request, delivery, error=error))

    def _abandon(self, item: Item) -> None:
        """Emit the outcome of an item that the run does not send or finish."""
        item.end_attempt()
        error = item.abandoned_error(self._operation.name)
        if item.maybe_delivered:
            self._finish_failed(item, Delivery.UNKNOWN, error)
            return
        delivery = error.delivery if isinstance(error, RequestError) else Delivery.NOT_SENT
        self._run_journal.record_abandoned(item, delivery, error)
        self._unsent += 1
        self.summary.attempts += item.attempts
        self._emit(ItemOutcome(item.index, item.key, item.request, delivery, error=error))

    # Outcomes and the end of the run.

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self.stop()

    def _emit(self, outcome: ItemOutcome) -> None:
        self._done += 1
        response = outcome.response
        self.summary.count(outcome.delivery, response is not None and response.meta.possible_duplicate)
        self.summary.elapsed = self.clock.monotonic() - self._started_at
        if self._options.ordered:
            self._reorder_buffer[outcome.index] = outcome
            while (following := self._reorder_buffer.pop(self._next_in_order, None)) is not None:
                self._next_in_order += 1
                self._outcomes.append(following)
        else:
            self._outcomes.append(outcome)
        self._wake_reader()
        if self._done == self._taken:
            self._end_if_done()

    def _wake_reader(self) -> None:
        if self._outcomes or self.ended:
            reader = self._reader
            if reader is not None and not reader.done():
                reader.set_result(None)

    def _end_if_done(self) -> None:
        producer = self._producer
        if self.ended or self._done < self._taken or not (self._exhausted or self.stopping):
            return
        if producer is not None and not producer.done() and not self._exhausted:
            return  # its cancellation is pending; its done callback checks again
        self.ended = True
        self._pool.close()
        if self._failure is not None:
            self.summary.ending = "failed"
        elif self._exhausted and not self._unsent:
            self.summary.ending = "finished"
        else:
            self.summary.ending = "stopped"
        self._wake_reader()

    async def _flush_and_raise(self) -> None:
        """Flush the journal, then raise the error that ended the run, once."""
        if self.journal is not None and self.journal.is_open:
            try:
                await self.journal.flush()
            except JournalError as error:
                self._failure = self._failure or error
                self.summary.ending = "failed"
        failure, self._failure = self._failure, None
        if failure is not None:
            clear_locals(failure)
            raise failure
