"""``BROWSERKEEPER_REMOTE`` with its password is in the environment of no program that browserkeeper
starts for itself.  Programs that write down their environment, and that of the guard above them, take
the places of drivers, browsers and helpers."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

from browserkeeper import LaunchError, ResolveError, browser
from browserkeeper.drivers import chromium, probe
from browserkeeper.status import doctor_linux
from tests.support.cli import CLI, ROOT

SECRET = "geheim"
SCRIPT = """#!/bin/sh
cat /proc/self/environ /proc/$PPID/environ >> {seen} 2>/dev/null
echo started {name} >> {seen}
echo "{says}"
"""


class Helpers:
    """Programs on PATH that write down what they see."""

    def __init__(self, directory: Path):
        self.directory, self.seen = directory, directory / "seen"

    def add(self, name: str, says: str = "") -> str:
        path = self.directory / name
        path.write_text(SCRIPT.format(seen=self.seen, name=name, says=says))
        path.chmod(0o755)
        return str(path)

    def wrote(self, name: str) -> str:
        """What the program wrote; it must have run."""
        text = self.seen.read_text(errors="replace")
        assert f"started {name}" in text
        assert "WITNESSED=yes" in text
        self.seen.unlink()
        return text


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> Helpers:
    monkeypatch.setenv("BROWSERKEEPER_REMOTE", f"https://me:{SECRET}@grid.example")
    monkeypatch.setenv("WITNESSED", "yes")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Helpers(tmp_path)


def test_version_probes(helpers: Helpers) -> None:
    path = helpers.add("chromedriver", "ChromeDriver 120.1")
    assert probe._ask(path, "chromedriver") == "120.1"
    assert SECRET not in helpers.wrote("chromedriver")


def test_the_download_manager(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    chrome = helpers.add("chrome", "Chromium 120.0.1.2")
    monkeypatch.setenv("SE_MANAGER_PATH", helpers.add("selenium-manager", "no network"))
    monkeypatch.setenv("BROWSERKEEPER_OFFLINE", "")
    monkeypatch.setenv("PATH", f"{helpers.directory}:/nonexistent")
    monkeypatch.setenv("HOME", str(helpers.directory))
    for link in ("sh", "cat"):
        (helpers.directory / link).symlink_to(f"/bin/{link}")
    with pytest.raises(ResolveError):
        browser("chrome", binary=chrome, attempts=1).start()
    assert SECRET not in helpers.wrote("selenium-manager")


def test_drivers_and_their_guards(helpers: Helpers) -> None:
    chrome = helpers.add("chrome", "Chromium 120.0.1.2")
    driver = helpers.add("chromedriver", "ChromeDriver 120.0.1.2")
    with pytest.raises(LaunchError):
        browser("chrome", binary=chrome, driver_path=driver, attempts=1).start()
    assert SECRET not in helpers.wrote("chromedriver")


def test_the_probe_for_user_namespaces(helpers: Helpers) -> None:
    helpers.add("unshare")
    assert chromium.has_user_namespaces.__wrapped__()
    assert SECRET not in helpers.wrote("unshare")


def test_the_guard_that_doctor_tries(helpers: Helpers) -> None:
    helpers.add("true")
    assert doctor_linux.guard().status == "ok"
    assert SECRET not in helpers.wrote("true")


def test_control_the_command_of_run_is_the_users_and_keeps_it(helpers: Helpers) -> None:
    helpers.add("user-program")
    subprocess.run([*CLI, "run", "--", "user-program"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert SECRET in helpers.wrote("user-program")


WHOLE_ENVIRONMENT = {
    "grid/address.py": "the function that removes the variable",
    "process/interpreter.py": "removes it, too, for programs that may be interpreters",
    "cli/run.py": "the program of `run` is the user's",
    "frozen/__init__.py": "a frozen program that has become a guard, with what it was given",
    "state/tmpdirs.py": "only asked whether a name is in it",
    "status/doctor_host.py": "only asked for the names in it",
    "server/service.py": "the variables of systemd's sockets are taken out of it",
    "cli/environment.py": "only asked for the names in it",
    "options/display.py": "only asked for the display",
    "__init__.py": "only asked whether a name is in it",
}
"""Where ``os.environ`` may be used as a whole, and why."""


def test_no_module_starts_a_program_with_the_whole_environment() -> None:
    """Each call that starts a program names the environment, and no module passes on ``os.environ``."""
    wrong, starts = [], 0
    for path in sorted((ROOT / "browserkeeper").rglob("*.py")):
        name = str(path.relative_to(ROOT / "browserkeeper"))
        tree = ast.parse(path.read_text())
        used = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Subscript)
        }
        for node in ast.walk(tree):
            text = ast.unparse(node)
            if isinstance(node, ast.Attribute) and text == "os.environ" and id(node) not in used:
                wrong.append(f"{name}:{node.lineno}: {text}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "subprocess.run",
                "subprocess.Popen",
            ):
                starts += 1
                if "env" not in {word.arg for word in node.keywords}:
                    wrong.append(f"{name}:{node.lineno}: {ast.unparse(node.func)} without env=")
    assert starts >= 3, "the control: such calls are found"
    assert [where for where in wrong if where.partition(":")[0] not in WHOLE_ENVIRONMENT] == []
    assert [where for where in wrong if where.startswith("cli/run.py")], "the control: it is found there"
