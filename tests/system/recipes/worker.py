import asyncio
import signal
import threading

from bandwidth_mfa_async import CodeTemplate, MFAClient, MFAError

login = CodeTemplate(from_="+19195554321", application_id="93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


def take(queue: asyncio.Queue[str], stop: asyncio.Event) -> None:
    """Queue work in the background; here, one number per line of standard input: a pipe, a file or a terminal."""
    loop = asyncio.get_running_loop()

    async def offer(number: str) -> bool:
        """Queue a number unless the service is stopping, and return whether to read another one."""
        if not stop.is_set():
            await queue.put(number)  # waits while the queue is full
        return not stop.is_set()

    def read() -> None:
        with open(0, closefd=False) as lines:  # a file of the thread's own: sys.stdin is closed at the end
            for line in lines:
                if not asyncio.run_coroutine_threadsafe(offer(line.strip()), loop).result():
                    return
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, daemon=True).start()  # a thread, since asyncio can read only pipes


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
        take(queue, stop)
        await stop.wait()
        await queue.join()  # finish the queued work
        for worker in workers:
            worker.cancel()


if __name__ == "__main__":
    asyncio.run(main())
