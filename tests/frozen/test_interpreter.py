"""Which program runs a guard: never a second copy of the program that starts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import browserkeeper
from browserkeeper import LaunchError, frozen
from browserkeeper.process import guard_process, interpreter
from tests.support.guards import SLEEP_FOREVER, plan_for, start
from tests.support.waiting import deadline_in, wait_until

HERE = Path(__file__).parent
ROOT = Path(browserkeeper.__file__).parent.parent
SCRIPT = HERE / "guards_of.py"
RUNNING = os.readlink("/proc/self/exe") if sys.platform == "linux" else ""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="embedding and frozen programs of Linux")


class Program:
    """Runs a program that starts a guard, and counts its copies from outside."""

    def __init__(self, directory: Path):
        self.copies = directory / "copies"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "COPIES": str(self.copies),
            "PACKAGE": str(ROOT),
            "SCRIPT": str(SCRIPT),
        }

    def run(self, *words: str, **environment: str) -> dict[str, Any]:
        """What the program says; its output in "text" where it is no JSON."""
        done = subprocess.run(
            words, env={**self.environment, **environment}, capture_output=True, text=True, timeout=300
        )
        lines = done.stdout.splitlines()
        return json.loads(lines[-1]) if lines else {"text": done.stderr, "status": done.returncode}

    def number_of_copies(self) -> int:
        return len(self.copies.read_text().splitlines())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_tried", {})


def script(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def refuse_to_start(*_: object, **__: object) -> None:
    raise AssertionError("an ordinary interpreter needs no trial")


# -- an ordinary interpreter


def test_an_ordinary_interpreter_is_used_without_starting_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", refuse_to_start)
    assert interpreter.interpreter() == RUNNING


@pytest.mark.parametrize(
    "executable", [None, "", "./python", "/deleted/venv/bin/python", "/usr/sbin/uwsgi"]
)
def test_the_interpreter_is_known_whatever_sys_executable_says(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", refuse_to_start)
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "_base_executable", executable)
    assert interpreter.interpreter() == RUNNING


# -- a process that was started as a guard and is none


@pytest.mark.parametrize("frozen_program", [False, True])
def test_a_process_that_is_to_be_a_guard_and_is_another_program_exits_at_the_import(
    frozen_program: bool,
) -> None:
    text = f"""
import sys
if {frozen_program}: sys.frozen = True
try:
    import browserkeeper
except BaseException:
    pass
print("runs on")"""
    environment = {**os.environ, frozen.SENTINEL: "guard"}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (frozen.NOT_A_GUARD, "")
    assert "does not run twice" in done.stderr


def test_the_programs_below_a_guard_do_not_have_the_sign_of_a_guard(program: Program) -> None:
    """They may use browserkeeper themselves."""
    said = program.run(sys.executable, str(SCRIPT))
    assert said["certificate"] == "ECHILD"
    assert Path(f"{program.copies}.of-command").read_text() == "removed\n"


# -- frozen programs


def job(directory: Path) -> str:
    """An executable in the place of a frozen program, which notes each start of it and runs on."""
    return script(directory / "python-job", 'echo $$ >>"$COPIES"; exec sleep 60')


def test_control_the_old_rule_starts_the_program_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    monkeypatch.setenv("COPIES", str(copies))
    own = job(tmp_path)
    monkeypatch.setattr(guard_process, "interpreter", lambda psutil="": own)
    running = start(SLEEP_FOREVER)
    assert wait_until(lambda: copies.exists() and copies.read_text())
    assert running.wait_for("spawned", deadline=deadline_in(1)) is None
    running.process.kill()
    running.end("closed", deadline_in())
    assert len(copies.read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", ["PyInstaller without our hook", "cx_Freeze"])
def test_a_frozen_program_without_our_hook_has_a_python_of_the_system_run_its_guard(
    kind: str, program: Program, tmp_path: Path
) -> None:
    own = job(tmp_path)
    facts = {"frozen": True, "executable": own, "_base_executable": own}
    if kind.startswith("PyInstaller"):
        facts["_MEIPASS"] = str(tmp_path)
    said = program.run(sys.executable, str(SCRIPT), SYS=json.dumps(facts))
    assert said["certificate"] == "ECHILD"
    assert os.path.basename(said["guard"]).startswith("python")
    assert program.number_of_copies() == 1


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("path", ["empty", "has a copy of the program as python3"])
def test_a_frozen_program_without_any_python_says_what_it_needs(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, own = tmp_path / "copies", job(tmp_path)
    monkeypatch.setenv("COPIES", str(copies))
    if path != "empty":
        Path(tmp_path, "python3").symlink_to(own)
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", own)
    monkeypatch.setattr(sys, "_base_executable", own)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if path else which(name))
    if path == "empty":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(LaunchError, match=r"PyInstaller 6.9 or newer.*BROWSERKEEPER_PYTHON") as caught:
        start(SLEEP_FOREVER)
    assert not caught.value.retryable
    assert not copies.exists()


def test_a_frozen_program_that_begins_with_our_call_runs_its_guard_by_itself(
    program: Program, tmp_path: Path
) -> None:
    """As cx_Freeze and Nuitka can do it."""
    own = script(tmp_path / "own", f'SYS=\'{{"frozen": true}}\' exec {sys.executable} -c "$START" "$@"')
    begin = f"import sys;sys.path.insert(0,{str(ROOT)!r});sys.frozen=True;import browserkeeper.frozen"
    facts = {"frozen": True, "executable": own}
    said = program.run(sys.executable, str(SCRIPT), SYS=json.dumps(facts), BEGIN="1", START=begin)
    assert said["certificate"] == "ECHILD"
    assert program.number_of_copies() == 1


def test_a_frozen_program_runs_no_other_module_than_ours() -> None:
    text = "import sys;sys.frozen=True;import browserkeeper"
    words = [sys.executable, "-c", text, frozen.START, "os"]
    environment = {**os.environ, frozen.SENTINEL: "guard"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == frozen.NOT_A_GUARD


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"LD_LIBRARY_PATH": "/app"}, {}),
        ({"LD_LIBRARY_PATH": "/app:/opt", "LD_LIBRARY_PATH_ORIG": "/opt"}, {"LD_LIBRARY_PATH": "/opt"}),
        ({"LD_LIBRARY_PATH": "/mine", "LD_LIBRARY_PATH_ORIG": "/opt"}, {"LD_LIBRARY_PATH": "/mine"}),
        ({"_PYI_ARCHIVE_FILE": "/app/job", "HOME": "/root"}, {"HOME": "/root"}),
    ],
)
def test_programs_get_no_libraries_of_a_frozen_program(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", "/app", raising=False)
    assert frozen.environment_of_programs(given) == expected


# -- an interpreter that the user names


@pytest.mark.usefixtures("no_memory")
def test_the_user_names_an_interpreter_by_a_shim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyenv and asdf have such scripts.  It is asked once for the interpreter behind it."""
    shim = script(tmp_path / "python3", f'echo >>"{tmp_path}/starts"; exec {RUNNING} "$@"')
    monkeypatch.setenv(frozen.VARIABLE, shim)
    assert {interpreter.interpreter() for _ in range(3)} == {RUNNING}
    assert len(Path(tmp_path, "starts").read_text().splitlines()) == 1


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('echo "$@"', "does not run the guard"),
        ("exit 0", "it says: nothing"),
        ("exec sleep 60", "did not answer"),
        (f"export PYTHONPATH={ROOT}; exec {RUNNING} -c 'import browserkeeper'", "and no interpreter"),
        (None, "No such file"),
    ],
)
def test_what_the_user_names_has_to_be_an_interpreter(
    text: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "python3"
    if text is not None:
        script(path, text)
    if reason == "did not answer":
        monkeypatch.setattr(interpreter, "TRIAL_TIMEOUT", 0.3)
    monkeypatch.setenv(frozen.VARIABLE, str(path))
    with pytest.raises(LaunchError, match=rf"BROWSERKEEPER_PYTHON='{path}' is no .*{reason}"):
        plan = plan_for(SLEEP_FOREVER)
        guard_process.GuardProcess(plan)


# -- programs that embed Python


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a C program, whose name begins like an interpreter's."""
    config = shutil.which("python3-config", path="/usr/bin") or ""
    if not config or not shutil.which("gcc"):
        pytest.skip("no gcc, or no /usr/bin/python3-config (python3-dev)")
    flags = subprocess.check_output([config, "--includes", "--embed", "--ldflags"], text=True).split()
    path = tmp_path_factory.mktemp("embed") / "python-worker"
    done = subprocess.run(["gcc", str(HERE / "embed.c"), "-o", str(path), *flags], capture_output=True)
    if done.returncode:
        pytest.skip(f"a program that embeds Python cannot be built: {done.stderr[-200:]!r}")
    return str(path)


@pytest.mark.parametrize("isolated", ["", "1"])
@pytest.mark.parametrize("name", ["worker", "python-worker", "python3"])
def test_a_program_that_embeds_python_does_not_start_itself(
    isolated: str, name: str, embedding: str, program: Program, tmp_path: Path
) -> None:
    """``name``: by which it is started.  PATH has a shim as python3."""
    own = tmp_path / name
    shutil.copy(embedding, own)
    bin_directory = tmp_path / "bin"
    script(bin_directory / "python3", f'exec {RUNNING} "$@"')
    more = {"ISOLATED": isolated} if isolated else {}
    path = f"{bin_directory}{os.pathsep}{os.environ['PATH']}"
    said = program.run(str(own), **more, PATH=path)
    assert said["certificate"] == "ECHILD", said
    assert said["guard"] != str(own)
    assert program.number_of_copies() == 1


def test_uwsgi_has_an_interpreter_run_its_guards(program: Program, tmp_path: Path) -> None:
    beside = Path(sys.prefix, "bin", "uwsgi")
    uwsgi = str(beside) if beside.exists() else shutil.which("uwsgi")
    if not uwsgi:
        pytest.skip("no uwsgi (pip install uwsgi)")
    words = (
        "--master",
        "--socket",
        str(tmp_path / "socket"),
        "--pyrun",
        str(SCRIPT),
        "--processes",
        "1",
    )
    environment = {**program.environment, "SCRIPT": str(SCRIPT)}
    running = subprocess.Popen(
        [uwsgi, *words, "--die-on-term"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert running.stdout is not None
        said = next(json.loads(line) for line in running.stdout if line.startswith(b"{"))
    finally:
        running.terminate()
        running.communicate(timeout=60)
    assert os.path.basename(said["executable"]).startswith("uwsgi"), said
    assert os.path.basename(said["guard"]).startswith("python")
    assert program.number_of_copies() == 1


# -- zip files


@pytest.mark.parametrize("place", ["zip", "package deleted"])
def test_a_guard_is_imported_from_a_zip_file(place: str, program: Program, tmp_path: Path) -> None:
    """zipapp, and PEX without --venv, leave the package in the zip file."""
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((ROOT / "browserkeeper").rglob("*.py")):
            file.write(path, path.relative_to(ROOT))
        text = SCRIPT.read_text().replace('sys.path.insert(0, os.environ["PACKAGE"])', "")
        if place != "zip":
            text = text.replace(
                "def say()", f"os.rename({str(archive)!r}, {str(archive)!r} + '.old')\ndef say()"
            )
        file.writestr("__main__.py", text)
    said = program.run(sys.executable, str(archive))
    if place == "zip":
        assert said["certificate"] == "ECHILD", said
    else:
        assert "finds no" in said["error"]
        assert "pip" in said["error"]
