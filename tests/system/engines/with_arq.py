import logging
import os
from typing import Any

from arq import Retry
from arq.connections import RedisSettings

from bandwidth_mfa_async import CodeTemplate, MFAClient, RequestError

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


async def send_code(ctx: dict[str, Any], number: str, attempt_id: str, not_after: float) -> str:
    try:
        sent = await ctx["mfa"].generate_messaging_code(
            login.to(number), idempotency_key=f"login:{attempt_id}", not_after=not_after
        )
    except RequestError as error:
        if error.retryable:
            raise Retry(error.retry_after or 5) from None
        raise
    return str(sent.message_id)


async def open_client(ctx: dict[str, Any]) -> None:
    logging.getLogger("arq.worker").setLevel(logging.WARNING)  # at INFO it logs the arguments, with the number
    ctx["mfa"] = MFAClient.from_env()  # its store: BW_STORE_URL


async def close_client(ctx: dict[str, Any]) -> None:
    await ctx["mfa"].aclose()


class WorkerSettings:
    functions = (send_code,)
    on_startup = open_client
    on_shutdown = close_client
    redis_settings = RedisSettings.from_dsn(os.environ["QUEUE_URL"])
    job_timeout = 20  # longer than the client's own timeout; a job of a dead worker starts again 10 s after it
    max_tries = 5
