import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bandwidth_mfa_async import (
    CodeTemplate,
    Delivery,
    InvalidRequestError,
    MFAClient,
    RequestError,
    VerificationLockedError,
    normalize_code,
)

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


class State(TypedDict):
    mfa: MFAClient


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    async with MFAClient.from_env() as mfa:  # one for the app; leaving it waits for calls in flight
        yield {"mfa": mfa}


async def send_code(request: Request) -> JSONResponse:
    form = await request.json()
    await request.state.mfa.generate_messaging_code(login.to(form["number"]), timeout=10)
    return JSONResponse({"status": "sent"})


async def check_code(request: Request) -> JSONResponse:
    form = await request.json()
    code = normalize_code(form["code"])
    check = await request.state.mfa.verify_code(to=form["number"], code=code, scope="login", timeout=10)
    return JSONResponse({"valid": check.valid})  # not: if await mfa.verify_code(...)


async def invalid(_: Request, error: InvalidRequestError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 400)


async def failed(_: Request, error: RequestError) -> JSONResponse:
    wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
    if isinstance(error, VerificationLockedError):
        return JSONResponse({"error": "too many wrong codes"}, 429, wait)
    if error.delivery is Delivery.UNKNOWN and error.operation != "verify_code":
        return JSONResponse({"status": "perhaps sent; wait a moment before asking again"}, 202, wait)
    return JSONResponse({"error": "not possible at the moment"}, 503, wait)


app = Starlette(
    routes=[Route("/code", send_code, methods=["POST"]), Route("/check", check_code, methods=["POST"])],
    exception_handlers={InvalidRequestError: invalid, RequestError: failed},
    lifespan=lifespan,
)
