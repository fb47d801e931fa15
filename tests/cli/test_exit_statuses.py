"""Exit statuses: one owner, told apart, and listed in the documentation."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper.cli import SUMMARIES
from browserkeeper.cli.statuses import ExitStatus
from tests.support.cli import CLI, ROOT, cli, cli_json, invoke
from tests.support.waiting import SECONDS

PAGE = ROOT / "docs" / "reference" / "exit-statuses.md"
BREAKS = """
from browserkeeper.cli import main
import browserkeeper.cli.{module} as module
def fail(*_, **__):
    raise {error}
module.{function} = fail
main()
"""


def broken(error: str, *words: str, module: str = "ps", function: str = "snapshot") -> list[str]:
    """The command line with a function that raises."""
    script = BREAKS.format(module=module, function=function, error=error)
    return [sys.executable, "-c", script, *words]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)


def test_the_page_lists_the_statuses_of_the_code() -> None:
    rows = re.findall(r"^\| `(\d+)` \| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {one.name: one.value for one in ExitStatus}


@pytest.mark.parametrize("name", SUMMARIES)
def test_each_command_lists_its_statuses_in_its_help(name: str) -> None:
    text = " ".join(invoke(name, "--help").output.split())
    assert re.search(r"Exit status: (0\b|CMD's own)", text)


def test_wrong_usage_and_our_errors_are_told_apart(tmp_path: Path) -> None:
    environment = {**os.environ, "BROWSERKEEPER_STATE_DIR": str(tmp_path / "file")}
    (tmp_path / "file").write_text("")
    statuses = [
        cli(*words, env=environment).returncode
        for words in (("ps", "--no-such-option"), ("ps",), ("run", "--bad"), ("run", "--", "true"))
    ]
    assert statuses == [2, 3, 125, 125]


def test_a_session_that_does_not_exist_is_an_answer_and_no_error() -> None:
    for words in (("history", "--session", "0123456789ab"), ("end", "0123456789ab", "--yes")):
        assert cli_json(*words, status=1)["error"]["type"] == "NoSuchSession"


@pytest.mark.parametrize(("words", "status"), [(("ps",), 3), (("ps", "--json"), 3)])
def test_a_bug_shows_its_traceback_and_is_not_taken_for_a_finding(
    words: tuple[str, ...], status: int
) -> None:
    done = run(broken("ZeroDivisionError('a bug')", *words))
    assert done.returncode == status
    assert "ZeroDivisionError: a bug" in done.stderr
    assert "please report it" in done.stderr


def test_a_bug_of_run_is_not_taken_for_the_status_of_its_command() -> None:
    words = broken("ZeroDivisionError()", "run", "--", "true", module="run", function="refusal")
    assert run(words).returncode == 125


def test_ctrl_c_is_130_and_no_finding() -> None:
    done = run(broken("KeyboardInterrupt", "ps"))
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("ps", "--json"), ("ps", "--help"), ("--help",), ("--version",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_without_a_reader_is_141(words: tuple[str, ...], unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [*CLI, *words], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_an_error_and_no_finding() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CLI, "ps", "--json"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    assert done.stderr.startswith("browserkeeper: the output cannot be written: No space left")
    assert "Traceback" not in done.stderr
