import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from faststream import AckPolicy, Context, ContextRepo, FastStream
from faststream.redis import RedisBroker, StreamSub

from bandwidth_mfa_async import CodeTemplate, MFAClient, RequestError

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
broker = RedisBroker(os.environ["QUEUE_URL"])
worker = uuid.uuid4().hex
IDLE = 30_000  # ms after which another worker takes over a message that was not acknowledged


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
    async with MFAClient.from_env() as mfa:  # its store: BW_STORE_URL
        context.set_global("mfa", mfa)
        yield


app = FastStream(broker, lifespan=lifespan)


# Both with one function: the first reads new messages, the second those that others did not acknowledge.
@broker.subscriber(
    stream=StreamSub("codes", group="senders", consumer=worker), ack_policy=AckPolicy.NACK_ON_ERROR, max_workers=10
)
@broker.subscriber(
    stream=StreamSub("codes", group="senders", consumer=worker, min_idle_time=IDLE), ack_policy=AckPolicy.NACK_ON_ERROR
)
async def send_code(number: str, attempt_id: str, not_after: float, mfa: Annotated[MFAClient, Context()]) -> None:
    try:
        await mfa.generate_messaging_code(login.to(number), idempotency_key=f"login:{attempt_id}", not_after=not_after)
    except RequestError as error:
        if error.retryable:
            raise  # not acknowledged, so it comes again after IDLE
        # Report the error to the sign-in; the message is acknowledged.
