"""A service that misbehaves by chance and keeps a ledger, and a judge that holds the client's word against it.

The server writes into its ledger at the instant a text goes out, and notes what it then does to the connection. The
judge knows nothing of the library's own rules: it has the promises of the README's two tables written out again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import random
import socket
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bandwidth_mfa_async import (
    BasicAuth,
    CodeTemplate,
    Delivery,
    Limits,
    MFAClient,
    RequestError,
    Resend,
    RetryPolicy,
    VerificationLockedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWN = {"error": "Internal Error", "requestId": "354cc8a3-6701-461e-8fa7-8671703dd898"}
HTML = b"<html>bad gateway</html>"
POLICIES = (Resend.NEVER_TWICE, Resend.REJECTED, Resend.AT_LEAST_ONCE)
CODE = "123456"

CLEAN = "clean"
"""Answered as documented."""
REFUSED = "refused"
"""An answer that says that nothing was sent."""
GATEWAY = "gateway"
"""A 408 or 5xx that is not in the service's own words: what became of the request is not known."""
MUTE = "mute"
"""No answer that can be trusted."""


@dataclass(frozen=True)
class Fault:
    """What the server does to a request.

    Attributes:
        kind: what an honest client can know afterwards.
        status: what it answers.
        accepts: how likely the text goes out all the same.
        act: how the answer is spoilt.
    """

    name: str
    kind: str
    status: int = 200
    accepts: float = 1.0
    act: str = ""
    weight: float = 1.0


FAULTS = (
    *(Fault(f"{status} in its own words", REFUSED, status, 0.0) for status in (400, 401, 403, 404, 500, 503)),
    *(Fault(f"{status}", REFUSED, status, 0.0, "empty") for status in (409, 413, 415, 422, 425)),
    Fault("429", REFUSED, 429, 0.0, weight=3.0),
    Fault("429, later", REFUSED, 429, 0.0, "retry-after", weight=2.0),
    Fault("503, later", REFUSED, 503, 0.0, "retry-after"),
    Fault("307 to elsewhere", REFUSED, 307, 0.0, "redirect"),
    *(Fault(f"{status} of a gateway", GATEWAY, status, 0.5, "html") for status in (408, 500, 502, 503, 504)),
    *(Fault(name, MUTE, 200, 0.7, name) for name in (
        "fin", "rst", "hang", "half head, fin", "half head, hang", "half body, fin", "half body, rst",
        "half body, hang",
        "length too small", "two lengths", "length -1", "bad chunk", "no last chunk", "not http", "http 101", "drip",
    )),
    *(Fault(name, MUTE, 200, 0.7, name) for name in (
        "empty 200", "204", "html 200", "null id", "number id", "empty id", "list", "old result", "not utf-8", "deep",
        "long number", "gzip", "bad gzip", "large", "many headers",
    )),
    Fault("rst before the body", MUTE, 200, 0.0, "early rst"),
    Fault("fin before the body", MUTE, 200, 0.0, "early fin"),
    *(Fault(name, CLEAN, 200, 1.0, name, 2.0) for name in (
        "100 first", "103 first", "sliced", "slow", "close after", "fin after", "chunked", "no length", "capital id",
        "more keys",
    )),
)  # fmt: skip


@dataclass
class Seen:
    """One request that came whole, and what was done to it."""

    name: str
    kind: str
    status: int
    id: str | None


@dataclass
class Ledger:
    """What the service knows."""

    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    # Connections cut while no request of theirs had come: those attempts cannot be told by number.
    cut_unseen: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Service(asyncio.Protocol):
    """One connection."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.buffer = b""
        self.busy: asyncio.Task[None] | None = None
        self.early: Fault | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.world.connections.add(self)
        if self.world.rng.random() < 0.01 * self.world.wickedness:
            self.world.ledger.cut_unseen += 1
            self.end("rst" if self.world.rng.random() < 0.5 else "fin")

    def connection_lost(self, _error: Exception | None) -> None:
        self.world.connections.discard(self)
        if self.busy is not None:
            self.busy.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.busy is None:
            self.next()

    def next(self) -> None:
        """Take up the request that has come, if it is whole."""
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator or self.transport.is_closing():
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.busy = asyncio.get_running_loop().create_task(self.serve(head.split(b" ", 2)[1], rest[:length]))
        self.busy.add_done_callback(self.served)

    def served(self, task: asyncio.Task[None]) -> None:
        self.busy = None
        if not task.cancelled():
            task.result()
            self.next()

    def end(self, how: str) -> None:
        if how == "rst":
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    async def serve(self, path: bytes, body: bytes) -> None:
        world = self.world
        document = json.loads(body)
        to = document["to"]
        fault = world.choose()
        operation = path.rpartition(b"/")[2].decode()
        id_ = None
        if fault.kind == CLEAN or world.rng.random() < fault.accepts:
            id_ = f"m-{world.number()}"
            world.ledger.sent[to].append(id_)
        world.ledger.seen[to].append(Seen(fault.name, fault.kind, fault.status, id_))
        world.ledger.faults[fault.name] += 1
        answer: dict[str, Any]
        if operation == "verify":
            answer = {"valid": document["code"] == CODE}
        else:
            answer = {"messageId" if operation == "messaging" else "callId": id_ or "m-none"}
        await _answer(self, fault, answer)


async def _answer(service: Service, fault: Fault, answer: dict[str, Any]) -> None:  # noqa: C901, PLR0912, PLR0915
    """Write what the fault makes of an answer; a table of oddities, each in its own few words."""
    transport, act, pause = service.transport, fault.act, service.world.pause
    content = json.dumps(answer).encode()
    headers = ["Content-Type: application/json; charset=utf-8"]
    after = ""
    if act.startswith("early"):
        service.end(act[-3:])
        return
    if fault.status != 200:
        own = {401: {"message": "Unauthorized"}, 403: {"Message": "denied"}}.get(fault.status, OWN)
        content = {"empty": b"", "html": HTML, "redirect": b""}.get(act, json.dumps(own).encode())
        if act == "retry-after":
            headers.append(f"retry-after-ms: {service.world.rng.choice((0, 5, 20))}")
        if act == "redirect":
            headers.append("Location: http://127.0.0.1:1/elsewhere")
    length: int | str = len(content)
    if act in {"fin", "rst"}:
        service.end(act)
        return
    if act == "hang":
        await asyncio.Event().wait()
    if act == "not http":
        transport.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        service.end("fin")
        return
    if act == "http 101":
        transport.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        after = "hang"
        content, length = b"", 0
    if act in ODD_BODIES:
        content = ODD_BODIES[act]
        length = len(content)
    if act == "204":
        transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        return
    if "gzip" in act:
        content = gzip.compress(content) if act == "gzip" else b"no gzip at all"
        length = len(content)
        headers.append("Content-Encoding: gzip")
    if act == "many headers":
        headers += [f"x-{number}: y" for number in range(1000)]
    if act == "length too small":
        length, after = 4, "fin"
    if act == "length -1":
        length, after = -1, "fin"
    if act == "capital id":
        content = content.replace(b'"messageId"', b'"MessageId"').replace(b'"callId"', b'"CallId"')
    if act == "more keys":
        content = content.replace(b"{", b'{"new": [1, {"a": null}], ', 1)
        length = len(content)
    lines = [f"HTTP/1.1 {fault.status} X", *headers]
    chunked = act in {"chunked", "bad chunk", "no last chunk"}
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        last = b"0\r\n\r\n" if act == "chunked" else b"zz\r\n" if act == "bad chunk" else b""
        content = b"%x\r\n%s\r\n%s" % (len(content), content, last)
        after = "" if act == "chunked" else "fin"
    elif act == "no length":
        after = "fin"
    elif act != "http 101":
        lines.append(f"Content-Length: {length}")
    if act == "two lengths":
        lines.append(f"Content-Length: {len(content) + 1}")
        after = "fin"
    if act == "close after":
        lines.append("Connection: close")
        after = "fin"
    whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
    if act == "http 101":
        whole = b""
    if act.startswith("half"):
        part = len(whole) - len(content) // 2 if "body" in act else 20
        transport.write(whole[:part])
        after = act.rpartition(", ")[2]
    elif act in {"sliced", "drip"}:
        for start in range(0, len(whole), 7):
            transport.write(whole[start : start + 7])
            await asyncio.sleep(0 if act == "sliced" else 3 * pause)
    else:
        if act == "slow":
            await asyncio.sleep(pause / 20)
        if act in {"100 first", "103 first"}:
            transport.write(f"HTTP/1.1 {act[:3]} Early\r\n\r\n".encode())
        transport.write(whole)
    if act == "fin after":
        # It said that it would keep the connection: the next request may be written to it all the same.
        service.world.ledger.cut_unseen += 1
        after = "fin"
    if after == "hang":
        await asyncio.Event().wait()
    elif after:
        service.end(after)


ODD_BODIES = {
    "empty 200": b"",
    "html 200": b"<html>welcome to the hotel's network</html>",
    "null id": b'{"messageId": null, "callId": null, "valid": null}',
    "number id": b'{"messageId": 7, "callId": 7, "valid": 1}',
    "empty id": b'{"messageId": "", "callId": "", "valid": "true"}',
    "list": b"[1, 2]",
    "old result": b'{"result": "Invalid request - contact service manager"}',
    "not utf-8": b'{"messageId": "\xff\xfe"}',
    "deep": b"[" * 40_000,
    "long number": b'{"messageId": ' + b"1" * 5_000 + b"}",
    "large": b'{"messageId": "' + b"x" * 200_000 + b'"}',
}


class World:
    """The service, its moods and its ledger.

    Args:
        seed: of everything that is left to chance on the server's side.
        share: how likely a request meets a fault.
        pause: seconds between the bits of a slow answer; twenty of them outlast an attempt.
    """

    def __init__(self, seed: int, *, share: float = 0.35, pause: float = 0.05) -> None:
        self.rng = random.Random(seed)
        self.share, self.pause = share, pause
        self.wickedness = 1.0 if share else 0.0
        self.ledger = Ledger()
        self.connections: set[Service] = set()
        self.port = 0
        self._numbers = 0
        self._weights = [fault.weight for fault in FAULTS]

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def choose(self) -> Fault:
        if self.rng.random() >= self.share:
            return WELL
        return self.rng.choices(FAULTS, self._weights)[0]

    @contextlib.asynccontextmanager
    async def serving(self) -> Any:
        server = await asyncio.get_running_loop().create_server(lambda: Service(self), "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for _ in range(10):  # what was being accepted
                await asyncio.sleep(0)
                for connection in tuple(self.connections):
                    connection.transport.abort()
            await server.wait_closed()


WELL = Fault("well", CLEAN)


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """Keep a port at which connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@dataclass
class Verdict:
    """What the judge found.

    Attributes:
        words: how often the client said what, by operation and outcome.
        texts: how many went out.
        unseen: attempts of unknown outcome that the service never saw whole.
        wrong: each promise that was broken, with the seed's story of it.
    """

    words: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    unseen: int = 0
    wrong: list[str] = field(default_factory=list)


async def trial(  # noqa: C901 - one call, sixteen at a time, and what is left behind
    world: World, *, sends: int, tasks: int = 16, seed: int, attempt_timeout: float
) -> Verdict:
    """Send, call and verify under every policy at once, some of it cancelled, and judge each outcome."""
    verdict = Verdict()
    rng = random.Random(seed)
    numbers = iter(range(sends))
    template = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for resend, port in itertools.product(POLICIES, (world.port, stack.enter_context(nobody()))):
            retry = RetryPolicy(wait_initial=0.001, wait_max=0.004, attempt_timeout=attempt_timeout, resend=resend)
            client = MFAClient(
                "9900000",
                BasicAuth("user", "pass"),
                base_url=f"http://127.0.0.1:{port}/api/v1",
                retry=retry,
                limits=Limits(adaptive=False),
            )
            clients[resend, port == world.port] = await stack.enter_async_context(client)

        async def one(index: int) -> None:
            resend = rng.choice(POLICIES)
            operation = rng.choice(("messaging", "messaging", "voice", "verify"))
            there = rng.random() >= 0.02
            to, client = f"+1{index:010}", clients[resend, there]
            code = rng.choice((CODE, "000000"))
            call: Any
            if operation == "verify":
                call = client.verify_code(to=to, code=code, scope="login")
            elif operation == "voice":
                call = client.generate_voice_code(template.to(to))
            else:
                call = client.generate_messaging_code(template.to(to))
            task = asyncio.ensure_future(call)
            if rng.random() < 0.03:
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            if not there and not task.cancelled():
                error = task.exception()
                if not isinstance(error, RequestError) or error.delivery is not Delivery.NOT_SENT:
                    verdict.wrong.append(f"nobody was there, and it said {error!r}")
            for wrong in judge(world.ledger, operation, resend, to, task, right=code == CODE, verdict=verdict):
                story = [f"{seen.name}{' (sent)' if seen.id else ''}" for seen in world.ledger.seen[to]]
                verdict.wrong.append(f"{operation} {resend.name}: {wrong}; the service did {story}")

        async def work() -> None:
            for index in numbers:
                await one(index)

        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(work())
        for client in clients.values():
            if client._caller.slots.taken:
                verdict.wrong.append("a slot was not given back")
            session = client._caller.core.transport._session
            if session is not None and session.connector is not None and session.connector._acquired:  # type: ignore[attr-defined]
                verdict.wrong.append("a connection was not given back")
    verdict.texts = sum(map(len, world.ledger.sent.values()))
    if verdict.unseen > world.ledger.cut_unseen:
        verdict.wrong.append(
            f"{verdict.unseen} unknown outcomes of requests nobody saw, {world.ledger.cut_unseen} cuts"
        )
    return verdict


def judge(  # noqa: C901, PLR0912, PLR0913, PLR0915 - the promises, one after another
    ledger: Ledger, operation: str, resend: Resend, to: str, task: asyncio.Task[Any], *, right: bool, verdict: Verdict
) -> Iterator[str]:
    """Give each promise that an outcome breaks."""
    sent, seen = ledger.sent[to], ledger.seen[to]
    kinds = Counter(each.kind for each in seen)
    verify = operation == "verify"
    if verify:
        ledger.sent.pop(to)
        # Asked again only where the service said in so many words that it could not say.
        again = sum(each.status in {500, 503} for each in seen[:-1])
        if len(seen) > 1 + again:
            yield "asked again after an answer that may have used the code up"
    else:
        # 1. How often a person may be texted.
        after_gateway = sum(each.kind == GATEWAY and each.id is not None for each in seen)
        most = {Resend.NEVER_TWICE: 1, Resend.REJECTED: 1 + after_gateway, Resend.AT_LEAST_ONCE: len(seen)}[resend]
        if len(sent) > most:
            yield f"{len(sent)} texts, at most {most} under this policy"
    if task.cancelled():
        verdict.words[f"{operation}: cancelled"] += 1
        return
    error = task.exception()
    if error is None:
        verdict.words[f"{operation}: answered"] += 1
        answer = task.result()
        if not seen or seen[-1].kind != CLEAN:
            yield "a success that the service did not answer"
        elif verify:
            if answer.valid is not right:
                yield f"valid is {answer.valid}"
        else:
            id_ = answer.message_id if operation == "messaging" else answer.call_id
            if id_ != seen[-1].id:
                yield "another id than the service's"
            if len(sent) > 1 and not answer.meta.possible_duplicate:
                yield "a second text that is not marked as a possible duplicate"
            if answer.meta.possible_duplicate and not (
                kinds[GATEWAY] or kinds[MUTE] or answer.meta.attempts > len(seen)
            ):
                yield "marked as a possible duplicate without a reason"
        return
    if not isinstance(error, RequestError):
        verdict.words[f"{operation}: {type(error).__name__}"] += 1
        yield f"raised {error!r}"
        return
    verdict.words[f"{operation}: {error.delivery.value}"] += 1
    # 2. What an error says of the text.
    if error.delivery is Delivery.NOT_SENT and any(each.kind != REFUSED for each in seen):
        # An attempt that was refused may have come before one that did not leave.
        yield "said to be not sent, and the service may have taken it"
    if error.delivery is Delivery.REJECTED:
        if not verify and sent:
            yield "said to be rejected, and it was sent"
        if kinds[MUTE] or (kinds[GATEWAY] and not verify):
            yield "said to be rejected, and an attempt's outcome is not known"
    if error.delivery is Delivery.UNKNOWN and not (kinds[MUTE] or kinds[GATEWAY]):
        # Only an attempt that the service never saw whole can have made it unknown.
        verdict.unseen += 1
        if error.attempts <= len(seen):
            yield "said to be unknown, and every answer was clear"
    if verify and seen and seen[-1].status == 429 and not isinstance(error, VerificationLockedError):
        yield f"a lock-out is a {type(error).__name__}"
    if error.attempts < len(seen):
        yield f"{len(seen)} requests came, {error.attempts} are told of"


def run(
    seed: int, sends: int, loop_factory: Callable[[], Any] | None, *, attempt_timeout: float
) -> tuple[Verdict, World]:
    """Hold one trial in a loop of its own."""
    world = World(seed, pause=attempt_timeout / 20)

    async def main() -> Verdict:
        async with world.serving():
            return await trial(world, sends=sends, seed=seed, attempt_timeout=attempt_timeout)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main()), world
