import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from celery import Celery, Task
from celery.signals import worker_process_init, worker_process_shutdown

from bandwidth_mfa_async import CodeTemplate, MFAClient, RequestError

T = TypeVar("T")
login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
app = Celery("codes", broker=os.environ["QUEUE_URL"], backend=os.environ["QUEUE_URL"])
app.conf.task_acks_late = True  # acknowledge when the task has ended, so that a killed worker loses none
app.conf.task_reject_on_worker_lost = True
app.conf.broker_transport_options = {"visibility_timeout": 60}  # seconds after which a dead worker's task comes again
loop = asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the process's one loop: `asyncio.run` would make a loop and open connections for each task."""
    return asyncio.run_coroutine_threadsafe(work, loop).result()


@functools.cache
def client() -> MFAClient:
    return MFAClient.from_env()  # its store: BW_STORE_URL


@worker_process_init.connect
def start_loop(**_: Any) -> None:
    threading.Thread(target=loop.run_forever, daemon=True).start()  # here, after the fork


@worker_process_shutdown.connect
def close_client(**_: Any) -> None:
    run(client().aclose())


@app.task(bind=True, max_retries=5)
def send_code(self: Task, number: str, attempt_id: str, not_after: float) -> str:
    try:
        key = f"login:{attempt_id}"
        sent = run(client().generate_messaging_code(login.to(number), idempotency_key=key, not_after=not_after))
    except RequestError as error:
        if error.retryable:
            raise self.retry(countdown=error.retry_after or 5) from None
        raise
    return sent.message_id
