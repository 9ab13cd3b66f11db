"""The inbox page: its files and the stream of events that updates it."""

from __future__ import annotations

import asyncio
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from bandwidth_mfa_async._clock import Clock

    from ._event_broadcaster import EventBroadcaster

    Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

PAGE_PATH: Final = "/"
_FILES: Final = {
    PAGE_PATH: ("index.html", "text/html; charset=utf-8"),
    "/_simulator/page/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/_simulator/page/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("inbox", "entries", "controls", "dom")
    },
}
# Only our scripts run, whatever a message contains; no data leaves for other hosts, and no site can frame the page.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Seconds after which the connection of a page that does not read is closed. A page that comes back reloads.
_WRITE_TIMEOUT: Final = 30.0


def page_handlers(broadcaster: EventBroadcaster, clock: Clock) -> dict[str, Mapping[str, Handler]]:
    """Return the handlers of the page, its files and its events, by path and method.

    Args:
        broadcaster: the source of the events.
        clock: measures heartbeats and write timeouts.
    """
    handlers: dict[str, Mapping[str, Handler]] = {path: {"GET": partial(_serve_file, *_FILES[path])} for path in _FILES}
    handlers["/_simulator/events"] = {"GET": partial(_stream_events, broadcaster, clock)}
    return handlers


async def _serve_file(name: str, content_type: str, _request: web.BaseRequest) -> web.Response:
    # In a thread, because the first call reads files.
    body = (await asyncio.to_thread(_read_files))[name]
    return web.Response(body=body, headers={"Content-Type": content_type, **_HEADERS})


@cache
def _read_files() -> dict[str, bytes]:
    folder = resources.files(__name__.rpartition(".")[0]) / "page"
    return {name: (folder / name).read_bytes() for name, _ in _FILES.values()}


async def _stream_events(broadcaster: EventBroadcaster, clock: Clock, request: web.BaseRequest) -> web.StreamResponse:
    """Stream events until the page disconnects or the simulator stops."""
    # nginx and some other proxies would hold the events back.
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", **_HEADERS}
    response = web.StreamResponse(headers=headers)
    if request.method == "HEAD":
        return response
    subscription = broadcaster.subscribe()
    try:
        await response.prepare(request)
        chunk: bytes | None = b"retry: 1000\n\n"
        while chunk is not None:
            timer = clock.call_at(clock.monotonic() + _WRITE_TIMEOUT, partial(_abort, request))
            try:
                await response.write(chunk)
            finally:
                timer.cancel()
            chunk = await subscription.take(clock)
        await response.write_eof()
    except ConnectionError:
        pass  # the page disconnected
    finally:
        broadcaster.unsubscribe(subscription)
    return response


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
