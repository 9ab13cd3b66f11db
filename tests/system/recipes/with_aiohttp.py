import math
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from bandwidth_mfa_async import (
    CodeTemplate,
    Delivery,
    InvalidRequestError,
    MFAClient,
    RequestError,
    VerificationLockedError,
    normalize_code,
)

MFA = web.AppKey("mfa", MFAClient)
login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


async def client(app: web.Application) -> AsyncIterator[None]:
    async with MFAClient.from_env() as app[MFA]:  # one for the app; leaving it waits for calls in flight
        yield


async def send_code(request: web.Request) -> web.Response:
    form = await request.json()
    await request.app[MFA].generate_messaging_code(login.to(form["number"]), timeout=10)
    return web.json_response({"status": "sent"})


async def check_code(request: web.Request) -> web.Response:
    form = await request.json()
    code = normalize_code(form["code"])
    check = await request.app[MFA].verify_code(to=form["number"], code=code, scope="login", timeout=10)
    return web.json_response({"valid": check.valid})  # not: if await mfa.verify_code(...)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidRequestError as error:
        return web.json_response({"error": str(error)}, status=400)
    except RequestError as error:
        wait = {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
        if isinstance(error, VerificationLockedError):
            return web.json_response({"error": "too many wrong codes"}, status=429, headers=wait)
        if error.delivery is Delivery.UNKNOWN and error.operation != "verify_code":
            text = "perhaps sent; wait a moment before asking again"
            return web.json_response({"status": text}, status=202, headers=wait)
        return web.json_response({"error": "not possible at the moment"}, status=503, headers=wait)


app = web.Application(middlewares=[errors])
app.cleanup_ctx.append(client)
app.add_routes([web.post("/code", send_code), web.post("/check", check_code)])
