"""The tutorial as a user does it: its files, its commands in one shell, and what these print."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.pages import ROOT, blocks_of, write_files
from tests.support.waiting import wait_until

PAGE = "docs/tutorial.md"
LIMIT = 300.0
"""Seconds for one command; the slowest takes 12 on a quiet machine."""
AGAIN = ("browserkeeper ps", "browserkeeper sweep")
"""Commands that only look. A user repeats them until the end that they wait for is there."""
END = "-- end of a command --"


def steps() -> Iterator[tuple[str, list[str]]]:
    """The commands of the page's sessions at a terminal, each with the lines that it prints there."""
    for block in blocks_of(PAGE, "console"):
        first, *others = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert not first
        for other in others:
            command, *lines = other.splitlines()
            yield command, lines


def shape(line: str) -> str:
    """A line with what differs from run to run made equal: ids, dates, numbers, containment, spaces."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "ID", line)
    line = re.sub(r"\b(cgroup|subreaper)\b", "CONTAINED", line)
    line = re.sub(r"\d+(?:[.,:-]\d+)*", "N", line)
    line = re.sub(r"\bN (s|min|h)\b", "N SECONDS", line)
    line = line.replace(" in Ns (N)", " in Ns")  # pytest, from a minute on
    return " ".join(line.split())


class Shell:
    """A shell with job control off, as in a script, whose output is read line by line."""

    def __init__(self, directory: Path) -> None:
        tools = str(Path(sys.executable).parent)
        plugin = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "browserkeeper.pytest_plugin"}
        self.process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env={
                **os.environ,
                **plugin,  # the other plugins of this environment are not the reader's
                "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "COLUMNS": "200",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        assert self.process.stdout
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.lines.put(line.rstrip("\n"))

    def run(self, command: str, expected: list[str]) -> list[str]:
        """The lines that are printed until the command has returned and the expected ones are there.

        A command in the background returns at once, and prints later.
        """
        assert self.process.stdin
        self.process.stdin.write(f"{command}\necho '{END}'\n")
        printed: list[str] = []

        def is_done() -> bool:
            while not self.lines.empty():
                printed.append(self.lines.get())
            return END in printed and (not command.endswith("&") or not missing(expected, printed))

        assert wait_until(is_done, LIMIT), f"{command} has not ended; it printed:\n" + "\n".join(printed)
        return printed

    def close(self) -> None:
        """Ends the shell, and what a step that failed has left in the background."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(LIMIT)
        self.process.stdout.close()


def missing(expected: list[str], printed: list[str]) -> list[str]:
    """The expected lines that were not printed in this order."""
    shapes = iter([shape(line) for line in printed])
    return [line for line in expected if shape(line) not in shapes]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    write_files(PAGE, tmp_path)
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def run_again(shell: Shell, command: str, expected: list[str]) -> list[str]:
    printed: list[str] = []

    def is_as_expected() -> bool:
        printed[:] = shell.run(command, expected)
        return not missing(expected, printed)

    wait_until(is_as_expected, LIMIT)
    return printed


@pytest.mark.chrome
@pytest.mark.leaves_zombies(4, "two guards of each owner that the tutorial kills, which PID 1 reaps")
def test_each_step_of_the_tutorial_prints_what_the_page_shows(shell: Shell) -> None:
    done = list(steps())
    assert len(done) > 10
    for command, expected in done:
        printed = shell.run(command, expected)
        if command.startswith(AGAIN) and missing(expected, printed):
            printed = run_again(shell, command, expected)
        assert not missing(expected, printed), f"{command} printed:\n" + "\n".join(printed)


def test_control_a_line_that_is_not_printed_is_missed() -> None:
    printed = ["chrome session 0123456789ab: closed, clean, ECHILD (subreaper)", "  9 processes"]
    assert not missing(["chrome session d385346f3539: closed, clean, ECHILD (cgroup)"], printed)
    assert missing(["chrome session d385346f3539: error, clean, ECHILD (cgroup)"], printed)
    assert missing(
        ["  12 processes", "chrome session d385346f3539: closed, clean, ECHILD (cgroup)"], printed
    )
