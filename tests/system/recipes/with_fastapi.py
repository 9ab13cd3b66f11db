import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

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


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with MFAClient.from_env() as app.state.mfa:  # one for the app; leaving it waits for calls in flight
        yield


def client(request: Request) -> MFAClient:
    mfa: MFAClient = request.app.state.mfa
    return mfa


app = FastAPI(lifespan=lifespan)
MFA = Annotated[MFAClient, Depends(client)]


class Ask(BaseModel):
    number: str


class Typed(BaseModel):
    number: str
    code: str


@app.post("/code")
async def send_code(ask: Ask, mfa: MFA) -> dict[str, str]:
    await mfa.generate_messaging_code(login.to(ask.number), timeout=10)
    return {"status": "sent"}


@app.post("/check")
async def check_code(typed: Typed, mfa: MFA) -> dict[str, bool]:
    check = await mfa.verify_code(to=typed.number, code=normalize_code(typed.code), scope="login", timeout=10)
    return {"valid": check.valid}  # not: if await mfa.verify_code(...)


@app.exception_handler(InvalidRequestError)
async def invalid(_: Request, error: InvalidRequestError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 400)


@app.exception_handler(RequestError)
async def failed(_: Request, error: RequestError) -> JSONResponse:
    wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
    if isinstance(error, VerificationLockedError):
        return JSONResponse({"error": "too many wrong codes"}, 429, wait)
    if error.delivery is Delivery.UNKNOWN and error.operation != "verify_code":
        return JSONResponse({"status": "perhaps sent; wait a moment before asking again"}, 202, wait)
    return JSONResponse({"error": "not possible at the moment"}, 503, wait)
