import math
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from signin_pages import TEMPLATES
from starlette.middleware.sessions import SessionMiddleware

from bandwidth_mfa_async import CodeTemplate, GuardRefusedError, MFAClient, RequestError, VerificationLockedError
from bandwidth_mfa_async.signin import Guard, SignIns

COOKIE = "__Host-signin"
sender, application = "+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2"
login = CodeTemplate(sender, application, scope="login")
calls = CodeTemplate(sender, os.environ.get("BW_VOICE_APPLICATION_ID", application), scope="login")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with MFAClient.from_env() as mfa:  # with the store of BW_STORE_URL
        app.state.signins = SignIns(mfa, login, voice_template=calls, guard=Guard(regions={"US", "CA"}))
        yield


app = FastAPI(lifespan=lifespan)
session = {"session_cookie": "__Host-session", "https_only": True, "same_site": "lax"}
app.add_middleware(SessionMiddleware, secret_key=os.environ["SESSION_SECRET"], **session)  # type: ignore[arg-type]


@app.middleware("http")
async def no_cross_site_posts(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    site = request.headers.get("sec-fetch-site")
    own = request.headers.get("origin") == str(request.base_url).rstrip("/") if site is None else site == "same-origin"
    return await call_next(request) if request.method in {"GET", "HEAD"} or own else Response(status_code=403)


def page(name: str, status: int = 200, headers: dict[str, str] | None = None, **values: Any) -> HTMLResponse:
    return HTMLResponse(
        TEMPLATES.get_template(name).render(values), status, {"Cache-Control": "no-store"} | (headers or {})
    )


def to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303)


@app.get("/")
async def entry(again: str = "") -> Response:
    error = {"": "", "used": "This code has been used."}.get(again, "Please start again.")
    return page("number", key=secrets.token_urlsafe(), error=error)


@app.post("/start")
async def start(request: Request, number: Annotated[str, Form()], key: Annotated[str, Form()]) -> Response:
    visitor = request.client.host if request.client else None  # behind a proxy: uvicorn --forwarded-allow-ips
    flow = await app.state.signins.start(number, region="US", visitor=visitor, idempotency_key=key)
    response = to("/code")
    response.set_cookie(COOKIE, flow.id, max_age=900, secure=True, httponly=True, samesite="lax")
    return response


@app.get("/code")
async def code_page(request: Request) -> Response:
    flow = await app.state.signins.get(request.cookies.get(COOKIE))
    return page("code", flow=flow) if flow and flow.expires_in else to("/?again=expired")


@app.post("/code")
async def check(request: Request, code: Annotated[str, Form()] = "") -> Response:
    flow_id = request.cookies.get(COOKIE)
    result = await app.state.signins.check(flow_id, code)
    if result.valid:
        request.session.clear()  # a new session: one from before the sign-in must not be signed in
        request.session["number"] = result.number
        response = to("/welcome")
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
        return response
    flow = await app.state.signins.get(flow_id)
    if result.reason in {"used", "expired", "exhausted"} or not result.checks_left or flow is None:
        return to(f"/?again={result.reason}")
    error = "That is not the code." if result.reason == "wrong" else "A code has six digits."
    return page("code", 422, flow=flow, error=f"{error} Tries left: {result.checks_left}")


@app.post("/resend")
@app.post("/call")
async def again(request: Request) -> Response:
    signins: SignIns = app.state.signins
    await (signins.call if request.url.path == "/call" else signins.resend)(request.cookies.get(COOKIE))
    return to("/code")


@app.get("/welcome")
async def welcome(request: Request) -> Response:
    return page("message", heading="You are signed in", back="/welcome") if "number" in request.session else to("/")


@app.exception_handler(RequestError)
async def failed(request: Request, error: RequestError) -> Response:
    if isinstance(error, GuardRefusedError) and error.reason == "expired":
        return to("/?again=expired")
    wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
    when = f"Please try again in {wait['Retry-After']} seconds." if wait else "Please try again later."
    limited = isinstance(error, (GuardRefusedError, VerificationLockedError))
    back = "/" if request.url.path == "/start" else "/code"
    heading = "Not now" if limited else "Not possible at the moment"
    return page("message", 429 if limited else 503, wait, heading=heading, error=when, back=back)
