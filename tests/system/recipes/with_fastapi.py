import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

from bandwidth_mfa_async import CodeTemplate, MFAClient, errors, normalize_code

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with MFAClient.from_env() as app.state.mfa:  # one for the app; leaving it waits for calls in flight
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/code")
async def send_code(number: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    await app.state.mfa.generate_messaging_code(login.to(number), timeout=10)
    return {"status": "sent"}


@app.post("/check")
async def check_code(number: Annotated[str, Body()], code: Annotated[str, Body()]) -> dict[str, bool]:
    check = await app.state.mfa.verify_code(to=number, code=normalize_code(code), scope="login", timeout=10)
    return {"valid": check.valid}  # not: if await mfa.verify_code(...)


@app.exception_handler(errors.InvalidRequestError)
@app.exception_handler(errors.RequestError)
async def failed(_: Request, error: errors.InvalidRequestError | errors.RequestError) -> JSONResponse:
    if isinstance(error, errors.InvalidRequestError):
        return JSONResponse({"error": str(error)}, 400)  # names the field and the rule, never the value
    wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
    if isinstance(error, errors.VerificationLockedError):
        return JSONResponse({"error": "too many wrong codes"}, 429, wait)
    if error.delivery is errors.Delivery.UNKNOWN and error.operation != "verify_code":
        return JSONResponse({"status": "perhaps sent; wait a moment before asking again"}, 202, wait)
    return JSONResponse({"error": "not possible at the moment"}, 503, wait)
