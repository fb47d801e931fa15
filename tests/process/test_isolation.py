"""Helper interpreters execute no code of the current directory, of PYTHONPATH, or beside the package.

A hostile directory has modules of many names, each of which writes its name into a file when it is
imported.  The controls start the same helpers in the way that they were started before.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from browserkeeper.drivers import webdriver_manager
from tests.support.waiting import SECONDS

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = (
    *("webdriver_manager", "browserkeeper", "selenium", "psutil", "guard", "requests", "urllib3"),
    *("json", "os", "signal", "ctypes", "select", "fcntl", "pathlib", "dataclasses", "typing"),
    *("sitecustomize", "usercustomize", "filelock", "tenacity", "websocket", "dotenv"),
)


class Hostile:
    """A directory with modules that write their names into :attr:`log` when they are imported."""

    def __init__(self, directory: Path, *but: str):
        self.directory, self.log = directory, directory / "executed"
        for name in set(NAMES) - set(but):
            text = f"open({str(self.log)!r}, 'a').write({name!r} + ' ')\n"
            (directory / name).mkdir()
            (directory / name / "__init__.py").write_text(text)
            (directory / name / "__main__.py").write_text(text)

    def executed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    return Hostile(tmp_path)


PROGRAM = f"""
import json, os, sys
sys.path += json.loads(sys.argv[1])
import psutil  # before the current directory can be searched
os.chdir(sys.argv[2])
os.environ["PYTHONPATH"] = sys.argv[2] + os.pathsep  # an empty entry is the current directory
import subprocess, time
from browserkeeper.process.containment import Containment, choose
from browserkeeper.process.guard_process import GuardPlan, GuardProcess, isolated_command

def guard(kind, command):
    containment = Containment(kind, "") if kind == "adopted" else choose(kind)
    running = GuardProcess(GuardPlan("isolation-test", command, os.environ, containment))
    until = time.monotonic() + {SECONDS}
    event = running.wait_for("spawned", "ready", "failed", "ended", deadline=until)
    assert event and event["event"] in ("spawned", "ready"), event
    running.end("closed", until)

kind = sys.argv[3]
if kind == "relay":
    done = subprocess.run(isolated_command("browserkeeper.grid.relay"), capture_output=True, text=True)
    assert "browserkeeper" in done.stderr, done.stderr  # it got that far, and has no arguments
elif kind == "manager":
    from browserkeeper.drivers.families import FAMILIES
    from browserkeeper.drivers.probe import Program
    from browserkeeper.drivers import webdriver_manager
    command = webdriver_manager.command(FAMILIES["chromium"], Program("/bin/true", "1.2.3.4", ""))
    done = subprocess.run(command, capture_output=True, text=True, env={{**os.environ, "WDM_LOCAL": "0",
        "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}})
    assert done.returncode != 0
elif kind == "adopted":
    from browserkeeper.process import identity_of
    me = identity_of(os.getpid())
    guard(kind, (f"{{me.pid}}:{{me.start!r}}",))
else:
    guard(kind, ("/bin/sleep", "600"))
print("done")
"""

KINDS = ["subreaper", "portable", "adopted", "relay", "manager"]


def run(kind: str, home: str, directory: Path) -> None:
    """Start a helper of this kind in ``directory``, with the package that is found in ``home``."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    words = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        PROGRAM,
        json.dumps([*packages, home]),
        str(directory),
        kind,
    ]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=5 * SECONDS)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.leaves_zombies(2, "what leaves its parent under the portable guard goes to PID 1")
@pytest.mark.parametrize("kind", KINDS)
def test_no_code_of_the_current_directory_is_executed(kind: str, hostile: Hostile) -> None:
    run(kind, str(ROOT), hostile.directory)
    assert hostile.executed() == ""


@pytest.mark.leaves_zombies(2, "what leaves its parent under the portable guard goes to PID 1")
@pytest.mark.parametrize("kind", KINDS)
def test_no_code_beside_the_package_is_executed(kind: str, tmp_path: Path) -> None:
    """The package is in the current directory itself, as in a checkout."""
    hostile = Hostile(tmp_path, "browserkeeper")
    shutil.copytree(ROOT / "browserkeeper", tmp_path / "browserkeeper")
    run(kind, str(tmp_path), tmp_path)
    assert hostile.executed() == ""


@pytest.mark.leaves_zombies(2, "what leaves its parent under the portable guard goes to PID 1")
@pytest.mark.parametrize("kind", ["subreaper", "portable", "adopted", "relay"])
def test_the_helpers_start_where_the_package_is_in_a_zip(
    kind: str, tmp_path: Path, hostile: Hostile
) -> None:
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (ROOT / "browserkeeper").rglob("*.py"):
            file.write(path, path.relative_to(ROOT))
    run(kind, str(archive), hostile.directory)
    assert hostile.executed() == ""


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "browserkeeper.process.portable_guard", "session"],
        ["-c", webdriver_manager._SCRIPT.replace("os.chdir", "str"), "chromedriver", "1.2.3.4"],
    ],
    ids=["module", "script"],
)
def test_control_a_helper_that_is_not_isolated_executes_it(words: list[str], hostile: Hostile) -> None:
    subprocess.run([sys.executable, *words], cwd=hostile.directory, capture_output=True, timeout=SECONDS)
    assert hostile.executed()
