"""What the server adds to a command: the same command through it, and to a chromedriver directly.

    python -m benchmarks.server_overhead [ROUNDS]

Both are asked in turn by the same kind of connection, since the load of the machine changes while this
runs.  Prints the medians and the fastest tenths in milliseconds, the overhead, and the processor time
of the server's process for one command.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import psutil

from browserkeeper import browser
from browserkeeper.server.settings import ServerSettings

ROUNDS = 1000


def serve(pipe: Connection) -> None:
    """A server, in a process of its own, until the pipe is closed."""
    import asyncio
    import socket

    from aiohttp import web

    from browserkeeper.server.app import SERVER, create_app
    from browserkeeper.server.connections import Listener
    from browserkeeper.server.gatekeeper import Gatekeeper
    from browserkeeper.server.service import make_runner

    async def run() -> None:
        app = create_app(ServerSettings(max_browsers=1))
        Gatekeeper(None, app[SERVER]).add_to(app)
        runner = make_runner(app, last_answers=1)
        await runner.setup()
        listener = Listener(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.connections = app[SERVER].connections
        await web.SockSite(runner, listener).start()
        pipe.send(listener.getsockname()[1])
        try:
            await asyncio.to_thread(pipe.recv)
        except EOFError:
            pass
        await runner.cleanup()

    asyncio.run(run())


def asker(port: int, path: str) -> Callable[[], float]:
    """A function that asks for the title once, and returns the seconds until the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> float:
        began = time.perf_counter()
        connection.request("GET", f"{path}/title")
        answer = json.loads(connection.getresponse().read())
        took = time.perf_counter() - began
        assert answer == {"value": "page"}, answer
        return took

    return ask


def post(port: int, path: str, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, json.dumps(body))
    return json.loads(connection.getresponse().read())["value"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()
    port = ours.recv()
    page = {"url": "data:text/html,<title>page</title>"}
    with browser() as driver:
        driver.get(page["url"])
        direct = urlsplit(driver.command_executor.client_config.remote_server_addr)  # type: ignore[union-attr]
        assert direct.port is not None
        plain = asker(direct.port, f"/session/{driver.session_id}")
        session = f"/session/{post(port, '/session', {'capabilities': {}})['sessionId']}"
        post(port, f"{session}/url", page)
        served = asker(port, session)
        for _ in range(50):
            plain(), served()
        server = psutil.Process(process.pid)
        before = sum(server.cpu_times()[:2])
        times = [(plain(), served()) for _ in range(rounds)]
        processor = sum(server.cpu_times()[:2]) - before
    ours.close()
    process.join()
    found = {"direct": [one for one, _ in times], "served": [one for _, one in times]}
    for name, seconds in found.items():
        fastest = sorted(seconds)[: max(1, rounds // 10)]
        print(
            f"{name}: median {1000 * statistics.median(seconds):.2f} ms, "
            f"fastest tenth {1000 * statistics.median(fastest):.2f} ms"
        )
    difference = statistics.median(found["served"]) - statistics.median(found["direct"])
    print(f"overhead: median {1000 * difference:.2f} ms")
    print(f"processor time of the server: {1000 * processor / rounds:.2f} ms for each command")


if __name__ == "__main__":
    main()
