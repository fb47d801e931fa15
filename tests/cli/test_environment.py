"""Options from the environment: their names, what wins, what is refused, and which variable a message
names."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from browserkeeper.admission.limits import VARIABLES as LIMIT_VARIABLES
from browserkeeper.cli import SUMMARIES, group
from browserkeeper.cli.environment import SERVICE_LINK, Command, long_name
from browserkeeper.state.ledger import Ledger
from tests.support.cli import ROOT, cli
from tests.support.ledger import add_ended, new_session


def commands() -> Iterator[tuple[str, Command]]:
    with click.Context(group) as ctx:
        for name in SUMMARIES:
            command = group.get_command(ctx, name)
            assert isinstance(command, Command)
            yield name, command


OPTIONS = [(name, option) for name, command in commands() for option in command.options()]
VARIABLES = {str(option.envvar): (name, long_name(option)) for name, option in OPTIONS if option.envvar}
COMMAND_LINE_ONLY = {
    *(("end", option) for option in ("--owner", "--older-than", "--all", "--yes", "--dry-run")),
    *(("sweep", option) for option in ("--yes", "--foreign")),
}
"""What decides which sessions are harmed, and whether."""


def run(*words: object, **environment: str) -> Result:
    runner = CliRunner(env=environment)
    return runner.invoke(group, [str(word) for word in words], prog_name="browserkeeper")


def text_of(result: Result) -> str:
    return " ".join(result.output.split())


# --------------------------------------------------------------------------------------- the names


def test_each_option_has_a_variable_named_after_command_and_option() -> None:
    assert VARIABLES["BROWSERKEEPER_WATCH_LISTEN"] == ("watch", "--listen")
    assert VARIABLES["BROWSERKEEPER_SERVE_MAX"] == ("serve", "--max")
    assert VARIABLES["BROWSERKEEPER_PS_JSON"] == ("ps", "--json")
    without = {(name, long_name(option)) for name, option in OPTIONS if not option.envvar}
    assert without == COMMAND_LINE_ONLY
    assert len(VARIABLES) == len(OPTIONS) - len(without), "no two options share a variable"


def test_no_option_has_a_variable_that_means_something_else() -> None:
    """The library's own variables, as they stand in its source, and those that Kubernetes sets."""
    word = re.compile(r"\bBROWSERKEEPER_[A-Z][A-Z_]*")
    source = {
        name
        for path in (ROOT / "browserkeeper").rglob("*.py")
        if path.parent.name != "cli"
        for name in word.findall(path.read_text())
    } | set(LIMIT_VARIABLES.values())
    assert {"BROWSERKEEPER_SERVER", "BROWSERKEEPER_MAX_BROWSERS", "BROWSERKEEPER_LOG"} <= source
    assert not source & set(VARIABLES)
    prefixes = tuple(f"BROWSERKEEPER_{name.upper()}_" for name in SUMMARIES)
    assert not {name for name in source if name.startswith(prefixes)}, "they would be refused"
    for variable in VARIABLES:
        _, _, option = variable.split("_", 2)
        assert not SERVICE_LINK.fullmatch(option)


@pytest.mark.parametrize("name", SUMMARIES)
def test_help_names_the_variable_of_each_option(name: str) -> None:
    shown = text_of(run(name, "--help"))
    for variable, (command, _) in VARIABLES.items():
        assert (f"env var: {variable}" in shown.replace("- ", "-")) == (command == name)


# --------------------------------------------------------------------------------------- their effect


def test_an_option_comes_from_the_environment_and_the_command_line_wins(state_dir: Path) -> None:
    ledger = Ledger.open(state_dir)
    for label in ("shop a", "shop b", "other"):
        add_ended(ledger, dataclasses.replace(new_session(), label=label))

    def shown(*words: str, **environment: str) -> int:
        return sum(word in run("history", *words, **environment).output for word in ("shop a", "shop b"))

    assert shown() == 2
    assert shown(BROWSERKEEPER_HISTORY_LABEL="'shop a'") == 1
    assert shown(BROWSERKEEPER_HISTORY_LABEL="'shop a' 'shop b'") == 2
    assert shown("--label", "shop a", BROWSERKEEPER_HISTORY_LABEL="other") == 1
    assert shown(BROWSERKEEPER_HISTORY_LABEL="") == 2
    as_json = run("history", BROWSERKEEPER_HISTORY_JSON="1", BROWSERKEEPER_HISTORY_LIMIT="1").output
    assert as_json.startswith("{")
    assert as_json.count('"report"') == 1


def test_a_real_watch_takes_its_settings_from_the_environment() -> None:
    environment = {**os.environ, "BROWSERKEEPER_WATCH_ONCE": "yes", "BROWSERKEEPER_WATCH_JSON": "true"}
    done = cli("watch", env=environment)
    assert done.returncode == 0, done.stderr
    assert '"ok": true' in done.stdout


@pytest.mark.parametrize(
    ("words", "variable", "value", "says"),
    [
        ("watch --once", "WATCH_INTERVAL", "soon", "'--interval' (from BROWSERKEEPER_WATCH_INTERVAL)"),
        ("watch --once", "WATCH_DOCKER", "../x", "'--docker' (from BROWSERKEEPER_WATCH_DOCKER)"),
        ("watch", "WATCH_ONCE", "perhaps", "'--once' (from BROWSERKEEPER_WATCH_ONCE)"),
        ("ps", "PS_LABEL", "'open", "'--label' (from BROWSERKEEPER_PS_LABEL)"),
        ("top", "TOP_SORT", "size", "'--sort' (from BROWSERKEEPER_TOP_SORT)"),
        ("report", "REPORT_HTML", "/nowhere/x", "(--html comes from BROWSERKEEPER_REPORT_HTML.)"),
        (
            "watch",
            "WATCH_MAX_ZOMBIES",
            "5",
            "(--max-zombies comes from BROWSERKEEPER_WATCH_MAX_ZOMBIES.)",
        ),
        (
            "history --label x",
            "HISTORY_SESSION",
            "0123",
            "(--session comes from BROWSERKEEPER_HISTORY_SESSION.)",
        ),
    ],
)
def test_the_message_about_a_wrong_value_names_its_variable(
    words: str, variable: str, value: str, says: str
) -> None:
    done = run(*words.split(), **{f"BROWSERKEEPER_{variable}": value})
    assert done.exit_code == 2
    assert says in text_of(done)


def test_a_wrong_value_of_the_command_line_is_not_blamed_on_a_variable() -> None:
    done = run("watch", "--interval", "soon", BROWSERKEEPER_WATCH_INTERVAL="5")
    assert done.exit_code == 2
    assert "'--interval': 'soon'" in done.output
    assert "BROWSERKEEPER_WATCH" not in done.output


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(("command", "option"), sorted(COMMAND_LINE_ONLY))
def test_options_that_decide_what_is_harmed_are_refused_from_the_environment(
    command: str, option: str
) -> None:
    name = f"BROWSERKEEPER_{command.upper()}_{option[2:].upper().replace('-', '_')}"
    done = run(command, **{name: "1"})
    assert done.exit_code == 2
    assert f"{name} is set, but {option} is taken from the command line only." in text_of(done)


def test_a_misspelt_variable_is_refused_with_the_right_one() -> None:
    done = run("watch", "--once", BROWSERKEEPER_WATCH_LISTN="127.0.0.1:10187")
    assert done.exit_code == 2
    assert "Did you mean BROWSERKEEPER_WATCH_LISTEN?" in text_of(done)
    assert run("resume", BROWSERKEEPER_WATCH_LISTN="x").exit_code == 0, "of another command"
    assert run("watch", "--help", BROWSERKEEPER_WATCH_LISTN="x").exit_code == 0


def test_variables_that_kubernetes_sets_for_a_service_are_no_options() -> None:
    link = "BROWSERKEEPER_RESUME_"
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_4444_TCP_ADDR")
    assert run("resume", **{link + name: "tcp://10.0.0.1:4444" for name in names}).exit_code == 0
    assert run("resume", **{link + "PORTS": "1"}).exit_code == 2
