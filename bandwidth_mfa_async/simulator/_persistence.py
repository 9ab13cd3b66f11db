"""What `state=` keeps across restarts: messages, codes, wrong tries, limits, and credentials that were made up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import fields

from ._errors import StateFileError
from ._issued_codes import MAX_WINDOW, IssuedCode, WrongTries
from ._messages import Message, ReceiptState
from ._server_limiter import AccountLimits
from ._state_file import StateFile, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bandwidth_mfa_async._clock import Clock

    from ._messages import Channel
    from ._service import Service
    from ._state_file import StateRecord

_CHANNELS: Final[tuple[Channel, ...]] = ("messaging", "voice")
_MESSAGE_FIELDS: Final = tuple(each.name for each in fields(Message))


def read_secrets(path: str) -> dict[str, str]:
    """Return the credentials that an earlier simulator made up.

    Raises:
        StateFileError: as for `read_records`.
    """
    secrets: dict[str, str] = {}
    for record in read_records(path):
        if record["kind"] == "secrets":
            secrets = cast("dict[str, str]", record["values"])
    return secrets


class Persistence:
    """Restores the state at the first start, and records its changes while the simulator runs.

    Times are stored as seconds since the epoch, because a monotonic clock starts again with the machine.

    Args:
        path: the state file.
        secrets: the credentials to store.
        service: the state to restore and to record.
        clock: converts between the two times.
    """

    def __init__(self, path: str, secrets: Mapping[str, str], service: Service, clock: Clock) -> None:
        self._path = path
        self._secrets = dict(secrets)
        self._service = service
        self._clock = clock
        self._file: StateFile | None = None
        self._is_restored = False
        self._rewriting: asyncio.Task[None] | None = None
        inbox, codes = service.inbox, service.codes
        inbox.listeners.append(lambda message: self._append("sent", message=_message_values(message)))
        inbox.change_listeners.append(lambda message: self._append("changed", state=message.state_as_json()))
        inbox.clear_listeners.append(lambda: self._append("cleared"))
        service.limit_listeners.append(lambda: self._append("limits", limits=self._limits()))
        service.reset_listeners.append(lambda: self._append("reset"))
        codes.on_consumed = lambda to, scope, issued: self._append("used", to=to, scope=scope, code=issued.code)
        codes.on_tries = lambda to, tries: self._append("tries", **self._tries(to, tries))

    async def open(self) -> None:
        """Lock the file, and restore the state from it the first time.

        Raises:
            StateFileError: as for `StateFile.open`, or a record is not understood.
        """
        try:
            await self._open()
        except StateFileError as error:
            # Crash reporters show local variables, and the frames below hold records.
            raise error.with_traceback(None) from None

    async def _open(self) -> None:
        opening = asyncio.ensure_future(asyncio.to_thread(StateFile.open, self._path))
        try:
            file, records = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])  # a thread cannot be cancelled
            if opening.exception() is None:
                opening.result()[0].close()
            raise
        try:
            if not self._is_restored:
                self._restore(records)
            self._is_restored = True
            await file.rewrite(list(self._snapshot()))
        except BaseException:
            file.close()
            raise
        self._file = file

    async def close(self) -> None:
        """Close and unlock the file; do nothing if it is not open."""
        file, self._file = self._file, None
        if file is None:
            return
        if self._rewriting is not None:
            await asyncio.wait([self._rewriting])
        file.close()

    def _append(self, kind: str, **values: Any) -> None:
        file = self._file
        if file is None:
            return
        file.append({"kind": kind, **values})
        if file.needs_rewrite and (self._rewriting is None or self._rewriting.done()):
            self._rewriting = asyncio.create_task(file.rewrite(list(self._snapshot())))

    def _restore(self, records: list[StateRecord]) -> None:
        now, wall = self._clock.monotonic(), self._clock.time()
        restorers: dict[str, Callable[[StateRecord, float], None]] = {
            "secrets": lambda _record, _shift: None,
            "count": self._restore_count,
            "sent": self._restore_sent,
            "message": self._restore_message,
            "code": self._restore_code,
            "changed": self._restore_changed,
            "cleared": lambda _record, _shift: self._service.inbox.clear(),
            "reset": lambda _record, _shift: self._service.clear(),
            "used": lambda record, _shift: self._service.codes.consume(record["to"], record["scope"], record["code"]),
            "tries": self._restore_tries,
            "limits": self._restore_limits,
        }
        try:
            for record in records:
                restorers[record["kind"]](record, now - wall)
        except (LookupError, TypeError, ValueError):
            pass  # raise outside: as a hidden context this error would keep the record
        else:
            return
        raise StateFileError(f"{self._path}: has a record of another version; move it away to start without it")

    def _restore_count(self, record: StateRecord, _shift: float) -> None:
        self._service.inbox.added = record["added"]

    def _restore_sent(self, record: StateRecord, shift: float) -> None:
        self._restore_message(record, shift)
        values = record["message"]
        self._service.inbox.added = values["number"]
        self._restore_code(
            {"to": values["to"], "scope": values["scope"], "code": values["code"], "time": values["time"]}
            | {"id": values["message_id"]},
            shift,
        )

    def _restore_message(self, record: StateRecord, _shift: float) -> None:
        values = record["message"]
        self._service.inbox.restore(Message(**values | {"receipt": ReceiptState(values["receipt"])}))

    def _restore_code(self, record: StateRecord, shift: float) -> None:
        issued = IssuedCode(record["time"] + shift, record["code"], record["id"])
        if self._clock.monotonic() - issued.at <= MAX_WINDOW:
            self._service.codes.restore(record["to"], record["scope"], issued)

    def _restore_changed(self, record: StateRecord, _shift: float) -> None:
        state = record["state"]
        message = self._service.inbox.find(state["id"])
        if message is not None:
            message.receipt = ReceiptState(state["receipt"])
            message.receipt_type = state["receiptType"]
            message.verified = state["verified"]
            message.answer_status = state["answerStatus"]

    def _restore_tries(self, record: StateRecord, shift: float) -> None:
        tries = self._service.codes.wrong_tries
        tries.pop(record["to"], None)
        if record["count"]:
            until = record["lockedUntil"]
            tries[record["to"]] = WrongTries(
                record["count"], record["last"] + shift, None if until is None else until + shift
            )

    def _restore_limits(self, record: StateRecord, _shift: float) -> None:
        for channel in _CHANNELS:
            values = record["limits"][channel]
            self._service.change_limits(channel, None if values is None else AccountLimits(**values))

    def _snapshot(self) -> Iterator[StateRecord]:
        service = self._service
        shift = self._clock.time() - self._clock.monotonic()
        yield {"kind": "secrets", "values": self._secrets}
        yield {"kind": "count", "added": service.inbox.added}
        for message in service.inbox.messages:
            yield {"kind": "message", "message": _message_values(message)}
        for to, scope, issued in service.codes.live(self._clock.monotonic()):
            code = {"to": to, "scope": scope, "code": issued.code, "time": issued.at + shift, "id": issued.message_id}
            yield {"kind": "code", **code}
        for to, tries in service.codes.wrong_tries.items():
            yield {"kind": "tries", **self._tries(to, tries)}
        if service.has_changed_limits:
            yield {"kind": "limits", "limits": self._limits()}

    def _tries(self, to: str, tries: WrongTries | None) -> StateRecord:
        if tries is None:
            return {"to": to, "count": 0}
        shift = self._clock.time() - self._clock.monotonic()
        until = tries.locked_until
        locked = None if until is None else until + shift
        return {"to": to, "count": tries.count, "last": tries.last + shift, "lockedUntil": locked}

    def _limits(self) -> StateRecord:
        limiters = self._service.limiters
        return {name: None if (limits := limiters[name].limits) is None else limits.as_json() for name in _CHANNELS}


def _message_values(message: Message) -> StateRecord:
    return {name: getattr(message, name) for name in _MESSAGE_FIELDS}
