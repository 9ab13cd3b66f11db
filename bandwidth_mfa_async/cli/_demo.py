"""The demo: send and verify codes on a simulator with injected faults, and count the outcomes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from attrs import Factory, define

from .._client import MFAClient
from .._config import Limits, RetryPolicy
from .._models import CodeTemplate
from ..errors import Delivery, RequestError
from ..simulator import Fault, Simulator
from ..telemetry import AttemptEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._models import CodeRequest
    from ..simulator import Message
    from ..telemetry import Event

CONCURRENCY: Final = 50
# The simulator rejects one recipient in this many, and one code in that many is verified with a typing error.
REJECTED_EVERY: Final = 40
WRONG_EVERY: Final = 25


@define
class Summary:
    """The counts of a demo run.

    Attributes:
        accepted: codes that the service accepted.
        rejected: codes that it rejected.
        not_sent: codes that never left this machine.
        unknown: codes whose outcome is unknown.
        possible_duplicates: codes accepted after an attempt with an unknown outcome.
        attempts: HTTP requests for codes.
        retries: number of retries by cause, an HTTP status or the name of an error.
        texts: texts in the simulator's inbox.
        valid: correct codes that were verified.
        invalid: wrong codes that were recognised as wrong.
        send_seconds: duration of the sending, in seconds.
        seconds: duration of the whole run, in seconds.
    """

    accepted: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    possible_duplicates: int = 0
    attempts: int = 0
    retries: Counter[str] = Factory(Counter[str])
    texts: int = 0
    valid: int = 0
    invalid: int = 0
    send_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Codes per second while sending."""
        done = self.accepted + self.rejected + self.not_sent + self.unknown
        return done / self.send_seconds if self.send_seconds else 0.0

    def on_event(self, event: Event) -> None:
        """Count attempts and causes of retries; called by the client as a hook."""
        if isinstance(event, AttemptEvent) and event.operation != "verify_code":
            self.attempts += 1
            if event.retry_in is not None:
                self.retries[str(event.status or event.error_type)] += 1


def _inject_faults(simulator: Simulator, rejected: list[str]) -> None:
    faults = simulator.faults
    for number in rejected:
        faults.script(
            Fault(status=400, body={"error": "to number is not reachable", "requestId": "demo"}),
            operation="messaging",
            to=number,
        )
    faults.chance(Fault(status=429), 0.10, operation="messaging")
    failure = {"error": "Internal Error", "requestId": "demo"}
    faults.chance(Fault(status=503, body=failure), 0.05, operation="messaging")
    faults.chance(Fault(drop="before_read"), 0.01, operation="messaging")
    faults.chance(Fault(drop="after_read"), 0.01, operation="messaging")
    # Accept the rest with delays like a network's.
    faults.chance(Fault(delay=0.1), 0.40, operation="messaging")
    faults.chance(Fault(delay=0.4), 0.43, operation="messaging")


async def run(count: int, seed: int, advance: Callable[[str, Delivery | bool], None]) -> Summary:
    """Send codes, verify those that arrived, and return the counts.

    Args:
        count: the number of codes.
        seed: seeds the simulator's faults, so that a run can be repeated.
        advance: called for each finished code with the phase, ``"send"`` or ``"verify"``, and the outcome.
    """
    summary = Summary()
    template = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="demo")
    # Numbers reserved for fiction: 555-0100 to 555-0199 in as many area codes as needed.
    numbers = [f"+1{201 + index // 100}5550{100 + index % 100}" for index in range(count)]
    requests = [template.to(number) for number in numbers]
    began = time.perf_counter()
    async with (
        Simulator(seed=seed) as simulator,
        MFAClient(
            **simulator.client_kwargs(),
            # The simulator's 429s are random, so they reveal no rate.
            limits=Limits(adaptive=False, max_in_flight=CONCURRENCY),
            retry=RetryPolicy(max_attempts=5, wait_initial=0.1, wait_max=1.0),
            hooks=[summary],
        ) as mfa,
    ):
        _inject_faults(simulator, numbers[REJECTED_EVERY - 1 :: REJECTED_EVERY])

        async def send(request: CodeRequest) -> None:
            """Send one code and count its outcome."""
            try:
                sent = await mfa.generate_messaging_code(request)
            except RequestError as error:
                outcome = error.delivery
            else:
                outcome = Delivery.ACCEPTED
                summary.possible_duplicates += bool(sent.meta.possible_duplicate)
            setattr(summary, str(outcome), getattr(summary, str(outcome)) + 1)
            advance("send", outcome)

        async with asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(send(request))
        summary.send_seconds = time.perf_counter() - began

        simulator.faults.clear()
        # Each recipient enters the last code received; some mistype it.
        latest: dict[str, Message] = {message.to: message for message in simulator.inbox}
        summary.texts = len(simulator.inbox)

        async def verify(index: int, message: Message) -> None:
            """Verify one code, sometimes a wrong one, and count the answer."""
            code = message.code
            if index % WRONG_EVERY == 0:
                code = f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"
            answer = await mfa.verify_code(to=message.to, code=code, scope="demo")
            summary.valid += answer.valid
            summary.invalid += not answer.valid
            advance("verify", answer.valid)

        async with asyncio.TaskGroup() as group:
            for index, message in enumerate(latest.values(), start=1):
                group.create_task(verify(index, message))
    summary.seconds = time.perf_counter() - began
    return summary
