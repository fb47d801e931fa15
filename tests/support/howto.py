"""Runs what a how-to page shows: its files in a directory of their own, and its commands word by word.

The commands see the programs of the virtual environment that runs the tests, and this checkout.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.pages import ROOT, blocks_of
from tests.support.waiting import SECONDS, wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

BIN = Path(sys.executable).parent


PLAIN_TITLE = """def title(url):
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options)
    try:
        driver.get(url)
    finally:
        driver.quit()
"""
"""For the controls: a function that opens a page with plain Selenium, with ``finally`` alone."""


def commands_of(page: str) -> list[str]:
    """The commands of a page's ``console`` blocks: the lines that begin with ``$ ``."""
    text = "\n".join(block.text for block in blocks_of(page, "console"))
    return re.findall(r"^\$ (.*)$", text.replace("\\\n", " "), re.MULTILINE)


def command_of(page: str, beginning: str, **replaced: object) -> list[str]:
    """The one command of a page that begins so, as a list of words.  ``replaced``: what the test puts in
    place of a word of the page, by the option before it (``port=1234`` for ``--port 8000``)."""
    (found,) = (command for command in commands_of(page) if command.startswith(beginning))
    for option, value in replaced.items():
        found, count = re.subn(rf"(--{option}[ =])\S+", rf"\g<1>{value}", found)
        assert count == 1, f"{page}: {found!r} has no --{option}"
    return shlex.split(found)


def environment(**more: str) -> dict[str, str]:
    """The environment of a user who has activated the virtual environment."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


class Program:
    """A command that runs in a directory, its output in a file there.  ``with`` ends it by its pid."""

    def __init__(
        self,
        words: list[str],
        directory: Path,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ):
        self.log = directory / "output.txt"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                words,
                cwd=directory,
                env=environment() if env is None else env,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 5 * SECONDS) -> int:
        """Block until it has ended, and return its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args!r} goes on: {self.output}") from None

    def wait_for_output(self, text: str, times: int = 1) -> None:
        def is_over() -> bool:
            return self.output.count(text) >= times or self.process.poll() is not None

        wait_until(is_over, 5 * SECONDS)
        assert self.output.count(text) >= times, self.output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def fetch(url: str, timeout: float = 5 * SECONDS) -> tuple[int, str]:
    """GET: the status and the body, also of an error; status 0 where no answer came."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, ConnectionError) as error:
        return 0, repr(error)
