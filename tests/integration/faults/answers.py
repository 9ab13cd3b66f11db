"""Tables of responses, and of what arrives instead of one: rows 10 to 35 of the fault table."""

from __future__ import annotations

import gzip
from typing import NamedTuple

from bandwidth_mfa_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    Delivery,
    DisconnectedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
    ResponseDecodeError,
    ServerError,
)
from tests.support.fault_server import OK_BODY, Act, answer, reply

OWN_ERROR = {"error": "Internal Error", "requestId": "354cc8a3-6701-461e-8fa7-8671703dd898"}
BOMB = gzip.compress(bytes(100_000_000), 1)


class Fault(NamedTuple):
    """What the server does, and the outcome that must follow."""

    row: int
    name: str
    act: Act
    error: type[RequestError]
    delivery: Delivery
    kept: bool = False  # whether the connection is reusable afterwards


def unanswered(row: int, name: str, act: Act) -> Fault:
    return Fault(row, name, act, DisconnectedError, Delivery.UNKNOWN)


def unreadable(row: int, name: str, act: Act, *, kept: bool = True) -> Fault:
    return Fault(row, name, act, ResponseDecodeError, Delivery.UNKNOWN, kept)


def refusal(row: int, status: int, error: type[RequestError] = APIStatusError, body: object = b"") -> Fault:
    return Fault(row, str(status), answer(status, body), error, Delivery.REJECTED, kept=True)


def head(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


CHUNKED = head("Transfer-Encoding: chunked")

FAULTS = [
    unanswered(10, "reset on accept", Act(on_accept="rst")),
    unanswered(10, "closed on accept", Act(on_accept="fin")),
    unanswered(11, "reset after the head", Act(read="head", then="rst")),
    unanswered(11, "closed after the head", Act(read="head", then="fin")),
    unanswered(12, "closed after the request", Act(then="fin", accepted=True)),
    unanswered(12, "reset after the request", Act(then="rst", accepted=True)),
    unanswered(12, "closed after the request, which was not taken", Act(then="fin")),
    unanswered(13, "reset at the first byte", Act(read="byte", then="rst")),
    unanswered(13, "closed at the first byte", Act(read="byte", then="fin")),
    unanswered(14, "half a head, then closed", Act(b"HTTP/1.1 200 OK\r\nContent-Le", then="fin")),
    unanswered(15, "truncated 200", Act(reply(length=500), then="fin", accepted=True)),
    unanswered(15, "reset in a 200", Act(reply(length=500), then="rst", accepted=True)),
    Fault(
        15,
        "400 truncated",
        Act(reply(400, OWN_ERROR, length=900), then="fin"),
        BadRequestError,
        Delivery.REJECTED,
    ),
    unreadable(16, "length too small", Act(reply(length=4), then="hang", accepted=True), kept=False),
    unreadable(16, "two lengths", Act(head("Content-Length: 2", "Content-Length: 4") + b"{}", then="fin"), kept=False),
    unreadable(16, "two lengths around an id", Act(reply(headers={"Content-Length": "4"}), accepted=True), kept=False),
    unreadable(16, "two lengths in a 400", Act(reply(400, OWN_ERROR, headers={"Content-Length": "4"})), kept=False),
    unreadable(16, "bytes after an id", Act(reply() + b"more", accepted=True), kept=False),
    unreadable(16, "bytes after a 400", Act(reply(400, OWN_ERROR) + b"more"), kept=False),
    unreadable(16, "length -1", Act(head("Content-Length: -1") + b"{}", then="fin"), kept=False),
    unanswered(17, "chunked without an end", Act(CHUNKED + b'5\r\n{"mes\r\n', then="fin", accepted=True)),
    unreadable(17, "chunk rubbish", Act(CHUNKED + b"zz\r\n", then="fin"), kept=False),
    unreadable(17, "not HTTP", Act(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then="fin"), kept=False),
    unreadable(18, "no length, half a document", Act(head() + b'{"messageId": "x', then="fin"), kept=False),
    unreadable(19, "gzip bomb", answer(200, BOMB, headers={"Content-Encoding": "gzip"}), kept=False),
    unreadable(20, "gzip", answer(200, gzip.compress(b'{"messageId": "x"}'), headers={"Content-Encoding": "gzip"})),
    unreadable(20, "gzip cut short", answer(200, gzip.compress(b"{}")[:-4], headers={"Content-Encoding": "gzip"})),
    unreadable(20, "no gzip", answer(200, b'{"messageId": "x"}', headers={"Content-Encoding": "gzip"})),
    unreadable(21, "10 MB", answer(200, b"x" * 10_000_000), kept=False),
    unreadable(22, "200 HTML", answer(200, b"<html>", headers={"Content-Type": "text/html"})),
    unreadable(22, "200 empty", answer(200, b"")),
    unreadable(22, "200 null", answer(200, b"null")),
    unreadable(22, "200 array", answer(200, b"[]")),
    unreadable(22, "200 without an id", answer(200, {})),
    unreadable(22, "200 null id", answer(200, {"messageId": None})),
    unreadable(22, "200 empty id", answer(200, {"messageId": ""})),
    unreadable(22, "200 number id", answer(200, {"messageId": 7})),
    unreadable(22, "200 list id", answer(200, {"messageId": ["x"]})),
    unreadable(22, "200 old error", answer(200, {"result": "Invalid request"})),
    unreadable(23, "200 bad UTF-8", answer(200, b'{"messageId": "\xff"}')),
    unreadable(23, "200 deep", answer(200, b"[" * 60_000)),
    unreadable(23, "200 half a surrogate pair", answer(200, rb'{"messageId": "\ud800"}')),
    unreadable(24, "204", Act(b"HTTP/1.1 204 No Content\r\n\r\n", accepted=True)),
    unreadable(
        25,
        "unsolicited 101",
        Act(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        kept=False,
    ),
    Fault(27, "408 of a gateway", answer(408, b""), APIStatusError, Delivery.UNKNOWN, kept=True),
    refusal(28, 400, BadRequestError, {"error": "to number is required", "requestId": "r"}),
    refusal(28, 401, AuthenticationError, {"message": "Unauthorized"}),
    refusal(28, 403, PermissionDeniedError, {"Message": "explicit deny"}),
    refusal(28, 404, NotFoundError),
    refusal(28, 409, body={}),
    refusal(28, 413),
    Fault(
        28,
        "413 before the body",
        Act(reply(413, b"", headers={"Connection": "close"}), read="head", then="hang"),
        APIStatusError,
        Delivery.REJECTED,
    ),
    refusal(28, 415),
    refusal(28, 417),
    refusal(28, 422, body={}),
    refusal(28, 425),
    refusal(29, 429, RateLimitError, {}),
    Fault(29, "503 of the service", answer(503, OWN_ERROR), ServerError, Delivery.REJECTED, kept=True),
    Fault(29, "503 of a gateway", answer(503, b""), ServerError, Delivery.UNKNOWN, kept=True),
    Fault(30, "500 of the service", answer(500, OWN_ERROR), ServerError, Delivery.REJECTED, kept=True),
    Fault(30, "500 of a gateway", answer(500, b"<html>oops"), ServerError, Delivery.UNKNOWN, kept=True),
    Fault(30, "502", answer(502, OWN_ERROR), ServerError, Delivery.UNKNOWN, kept=True),
    Fault(30, "504", answer(504, b""), ServerError, Delivery.UNKNOWN, kept=True),
    refusal(31, 501, ServerError),
    refusal(31, 505, ServerError),
    refusal(31, 511, ServerError),
    unreadable(35, "20 KB header", answer(headers={"X-Long": "x" * 20_000}), kept=False),
    unreadable(35, "1000 headers", answer(headers={f"X-{i}": "x" for i in range(1000)}), kept=False),
]

# Responses that look like faults and are successes, their id, and whether the connection is kept.
OK = OK_BODY["messageId"]
ODD_SUCCESSES: list[tuple[int, str, Act, str, int]] = [
    (18, "no length, the end is the end", Act(head() + b'{"messageId": "x"}', then="fin", accepted=True), "x", 0),
    (22, "an unknown charset", answer(200, headers={"Content-Type": "application/json; charset=hex"}), OK, 1),
    (22, "text/html around JSON", answer(200, headers={"Content-Type": "text/html"}), OK, 1),
    (23, "a key twice", answer(200, b'{"messageId": "x", "messageId": "y"}'), "y", 1),
    (25, "100 first", Act(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(), accepted=True), OK, 1),
    (25, "103 first", Act(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + reply(), accepted=True), OK, 1),
    (25, "102 first", Act(b"HTTP/1.1 102 Processing\r\n\r\n" * 5 + reply(), accepted=True), OK, 1),
]

# Row 23: documents with the id "x" that not every JSON parser accepts, and the parsers that do.
READERS: dict[str, tuple[bytes, str]] = {
    "NaN": (b'{"messageId": "x", "n": NaN}', "json"),
    "Infinity": (b'{"messageId": "x", "n": Infinity}', "json"),
    "1e999": (b'{"messageId": "x", "n": 1e999}', "json"),
    "5000 digits": (b'{"messageId": "x", "n": %s}' % (b"9" * 5000), ""),
    "half a surrogate pair": (rb'{"messageId": "x", "n": "\ud800"}', "json"),
    "a byte-order mark": (b'\xef\xbb\xbf{"messageId": "x"}', "json"),
    "UTF-16": ('{"messageId": "x"}'.encode("utf-16"), "json"),
    "UTF-32": ('{"messageId": "x"}'.encode("utf-32"), "json"),
}

# Responses that never arrive or never end.
NEVER: list[tuple[int, str, Act]] = [
    (33, "no response", Act(then="hang", accepted=True)),
    (14, "half a head", Act(b"HTTP/1.1 200 OK\r\nContent-", then="hang")),
    (15, "half a body", Act(reply(length=500), then="hang", accepted=True)),
    (32, "a byte every 5 s", Act(reply(), drip=5.0, then="fin", accepted=True)),
    (25, "102 for ever", Act(b"HTTP/1.1 102 Processing\r\n\r\n" * 3, then="hang")),
    (25, "100 for ever", Act(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, then="hang")),
    (18, "a body without length and end", Act(head() + b'{"messageId": "x"}', then="hang", accepted=True)),
]

# Row 29: the wait that a response asks for, and how long the call takes; without a wait, the backoff's.
BACKOFF = (0.25, 0.6)
WAITS: dict[str, tuple[str, tuple[float, float]]] = {
    "0.2": ("0.2", (0.2, 0.6)),
    "2": ("2", (2.0, 2.3)),
    "1.5": ("1.5", (1.5, 1.7)),
    "1e1": ("1e1", (10.0, 11.1)),
    "IMF-fixdate": ("Tue, 13 May 2014 16:53:23 GMT", (3.0, 3.4)),
    "RFC 850": ("Tuesday, 13-May-14 16:53:23 GMT", (3.0, 3.4)),
    "asctime": ("Tue May 13 16:53:23 2014", (3.0, 3.4)),
    "-0000": ("Tue, 13 May 2014 16:53:23 -0000", (3.0, 3.4)),
    "a date in the past": ("Tue, 13 May 2014 16:53:17 GMT", BACKOFF),
    **{
        value or "empty": (value, BACKOFF)
        for value in ("0", "-1", "+5", "1_000", "\u0663", "inf", "nan", "1" + "0" * 400, "", "soon")
    },
}
