"""Flows in a store: runs the steps, and turns their replies into values."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from .._logger import LOGGER_NAME
from ..errors import InvalidRequestError, StoreError
from ._flow import CHECK, CHECKED, END, GET, SEND, SENT, START
from ._identity import is_plausible_id, new_id, new_scope, new_token, public_name, request_digest, seal, unseal
from ._regions import Recipient
from ._stepper import Keys, Stepper

if TYPE_CHECKING:
    from .._tasks import TaskSet
    from ..stores import Reply, Store
    from ._policy import Policy
    from ._settings import Settings

_LOG: Final = logging.getLogger(LOGGER_NAME)
_NOT_SENT: Final = {"outcome": "not sent"}
_RECORD_SECONDS: Final = 5.0
"""Seconds for the record of an outcome, which is stored even if the call's own time is over."""


class Flow:
    """What the store knows of a flow.

    Args:
        id_: its id.
        reply: the reply of a step.
    """

    def __init__(self, id_: str, reply: Reply) -> None:
        self.id = id_
        (_, self.state, self.expires_ms, self.wait_ms, self.sends, self.checks, self.outcome, sealed) = reply[:8]
        self.scope, self.language, fake, observing = reply[8:12]
        self.fake, self.observing = bool(fake), bool(observing)
        # The number, the subject, the visitor and the region; empty once the flow has ended.
        self.person: dict[str, Any] = unseal(id_, sealed) if sealed else {}


class Text:
    """One text of a flow that the store has counted.

    Args:
        flow: its flow.
        keys: the records of its steps.
        arguments: the arguments of its steps.
    """

    def __init__(self, flow: Flow, keys: Keys, arguments: dict[str, Any]) -> None:
        self.flow, self.keys, self.arguments = flow, keys, arguments


class CountedCheck:
    """One check of a flow that the store has counted.

    Args:
        id_: the flow's id.
        token: the name of the check.
        facts: the reply of the step.
    """

    def __init__(self, id_: str, token: str, facts: Reply) -> None:
        sealed, self.scope, self.age_ms, fake = facts
        self.id, self.token, self.fake = id_, token, bool(fake)
        self.person: dict[str, Any] = unseal(id_, sealed)


class Refused(Exception):  # noqa: N818 - not an error: it never leaves the package
    """A step refused a text.

    Attributes:
        reason: why.
        wait_ms: milliseconds until the reason no longer applies; 0 if time does not change it.
        region: the region of the number, if it is known.
    """

    def __init__(self, reason: str, wait_ms: int = 0, region: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait_ms, self.region = reason, wait_ms, region


class Flows:
    """The flows of one account and purpose in one store.

    Args:
        store: the store.
        policy: what is admitted.
        settings: the settings of the flows.
        account_id: the account.
        tasks: runs what outlives its call.
    """

    def __init__(self, store: Store, policy: Policy, settings: Settings, account_id: str, tasks: TaskSet) -> None:
        self._policy = policy
        self._settings = settings
        self._account_id = account_id
        self._tasks = tasks
        self._steps = Stepper(store, settings.timeout, tasks)
        self._records = Stepper(store, _RECORD_SECONDS, tasks)

    async def start(  # noqa: PLR0913 - the facts of a flow
        self,
        recipient: Recipient,
        *,
        visitor: str | None,
        subject: str | None,
        language: str,
        idempotency_key: str | None,
        cleared: bool,
        fake: bool,
    ) -> Text | str:
        """Store a new flow and count its first text; return the id of the flow that has the idempotency key, if any.

        Raises:
            Refused: the text is not admitted.
            InvalidRequestError: the idempotency key belongs to another number.
        """
        flow_id, settings = new_id(), self._settings
        keys = self._keys(flow_id)
        self._policy.add_keys(keys, recipient, visitor, await self._steps.secrets())
        arguments = self._arguments(recipient, cleared=cleared, fake=fake) | {
            "token": new_token(),
            "sealed": seal(flow_id, {"n": recipient.number, "s": subject, "v": visitor, "r": recipient.region}),
            "scope": new_scope(settings.scope_of(language)),
            "language": language,
            "lengths": settings.code_lengths(language),
            "key_digest": "",
            "sealed_id": "",
        }
        if idempotency_key is not None:
            keys.add("key", self._name("i", idempotency_key))
            arguments["key_digest"] = request_digest(idempotency_key, recipient.number)
            arguments["sealed_id"] = seal(idempotency_key, flow_id)
        reply = await self._steps.count(START, keys, arguments, undo=SENT, undo_arguments=_NOT_SENT)
        match reply[0]:
            case "other":
                raise InvalidRequestError("idempotency_key", "belongs to a sign-in with another number; make a new key")
            case "known" if idempotency_key is not None:
                known: str = unseal(idempotency_key, reply[1])
                return known
            case "refused":
                raise Refused(reply[1], reply[2], recipient.region)
            case _:
                return Text(Flow(flow_id, reply), keys, arguments)

    async def send(self, flow_id: str | None, *, cleared: bool) -> Text:
        """Count another text of a flow.

        Raises:
            Refused: the text is not admitted, or there is no such open flow.
        """
        known = await self.find(flow_id)
        if known is None or not known.person:
            raise Refused("expired")
        recipient = _recipient(known.person)
        keys = await self._keys_of(known.id, known.person)
        arguments = self._arguments(recipient, cleared=cleared, fake=known.fake) | {"token": new_token()}
        reply = await self._steps.count(SEND, keys, arguments, undo=SENT, undo_arguments=_NOT_SENT)
        if reply[0] == "refused":
            raise Refused(reply[1], reply[2], recipient.region)
        if reply[0] == "expired":
            raise Refused("expired", 0, recipient.region)
        return Text(Flow(known.id, reply), keys, arguments)

    async def settle(self, text: Text, outcome: str) -> Flow:
        """Store the outcome of a text, also if the call is cancelled meanwhile; return the flow."""
        return await asyncio.shield(self._tasks.start(self._settle(text, outcome)))

    async def _settle(self, text: Text, outcome: str) -> Flow:
        try:
            reply = await self._records.run(SENT, text.keys, text.arguments | {"outcome": outcome})
        except StoreError as error:
            # The outcome is known, and the text stays counted.
            _LOG.warning("the outcome of a sign-in's text (%s) could not be stored: %s", outcome, error)
            return text.flow
        return Flow(text.flow.id, reply) if reply[0] == "ok" else text.flow

    async def check(self, flow_id: str, length: str) -> CountedCheck | tuple[str, int]:
        """Count a check; return why it cannot be made and the checks left, if so."""
        token = new_token()
        arguments = {"token": token, "length": length, "max_checks": self._settings.max_checks}
        state, *facts = await self._steps.run(CHECK, self._keys(flow_id), arguments)
        if state == "ask":
            return CountedCheck(flow_id, token, facts)
        return state, facts[0] if facts else 0

    async def settle_check(self, check: CountedCheck, outcome: str) -> tuple[str, int]:
        """Store the outcome of a check; return what it is now and the checks left."""
        keys = await self._keys_of(check.id, check.person)
        arguments = self._arguments(_recipient(check.person), cleared=False, fake=check.fake)
        arguments |= {"token": check.token, "outcome": outcome}
        state, left = await self._records.run(CHECKED, keys, arguments, confirm=outcome == "valid")
        return state, left

    async def find(self, flow_id: str | None) -> Flow | None:
        """Return a flow; None if there is none."""
        if flow_id is None or not is_plausible_id(flow_id):
            return None
        reply = await self._steps.run(GET, self._keys(flow_id), {})
        return Flow(flow_id, reply) if reply[0] == "ok" else None

    async def end(self, flow_id: str | None, *, drain: bool) -> None:
        """End a flow; with `drain`, its texts leave the budgets."""
        flow = await self.find(flow_id)
        if flow is not None and flow.person:
            arguments = self._arguments(_recipient(flow.person), cleared=False, fake=flow.fake) | {"drain": int(drain)}
            await self._steps.run(END, await self._keys_of(flow.id, flow.person), arguments)

    def _name(self, kind: str, value: str) -> str:
        return public_name(kind, self._account_id, self._settings.purpose, value)

    def _keys(self, flow_id: str) -> Keys:
        return Keys().add("flow", self._name("f", flow_id))

    async def _keys_of(self, flow_id: str, person: dict[str, Any]) -> Keys:
        keys = self._keys(flow_id)
        self._policy.add_keys(keys, _recipient(person), person["v"], await self._steps.secrets())
        return keys

    def _arguments(self, recipient: Recipient, *, cleared: bool, fake: bool) -> dict[str, Any]:
        arguments = self._policy.arguments(recipient, cleared=cleared, fake=fake, cooldown=self._settings.cooldown)
        return arguments | self._settings.limits


def _recipient(person: dict[str, Any]) -> Recipient:
    """Return the number as the guard saw it when the flow started."""
    return Recipient(person["n"], person["r"], "", person["n"])
