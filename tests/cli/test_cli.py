"""The command line as a whole: help, errors, pipes, colours; and ``history``."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper.cli import SUMMARIES
from browserkeeper.report import REASONS
from tests.conftest import PidFile
from tests.support.cli import CLI, ROOT, cli, cli_json, invoke, run_shell, start_run
from tests.support.guards import program

COMMANDS = ("ps", "top", "sweep", "history", "report", "doctor", "watch", "run")


def test_version() -> None:
    from browserkeeper import __version__

    assert cli("--version").stdout == f"browserkeeper {__version__}\n"


def test_help_lists_every_command() -> None:
    done = cli("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_help_has_an_example_and_its_summary(name: str) -> None:
    text = invoke(name, "--help").output
    assert "Exit status:" in text
    assert f"Example:\n    browserkeeper {name}" in text
    words = " ".join(text.split())
    assert SUMMARIES[name].rstrip(".") in words


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_selenium(name: str) -> None:
    script = (
        "import sys, importlib; from browserkeeper.cli import output; "
        f"importlib.import_module('browserkeeper.cli.{name}'); "
        "sys.exit([m for m in sys.modules if m.split('.')[0] in ('selenium', 'rich', 'tenacity')] != [])"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_importing_the_command_line_imports_no_command() -> None:
    script = (
        "import sys, browserkeeper.cli; sys.exit('browserkeeper.state.ledger' in sys.modules "
        "or 'browserkeeper.cli.ps' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_an_unknown_command_is_answered_with_the_most_similar_one() -> None:
    done = invoke("swep")
    assert done.exit_code == 2
    assert "No such command 'swep'. Did you mean 'sweep'?" in done.output


def test_an_unusable_state_directory_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(tmp_path / "file"))
    done = cli("ps")
    assert done.returncode == 3
    assert done.stderr.startswith("browserkeeper: State directory")
    assert "Set BROWSERKEEPER_STATE_DIR" in done.stderr
    error = cli_json("ps", status=3)["error"]
    assert error["type"] == "LedgerError"
    assert "Set BROWSERKEEPER_STATE_DIR" in error["message"]


def test_a_closed_output_pipe_causes_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*CLI, "ps", "--json"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Returns what a command prints on a pseudo-terminal."""
    controller, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200", **environment}
    process = subprocess.Popen([*CLI, *arguments], cwd=ROOT, env=env, stdout=terminal)
    os.close(terminal)
    text = b""
    try:
        while part := os.read(controller, 65536):
            text += part
    except OSError:  # EIO: the other end was closed
        pass
    process.wait()
    os.close(controller)
    return text.decode()


def test_colours_are_used_on_a_terminal_only(state_dir: Path) -> None:
    assert run_shell("exit 3").returncode == 3
    assert "\x1b[" in on_a_terminal("history")
    assert "\x1b[" not in on_a_terminal("history", NO_COLOR="1")
    assert "\x1b[" not in cli("history").stdout
    legend = f"exited: {REASONS['exited']}"
    assert legend in on_a_terminal("history", NO_COLOR="1")  # on a terminal the reasons are explained
    assert legend not in cli("history").stdout  # for programs there is only the table


# --------------------------------------------------------------------------------------- history


def test_history_lists_all_sessions_and_shows_one() -> None:
    assert cli("history").stdout == "No session has ended yet.\n"
    assert run_shell("exit 7").returncode == 7
    assert run_shell("true").returncode == 0
    newest, oldest = cli_json("history")["ended"]
    assert oldest["report"]["status"] == 7
    assert newest["report"]["status"] == 0
    assert newest["report"]["clean"]
    assert newest["report"]["reason"] == "exited"
    assert len(cli_json("history", "--limit", 1)["ended"]) == 1
    table = cli("history").stdout.splitlines()
    assert len(table) == 3
    assert table[0].startswith("ENDED")
    one = cli_json("history", "--session", oldest["session"]["id"])
    assert one["session"]["command"] == ["sh", "-c", "exit 7"]
    assert [process["name"] for process in one["report"]["processes"]] == ["sh"]
    text = cli("history", "--session", oldest["session"]["id"]).stdout
    assert "command: sh -c exit 7" in text
    assert "exited 7" in text
    assert f"exited: {REASONS['exited']}" in text


def test_the_help_of_history_and_report_explains_every_end_reason() -> None:
    for command in ("history", "report"):
        text = invoke(command, "--help").output
        for reason, meaning in REASONS.items():
            assert re.search(rf"^ *{reason} +{re.escape(meaning)}$", text, re.MULTILINE), reason


@pytest.mark.parametrize("session", ["ffffffffffff", "../live/x", ""])
def test_history_of_an_unknown_session(session: str) -> None:
    done = invoke("history", "--session", session)
    assert done.exit_code == 1
    assert "`browserkeeper history` lists them" in done.output


def test_history_of_a_live_session(
    started: list[subprocess.Popen[str]], pids_of: PidFile, state_dir: Path
) -> None:
    start_run(started, pids_of, 1, *program("tree", pids_of, 0, 0))
    (record,) = (state_dir / "live").glob("*.json")
    done = cli("history", "--session", record.stem)
    assert done.returncode == 1
    assert "has not ended" in done.stderr
