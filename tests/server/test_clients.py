"""Who a client is, and that its death is seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from browserkeeper.server.clients import (
    Client,
    ClientGoneError,
    Clients,
    Lifetime,
    have_pidfds_inodes,
    keeps_its_connection,
    while_connected,
)
from tests.server.asking import ClientProcess, Running, serving, unix_address, until
from tests.support import witness

ASK = "one = connect(where); ask(one); tell('asked')\n"
TCP = "127.0.0.1:0"


@pytest.fixture
def processes() -> Iterator[list[ClientProcess]]:
    mine: list[ClientProcess] = []
    yield mine
    for one in mine:
        one.end()


@contextlib.asynccontextmanager
async def known_clients() -> AsyncIterator[Clients]:
    clients = Clients(asyncio.get_running_loop())
    try:
        yield clients
    finally:
        clients.close()


def client_of(running: Running, clients: Clients) -> Client:
    return clients.of(running.last)


def test_the_death_of_a_client_is_seen_at_once(tmp_path: Path, processes: list[ClientProcess]) -> None:
    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            client = client_of(running, clients)
            assert client.key == ("pid", one.pid)
            assert str(one.pid) in str(client)
            assert client.is_watched
            assert len(clients) == 1
            gone: list[str] = []
            client.on_gone["test"] = lambda: gone.append("gone")
            os.kill(one.pid, signal.SIGSTOP)  # stopped is not dead
            await asyncio.sleep(0.3)
            assert not gone
            os.kill(one.pid, signal.SIGKILL)
            assert await until(lambda: gone)
            assert client.is_gone
            assert len(clients) == 0

    asyncio.run(main())


def test_several_connections_of_one_process_are_one_client(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    script = "a = connect(where); b = connect(where)\nask(a); tell('a')\nask(b); tell('b')\n"

    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            found = []
            for script_of_one in (script, ASK):
                processes.append(one := ClientProcess(running.where, script_of_one))
                await one.said()
                found.append(client_of(running, clients))
                if script_of_one is script:
                    one.go_on()
                    await one.said()
                    found.append(client_of(running, clients))
            assert found[0] is found[1]
            assert found[2].key != found[0].key

    asyncio.run(main())


@pytest.mark.parametrize("heir", ["the child", "the parent"])
def test_a_fork_that_uses_its_parents_connection_is_the_client(
    tmp_path: Path, processes: list[ClientProcess], heir: str
) -> None:
    """The kernel still names the process that had connected, in SO_PEERCRED: the control."""
    script = "one = connect(where); ask(one)\nchild = os.fork()\nif not child: ask(one)\n"
    script += "tell(f'{os.getpid()} {child}') if not child else os.waitpid(child, 0)\n"
    script += "if child: ask(one); tell('parent')\n"

    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, script))
            child = int((await one.said()).split()[0])
            client = client_of(running, clients)
            assert client.key == ("pid", child)
            assert child != one.pid
            os.kill(child, signal.SIGKILL)
            assert await until(lambda: client.is_gone)
            if heir == "the parent":
                await one.said()
                assert client_of(running, clients).key == ("pid", one.pid)
            else:  # its parent reaps it
                assert await until(lambda: witness.look(child) is None)

    asyncio.run(main())


def test_a_process_that_has_died_before_it_is_looked_at_is_gone(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    """It was reaped, so that its pid may be another process's.  Before Linux 6.5 there is no pidfd of
    the connection: the second case."""

    async def main(with_pidfd: bool) -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            connection = running.last
            assert connection is not None
            if not with_pidfd and connection.pidfd >= 0:
                os.close(connection.pidfd)
                connection.pidfd = -1
            one.process.kill()
            one.process.wait()
            client = clients.of(connection)
            assert await until(lambda: client.is_gone)

    asyncio.run(main(with_pidfd=True))
    asyncio.run(main(with_pidfd=False))


def test_a_new_process_with_an_old_pid_is_another_client(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    """The event loop has not yet handled the death when the next one asks."""

    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            old = client_of(running, clients)
            processes.append(two := ClientProcess(running.where, ASK))
            await two.said()
            assert running.last is not None
            connection = running.last
            one.process.kill()
            one.process.wait()
            connection.pid = one.pid  # as if the kernel had given the number again
            new = clients.of(connection)
            assert new is not old
            assert old.is_gone
            assert not new.is_gone

    asyncio.run(main())


@pytest.mark.namespaces
@pytest.mark.root
def test_a_client_below_in_a_pid_namespace_is_watched(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    """As a container on this host that has the socket mounted: the kernel gives our number of it."""

    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            words = ("unshare", "--pid", "--fork", "--kill-child")
            processes.append(one := ClientProcess(running.where, ASK, *words))
            await one.said()
            client = client_of(running, clients)
            pid = int(str(client.key[1]))
            assert pid not in (1, one.pid)
            os.kill(pid, signal.SIGKILL)
            assert await until(lambda: client.is_gone)

    asyncio.run(main())


def test_a_client_of_a_foreign_pid_namespace_is_watched_by_its_pidfd(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    """Its pid is 0 here.  (A server in a namespace below would see this; the test says 0 itself.)"""

    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK.replace("tell", "ask(one); tell")))
            await one.said()
            connection = running.last
            assert connection is not None
            if connection.pidfd < 0:
                pytest.skip("no SO_PEERPIDFD: Linux before 6.5")
            connection.pid = 0
            client = clients.of(connection)
            assert clients.of(connection) is client
            assert client.is_watched
            assert "another pid namespace" in str(client)
            assert have_pidfds_inodes() == (client.key[0] == "pidfd")
            pidfd, connection.pidfd = connection.pidfd, -1
            control = clients.of(connection)
            connection.pidfd = pidfd
            assert not control.is_watched, "without a pidfd it is as a client over TCP"
            one.process.kill()
            assert await until(lambda: client.is_gone)

    asyncio.run(main())


def test_a_client_over_tcp_is_its_address(processes: list[ClientProcess]) -> None:
    async def main() -> None:
        async with serving(TCP) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            client = client_of(running, clients)
            assert client.key == ("address", "127.0.0.1")
            assert not client.is_watched
            assert not clients.of(None).is_watched

    asyncio.run(main())


# ---------------------------------------------------------------------------------- waiting for a client


@pytest.mark.parametrize("address", ["unix", TCP])
@pytest.mark.parametrize("end", ["killed", "closes", "stopped, then killed"])
def test_a_client_that_goes_away_takes_its_request_with_it(
    tmp_path: Path, processes: list[ClientProcess], address: str, end: str
) -> None:
    async def main() -> None:
        seen: list[str] = []
        started = asyncio.Event()

        async def forever() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("given back")

        async with known_clients() as clients:

            async def handler(request: web.Request) -> web.StreamResponse:
                try:
                    await while_connected(clients.of(running.last), running.last, forever())
                except ClientGoneError:
                    seen.append("gone")
                return web.Response()

            where = unix_address(tmp_path) if address == "unix" else address
            async with serving(where, handler) as running:
                script = (
                    "one = connect(where); one.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
                )
                script += "tell('sent'); one.close(); tell('closed')\n"
                processes.append(one := ClientProcess(running.where, script))
                await one.said()
                await started.wait()
                if end == "closes":
                    one.go_on()
                elif end == "killed":
                    one.process.kill()
                else:
                    os.kill(one.pid, signal.SIGSTOP)
                    await asyncio.sleep(0.2)
                    assert not seen
                    one.process.kill()
                assert await until(lambda: len(seen) == 2)
                assert seen == ["given back", "gone"]

    asyncio.run(main())


def test_a_client_that_goes_away_twice_does_not_interrupt_what_gives_its_session_back() -> None:
    """Its connection is closed, and a moment later its pidfd says that it has died.  A second
    cancellation would interrupt the clean-up."""

    async def main(times: int) -> list[str]:
        seen: list[str] = []

        async def session() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                seen.append("given back")

        client = Client(("pid", 1), "a client")
        task = asyncio.create_task(while_connected(client, None, session()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (leave,) = client.on_gone.values()
        for _ in range(times):
            leave()
            await asyncio.sleep(0.01)
        with pytest.raises(ClientGoneError):
            await task
        return seen

    for times in (1, 2, 3):
        assert asyncio.run(main(times)) == ["given back"]


# ------------------------------------------------------------------------------ how long a session lives


class Lived:
    """A session's Lifetime, and why it has ended."""

    def __init__(self, client: Client, idle: float | None, back_within: float = 0.1):
        self.why: list[str] = []
        loop = asyncio.get_running_loop()
        self.life = Lifetime(
            client, self.why.append, idle_timeout=idle, loop=loop, back_within=back_within
        )

    def is_lost(self) -> bool:
        return self.life._lost_at is not None


KEPT = {"Connection": "keep-alive"}
PYTHON = {"User-Agent": "selenium/4.51.0 (python linux)", **KEPT}
NODE = {"User-Agent": "selenium/4.51.0 (js linux)", **KEPT}
OTHER = {"User-Agent": "curl/8", **KEPT}
CLOSING = {"User-Agent": "selenium/4.51.0 (python linux)"}
"""Selenium's Python client with keep_alive=False."""


def test_the_death_of_its_client_ends_a_session_though_a_command_runs(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            lived = Lived(client_of(running, clients), idle=None)
            with lived.life.command(running.last):
                one.process.kill()
                assert await until(lambda: lived.why)
            assert "has died" in lived.why[0]
            assert len(lived.why) == 1

    asyncio.run(main())


def test_a_living_process_with_a_connection_is_never_idle(
    tmp_path: Path, processes: list[ClientProcess]
) -> None:
    """The control has closed its connection."""
    script = ASK + "one.close(); tell('closed')\n"

    async def main() -> None:
        async with serving(unix_address(tmp_path)) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, script))
            await one.said()
            lived = Lived(client_of(running, clients), idle=0.1)
            with lived.life.command(running.last):
                pass
            await asyncio.sleep(0.5)
            assert not lived.why
            one.go_on()
            await one.said()
            assert await until(lambda: lived.why)
            assert "--idle-timeout" in lived.why[0]

    asyncio.run(main())


def test_commands_extend_the_life_of_a_session_over_tcp(processes: list[ClientProcess]) -> None:
    async def main() -> None:
        async with serving(TCP) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            lived = Lived(client_of(running, clients), idle=1.0)
            for _ in range(5):
                with lived.life.command(running.last):
                    await asyncio.sleep(0.4)
            assert not lived.why
            with lived.life.command(running.last):
                await asyncio.sleep(1.5)
                assert not lived.why, "a command that takes long is use"
            assert await until(lambda: lived.why)
            assert "--idle-timeout" in lived.why[0]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "in_command", "ends"),
    [
        (PYTHON, False, True),
        (NODE, False, False),
        (NODE, True, True),
        (OTHER, False, False),
        (CLOSING, False, False),
    ],
)
def test_a_closed_connection_over_tcp_means_as_much_as_its_client_says(
    processes: list[ClientProcess], headers: dict[str, str], in_command: bool, ends: bool
) -> None:
    """Selenium's Python client keeps its connection; others close one that was idle for some seconds."""

    async def main() -> None:
        async with serving(TCP) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, ASK))
            await one.said()
            lived = Lived(client_of(running, clients), idle=600)
            connection = running.last
            assert connection is not None
            with lived.life.command(connection, keeps_its_connection(headers)):
                if in_command:
                    connection.begin_request()
                    one.process.kill()
                    assert await until(lambda: connection.fileno() < 0)
            one.process.kill()
            assert await until(lambda: connection.fileno() < 0)
            if ends:
                assert await until(lambda: lived.why)
                assert "closed its connection" in lived.why[0]
            else:
                await asyncio.sleep(1.0)
                assert not lived.why
            lived.life.close()

    asyncio.run(main())


def test_a_client_that_comes_back_keeps_its_session(processes: list[ClientProcess]) -> None:
    """It gave up an answer, and goes on over a new connection."""
    script = ASK + "one.close(); one = connect(where); ask(one); tell('back')\n"

    async def main() -> None:
        async with serving(TCP) as running, known_clients() as clients:
            processes.append(one := ClientProcess(running.where, script))
            await one.said()
            lived = Lived(client_of(running, clients), idle=600, back_within=600)
            first = running.last
            assert first is not None
            with lived.life.command(first, is_kept=True):
                pass
            one.go_on()
            await one.said()
            assert await until(lambda: first.fileno() < 0)
            assert lived.is_lost()
            with lived.life.command(running.last, is_kept=True):
                assert not lived.is_lost()
            assert running.last is not None
            assert running.last.leases == 1
            lived.life.close()
            assert running.last.leases == 0
            assert not running.last.on_close

    asyncio.run(main())
