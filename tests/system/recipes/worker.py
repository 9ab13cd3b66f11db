import asyncio
import signal
import sys

from bandwidth_mfa_async import CodeTemplate, MFAClient, MFAError

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


async def take(queue: asyncio.Queue[str], stop: asyncio.Event) -> None:
    """Queue work; here, one number per line of standard input."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        await asyncio.shield(queue.put(line.decode().strip()))  # shielded: a stop must not lose a number
    stop.set()


async def work(queue: asyncio.Queue[str], mfa: MFAClient) -> None:
    while True:
        number = await queue.get()
        try:
            sent = await mfa.generate_messaging_code(login.to(number))
            print("accepted", sent.message_id)
        except MFAError as error:
            print("not accepted:", error)  # never shows the number
        finally:
            queue.task_done()


async def main() -> None:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=100)  # bounded, for backpressure
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with MFAClient.from_env() as mfa, asyncio.TaskGroup() as group:
        workers = [group.create_task(work(queue, mfa)) for _ in range(10)]
        taking = group.create_task(take(queue, stop))
        await stop.wait()
        taking.cancel()
        await queue.join()  # finish the queued work
        for worker in workers:
            worker.cancel()


if __name__ == "__main__":
    asyncio.run(main())
