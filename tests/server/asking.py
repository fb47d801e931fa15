"""An aiohttp server with our connections, in the test's own process, and clients that are processes."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web

from browserkeeper.server.connections import Connection, Connections
from browserkeeper.server.listening import Address, Listening, open_all
from tests.support.waiting import SECONDS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLIENT = """
import os, socket, sys
def connect(where):
    one = socket.socket(socket.AF_UNIX if "/" in where else socket.AF_INET)
    one.connect(where if "/" in where else ("127.0.0.1", int(where)))
    return one
def ask(one, path="/", more=""):
    one.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n{more}\\r\\n".encode())
    answer = b""
    while b"\\r\\n\\r\\n" not in answer:
        answer += one.recv(65536)
    return answer
where = sys.argv[1]
def tell(what):
    print(what, flush=True)
    sys.stdin.readline()
"""
"""What the scripts of clients begin with.  ``tell`` says something to the test, and waits for a line."""


class Running:
    """The server of one test: ``connections``, and the connection of the last request."""

    def __init__(self, listening: Listening, connections: Connections):
        self.listening, self.connections = listening, connections
        self.last: Connection | None = None

    @property
    def where(self) -> str:
        """For :data:`CLIENT`: the path of the socket, or the port."""
        name = self.listening.sockets[0].getsockname()
        return str(name if isinstance(name, str) else name[1])


@contextlib.asynccontextmanager
async def serving(
    address: str, handler: Handler | None = None, connections: Connections | None = None
) -> AsyncIterator[Running]:
    """``handler`` gets each request; the default answers at once."""
    connections = Connections() if connections is None else connections  # an empty one is false
    listening = open_all([Address.parse(address)], has_token=True)
    running = Running(listening, connections)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        fd = request.transport.get_extra_info("socket").fileno()
        running.last = connections.find(fd)
        assert running.last is not None
        running.last.begin_request()
        try:
            return await (handler(request) if handler else _answer(request))  # type: ignore[arg-type]
        finally:
            running.last.end_request()

    for one in listening.sockets:
        one.connections = connections
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    for one in listening.sockets:
        await web.SockSite(runner, one).start()
    try:
        yield running
    finally:
        await runner.cleanup()
        listening.close()


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="ok")


class ClientProcess:
    """A process that runs :data:`CLIENT` and then the script."""

    def __init__(self, where: str, script: str, *command: str):
        pipe = subprocess.PIPE
        words = [*command, sys.executable, "-c", CLIENT + script, where]
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
        self.pid = self.process.pid

    async def said(self) -> str:
        assert self.process.stdout
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), SECONDS)
        return line.strip()

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> bool:
    """As ``wait_until``, without blocking the event loop."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        if loop.time() > end:
            return False
        await asyncio.sleep(0.005)
    return True


def unix_address(tmp_path: Path) -> str:
    return f"unix:{tmp_path / 's'}"
