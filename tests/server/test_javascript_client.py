"""npm's ``selenium-webdriver``, unchanged, against ``browserkeeper serve``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.server.asking import ClientProcess
from tests.server.foreign import PROGRAMS, Program, check_idioms, check_tokens, over_tcp
from tests.server.serve_process import TOKEN, Serve, clients, serve, token_file
from tests.support.needs import JAVASCRIPT
from tests.support.waiting import wait_until

__all__ = ["clients", "serve", "token_file"]  # fixtures

pytestmark = pytest.mark.javascript

NODE = Program(("node", str(PROGRAMS / "client.js")), {"NODE_PATH": str(JAVASCRIPT)})
NAMES = {
    "no such element": "NoSuchElementError",
    "stale element reference": "StaleElementReferenceError",
    "timeout of a wait": "TimeoutError",
    "no such window": "NoSuchWindowError",
    "no such alert": "NoSuchAlertError",
    "unexpected alert open": "UnexpectedAlertOpenError",
    "script timeout": "ScriptTimeoutError",
    "invalid argument": "InvalidArgumentError",
    "javascript error": "JavascriptError",
    "invalid session id": "NoSuchSessionError",
}
IDLE = 20
"""Seconds for --idle-timeout: a client that asks does so every 200 ms."""
BROWSERS = [
    pytest.param("chrome", marks=pytest.mark.chrome),
    pytest.param("firefox", marks=pytest.mark.firefox),
]


@pytest.mark.parametrize("name", BROWSERS)
def test_seleniums_client_for_javascript_works_unchanged(
    name: str, serve: Callable[..., Serve], token_file: Path, tmp_path: Path, site: Site
) -> None:
    server, settings = over_tcp(serve, token_file, "--max", 1, "--min-idle", 0)
    facts = NODE.run("idioms", {**settings, "browser": name, "site": site.url, "folder": str(tmp_path)})
    check_idioms(facts, NAMES)
    assert facts["after_quit"]["name"] == "NoSuchSessionError"
    assert server.sessions == []
    assert server.end() == 0
    assert TOKEN not in server.log.read_text()


@pytest.mark.chrome
def test_the_token_may_be_in_the_address_or_a_header_and_errors_say_what_is_missing(
    serve: Callable[..., Serve], token_file: Path
) -> None:
    server, settings = over_tcp(serve, token_file, "--max", 1, "--min-idle", 0)
    check_tokens(NODE.run("token", {**settings, "browser": "chrome"}))
    assert server.sessions == []
    assert server.end() == 0
    assert TOKEN not in server.log.read_text()


@pytest.mark.chrome
def test_a_client_that_is_killed_frees_its_session(
    serve: Callable[..., Serve], token_file: Path, clients: list[ClientProcess], site: Site
) -> None:
    """Over the unix socket, idle and in a command; over TCP in a command, and idle after --idle-timeout.
    The controls: a client that is stopped and one that asks over TCP keep theirs."""
    server, settings = over_tcp(
        serve, token_file, "--max", 2, "--leases-per-browser", 6, "--idle-timeout", IDLE
    )
    settings |= {"browser": "chrome", "site": site.url}
    unix = {**settings, "socket": str(server.socket)}
    kinds = [unix, {**unix, "hang": True}, settings, {**settings, "hang": True}, unix]
    before = site.requests.count("GET /never")
    started = [NODE.start("hold", kind) for kind in [*kinds, {**settings, "poll": True}]]
    clients += started
    idle, hanging, tcp, tcp_hanging, stopped, asking = started
    ids = {one: one.read()["id"] for one in started}
    assert wait_until(lambda: site.requests.count("GET /never") >= before + 2)
    os.kill(stopped.pid, signal.SIGSTOP)
    for one in (idle, hanging, tcp, tcp_hanging):
        one.process.kill()
    assert wait_until(lambda: {one["id"] for one in server.sessions} == {ids[stopped], ids[asking]})
    os.kill(stopped.pid, signal.SIGCONT)
    for one in (stopped, asking):
        one.go_on()
        assert one.read() == {"title": ""}
    assert server.sessions == []
    assert len(server.lines("server-session-ended")) == 4
    assert server.end() == 0
