"""One run: takes items, sends them side by side, hands out outcomes, and knows at every moment what is under way."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

import attrs
from attrs import frozen

from .._config import Resend
from .._item_state import is_account_error
from .._items._intake import Intake, unexpected_error
from .._models import MessagingCodeResponse
from .._wire import MESSAGING, VOICE
from ..errors import ClientStateError, Delivery, InvalidRequestError, JournalError, MFAError, RequestError
from ._item import Item
from ._outcome import ItemOutcome
from ._run_journal import RunJournal

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._client._executor import CallExecutor
    from .._clock import Clock
    from .._models import CodeRequest, CodeTemplate, VoiceCodeResponse
    from .._validation import Lane
    from ._outcome import BulkSummary
    from .journal._journal import LookupResult, SQLiteJournal

# So many items in a row refused for the credentials or the address, and the run has no future.
MAX_CONSECUTIVE_ACCOUNT_ERRORS: Final = 10


@frozen(kw_only=True)
class RunOptions:
    """What a run is told.

    Attributes:
        executor: the client's engine.
        channel: ``"messaging"`` or ``"voice"``.
        lane: where calls wait.
        width: how many items at once.
        ordered: whether outcomes come in the order of the input.
    """

    executor: CallExecutor
    channel: str
    lane: Lane
    width: int
    ordered: bool


class OutcomeStream:
    """The outcomes of a run, as an async iterator; made by `BulkSender.send`.

    Sending begins when the first outcome is asked for. The stream ends when the input is used up or the run was
    stopped, and everything taken has its outcome; an error that ended the run is raised then.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        options: RunOptions,
        journal: SQLiteJournal | None,
        summary: BulkSummary,
        source: Any,
        key: Callable[[CodeRequest], str] | None,
        template: CodeTemplate | None,
    ) -> None:
        self.clock: Clock = options.executor.state.clock
        self.journal = journal
        self.summary = summary
        self.stopping: bool = False
        self.ended: bool = False
        self._options = options
        self._operation: Any = MESSAGING if options.channel == "messaging" else VOICE
        self._record = RunJournal(
            journal,
            self.clock,
            options.channel,
            self._operation.name,
            resends_unknown=options.executor.policy.resend is Resend.AT_LEAST_ONCE,
        )
        self._template = template
        self._own_keys = key is not None
        self._intake = Intake(source, options.channel, "" if journal is None else journal.run, key, template)
        # What was taken and not read yet: it bounds memory, and lets a slow reader slow the sending.
        self._window = asyncio.Semaphore(2 * options.width)
        self._began = 0.0
        self._taken = 0
        self._done = 0
        self._done_in_order = 0
        self._exhausted = False
        self._unsent = 0
        self._refused_in_a_row = 0
        self._failure: BaseException | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._ready: deque[Item] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._at_work: dict[asyncio.Task[None], Item] = {}
        self._outcomes: deque[ItemOutcome] = deque()
        self._early: dict[int, ItemOutcome] = {}
        self._reader: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended else "stopping" if self.stopping else f"{len(self._at_work)} at work"
        return f"<{type(self).__name__} {self._taken} taken, {self._done} done, {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemOutcome:
        """Return the next outcome.

        Raises:
            JournalError: the journal failed, and the run with it.
            RequestError: the service refuses the credentials or the account, whatever the item.
            Exception: what the input raised.
        """
        if self._feeder is None and not self.ended:
            self._began = self.clock.monotonic() - self.summary.elapsed  # a sender's streams add up
            self._feeder = asyncio.create_task(self._feed())
            self._feeder.add_done_callback(self._fed)
        if self._reader is not None:
            raise ClientStateError("this stream is being read by another task; read it in one place")
        while not self._outcomes:
            if self.ended:
                await self._conclude()
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._window.release()
        return self._outcomes.popleft()

    async def aclose(self) -> None:
        """Stop the run and wait for what is under way."""
        self.stop()
        await self.quiet()

    def stop(self) -> None:
        """Take no more and begin no more; see `BulkSender.stop`."""
        if self.stopping or self.ended:
            return
        self.stopping = True
        if self._feeder is None:
            self._check_end()
            return
        self._feeder.cancel()
        self._let_all_go()
        for task, item in tuple(self._at_work.items()):
            if not item.under_way:
                task.cancel()
        self._check_end()

    def cancel(self) -> None:
        """Stop, and cut what is under way; see `BulkSender.cancel`."""
        self.stop()
        for task in (self._feeder, *self._at_work):
            if task is not None:
                task.cancel()

    async def quiet(self) -> None:
        """Return once nothing of this run is under way."""
        while tasks := {task for task in (self._feeder, *self._workers) if task is not None and not task.done()}:
            await asyncio.wait(tasks)

    # Taking.

    async def _feed(self) -> None:
        try:
            if self.journal is not None:
                await self.journal.bind(self._template, channel=self._options.channel, own_keys=self._own_keys)
            values = self._intake.values()
            await self._window.acquire()
            async for value in values:
                self._take(value)
                if self.stopping:
                    return  # even where the input kept the cancellation to itself
                await self._window.acquire()
            self._exhausted = True
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the input is the user's; the stream raises it at its end
            # What was taken before is still sent.
            self._failure = self._failure or error
            self._exhausted = True

    def _fed(self, _feeder: asyncio.Task[None]) -> None:
        if not self._exhausted:
            self.stop()
        self._check_end()

    def _take(self, value: Any) -> None:
        index = self._taken
        self._taken += 1
        self.summary.taken += 1
        journal = self.journal
        request: CodeRequest | None = None
        try:
            request = self._intake.request(value)
            key, digest, payload = self._intake.key(request)
        except Exception as failure:  # noqa: BLE001 - a strange thing in the input is about that item only
            error = failure if isinstance(failure, InvalidRequestError) else unexpected_error(failure)
            self._record.invalid(value, index, self._fail)
            self._emit(ItemOutcome(index, "", request, Delivery.INVALID, error=error))
            return
        item = Item(self, index, key, request, payload)
        if journal is None:
            self._offer(item)
        else:
            journal.add(digest, index, payload, self._known, item)

    def _known(self, item: Item, row: LookupResult) -> None:
        """Go on with an item, now that it is known what the journal knows of it."""
        if isinstance(row, JournalError):
            self._fail(row)
            self._let_go(item)
        elif (outcome := self._record.begin(item, row)) is not None:
            self._emit(outcome)
        elif self.stopping:
            self._let_go(item)
        else:
            self._offer(item)

    # Sending.

    def _offer(self, item: Item) -> None:
        """Put an item in line, and see to it that somebody takes it: an idle worker, a new one, or the first free."""
        self._ready.append(item)
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self._options.width:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._gone)

    def _gone(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled():  # by somebody who cancels every task there is
            self.stop()
            self._let_all_go()

    def _let_all_go(self) -> None:
        while self._ready:
            self._let_go(self._ready.popleft())

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - workers are tasks
        while True:
            while self._ready:
                item = self._ready.popleft()
                if self.stopping:
                    self._let_go(item)
                    continue
                self._at_work[task] = item
                try:
                    await self._send(item)
                finally:
                    del self._at_work[task]
            if self.stopping or self.ended:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    async def _send(self, item: Item) -> None:
        """Send one item; whatever happens, it gets its outcome."""
        options = self._options
        error: MFAError
        try:
            answer: MessagingCodeResponse | VoiceCodeResponse = await options.executor.call(
                self._operation, item.request, None, options.lane, item
            )
        except RequestError as failure:
            error, delivery = failure, failure.delivery
        except asyncio.CancelledError:
            # Only this run cancels its workers, or the loop when it is torn down.
            self.stop()
            self._let_go(item)
            return
        except MFAError as failure:
            # The journal would not take the intent, or the client is closed: no item has a future.
            self._fail(failure)
            error, delivery = failure, Delivery.NOT_SENT
        except Exception as failure:  # noqa: BLE001 - a fault of ours or of a hook's must not lose what is known
            self._fail(failure)
            item.unknown = item.unknown or item.under_way
            error, delivery = item.cut_short(self._operation.name), Delivery.NOT_SENT
        else:
            self._accepted(item, answer)
            return
        item.end()
        self._failed(item, Delivery.UNKNOWN if item.unknown else delivery, error)

    def _accepted(self, item: Item, answer: MessagingCodeResponse | VoiceCodeResponse) -> None:
        item.end()
        if item.unknown and not answer.meta.possible_duplicate:
            answer = attrs.evolve(answer, meta=attrs.evolve(answer.meta, possible_duplicate=True))
        self.summary.possible_duplicates += answer.meta.possible_duplicate
        self._refused_in_a_row = 0
        provider_id = answer.message_id if isinstance(answer, MessagingCodeResponse) else answer.call_id
        self._record.accepted(item, provider_id)
        self.summary.attempts += item.attempts
        self._emit(ItemOutcome(item.index, item.key, item.request, Delivery.ACCEPTED, answer))

    def _failed(self, item: Item, delivery: Delivery, error: MFAError) -> None:
        self._refused_in_a_row = self._refused_in_a_row + 1 if is_account_error(error) else 0
        if self._refused_in_a_row >= MAX_CONSECUTIVE_ACCOUNT_ERRORS:
            error.add_note(
                f"the run was ended: {MAX_CONSECUTIVE_ACCOUNT_ERRORS} items in a row were refused like this, "
                "whatever they were"
            )
            self._fail(error)
        self._record.failed(item, delivery, error)
        self.summary.attempts += item.attempts
        self._emit(ItemOutcome(item.index, item.key, item.request, delivery, error=error))

    def _let_go(self, item: Item) -> None:
        """Give an item its outcome that the run ends without."""
        item.end()
        error = item.cut_short(self._operation.name)
        if item.unknown:
            self._failed(item, Delivery.UNKNOWN, error)
            return
        self._record.put_back(item)
        self._unsent += 1
        self.summary.attempts += item.attempts
        delivery = error.delivery if isinstance(error, RequestError) else Delivery.NOT_SENT
        self._emit(ItemOutcome(item.index, item.key, item.request, delivery, error=error))

    # Ending.

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self.stop()

    def _emit(self, outcome: ItemOutcome) -> None:
        self._done += 1
        self.summary.count(outcome.delivery)
        self.summary.elapsed = self.clock.monotonic() - self._began
        if self._options.ordered:
            self._early[outcome.index] = outcome
            while (following := self._early.pop(self._done_in_order, None)) is not None:
                self._done_in_order += 1
                self._outcomes.append(following)
        else:
            self._outcomes.append(outcome)
        self._wake()
        if self._done == self._taken:
            self._check_end()

    def _wake(self) -> None:
        if self._outcomes or self.ended:
            reader = self._reader
            if reader is not None and not reader.done():
                reader.set_result(None)

    def _check_end(self) -> None:
        feeder = self._feeder
        if self.ended or self._done < self._taken or not (self._exhausted or self.stopping):
            return
        if feeder is not None and not feeder.done() and not self._exhausted:
            return  # it is being cancelled, and says so when it is
        self.ended = True
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()
        if self._failure is not None:
            self.summary.ending = "failed"
        elif self._exhausted and not self._unsent:
            self.summary.ending = "finished"
        else:
            self.summary.ending = "stopped"
        self._wake()

    async def _conclude(self) -> None:
        """Wait for the journal, and raise what ended the run, once."""
        if self.journal is not None and self.journal.is_open:
            try:
                await self.journal.flush()
            except JournalError as error:
                self._failure = self._failure or error
                self.summary.ending = "failed"
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
