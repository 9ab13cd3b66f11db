import logging
import os
from typing import Any

from saq import Queue

from bandwidth_mfa_async import CodeTemplate, MFAClient, RequestError

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
log = logging.getLogger("codes")


async def send_code(ctx: dict[str, Any], *, number: str, attempt_id: str, not_after: float) -> str:
    try:
        sent = await ctx["mfa"].generate_messaging_code(
            login.to(number), idempotency_key=f"login:{attempt_id}", not_after=not_after
        )
    except RequestError as error:
        log.warning("%s", error)  # names no number
        ctx["job"].retry_delay = error.retry_after or 5
        ctx["job"].retries = 5 if error.retryable else 0
        raise
    return str(sent.message_id)


async def open_client(ctx: dict[str, Any]) -> None:
    logging.getLogger("saq").setLevel(logging.CRITICAL)  # at ERROR it logs the arguments, with the number
    ctx["mfa"] = MFAClient.from_env()  # its store: BW_STORE_URL


async def close_client(ctx: dict[str, Any]) -> None:
    await ctx["mfa"].aclose()


# Enqueue with queue.enqueue("send_code", number=..., attempt_id=..., not_after=..., timeout=20, retries=5): a job of a
# dead worker starts again when its timeout is over.
queue = Queue.from_url(os.environ["QUEUE_URL"])
settings = {
    "queue": queue,
    "functions": [send_code],
    "startup": open_client,
    "shutdown": close_client,
    "timers": {"sweep": 5},
}
