"""A web site of somebody else, whose script tries to read the simulator's codes and to change its state."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

_ATTACK = """async (target) => {
  const got = [];
  const url = (path) => `${target}_simulator/${path}`;
  const note = (way, value) => { if (value) got.push(`${way}: ${String(value).slice(0, 80)}`); };
  for (const path of ["messages", "requests", "limits", "faults", "openapi.json", "page/inbox.js"]) {
    for (const options of [{}, {credentials: "include"}, {mode: "no-cors", credentials: "include"}]) {
      const answer = await fetch(url(path), options).catch(() => null);
      note(`read ${path}`, await answer?.text());
    }
  }
  const fault = JSON.stringify({script: [{status: 500}]});
  const writes = [["DELETE", "messages"], ["DELETE", "requests"], ["DELETE", "faults"], ["POST", "faults", fault],
    ["PUT", "limits", '{"messaging": {"rate": 1}}'], ["POST", "receipts", '{"messageId": "x"}']];
  for (const [method, path, body] of writes) {
    for (const type of ["application/json", "text/plain"]) {
      for (const mode of ["cors", "no-cors"]) {
        await fetch(url(path), {method, mode, body, credentials: "include", headers: {"Content-Type": type}})
          .then((answer) => answer.text()).then((text) => note(`wrote ${path}`, text), () => {});
      }
    }
  }
  await new Promise((done) => {
    const events = new EventSource(url("events"), {withCredentials: true});
    events.onmessage = events.onopen = (event) => { note("events", event.type); done(); };
    events.onerror = done;
    setTimeout(done, 2000);
  });
  for (const tag of ["iframe", "img", "script", "object"]) {
    await new Promise((done) => {
      const element = document.createElement(tag);
      element[tag === "object" ? "data" : "src"] = target;
      element.onload = () => { try { note(tag, element.contentDocument?.body.textContent); } catch {} done(); };
      element.onerror = done;
      setTimeout(done, 2000);
      document.body.append(element);
    });
  }
  const form = Object.assign(document.createElement("form"),
    {method: "post", enctype: "text/plain", action: url("faults"), target: "frame"});
  form.append(Object.assign(document.createElement("input"), {name: fault.slice(0, -1) + ', "x": "', value: '"}'}));
  const frame = Object.assign(document.createElement("iframe"), {name: "frame"});
  document.body.append(frame, form);
  form.submit();
  await new Promise((done) => { frame.onload = done; setTimeout(done, 2000); });
  const opened = window.open(target);
  await new Promise((done) => setTimeout(done, 500));
  try { note("window", opened?.document.body.textContent); } catch {}
  opened?.close();
  return got;
}"""


@contextlib.asynccontextmanager
async def foreign_site(host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve an empty page on another origin, and yield its address."""

    async def serve(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="<!doctype html><title>x</title><body></body>", content_type="text/html")

    runner = web.ServerRunner(web.Server(serve), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def attack(page: Page, site: str, target: str) -> list[str]:
    """Open the foreign site and let its script attack; return what it could read.

    Args:
        page: a page of the browser whose user has the simulator's page open too.
        site: the address of the foreign site.
        target: the address of the simulator's page, with a slash at its end.
    """
    await page.goto(site)
    got: list[Any] = await page.evaluate(_ATTACK, target)
    return [str(each) for each in got]
