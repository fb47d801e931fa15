"""Maven's ``selenium-java``, unchanged, against ``browserkeeper serve``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.server.asking import ClientProcess
from tests.server.foreign import PROGRAMS, Program, check_idioms, check_tokens, over_tcp
from tests.server.serve_process import TOKEN, Serve, clients, serve, token_file
from tests.support.needs import JAVA_JARS
from tests.support.waiting import wait_until

__all__ = ["clients", "serve", "token_file"]  # fixtures

pytestmark = [pytest.mark.java, pytest.mark.chrome]

NAMES = {
    "no such element": "NoSuchElementException",
    "stale element reference": "StaleElementReferenceException",
    "timeout of a wait": "TimeoutException",
    "no such window": "NoSuchWindowException",
    "no such alert": "NoAlertPresentException",
    "unexpected alert open": "UnhandledAlertException",
    "script timeout": "ScriptTimeoutException",
    "invalid argument": "InvalidArgumentException",
    "javascript error": "JavascriptException",
    "invalid session id": "NoSuchSessionException",
}
IDLE = 20
"""Seconds for --idle-timeout: a client that asks does so every 200 ms."""


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The compiled program."""
    folder = tmp_path_factory.mktemp("classes")
    jars = f"{JAVA_JARS}/*"
    words = ["javac", "-proc:none", "-nowarn", "-encoding", "UTF-8", "-cp", jars, "-d", str(folder)]
    done = subprocess.run(
        [*words, str(PROGRAMS / "Client.java")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Quicker starts; names of files and texts as elsewhere.
    options = ("-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8")
    words = ["java", *options, "-cp", f"{folder}{os.pathsep}{jars}", "Client"]
    return Program(tuple(words), {"LC_ALL": "C.UTF-8"})


def test_seleniums_client_for_java_works_unchanged(
    java: Program, serve: Callable[..., Serve], token_file: Path, tmp_path: Path, site: Site
) -> None:
    server, settings = over_tcp(serve, token_file, "--max", 1, "--min-idle", 0)
    settings |= {"browser": "chrome", "site": site.url, "folder": str(tmp_path)}
    facts = java.run("idioms", settings)
    check_idioms(facts, NAMES)
    assert facts["download"] == "first"
    assert facts["after_quit"]["name"] == "NoSuchSessionException"
    assert server.sessions == []
    assert server.end() == 0
    assert TOKEN not in server.log.read_text()


def test_the_token_may_be_in_the_address_or_a_header_and_errors_say_what_is_missing(
    java: Program, serve: Callable[..., Serve], token_file: Path
) -> None:
    server, settings = over_tcp(serve, token_file, "--max", 1, "--min-idle", 0)
    facts = java.run("token", {**settings, "browser": "chrome"})
    check_tokens(facts)
    assert facts["authenticated"] is None
    assert server.sessions == []
    assert server.end() == 0
    assert TOKEN not in server.log.read_text()


def test_a_client_that_is_killed_frees_its_session(
    java: Program,
    serve: Callable[..., Serve],
    token_file: Path,
    clients: list[ClientProcess],
    site: Site,
) -> None:
    """In a command, and idle.  The control, which asks, keeps its session."""
    server, settings = over_tcp(
        serve, token_file, "--max", 2, "--leases-per-browser", 3, "--idle-timeout", IDLE
    )
    settings |= {"browser": "chrome", "site": site.url}
    before = site.requests.count("GET /never")
    started = [java.start("hold", {**settings, key: True}) for key in ("idle", "hang", "poll")]
    clients += started
    idle, hanging, asking = started
    ids = {one: one.read()["id"] for one in started}
    assert wait_until(lambda: site.requests.count("GET /never") > before)
    assert {ids[hanging], ids[asking]} <= {one["id"] for one in server.sessions}
    idle.process.kill()
    hanging.process.kill()
    assert wait_until(lambda: {one["id"] for one in server.sessions} == {ids[asking]})
    asking.go_on()
    assert asking.read() == {"title": ""}
    assert server.sessions == []
    assert server.end() == 0
