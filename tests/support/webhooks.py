"""Delivery receipts, an ASGI server and a callback, for the tests of the webhooks."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from bandwidth_mfa_async.webhooks import DeliveryReceipt, parse_delivery_receipt, receipt_asgi_app

ID = "14762070468292kw2fuqty55yp2b2"
# The four examples of https://dev.bandwidth.com/docs/mfa/webhooks, without their trailing commas.
DELIVERED = {
    "type": "message-delivered",
    "time": "2016-09-14T18:20:16Z",
    "description": "ok",
    "platform": "NorthAmericaSMS",
    "message": {"id": ID},
}
FAILED = DELIVERED | {"type": "message-failed", "description": "forbidden to country", "errorCode": 4432}
FAILED_ABROAD = FAILED | {"description": "Undeliverable", "platform": "GlobalSMS", "errorCode": 995}
PRINTED = """{
    "type"          : "message-delivered",
    "time"          : "2016-09-14T18:20:16Z",
    "description"   : "ok",
    "platform"      : "NorthAmericaSMS",
    "message"       : {
        "id"            : "14762070468292kw2fuqty55yp2b2",
    }
}"""


def receipt(message_id: str = ID, **changes: Any) -> DeliveryReceipt:
    return parse_delivery_receipt(DELIVERED | {"message": {"id": message_id}} | changes)


async def until(condition) -> None:
    """Run the event loop until a condition is true; fail after five real seconds."""
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit, "the condition did not become true"
        await asyncio.sleep(0)


class Reply:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class ASGIEndpoint:
    """Calls the application like an ASGI server, by the specification."""

    app: Any = None

    async def open(self, on_receipt: Any, **options: Any) -> None:
        self.app = receipt_asgi_app(on_receipt, **options)

    async def __call__(self, body: Any = DELIVERED, method: str = "POST", **headers: str) -> Reply:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if hasattr(body, "__aiter__"):
            parts = [part async for part in body]
        else:
            parts = [body if isinstance(body, bytes) else json.dumps(body).encode()]
            raw.append((b"content-length", str(len(parts[0])).encode()))
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        sent = await self.run([*messages, {"type": "http.request"}], method, raw)
        start, end = sent
        assert start["type"] == "http.response.start"
        assert end == {"type": "http.response.body", "body": end["body"]}
        names = {name.decode().title(): value.decode() for name, value in start["headers"]}
        names = {name.replace("Www-", "WWW-"): value for name, value in names.items()}
        return Reply(start["status"], names, end["body"])

    async def run(self, messages: list[Any], method: str = "POST", headers: Any = ()) -> list[Any]:
        scope = {"type": "http", "asgi": {"version": "3.0"}, "method": method, "path": "/", "headers": list(headers)}
        waiting, sent = list(messages), []

        async def receive() -> Any:
            await asyncio.sleep(0)
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent


class Callback:
    """Records the receipts; raises the next of `errors` and waits for `gate`, if they are set."""

    def __init__(self) -> None:
        self.got: list[DeliveryReceipt] = []
        self.errors: list[Exception] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, found: DeliveryReceipt) -> None:
        self.got.append(found)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def callback() -> Callback:
    return Callback()
