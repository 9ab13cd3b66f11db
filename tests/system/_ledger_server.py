"""A service on loopback with seeded faults that writes each text into a ledger when it goes out.

It shares no code with the library: it parses and writes HTTP itself.
"""

from __future__ import annotations

import asyncio
import collections
import gzip
import json
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

NEVER_TWICE, REJECTED, AT_LEAST_ONCE = "never_twice", "rejected", "at_least_once"

# What an answer proves about the text, with the policies under which the client may send another request.
ALWAYS = frozenset({NEVER_TWICE, REJECTED, AT_LEAST_ONCE})
RESENDABLE = {
    "ok": frozenset[str](),  # accepted, and reported so
    "no": frozenset[str](),  # rejected
    "busy": ALWAYS,  # 429
    "down": frozenset({REJECTED, AT_LEAST_ONCE}),  # 5xx and 408 in the service's own format, 425: nothing went out
    "gate": frozenset({REJECTED, AT_LEAST_ONCE}),  # a gateway's 5xx or 408: unknown, and retried if the policy allows
    "open": frozenset({AT_LEAST_ONCE}),  # no trustworthy answer
    "redirect": frozenset[str](),  # 303: perhaps accepted; never followed or retried
    "late": frozenset({AT_LEAST_ONCE}),  # a conclusive answer, possibly after the client's timeout
}

UNCERTAIN = frozenset({"gate", "open", "redirect"})


class Step(NamedTuple):
    """Bytes that are written `after` attempt timeouts after the previous step."""

    data: bytes
    after: float = 0.0


class Fault(NamedTuple):
    """One way to respond to a request."""

    name: str
    proof: str
    steps: tuple[Step, ...] = ()
    end: str = "keep"  # or "fin", "rst", "hang"
    status: int = 0  # 0: no final status that the client can trust
    retry_after: float = 0.0  # seconds that the answer asks to wait
    sent_after: float | None = None  # attempt timeouts until the text goes out; None: at random, or not
    weight: float = 1.0


@dataclass
class Arrival:
    """A request that was read, and its fault."""

    fault: Fault
    at: float
    answered_at: float


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join((*lines, "", "")).encode() + body


JSON_TYPE = "Content-Type: application/json"
OWN = b'{"error": "from the service", "requestId": "r"}'
PAGE = b"<html><body>from a gateway</body></html>"
HEAD = b"HTTP/1.1 200 X\r\n"
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


def faults(success_body: bytes, retry_after: float) -> list[Fault]:
    """Return all faults; `success_body` is the body of a success, `retry_after` the seconds of a Retry-After."""
    good = http(200, success_body, JSON_TYPE)
    half = http(200, success_body, JSON_TYPE, length=len(success_body) + 400)
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    part = max(1, len(good) // 4)
    drip = tuple(good[at : at + part] for at in range(0, len(good), part))
    zipped = gzip.compress(success_body)
    waits = f"Retry-After: {retry_after:g}" if retry_after >= 1 else f"retry-after-ms: {retry_after * 1000:g}"

    def ok(name: str, *steps: bytes, end: str = "keep", after: float = 0.0, weight: float = 1.0) -> Fault:
        return Fault(name, "ok", tuple(Step(data, after) for data in steps), end, 200, 0.0, 0.0, weight)

    def unclear(
        name: str, *steps: bytes, end: str = "keep", after: float = 0.0, sent_after: float | None = None
    ) -> Fault:
        return Fault(name, "open", tuple(Step(data, after) for data in steps), end, sent_after=sent_after)

    def answer(status: int, proof: str, body: bytes = OWN, *headers: str, wait: float = 0.0) -> Fault:
        name = f"{status} {'own' if body == OWN else 'gateway'} {' '.join(headers)}".strip()
        return Fault(name, proof, (Step(http(status, body, *headers)),), "keep", status, wait)

    def rejection(status: int) -> Fault:
        return answer(status, "no")

    return [
        ok("fine", good, weight=60.0),
        ok("fine, then closed", good, end="fin", weight=3.0),
        ok("fine, says that it closes", http(200, success_body, JSON_TYPE, "Connection: close"), end="fin", weight=3.0),
        ok("no length, closed", HEAD + b"\r\n" + success_body, end="fin"),
        ok("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + good),
        ok("103 and 102 first", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", INTERIM * 3, good, after=0.01),
        ok("in pieces", *drip, after=0.02),
        ok(
            "the keys of 2020",
            http(200, success_body.replace(b'"message', b'"Message').replace(b'"call', b'"Call')),
        ),
        ok("additional keys", http(200, b'{"new": [1, {"a": null}], ' + success_body[1:], JSON_TYPE)),
        ok("as text/html", http(200, success_body, "Content-Type: text/html")),
        ok("chunked", chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(success_body), success_body)),
        ok("late", good, after=0.3),
        ok("fine, and 408 while idle", good, http(408, PAGE, "Connection: close"), end="fin", after=0.002),
        # connection lost
        unclear("closed after the request", end="fin"),
        unclear("reset after the request", end="rst"),
        unclear("half a head, closed", good[:30], end="fin"),
        unclear("half a head, silence", good[:30], end="hang"),
        unclear("half a body, closed", half, end="fin"),
        unclear("half a body, reset", half, end="rst"),
        unclear("half a body, silence", half, end="hang"),
        unclear(
            "chunked, closed before its end", chunked + b"%x\r\n" % (len(success_body) + 9) + success_body, end="fin"
        ),
        # not in time
        unclear("silence", end="hang"),
        unclear("silence, and the text goes out after the timeout", end="hang", sent_after=1.5),
        unclear("dripped beyond the timeout", *drip, after=0.6, end="fin", sent_after=0.5),
        unclear("endless 102", *[INTERIM] * 6, after=0.4, end="hang"),
        unclear("answered after the timeout", good, after=1.6, sent_after=1.4),
        # not readable
        unclear("length too small", http(200, success_body, length=4), end="fin"),
        unclear("two lengths", HEAD + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}  ", end="fin"),
        unclear("length -1", HEAD + b"Content-Length: -1\r\n\r\n{}", end="fin"),
        unclear("chunk rubbish", chunked + b"zz\r\n", end="fin"),
        unclear("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", end="fin"),
        unclear("101", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", end="hang"),
        unclear("204", b"HTTP/1.1 204 X\r\n\r\n"),
        unclear("gzip", http(200, zipped, "Content-Encoding: gzip")),
        unclear("gzip cut short", http(200, zipped[:-6], "Content-Encoding: gzip")),
        unclear("20 KB header", http(200, success_body, f"X-Long: {'x' * 20_000}"), end="fin"),
        unclear("100 KB body", http(200, b" " * 100_000 + success_body)),
        *[
            unclear(f"200 {body[:20]!r}", http(200, body, JSON_TYPE))
            for body in (
                *(b"", b"null", b"[]", b"{}", PAGE, b'{"messageId": null, "callId": null, "valid": null}'),
                *(b'{"messageId": "", "callId": "", "valid": ""}', b'{"messageId": 7, "callId": [], "valid": 1}'),
                *(
                    b'{"result": "Invalid request"}',
                    success_body[: len(success_body) // 2],
                    b"[" * 50_000,
                    b'{"messageId": "\xff"}',
                ),
            )
        ],
        Fault("303", "redirect", (Step(http(303, b"", "Location: http://127.0.0.1:9/")),), status=303),
        # rejected
        *[rejection(status) for status in (400, 401, 403, 404, 409, 413, 415, 422)],
        Fault("400 cut short", "no", (Step(http(400, OWN, length=900)),), "fin", 400),
        *[answer(status, "no", b"", "Location: http://127.0.0.1:9/") for status in (301, 302, 307, 308)],
        answer(425, "down"),
        answer(408, "down"),
        answer(408, "gate", PAGE),
        answer(429, "busy", b'{"error": "please wait"}'),
        answer(429, "busy", b'{"error": "x"}', waits, wait=retry_after),
        answer(429, "busy", b"", "Retry-After: rubbish"),
        answer(500, "down"),
        answer(500, "gate", PAGE),
        answer(502, "gate", PAGE),
        answer(502, "gate", OWN),
        answer(504, "gate", b""),
        answer(504, "gate", OWN),
        answer(503, "down"),
        answer(503, "down", OWN, waits, wait=retry_after),
        answer(503, "down", OWN, "Retry-After: 86400", wait=86_400.0),
        answer(503, "gate", PAGE, "Retry-After: -1"),
        *[answer(status, "down") for status in (501, 505, 511)],
    ]


# Before the request is read: nothing goes out, but the client cannot know.
EARLY = {
    "reset at the first byte": Fault("reset at the first byte", "open", end="rst"),
    "closed at the first byte": Fault("closed at the first byte", "open", end="fin"),
    "413 at the head": Fault("413 at the head", "no", (Step(http(413, OWN, "Connection: close")),), "fin", 413),
}


@dataclass
class LedgerServer:
    """Selects the fault of the n-th request of a key from `seed`, the key and n.

    Args:
        seed: the seed of all faults.
        timeout: the client's attempt timeout in seconds; slow faults are multiples of it.
        retry_after: the seconds in the Retry-After of some 429s and 503s.
        fault_share: the share of requests with a fault.
        cold: close each connection after one answer.
    """

    seed: int
    timeout: float
    retry_after: float
    fault_share: float
    cold: bool
    ledger: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))
    arrivals: dict[str, list[Arrival]] = field(default_factory=lambda: collections.defaultdict(list))
    port: int = 0
    connection_count: int = 0
    connections: set[Connection] = field(default_factory=set)
    pending_sends: int = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=512)
        self.port = self.server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Stop listening; open connections continue."""
        self.server.close()

    async def stop(self) -> None:
        """Wait until all pending texts have gone out, then close all connections."""
        self.server.close()
        while self.pending_sends:
            await asyncio.sleep(self.timeout / 4)
        for connection in tuple(self.connections):
            connection.end("fin")
        while self.connections:
            await asyncio.sleep(0.001)

    def choose(self, key: str, nth: int, success_body: bytes) -> tuple[Fault, random.Random]:
        rng = random.Random(f"{self.seed} {key} {nth}")
        every = faults(success_body, self.retry_after)
        if rng.random() >= self.fault_share:
            return every[0], rng
        return rng.choices(every[1:], [fault.weight for fault in every[1:]])[0], rng

    def send(self, key: str, identifier: str) -> None:
        self.ledger[key].append(identifier)

    def send_late(self, key: str, identifier: str) -> None:
        self.pending_sends -= 1
        self.send(key, identifier)


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, server: LedgerServer) -> None:
        self.server = server
        self.buffer = b""
        self.ignores_input = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.server.connections.add(self)
        self.server.connection_count += 1
        self.rng = random.Random(f"{self.server.seed} connection {self.server.connection_count}")
        if self.rng.random() < 0.04 * (self.server.fault_share > 0):
            self.end(self.rng.choice(["rst", "fin"]))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.ignores_input:
            return
        early = None
        if not self.buffer and self.rng.random() < 0.02 * (self.server.fault_share > 0):
            early = EARLY[self.rng.choice(list(EARLY))]
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if early is None and (not separator or len(body) < length):
            return
        self.buffer = b""
        # The key of a request that ends early is known only if the first bytes contain the whole request.
        known = bool(separator) and len(body) >= length
        self.request(head.split(b" ", 2)[1].decode(), json.loads(body) if known else None, early)

    def request(self, path: str, document: dict[str, str] | None, early: Fault | None) -> None:
        server, loop = self.server, asyncio.get_running_loop()
        operation = path.rpartition("/")[2]
        if document is None:
            assert early is not None
            self.play(early)
            return
        key = f"{operation} {document['to']}"
        nth = len(server.arrivals[key])
        identifier = f"id-{document['to']}-{nth}"
        if operation == "verify":
            success_body = json.dumps({"valid": is_valid(server.seed, document["to"])}).encode()
        else:
            success_body = json.dumps({"messageId" if operation == "messaging" else "callId": identifier}).encode()
        fault, rng = (early, self.rng) if early is not None else server.choose(key, nth, success_body)
        now = loop.time()
        server.arrivals[key].append(Arrival(fault, now, now + server.timeout * sum(s.after for s in fault.steps)))
        takes = early is None and fault.proof in {"ok", *UNCERTAIN}
        if takes and (fault.sent_after is not None or rng.random() < 0.5):
            if fault.sent_after:
                server.pending_sends += 1
                loop.call_later(fault.sent_after * server.timeout, server.send_late, key, identifier)
            else:
                server.send(key, identifier)
        self.play(fault)

    def play(self, fault: Fault) -> None:
        end = "fin" if fault.end == "keep" and self.server.cold else fault.end
        self.ignores_input = bool(fault.steps[1:]) or end != "keep" or any(step.after for step in fault.steps)
        self.step(list(fault.steps), end)

    def step(self, steps: list[Step], end: str) -> None:
        loop = asyncio.get_running_loop()
        while steps:
            step = steps.pop(0)
            if step.after:
                loop.call_later(step.after * self.server.timeout, self.late_step, step.data, steps, end)
                return
            self.transport.write(step.data)
        self.end(end)

    def late_step(self, data: bytes, steps: list[Step], end: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            self.step(steps, end)

    def end(self, how: str) -> None:
        self.ignores_input = how != "keep"
        if how == "rst":
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.transport.abort()
        elif how == "fin":
            self.transport.close()


def is_valid(seed: int, to: str) -> bool:
    """Return whether the service accepts the code of a number."""
    return random.Random(f"{seed} code of {to}").random() < 0.5
