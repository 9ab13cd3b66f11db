"""A small web application with sign-in by code, as users of this library build it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from aiohttp import web

from bandwidth_mfa_async import CodeTemplate, InvalidRequestError, MFAClient, VerificationLockedError, normalize_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

LOGIN: Final = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
MFA: Final = web.AppKey("mfa", MFAClient)

PAGE: Final = """<!doctype html><html lang="en"><title>Sign in</title>
<h1>{title}</h1><p role="status">{text}</p>{form}"""
ASK_NUMBER: Final = """<form method="post" action="/send">
<label>Phone number <input name="to" type="tel" autocomplete="tel"></label><button>Send me a code</button></form>"""
ASK_CODE: Final = """<form method="post" action="/enter"><input name="to" type="hidden" value="{to}">
<label>Code <input name="code" inputmode="numeric" autocomplete="one-time-code"></label>
<button>Sign in</button></form>"""


def show(title: str, text: str = "", form: str = "", status: int = 200) -> web.Response:
    body = PAGE.format(title=title, text=text, form=form)
    return web.Response(text=body, content_type="text/html", status=status)


async def start(_request: web.Request) -> web.Response:
    return show("Sign in", form=ASK_NUMBER)


async def send(request: web.Request) -> web.Response:
    to = str((await request.post()).get("to", ""))
    try:
        await request.app[MFA].generate_messaging_code(LOGIN.to(to))
    except InvalidRequestError:
        return show("Sign in", "That is not a phone number.", ASK_NUMBER, 400)
    return show("Enter your code", "A code is on its way.", ASK_CODE.format(to=escape(to)))


async def enter(request: web.Request) -> web.Response:
    form = await request.post()
    to, code = str(form.get("to", "")), str(form.get("code", ""))
    form_again = ASK_CODE.format(to=escape(to))
    try:
        check = await request.app[MFA].verify_code(to=to, code=normalize_code(code), scope="login")
    except InvalidRequestError:
        return show("Enter your code", "A code has 4 to 8 digits.", form_again, 400)
    except VerificationLockedError:
        return show("Too many tries", "Wait two minutes.", status=429)
    if not check.valid:
        return show("Enter your code", "That code is not right.", form_again, 403)
    return show("Welcome", f"You are in, {escape(to)}.")


def make_app(**client: Any) -> web.Application:
    """Return the application; `client` are the arguments of `MFAClient`."""

    async def with_client(app: web.Application) -> AsyncIterator[None]:
        async with MFAClient(**client) as app[MFA]:
            yield

    app = web.Application()
    app.cleanup_ctx.append(with_client)
    app.add_routes([web.get("/", start), web.post("/send", send), web.post("/enter", enter)])
    return app
