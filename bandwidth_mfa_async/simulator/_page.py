"""The inbox page: its files, read once from the package, and the stream of events that keeps it live."""

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
# Whatever stands in a message: no script but ours runs, nothing leaves for elsewhere, and no site can frame the page.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# A page that takes nothing for this long is gone, or will reload when it comes back.
_STUCK_SECONDS: Final = 30.0


def page_handlers(feed: EventBroadcaster, clock: Clock) -> dict[str, Mapping[str, Handler]]:
    """Return the handlers of the page, its files and its events, by path and method.

    Args:
        feed: what pages are told.
        clock: what heartbeats and stuck readers are measured on.
    """
    handlers: dict[str, Mapping[str, Handler]] = {path: {"GET": partial(_file, *_FILES[path])} for path in _FILES}
    handlers["/_simulator/events"] = {"GET": partial(_events, feed, clock)}
    return handlers


async def _file(name: str, content_type: str, _request: web.BaseRequest) -> web.Response:
    # In a thread, because the first call reads files, which would hold up the loop.
    body = (await asyncio.to_thread(_read_files))[name]
    return web.Response(body=body, headers={"Content-Type": content_type, **_HEADERS})


@cache
def _read_files() -> dict[str, bytes]:
    folder = resources.files(__name__.rpartition(".")[0]) / "page"
    return {name: (folder / name).read_bytes() for name, _ in _FILES.values()}


async def _events(feed: EventBroadcaster, clock: Clock, request: web.BaseRequest) -> web.StreamResponse:
    """Stream what happens from now on, until the page goes or the simulator stops."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **_HEADERS})
    if request.method == "HEAD":
        return response
    subscription = feed.subscribe()
    try:
        await response.prepare(request)
        told: bytes | None = b"retry: 1000\n\n"
        while told is not None:
            stuck = clock.call_at(clock.monotonic() + _STUCK_SECONDS, partial(_cut, request))
            try:
                await response.write(told)
            finally:
                stuck.cancel()
            told = await subscription.take(clock)
        await response.write_eof()
    except ConnectionError:
        pass  # the page has gone
    finally:
        feed.unsubscribe(subscription)
    return response


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
