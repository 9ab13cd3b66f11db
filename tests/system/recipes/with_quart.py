import math
from collections.abc import AsyncGenerator

from quart import Quart, ResponseReturnValue, current_app, request

from bandwidth_mfa_async import (
    CodeTemplate,
    Delivery,
    InvalidRequestError,
    MFAClient,
    RequestError,
    VerificationLockedError,
    normalize_code,
)

app = Quart(__name__)
login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


@app.while_serving
async def client() -> AsyncGenerator[None, None]:
    async with MFAClient.from_env() as app.extensions["mfa"]:  # one for the app; leaving it waits for calls in flight
        yield


def mfa() -> MFAClient:
    made: MFAClient = current_app.extensions["mfa"]
    return made


@app.post("/code")
async def send_code() -> ResponseReturnValue:
    form = await request.get_json()
    await mfa().generate_messaging_code(login.to(form["number"]), timeout=10)
    return {"status": "sent"}


@app.post("/check")
async def check_code() -> ResponseReturnValue:
    form = await request.get_json()
    check = await mfa().verify_code(to=form["number"], code=normalize_code(form["code"]), scope="login", timeout=10)
    return {"valid": check.valid}  # not: if await mfa.verify_code(...)


@app.errorhandler(InvalidRequestError)
async def invalid(error: InvalidRequestError) -> ResponseReturnValue:
    return {"error": str(error)}, 400


@app.errorhandler(RequestError)
async def failed(error: RequestError) -> ResponseReturnValue:
    wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
    if isinstance(error, VerificationLockedError):
        return {"error": "too many wrong codes"}, 429, wait
    if error.delivery is Delivery.UNKNOWN and error.operation != "verify_code":
        return {"status": "perhaps sent; wait a moment before asking again"}, 202, wait
    return {"error": "not possible at the moment"}, 503, wait
