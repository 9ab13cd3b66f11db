import functools
import math
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path
from django.views.decorators.http import require_GET, require_POST
from markupsafe import Markup
from signin_pages import TEMPLATES

from bandwidth_mfa_async import CodeTemplate, GuardRefusedError, MFAClient, RequestError, VerificationLockedError
from bandwidth_mfa_async.signin import Guard, SignIns
from bandwidth_mfa_async.stores import RedisStore

# What your settings module has, or must have.
cookies = {f"{kind}_COOKIE_{option}": True for kind in ("SESSION", "CSRF") for option in ("SECURE", "HTTPONLY")}
settings.configure(
    SECRET_KEY=os.environ["SESSION_SECRET"],
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    SESSION_COOKIE_NAME="__Host-session",
    CSRF_COOKIE_NAME="__Host-csrf",
    **cookies,
)

login = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
COOKIE = "__Host-signin"
View = Callable[[HttpRequest], Awaitable[HttpResponse]]


@functools.cache
def signins() -> SignIns:
    """One for the process, made in its event loop. Django does not run ASGI's lifespan, so nothing closes it.

    Under WSGI each async view has an event loop of its own, and a client belongs to one: use ASGI.
    """
    store = RedisStore(os.environ["BW_STORE_URL"])  # reads BW_STORE_SECRET
    return SignIns(MFAClient.from_env(store=store), login, guard=Guard(regions={"US", "CA"}), store=store)


def page(request: HttpRequest, name: str, status: int = 200, **values: Any) -> HttpResponse:
    csrf = Markup('<input type="hidden" name="csrfmiddlewaretoken" value="{}">').format(get_token(request))
    text = TEMPLATES.get_template(name).render(values, csrf=csrf)
    return HttpResponse(text, status=status, headers={"Cache-Control": "no-store"})


def to(path: str) -> HttpResponse:
    return HttpResponseRedirect(path, status=303)


def handles_failures(view: View) -> View:
    async def handled(request: HttpRequest) -> HttpResponse:
        try:
            return await view(request)
        except RequestError as error:
            if isinstance(error, GuardRefusedError) and error.reason == "expired":
                return to("/?again=expired")
            seconds = math.ceil(error.retry_after or 0)
            when = f"Please try again in {seconds} seconds." if seconds else "Please try again later."
            limited = isinstance(error, (GuardRefusedError, VerificationLockedError))
            heading = "Not now" if limited else "Not possible at the moment"
            back = "/" if request.path == "/start" else "/code"
            status = 429 if limited else 503
            response = page(request, "message", status, heading=heading, error=when, back=back)
            if seconds:
                response["Retry-After"] = str(seconds)
            return response

    return handled


@require_GET
async def entry(request: HttpRequest) -> HttpResponse:
    again = request.GET.get("again", "")
    error = {"": "", "used": "This code has been used."}.get(again, "Please start again.")
    return page(request, "number", key=secrets.token_urlsafe(), error=error)


@require_POST
@handles_failures
async def start(request: HttpRequest) -> HttpResponse:
    number, key = request.POST.get("number", ""), request.POST.get("key", "")
    visitor = request.META["REMOTE_ADDR"]  # behind a proxy: uvicorn --forwarded-allow-ips
    flow = await signins().start(number, region="US", visitor=visitor, idempotency_key=key)
    response = to("/code")
    response.set_cookie(COOKIE, flow.id, max_age=900, secure=True, httponly=True, samesite="Lax")
    return response


@handles_failures
async def code(request: HttpRequest) -> HttpResponse:
    flow_id = request.COOKIES.get(COOKIE)
    if request.method != "POST":
        flow = await signins().get(flow_id)
        return page(request, "code", flow=flow) if flow and flow.expires_in else to("/?again=expired")
    result = await signins().check(flow_id, request.POST.get("code", ""))
    if result.valid:
        await request.session.aflush()  # a new session: one from before the sign-in must not be signed in
        await request.session.aset("number", result.number)
        response = to("/welcome")
        response.set_cookie(COOKIE, "", max_age=0, secure=True, httponly=True, samesite="Lax")
        return response
    flow = await signins().get(flow_id)
    if result.reason in {"used", "expired", "exhausted"} or not result.checks_left or flow is None:
        return to(f"/?again={result.reason}")
    error = "That is not the code." if result.reason == "wrong" else "A code has six digits."
    return page(request, "code", 422, flow=flow, error=f"{error} Tries left: {result.checks_left}")


@require_POST
@handles_failures
async def again(request: HttpRequest) -> HttpResponse:
    await signins().resend(request.COOKIES.get(COOKIE))
    return to("/code")


@require_GET
async def welcome(request: HttpRequest) -> HttpResponse:
    if await request.session.aget("number") is None:
        return to("/")
    return page(request, "message", heading="You are signed in", back="/welcome")


urlpatterns = [
    path("", entry),
    path("start", start),
    path("code", code),
    path("resend", again),
    path("welcome", welcome),
]
application = get_asgi_application()
