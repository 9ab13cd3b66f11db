import math
import os
import secrets
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.typedefs import Handler
from itsdangerous import BadSignature, URLSafeTimedSerializer
from signin_pages import TEMPLATES

from bandwidth_mfa_async import CodeTemplate, GuardRefusedError, MFAClient, RequestError, VerificationLockedError
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.stores import RedisStore

login = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
FLOW, SESSION = "__Host-signin", "__Host-session"
SIGNINS = web.AppKey("SIGNINS", SignIns)
SIGNER = URLSafeTimedSerializer(os.environ["SESSION_SECRET"])
COOKIE = {"secure": True, "httponly": True, "samesite": "Lax", "path": "/"}
routes = web.RouteTableDef()


async def signins(app: web.Application) -> AsyncIterator[None]:
    async with RedisStore(os.environ["BW_STORE_URL"]) as store, MFAClient.from_env() as mfa:  # reads BW_STORE_SECRET
        app[SIGNINS] = SignIns(mfa, login, guard=Guard(regions={"US", "CA"}), store=store)
        yield


def page(name: str, status: int = 200, headers: dict[str, str] | None = None, **values: Any) -> web.Response:
    text = TEMPLATES.get_template(name).render(values)
    headers = {"Cache-Control": "no-store"} | (headers or {})
    return web.Response(text=text, status=status, headers=headers, content_type="text/html")


def to(path: str) -> NoReturn:
    raise web.HTTPSeeOther(path)


@web.middleware
async def no_cross_site_posts(request: web.Request, handler: Handler) -> web.StreamResponse:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    own = origin == f"{request.scheme}://{request.host}" if site is None else site == "same-origin"
    if request.method == "POST" and not own:
        raise web.HTTPForbidden
    return await handler(request)


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        if isinstance(error, GuardRefusedError) and error.reason == "expired":
            to("/?again=expired")
        wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
        when = f"Please try again in {wait['Retry-After']} seconds." if wait else "Please try again later."
        limited = isinstance(error, (GuardRefusedError, VerificationLockedError))
        heading = "Not now" if limited else "Not possible at the moment"
        back = "/" if request.path == "/start" else "/code"
        return page("message", 429 if limited else 503, wait, heading=heading, error=when, back=back)


@routes.get("/")
async def entry(request: web.Request) -> web.Response:
    again = request.query.get("again", "")
    error = {"": "", "used": "This code has been used."}.get(again, "Please start again.")
    return page("number", key=secrets.token_urlsafe(), error=error)


@routes.post("/start")
async def start(request: web.Request) -> web.Response:
    form = await request.post()
    number, key = str(form.get("number", "")), str(form.get("key", ""))
    # request.remote is the proxy's address behind a proxy: see aiohttp-remotes.
    flow = await request.app[SIGNINS].start(number, region="US", visitor=request.remote, idempotency_key=key)
    response = web.Response(status=303, headers={"Location": "/code"})
    response.set_cookie(FLOW, flow.id, max_age=900, **COOKIE)  # type: ignore[arg-type]
    return response


@routes.get("/code")
async def code_page(request: web.Request) -> web.Response:
    flow = await request.app[SIGNINS].get(request.cookies.get(FLOW))
    return page("code", flow=flow) if flow and flow.expires_in else to("/?again=expired")


@routes.post("/code")
async def check(request: web.Request) -> web.Response:
    flow_id = request.cookies.get(FLOW)
    result = await request.app[SIGNINS].check(flow_id, str((await request.post()).get("code", "")))
    if result.valid:
        response = web.Response(status=303, headers={"Location": "/welcome"})
        # A new session: its value is signed and names the person.
        response.set_cookie(SESSION, SIGNER.dumps(result.number), **COOKIE)  # type: ignore[arg-type]
        response.del_cookie(FLOW, **COOKIE)  # type: ignore[arg-type]
        return response
    flow = await request.app[SIGNINS].get(flow_id)
    if result.reason in {"used", "expired", "exhausted"} or not result.checks_left or flow is None:
        to(f"/?again={result.reason}")
    error = "That is not the code." if result.reason == "wrong" else "A code has six digits."
    return page("code", 422, flow=flow, error=f"{error} Tries left: {result.checks_left}")


@routes.post("/resend")
async def again(request: web.Request) -> web.Response:
    await request.app[SIGNINS].resend(request.cookies.get(FLOW))
    to("/code")


@routes.get("/welcome")
async def welcome(request: web.Request) -> web.Response:
    try:
        SIGNER.loads(request.cookies.get(SESSION, ""), max_age=86_400)
    except BadSignature:
        to("/")
    return page("message", heading="You are signed in", back="/welcome")


app = web.Application(middlewares=[no_cross_site_posts, failures])
app.add_routes(routes)
app.cleanup_ctx.append(signins)
