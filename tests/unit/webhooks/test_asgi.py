"""The ASGI application, called by the specification and without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bandwidth_mfa_async.webhooks import receipt_asgi_app
from tests.support.webhooks import DELIVERED, FAILED, ASGIEndpoint, until


async def test_after_a_cancelled_handler_the_next_duplicate_is_handled(callback):
    """Servers cancel handlers at a disconnect or a shutdown; the receipt must not stay in progress forever."""
    callback.gate = asyncio.Event()
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    first = asyncio.create_task(endpoint())
    await until(lambda: callback.got)
    second = asyncio.create_task(endpoint())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    callback.gate.set()
    assert (await second).status == 204
    assert len(callback.got) == 2


async def test_asgi_a_disconnect_gets_no_response(callback):
    """The incomplete body is not handled."""
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert await endpoint.run(messages) == []
    assert callback.got == []


async def test_asgi_a_body_in_several_messages_is_joined(callback):
    """Servers split bodies at any position."""
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    messages = [
        {"type": "http.request", "body": bytes([byte]), "more_body": True} for byte in json.dumps(FAILED).encode()
    ]
    start, _ = await endpoint.run([*messages, {"type": "http.request", "body": b"", "more_body": False}])
    assert start["status"] == 204
    assert callback.got[0].error_code == 4432


@pytest.mark.parametrize("length", [b"x", b"-1", b"\xb2", b"9" * 30, b""])
async def test_asgi_an_invalid_content_length_is_ignored(callback, length):
    """Servers validate it; here only the received bytes count."""
    endpoint = ASGIEndpoint()
    await endpoint.open(callback)
    body = {"type": "http.request", "body": json.dumps(DELIVERED).encode()}
    start, _ = await endpoint.run([body], headers=[(b"content-length", length)])
    assert start["status"] == 204


async def test_asgi_other_scopes(callback):
    """Lifespan events are confirmed, a web socket is closed, any other scope is an error."""
    app = receipt_asgi_app(callback)
    sent: list[Any] = []

    async def send(message):
        sent.append(message["type"])

    def receiver(*types):
        waiting = [{"type": kind} for kind in types]

        async def receive():
            return waiting.pop(0)

        return receive

    await app({"type": "lifespan"}, receiver("lifespan.startup", "lifespan.shutdown"), send)
    await app({"type": "websocket"}, receiver("websocket.connect"), send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
    with pytest.raises(ValueError, match="http, not smtp"):
        await app({"type": "smtp"}, receiver(), send)
