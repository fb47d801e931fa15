"""Slow, fat and hostile clients, and what the command line refuses.  No browser is started."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from browserkeeper.server import bodies, gatekeeper
from browserkeeper.server.bodies import BodyBudget
from browserkeeper.server.connections import Connections
from browserkeeper.server.settings import MAX_NEW_SESSION
from browserkeeper.telemetry import logs
from tests.server.asking import ClientProcess, serving, unix_address, until
from tests.server.serve_process import TOKEN, Serve, clients, serve, token_file
from tests.server.serving import Serving
from tests.support.cli import CLI, ROOT, cli, invoke
from tests.support.waiting import SECONDS, wait_until

__all__ = ["clients", "serve", "token_file"]  # fixtures


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow clients are cut after tenths of seconds."""
    for name, value in (("HEAD_PATIENCE", 0.5), ("IDLE_PATIENCE", 0.5)):
        monkeypatch.setattr(gatekeeper, name, value)
    monkeypatch.setattr(bodies, "BODY_PATIENCE", 0.5)
    monkeypatch.setattr(bodies, "BODY_RATE", 2**30)
    monkeypatch.setattr(gatekeeper, "LOOK", 0.05)


def is_cut(one: socket.socket) -> bool:
    """True when the server has closed the connection; waits for that."""
    try:
        while one.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def answers(server: Serving) -> bool:
    """Asks again where this client, on a busy machine, was itself too slow for a hasty server."""

    def is_answered() -> bool:
        try:
            return server.ask("GET", "/status").status == 200
        except (OSError, http.client.HTTPException):
            return False

    return wait_until(is_answered)


SLOW = {
    "nothing": b"",
    "half a line": b"GET",
    "half a head": b"GET /status HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    "half a body": b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "half a chunk": b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    "idle": b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
    "then half a head": b"GET /status HTTP/1.1\r\nHost: x\r\n\r\nGET /stat",
}


@pytest.mark.parametrize("trickles", [False, True], ids=["stops", "trickles"])
def test_slow_clients_are_cut_and_no_other_one_waits(hasty: None, trickles: bool) -> None:
    """A byte now and then is as slow as none."""
    with Serving(min_idle=0) as server:
        slow = {name: socket.create_connection(("127.0.0.1", server.port)) for name in SLOW}
        for name, one in slow.items():
            one.sendall(SLOW[name])
            one.settimeout(SECONDS)
        assert answers(server)
        if trickles:
            slow.pop("idle").close()
            left = dict(slow)

            def are_cut() -> bool:
                for name, one in list(left.items()):
                    try:
                        one.sendall(b"1")
                    except OSError:
                        del left[name]
                return not left

            assert wait_until(are_cut, pause=0.1), left
        else:
            assert all(is_cut(one) for one in slow.values())
        for one in slow.values():
            one.close()
        assert wait_until(lambda: not len(server.server.connections))
        assert answers(server)


def test_a_large_body_is_refused_without_being_read() -> None:
    """By its length, and, where that is not said, at the first byte too many."""
    with Serving(min_idle=0) as server:
        head = b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as fat:
            fat.settimeout(SECONDS)
            fat.sendall(head)
            assert b"larger than" in fat.recv(65536)
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as fat:
            fat.settimeout(SECONDS)
            fat.sendall(b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            with pytest.raises(OSError):  # noqa: PT011 # the server has closed the connection
                for _ in range(100_000):
                    fat.sendall(chunk)
    with Serving(min_idle=0, discard_time=SECONDS) as server:
        answer = server.ask("POST", "/session", b" " * (10 * 2**20))
        assert answer.error == "invalid argument"
        assert server.ask("GET", "/status").status == 200


def test_bodies_take_a_bounded_memory() -> None:
    async def main() -> None:
        budget = BodyBudget(100)
        first = await budget.take(30, "a")
        small = [await budget.take(10, origin) for origin in ("b", "c")]
        waiting = [asyncio.create_task(budget.take(*one)) for one in ((500, "d"), (20, "e"), (40, "f"))]
        await asyncio.sleep(0)
        assert budget.taken == 100, "more than an origin may have counts as its half"
        waiting[1].cancel()
        await asyncio.sleep(0.01)
        first.shrink(5)
        first.shrink(20)
        await asyncio.sleep(0)
        assert (first.size, budget.taken) == (5, 75)
        assert not waiting[2].done(), "40 bytes do not fit"
        large = await waiting[0]
        large.give_back()
        large.give_back()
        assert (await waiting[2]).size == 40
        for one in (first, *small, await waiting[2]):
            one.give_back()
        assert budget.taken == 0

    asyncio.run(main())


def test_one_origin_has_at_most_half_and_holds_up_no_other() -> None:
    """The control: within its half, the origin is served as well."""

    async def main() -> None:
        budget = BodyBudget(100)
        held = [await budget.take(25, "slow") for _ in range(2)]
        more = [asyncio.create_task(budget.take(25, "slow")) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in more)
        other = await asyncio.wait_for(budget.take(50, "other"), SECONDS)
        assert budget.taken == 100
        more[0].cancel()
        held[0].give_back()
        assert (await more[1]).size == 25, "the next of the same origin"
        other.give_back()
        await asyncio.sleep(0.01)
        assert not more[2].done(), "its half is still taken"
        held[1].give_back()
        await more[2]

    asyncio.run(main())


def test_what_slow_bodies_reserve_is_bounded_by_their_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body without a length reserves what its route allows, until it has come; one that waits for room
    is not cut for it."""
    monkeypatch.setattr(bodies, "BODY_PATIENCE", 600.0)
    with Serving(min_idle=0) as server:
        budget = server.server.bodies = BodyBudget(2 * MAX_NEW_SESSION)
        head = b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        slow, waits = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
        with slow, waits:
            slow.sendall(head + b"2\r\n{}\r\n")
            assert wait_until(lambda: budget.taken == MAX_NEW_SESSION)
            waits.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
            assert wait_until(lambda: len(server.server.connections) == 2)
            connections = list(server.server.connections)
            assert wait_until(lambda: all(one.in_request for one in connections))
            assert sum(one.has_body_arrived is not None for one in connections) == 1
            assert server.ask("GET", "/status").status == 200
            small = server.ask("POST", "/session", {})  # the control: small bodies never wait
            assert small.error == "invalid argument"
            slow.sendall(b"0\r\n\r\n")
            for one in (slow, waits):
                one.settimeout(SECONDS)
                assert b"capabilities" in one.recv(65536)
        assert wait_until(lambda: not budget.taken)


def test_connections_are_bounded_and_silent_ones_make_room(tmp_path: Path) -> None:
    """The oldest that has asked nothing goes; where each has asked, the new one is refused."""

    async def main() -> None:
        connections = Connections(most=3, most_of_one=3)
        async with serving(unix_address(tmp_path), connections=connections) as running:

            async def connect(asks: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_unix_connection(running.where)
                if asks:
                    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert b"200" in await reader.readline()
                return reader, writer

            held = [await connect(asks=False) for _ in range(3)]
            assert await until(lambda: len(connections) == 3)
            for number in range(3):
                held.append(await connect(asks=True))
                assert await held[number][0].read() == b"", "the oldest silent one was cut"
            assert connections.refused == 3
            refused = await connect(asks=False)
            assert await refused[0].read() == b""
            assert len(connections) == 3
            for _, writer in [*held, refused]:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            assert await until(lambda: not len(connections))
            _, again = await connect(asks=True)  # there is room again
            again.close()
            await again.wait_closed()

    asyncio.run(main())


def test_a_client_that_reads_nothing_delays_no_other(
    serve: Callable[..., Serve], clients: list[ClientProcess]
) -> None:
    server = serve("--min-idle", 0, "--max", 1)
    script = "for _ in range(300):\n    one.sendall(b'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
    stuck = server.client(
        f"import threading\none = connect(where)\none.settimeout(2)\ntry:\n    exec({script!r})\n"
        "except TimeoutError: pass\ntell('full')\n"
    )
    clients.append(stuck)
    assert stuck.process.stdout
    assert stuck.process.stdout.readline().strip() == "full"
    os.kill(stuck.pid, signal.SIGSTOP)
    for _ in range(3):
        assert server.ask("GET", "/status")[0] == 200
    stuck.process.kill()
    assert server.end() == 0


# ------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_token_is_in_no_log_no_command_line_and_no_answer(
    serve: Callable[..., Serve], token_file: Path, level: str, tmp_path: Path
) -> None:
    """Right, wrong, in a header that is not valid, in the path, and in a request that is no HTTP."""
    if level == "DEBUG":
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import logging\n"
            "logging.getLogger('browserkeeper').setLevel(logging.DEBUG)\n"
            "logging.getLogger('browserkeeper').setLevel = lambda level: None\n"
            "logging.basicConfig(level=logging.DEBUG)\n"
        )
        environment = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}"}
    else:
        environment = None
    listen = ("--listen", "127.0.0.1:0", "--token-file", token_file, "--min-idle", 0)
    server = serve(*listen, environment=environment)
    port = int(server.lines("server-listening")[0]["browserkeeper.address"].rpartition(":")[2])
    for head in (
        f"GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}",
        f"GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x{TOKEN}",
        f"GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer {TOKEN}",
        f"GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\0",
        f"GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization\r\n {TOKEN}",
        f"{TOKEN}",
        f"GET http://{TOKEN}@localhost/status HTTP/1.1\r\nHost: {TOKEN}@localhost",
        f"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: {TOKEN}",
    ):
        with socket.create_connection(("127.0.0.1", port), SECONDS) as one:
            one.sendall(head.encode() + b"\r\nConnection: close\r\n\r\n")
            one.shutdown(socket.SHUT_WR)
            is_cut(one)
    words = Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert TOKEN not in words
    assert server.end() == 0
    assert TOKEN not in server.log.read_text()
    assert (level == "DEBUG") == ("DEBUG" in server.log.read_text())


# -------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--listen 127.0.0.1:0", "--token-file"),
        ("--listen 0.0.0.0:0 --token-file {token}", "--insecure"),
        ("--listen nonsense", "--listen 'nonsense'"),
        ("--token-file {token} --listen unix:{token}.s", "is about TCP"),
        ("--allow-host a --listen unix:{token}.s", "--allow-host a is about TCP"),
        ("--insecure --listen unix:{token}.s", "--insecure is about TCP"),
        ("--token-file {token} --listen 127.0.0.1:0 --allow-host *", "--allow-host '*' is not"),
        ("--token-file {token} --listen 127.0.0.1:0 --allow-host http://a", "'http://a' is not"),
        ("--token-file {token} --listen 127.0.0.1:0 --allow-host a:80", "--allow-host 'a:80' is not"),
        ("--token-file {token} --listen 127.0.0.1:0 --allow-host=", "--allow-host '' is not"),
        ("--min-idle 100000", "min_idle=100000"),
        ("--listen unix:/no/such/place/s", "directory"),
        ("--token-file /no/such/file", "--token-file /no/such/file"),
        ("--group no-such-group", "--group no-such-group"),
        ("--max 0", "--max"),
        ("--max 1 --min-idle 2", "min_idle"),
        ("--leases-per-browser 0", "--leases-per-browser"),
        ("--leases-per-browser 2 --isolate-driver true", "isolate_driver=True"),
        ("--isolate-driver yes", "--isolate-driver"),
        ("--max-per-client 0", "--max-per-client"),
        ("--idle-timeout -1", "--idle-timeout"),
        ("--idle-timeout nan", "--idle-timeout"),
        ("--queue-timeout 0", "--queue-timeout"),
        ("--max-lease inf", "--max-lease"),
        ("--drain-timeout x", "--drain-timeout"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    words: str, why: str, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # this process keeps its log
    done = invoke("serve", *words.format(token=token_file).split())
    assert done.exit_code == 2, done.output
    assert why in " ".join(done.output.split())


def test_a_second_server_at_the_same_place_is_refused(serve: Callable[..., Serve]) -> None:
    server = serve("--min-idle", 0)
    done = cli("serve", "--listen", f"unix:{server.socket}")
    assert done.returncode == 2
    assert "another program listens there" in " ".join(done.stderr.split())
    assert server.ask("GET", "/status")[0] == 200


def test_without_an_address_the_socket_is_in_the_state_directory(
    serve: Callable[..., Serve], state_dir: Path, tmp_path: Path
) -> None:
    words = [*CLI, "serve", "--json", "--min-idle", "0"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert str(state_dir / "serve.sock") in process.stderr.readline()
        process.terminate()
        process.stderr.read()
    assert process.returncode == 0
    assert not (state_dir / "serve.sock").exists()


def test_without_aiohttp_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('No module', name='aiohttp')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [sys.executable, "-m", "browserkeeper", "serve"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "browserkeeper[serve]" in done.stderr


def test_without_prometheus_the_other_paths_answer(serve: Callable[..., Serve], tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError('none')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    server = serve("--min-idle", 0, environment=environment)
    status, text = server.ask("GET", "/metrics")
    assert status == 501
    assert "browserkeeper[metrics]" in text
    assert server.ask("GET", "/healthz") == (200, "ok\n")
    assert server.ask("GET", "/pressure")[0] == 200
