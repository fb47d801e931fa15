"""``browserkeeper serve`` as a process of its own, and clients that are processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.asking import ClientProcess
from tests.support.cli import CLI, ROOT
from tests.support.waiting import SECONDS, wait_until

TOKEN = secrets.token_hex(16)

CLIENT = """
import http.client, json
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = connect(where)
http_client = Unix("localhost", timeout=600)
def command(method, path, body=None, **headers):
    http_client.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = http_client.getresponse()
    return json.loads(answer.read())["value"]
def new(**capabilities):
    value = command("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}}, **HEADERS)
    return value.get("sessionId") or value["message"].replace("\\n", " ")
HEADERS = {}
"""
"""Added to the scripts of :class:`ClientProcess`."""


class Serve:
    """The server's process.  Its log lines, JSON, go to the file ``log``."""

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        environment: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ):
        """``prefix``: a command that starts the server as its child, such as unshare(1)."""
        self.socket = folder / "s"
        self.log = folder / f"serve{len(list(folder.glob('serve*')))}.log"
        self._has_prefix = bool(prefix)
        words = [*prefix, *CLI, "serve", "--json", *map(str, arguments)]
        if "--queue-timeout" not in words:  # a busy machine takes long to start a browser
            words += ["--queue-timeout", "600"]
        if "--listen" not in words:
            words += ["--listen", f"unix:{self.socket}"]
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(words, cwd=ROOT, stderr=file, env=environment)

    def lines(self, action: str = "") -> list[dict[str, Any]]:
        whole, _, _ = self.log.read_text().rpartition("\n")
        logged = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [facts for facts in logged if not action or facts.get("event.action") == action]

    def wait_for(self, action: str, number: int = 1) -> list[dict[str, Any]]:
        assert wait_until(
            lambda: len(self.lines(action)) >= number or self.process.poll() is not None
        ), self.log.read_text()
        assert len(self.lines(action)) >= number, self.log.read_text()
        return self.lines(action)

    def connect(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(SECONDS)
        one.connect(str(self.socket))
        return one

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status, and the value of the JSON or the text of the answer."""
        connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
        connection.sock = self.connect()
        return answer_of(connection, method, path, body, headers)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/browserkeeper/sessions")[1]
        return found

    def client(self, script: str) -> ClientProcess:
        return ClientProcess(str(self.socket), CLIENT + script)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.pid, number)
        return self.process.wait(SECONDS)

    @property
    def pid(self) -> int:
        """Of the server itself."""
        pid = self.process.pid
        if not self._has_prefix:
            return pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def answer_of(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    try:
        return answer.status, json.loads(text)["value"]
    except (ValueError, KeyError):
        return answer.status, text


def line_of(client: ClientProcess) -> str:
    assert client.process.stdout
    return client.process.stdout.readline().strip()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Starts servers with the given arguments, and ends them after the test."""
    mine: list[Serve] = []

    def start(*arguments: object, **more: Any) -> Serve:
        mine.append(Serve(tmp_path, *arguments, **more))
        mine[-1].wait_for("server-listening")
        return mine[-1]

    yield start
    for one in mine:
        if one.process.poll() is None:
            os.kill(one.pid, signal.SIGTERM)
            os.kill(one.pid, signal.SIGTERM)
        one.process.wait(SECONDS)


@pytest.fixture
def clients() -> Iterator[list[ClientProcess]]:
    """Clients to be ended after the test."""
    mine: list[ClientProcess] = []
    yield mine
    for one in mine:
        one.end()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path
