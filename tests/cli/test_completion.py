"""Completion in a real bash, and how little of the package it loads."""

from __future__ import annotations

import dataclasses
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.state.ledger import Ledger
from tests.support.cli import ROOT
from tests.support.ledger import add_ended, add_live, new_session
from tests.support.waiting import wait_until

OPERATIONS = ROOT / "docs" / "operations.md"


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``browserkeeper`` is the program of this repository."""
    script = tmp_path / "bin" / "browserkeeper"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m browserkeeper "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb", "HOME": str(tmp_path)}


class Bash:
    """A bash on a terminal, with the line of the documentation in its start file."""

    def __init__(self, environment: dict[str, str], directory: Path):
        rc = directory / "bashrc"
        line = next(line for line in OPERATIONS.read_text().splitlines() if "bash_source" in line)
        rc.write_text(f"PS1='READY>'\nbind 'set enable-bracketed-paste off'\n{line}\n")
        self.leader, follower = pty.openpty()
        words = ["bash", "--noprofile", "--rcfile", str(rc), "-i"]
        self.process = subprocess.Popen(
            words,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
        os.close(follower)
        os.set_blocking(self.leader, False)
        self.text = ""
        assert self.shows("READY>")

    def shows(self, word: str) -> bool:
        def look() -> bool:
            try:
                while block := os.read(self.leader, 65536):
                    self.text += block.decode(errors="replace")
            except BlockingIOError:
                pass
            return word in self.text

        return wait_until(look)

    def completes(self, begun: str, to: str) -> bool:
        """Type, press TAB, wait for the text that it adds; then clear the line."""
        self.text = ""
        os.write(self.leader, f"{begun}\t".encode())
        found = self.shows(to)
        os.write(self.leader, b"\x15")
        return found

    def close(self) -> None:
        os.write(self.leader, b"exit\n")
        self.process.wait()
        os.close(self.leader)


@pytest.fixture
def bash(on_path: dict[str, str], tmp_path: Path) -> Iterator[Bash]:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    found = Bash(on_path, tmp_path)
    yield found
    found.close()


@pytest.mark.slow
def test_bash_completes_commands_options_sessions_and_files(
    state_dir: Path, bash: Bash, tmp_path: Path
) -> None:
    ledger = Ledger.open(state_dir)
    live = dataclasses.replace(new_session(), label="checkout-a")
    ended = dataclasses.replace(new_session(), label="nightly")
    add_live(ledger, live)
    add_ended(ledger, ended)
    (tmp_path / "pages-of-mine").mkdir()
    assert bash.completes("browserkeeper wat", "browserkeeper watch ")
    assert bash.completes("browserkeeper watch --unr", "--unready-after ")
    assert bash.completes("browserkeeper top --sort me", "--sort memory ")
    assert bash.completes("browserkeeper end check", "end checkout-a ")
    assert bash.completes(f"browserkeeper history --session {ended.id[:6]}", f"{ended.id} ")
    assert bash.completes("browserkeeper history --label nig", "--label nightly ")
    assert bash.completes("browserkeeper report --html pages-of", "--html pages-of-mine/")
    ledger.record_path(live.id).unlink()


def complete(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """What the script for bash asks for; stderr has the modules that were loaded."""
    asked = {"COMP_WORDS": " ".join(["browserkeeper", *words]), "COMP_CWORD": str(len(words))}
    environment = {**environment, **asked, "_BROWSERKEEPER_COMPLETE": "bash_complete"}
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from browserkeeper.cli import main\nmain()"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_the_names_of_commands_are_completed_without_importing_them(on_path: dict[str, str]) -> None:
    done = complete(on_path, "re")
    assert done.stdout.split() == ["plain,resume", "plain,report"]
    loaded = done.stderr.split()
    assert not [
        name for name in loaded if name.startswith(("browserkeeper.cli.re", "browserkeeper.state"))
    ]
    assert not {"psutil", "selenium", "rich", "jinja2"} & set(loaded)


def test_a_completion_is_no_use_of_the_command(on_path: dict[str, str]) -> None:
    """A misspelt variable, and a state directory that cannot be used, do not write into the line that
    is typed."""
    odd = {"BROWSERKEEPER_END_YES": "1", "BROWSERKEEPER_STATE_DIR": "/dev/null/x"}
    done = complete({**on_path, **odd}, "end", "che")
    assert done.stdout.strip() == ""
    assert "Traceback" not in done.stderr
    assert complete({**on_path, **odd}, "end", "--al").stdout.split() == ["plain,--all"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documentation_has_a_line_for_each_shell_and_its_script_is_made(
    on_path: dict[str, str], shell: str
) -> None:
    assert f"_BROWSERKEEPER_COMPLETE={shell}_source browserkeeper" in OPERATIONS.read_text()
    environment = {**on_path, "_BROWSERKEEPER_COMPLETE": f"{shell}_source"}
    done = subprocess.run(["browserkeeper"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "browserkeeper" in done.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
