"""A real Selenium Grid for the tests of remote sessions, and its status as a witness, read without code
of browserkeeper.  ``scripts/grid.sh`` fetches the Grid."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver

from tests.support import witness
from tests.support.needs import GRID_JARS
from tests.support.waiting import SECONDS, wait_until

PATIENCE = 60.0
"""Seconds for a Grid to be ready; it takes 2, and more on a machine that is busy."""
SESSION_TIMEOUT = 5 * int(SECONDS)
"""Seconds without a command after which the Grid frees a slot by itself.  A test waits for less than
that until the slot is free: else the Grid would do what browserkeeper has to do."""

TOML = """
[server]
host = "127.0.0.1"
port = {port}
[node]
detect-drivers = false
selenium-manager = false
max-sessions = {slots}
override-max-sessions = true
session-timeout = {timeout}
{drivers}
[sessionqueue]
session-request-timeout = {queue_timeout}
session-retry-interval = {retry}
"""
DRIVER = """
[[node.driver-configuration]]
display-name = "{name}"
max-sessions = {slots}
webdriver-executable = "{path}"
stereotype = '{{"browserName": "{name}"}}'
"""


INIT = """
import ctypes, os, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
grid = subprocess.Popen(sys.argv[1:])
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""
"""Runs the Grid as a child and reaps its orphans, as PID 1 of a container does."""


@dataclasses.dataclass
class Grid:
    """A running Grid with ``slots`` slots."""

    port: int
    slots: int
    directory: Path
    process: subprocess.Popen[bytes]
    password: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        pair = base64.b64encode(f"me:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"} if self.password else {}
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)["value"]

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self.get("/status")["ready"])
        return False

    def sessions(self) -> set[str]:
        """The ids of the sessions in its slots."""
        slots = [slot for node in self.get("/status")["nodes"] for slot in node["slots"]]
        return {slot["session"]["sessionId"] for slot in slots if slot["session"]}

    def end_session(self, session: str) -> None:
        """End a session that a control or a failed test left."""
        request = urllib.request.Request(f"{self.url}/session/{session}", method="DELETE")
        urllib.request.urlopen(request, timeout=PATIENCE).close()

    def queued(self) -> int:
        return len(self.get("/se/grid/newsessionqueue/queue"))

    def is_free(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return not self.sessions() and not self.queued()
        return False

    @property
    def server(self) -> int:
        """The Java process below its init."""
        return next(seen.pid for seen in witness.below(self.process.pid) if seen.name == "java")

    def stop(self) -> None:
        """End all processes below its init: the Grid, its drivers and their browsers."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            witness.end_by_pid(witness.below(self.process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)


TUNED = {"timeout": SESSION_TIMEOUT, "queue_timeout": 120, "retry": 50}
AS_SHIPPED = {"timeout": 300, "queue_timeout": 900, "retry": 15}
"""The Grid's own values, but for the time in the queue, which is 300 s: a request there is to see the
end of a session that began before it."""


def start_grid(slots: int, password: str, *, tuned: bool = True) -> Grid:
    """``tuned``: with settings that suit the tests, and a Java that starts fast; else as it is shipped,
    but with a small heap."""
    directory = Path(tempfile.mkdtemp(prefix="tmpgrid"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    paths = {"chrome": shutil.which("chromedriver"), "firefox": shutil.which("geckodriver")}
    drivers = [DRIVER.format(name=n, path=p, slots=slots) for n, p in paths.items() if p]
    times = TUNED if tuned else AS_SHIPPED
    toml = TOML.format(port=port, slots=slots, drivers="".join(drivers), **times)
    (directory / "grid.toml").write_text(toml)
    places = {
        "TMPDIR": str(directory),
        "HOME": str(directory),
        "SE_OFFLINE": "true",
        "SE_AVOID_STATS": "true",
    }
    with (directory / "grid.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", INIT),
                *("java", "-Xmx256m", f"-Djava.io.tmpdir={directory}"),
                *(("-XX:TieredStopAtLevel=1",) if tuned else ()),
                "-XX:-UseContainerSupport",  # Java 17 fails where a world\'s cgroups are mounted
                *("-cp", f"{GRID_JARS}/*", "org.openqa.selenium.grid.Bootstrap", "standalone"),
                *("--config", str(directory / "grid.toml")),
                *(("--username", "me", "--password", password) if password else ()),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, **places},
        )
    return Grid(port, slots, directory, process, password)


@contextlib.contextmanager
def running_grid(slots: int = 2, password: str = "", *, tuned: bool = True) -> Iterator[Grid]:
    limit = PATIENCE if tuned else 10 * PATIENCE
    grid = start_grid(slots, password, tuned=tuned)
    try:
        wait_until(lambda: grid.is_ready() or grid.process.poll() is not None, limit)
        if grid.process.poll() is not None:  # another program may have taken its port: once more
            shutil.rmtree(grid.directory, ignore_errors=True)
            grid = start_grid(slots, password, tuned=tuned)
        assert wait_until(grid.is_ready, limit), (grid.directory / "grid.log").read_text()[-2000:]
        yield grid
    finally:
        grid.stop()
        shutil.rmtree(grid.directory, ignore_errors=True)


BINARIES = {
    "chrome": shutil.which("chromium") or shutil.which("google-chrome") or "",
    "firefox": shutil.which("firefox") or shutil.which("firefox-esr") or "",
}
ARGUMENTS = {"chrome": ("--no-sandbox",), "firefox": ()}
"""The Grid of the tests may run as root, where Chrome refuses its sandbox."""


def asked(name: str) -> dict[str, Any]:
    """The arguments of ``browser()`` for a browser of this Grid."""
    return {"name": name, "binary": BINARIES[name], "arguments": ARGUMENTS[name]}


def plain_options(name: str) -> Any:
    """The same browser for Selenium's ``webdriver.Remote``, which the controls use."""
    options: Any = webdriver.ChromeOptions() if name == "chrome" else webdriver.FirefoxOptions()
    options.binary_location = BINARIES[name]
    for argument in (*ARGUMENTS[name], "--headless=new" if name == "chrome" else "-headless"):
        options.add_argument(argument)
    return options


def stays_taken(grid: Grid, session: str, seconds: float) -> bool:
    """True if the session is in its slot for so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if session not in grid.sessions():
            return False
        time.sleep(0.2)
    return True
