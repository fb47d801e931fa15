"""The sessions that another user tries to reach, opened through one of the doors of browserkeeper.

    python -m tests.system.scanned_scenario DOOR SESSIONS ISOLATE DIRECTORY

``scanned_sessions.py`` runs it in a network namespace, while the scanner runs there.  ISOLATE is a value
of ``isolate_driver=``.  DIRECTORY belongs to this user alone.  It has the output of the scanner, in the
file ``scan``; the ids of the sessions are added to the file ``sessions``, and each program has its log
there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium.webdriver import ChromeOptions

from browserkeeper import BrowserPool, browser
from tests.support.waiting import wait_until

ISOLATE: dict[str, Any] = {"auto": "auto", "True": True, "False": False}
LONG = 600
"""Seconds for whatever a busy machine delays."""
TOGETHER = 2
"""Browsers at a time, of the doors that have several."""
VARIABLE = "SCANNED_SCENARIO"
"""The arguments, in the environment of the programs that a door starts."""
PYTEST = """
import pytest
from tests.system.scanned_scenario import of_environment

scenario = of_environment()

@pytest.mark.keeper_options(**scenario.arguments)
@pytest.mark.parametrize("number", range(scenario.sessions))
def test_session(keeper_driver, number):
    scenario.use(keeper_driver)
"""


@dataclasses.dataclass(frozen=True)
class Scenario:
    sessions: int
    isolate: str
    directory: Path

    @property
    def arguments(self) -> dict[str, Any]:
        """For ``browser()``, and for whatever passes arguments on to it."""
        return {"isolate_driver": ISOLATE[self.isolate], "start_timeout": LONG}

    @property
    def environment(self) -> dict[str, str]:
        """Of the programs that a door starts."""
        return {**os.environ, VARIABLE: f"{self.sessions} {self.isolate} {self.directory}"}

    def use(self, driver: Any) -> None:
        """Load a page.  In the first session, stay until the scanner has tried all ports meanwhile."""
        driver.get("data:text/html,<title>seen</title>")
        assert driver.title == "seen"
        used = self.directory / "sessions"
        if not used.exists():
            enough = self._rounds() + 2  # the round that has begun before the session does not count
            assert wait_until(lambda: self._rounds() >= enough, LONG, pause=0.05)
        with used.open("a") as file:
            file.write(f"{driver.session_id}\n")

    def _rounds(self) -> int:
        return (self.directory / "scan").read_text().count('"rounds"')

    @contextlib.contextmanager
    def program(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a module of Python beside the block, and end it by SIGTERM.

        Raises AssertionError with the program's log if the block raises an exception, or if the exit
        status is not 0.
        """
        log = self.directory / f"{words[0]}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", *words]
            started = subprocess.Popen(
                command, cwd=self.directory, env=self.environment, stdout=output, stderr=output
            )
        try:
            yield started
            started.terminate()
            assert started.wait(LONG) == 0
        except Exception as error:
            raise AssertionError(log.read_text()) from error
        finally:
            started.kill()
            started.wait()


def of_environment() -> Scenario:
    """In a program that a door has started."""
    sessions, isolate, directory = os.environ[VARIABLE].split(maxsplit=2)
    return Scenario(int(sessions), isolate, Path(directory))


def by_browser(scenario: Scenario) -> None:
    for _ in range(scenario.sessions):
        session = browser("chromium", **scenario.arguments)
        with session as driver:
            scenario.use(driver)
        assert session.report is not None
        assert session.report.clean, session.report


def by_pool(scenario: Scenario) -> None:
    with BrowserPool("chromium", max_size=TOGETHER, max_uses=1, **scenario.arguments) as pool:
        for _ in range(scenario.sessions):
            with pool.lease(timeout=LONG) as lease:
                scenario.use(lease.driver)


def by_pytest(scenario: Scenario) -> None:
    """Without pytest-rerunfailures: with pytest-xdist it listens on a port of the loopback, which asks
    for a random token, and has nothing to do with a browser."""
    module = scenario.directory / "test_sessions.py"
    module.write_text(PYTEST)
    words = ["pytest", "-q", "-p", "no:cacheprovider", "-p", "no:rerunfailures"]
    words += ["--keeper-browser", "chromium", f"--rootdir={scenario.directory}", str(module)]
    with scenario.program(*words) as run:
        assert run.wait() == 0


def by_celery(scenario: Scenario) -> None:
    """A prefork worker.  Its broker is a directory, in this user's own."""
    os.environ.update(scenario.environment)
    from tests.system.scanned_tasks import visit

    words = ["--pool", "prefork", "--concurrency", str(TOGETHER), "--without-mingle", "--without-gossip"]
    with scenario.program("celery", "-A", "tests.system.scanned_tasks", "worker", *words):
        for sent in [visit.delay() for _ in range(scenario.sessions)]:
            sent.get(timeout=LONG)


def by_serve(scenario: Scenario) -> None:
    """Our client, over a unix socket in this user's own directory."""
    socket = scenario.directory / "serve.sock"
    words = ["--listen", f"unix:{socket}", "--min-idle", "0", "--queue-timeout", str(LONG)]
    words += ["--isolate-driver", scenario.isolate.lower()]
    with scenario.program("browserkeeper", "serve", *words):
        assert wait_until(socket.exists, LONG)
        for _ in range(scenario.sessions):
            options = ChromeOptions()
            options.set_capability("browserkeeper:isolation", "fresh")  # a driver for each session
            session = browser("chromium", server=f"unix:{socket}", options=options, start_timeout=LONG)
            with session as driver:
                scenario.use(driver)


DOORS: dict[str, Callable[[Scenario], None]] = {
    "browser": by_browser,
    "pool": by_pool,
    "pytest": by_pytest,
    "celery": by_celery,
    "serve": by_serve,
}


def main() -> None:
    door, sessions, isolate, directory = sys.argv[1:]
    DOORS[door](Scenario(int(sessions), isolate, Path(directory)))


if __name__ == "__main__":
    main()
