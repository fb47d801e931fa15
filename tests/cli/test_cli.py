"""The command line, from outside: processes, exit statuses, text and JSON; ``run`` above all."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.cli import SUMMARIES
from tests.conftest import PidFile
from tests.support import witness
from tests.support.cli import CLI, ROOT, cli, cli_json, invoke, run_shell, start_run
from tests.support.guards import program
from tests.support.ledger import dead_record, write_record
from tests.support.waiting import SECONDS, wait_until

COMMANDS = ("ps", "top", "sweep", "history", "report", "doctor", "watch", "run")
ANCIENT = 1e9
"""Seconds: a sweep in a test must not touch what other sessions of this machine have left."""


def all_gone(members: list[witness.Seen], seconds: float = 5) -> bool:
    return wait_until(lambda: not any(map(witness.is_same, members)), seconds)


# ------------------------------------------------------------------------------------- the group


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
    assert done.returncode == 2
    assert done.stderr.startswith("browserkeeper: State directory")
    assert "Set BROWSERKEEPER_STATE_DIR" in done.stderr
    error = cli_json("ps", status=2)["error"]
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
    """What a command prints on a pseudo-terminal."""
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


# -------------------------------------------------------------------------------------------- ps


def test_ps_without_sessions() -> None:
    assert cli("ps").stdout == "No live sessions.\n"
    assert cli_json("ps") == {"schema": 1, "ok": True, "sessions": [], "pools": [], "bad_records": []}


def test_ps_shows_a_run_and_its_tree(started: list[subprocess.Popen[str]], pids_of: PidFile) -> None:
    running = start_run(started, pids_of, 3, *program("tree", pids_of, 2, 1))
    (session,) = cli_json("ps")["sessions"]
    assert session["kind"] == "run"
    assert session["state"] == "live"
    assert session["owner"]["pid"] == running.front.pid
    assert session["browser"] == os.path.basename(sys.executable)
    assert session["command"][-3:] == [str(pids_of), "2", "1"]
    assert session["deadline_left"] is None
    assert 0 < session["age"] < 30
    assert {p["pid"] for p in session["processes"]} == {seen.pid for seen in running.members}
    assert 0 < sum(p["memory"] for p in session["processes"]) == session["memory"] < 100e6
    pids = {seen.pid for seen in running.members}
    lines = cli("ps", "--tree").stdout.splitlines()
    indents = {int(line.split()[0]): len(line) - len(line.lstrip()) for line in lines[3:]}
    assert session["id"] in lines[1]
    assert indents == {seen.pid: 4 if seen.parent in pids else 2 for seen in running.members}


def test_ps_marks_zombies(started: list[subprocess.Popen[str]], pids_of: PidFile) -> None:
    running = start_run(started, pids_of, 3, *program("zombie_maker", pids_of, 2))
    (session,) = cli_json("ps", status=1)["sessions"]
    assert set(session["zombies"]) == {seen.pid for seen in running.members[1:]}
    text = cli("ps", "--tree").stdout
    assert text.count("ZOMBIE") == 2
    assert f"zombie: pid {session['zombies'][0]} of session {session['id']}" in text


@pytest.mark.parametrize("content", ["", "{", '{"schema": 99}', '{"schema": 1, "session": {}}'])
def test_ps_lists_invalid_records(state_dir: Path, content: str) -> None:
    record = write_record(state_dir, content)
    newer = "99" in content
    assert ("foreign record: " if newer else "bad record: ") in invoke("ps").output
    document = cli_json("ps", status=1)
    assert document["ok"] is False
    (bad,) = document["bad_records"]
    assert bad["path"] == str(record)
    assert bad["why"]
    assert bad["foreign"] == newer
    record.unlink()


def test_a_record_cannot_send_escape_sequences_to_the_terminal(state_dir: Path) -> None:
    record = write_record(state_dir, "{", "\x1b[31mred")
    assert "\x1b" not in cli("ps").stdout
    record.unlink()


@pytest.mark.chrome
def test_ps_shows_a_browser() -> None:
    from browserkeeper import browser

    session = browser("chromium", timeout=60)
    with session:
        (seen,) = cli_json("ps")["sessions"]
        assert (seen["id"], seen["kind"], seen["browser"]) == (session.id, "session", "chromium")
        assert seen["owner"]["pid"] == os.getpid()
        assert 0 < seen["deadline_left"] <= 60
        ours = {process.pid for process in witness.below(os.getpid()) if process.name != "bk-guard"}
        assert {process["pid"] for process in seen["processes"]} <= ours
        assert session.pid in {process["pid"] for process in seen["processes"]}
        assert seen["memory"] > 50e6
        tree = cli("ps", "--tree").stdout
        assert "\n  " in tree
        assert f" {session.pid} chromium " in tree


# -------------------------------------------------------------------- what the dead left, and sweep


@dataclasses.dataclass
class Orphaned:
    """A session whose owner and guard are dead, with a process and a TMPDIR left of it."""

    session: str
    process: subprocess.Popen[bytes]
    tmpdir: Path
    record: Path


@pytest.fixture
def orphaned(state_dir: Path, tmp_path: Path) -> Iterator[Orphaned]:
    """Made by hand, two hours old, so that the sweep can be kept from everything younger."""
    session = os.urandom(6).hex()
    environment = {"BROWSERKEEPER_SESSION": session}
    process = subprocess.Popen(["/bin/sleep", "600"], env=environment)
    tmpdir = tmp_path / f"bk-{session}"
    tmpdir.mkdir(mode=0o700)
    (tmpdir / "profile").write_bytes(b"x" * 100_000)
    record = write_record(state_dir, json.dumps(dead_record(session, tmpdir)), session)
    yield Orphaned(session, process, tmpdir, record)
    process.kill()
    process.wait()
    record.unlink(missing_ok=True)


def test_ps_marks_an_orphaned_session(orphaned: Orphaned) -> None:
    (session,) = cli_json("ps", status=1)["sessions"]
    assert session["state"] == "orphaned"
    assert [process["pid"] for process in session["processes"]] == [orphaned.process.pid]
    assert "orphaned: chrome session" in cli("ps").stdout


def test_sweep_without_yes_removes_nothing(orphaned: Orphaned) -> None:
    document = cli_json("sweep", "--older-than", 3600, status=1)
    assert document["dry_run"] is True
    finding = next(f for f in document["findings"] if f["session"] == orphaned.session)
    assert [process["pid"] for process in finding["processes"]] == [orphaned.process.pid]
    assert set(finding["files"]) == {str(orphaned.tmpdir), str(orphaned.record)}
    assert finding["bytes"] >= 100_000
    assert not finding["removed"]
    text = cli("sweep", "--older-than", 3600).stdout
    assert "would be removed; nothing was touched" in text
    assert orphaned.process.poll() is None
    assert orphaned.record.exists()
    assert (orphaned.tmpdir / "profile").exists()


def test_sweep_yes_removes_a_dead_session_and_writes_the_history(orphaned: Orphaned) -> None:
    document = cli_json("sweep", "--yes", "--older-than", 3600)
    finding = next(f for f in document["findings"] if f["session"] == orphaned.session)
    assert finding["removed"]
    assert finding["report"]["clean"]
    assert document["totals"]["bytes"] >= 100_000
    assert document["totals"]["processes"] >= 1
    assert orphaned.process.wait(5) == -signal.SIGKILL
    assert not orphaned.tmpdir.exists()
    assert not orphaned.record.exists()
    assert cli_json("history", "--session", orphaned.session)["report"]["reason"] == "swept"


def test_sweep_reports_a_directory_that_it_may_not_remove(orphaned: Orphaned) -> None:
    orphaned.tmpdir.chmod(0o755)  # no guard makes such a directory: it is not ours to remove
    document = cli_json("sweep", "--yes", "--older-than", 3600, status=3)
    finding = next(f for f in document["findings"] if f["session"] == orphaned.session)
    assert not finding["removed"]
    assert "left alone" in finding["problem"]
    assert orphaned.tmpdir.exists()


def test_sweep_leaves_sessions_younger_than_its_age_limit(orphaned: Orphaned) -> None:
    document = cli_json("sweep", "--yes", "--older-than", ANCIENT)
    assert document["findings"] == []
    assert orphaned.process.poll() is None
    done = cli("sweep", "--older-than", ANCIENT)
    assert (done.returncode, done.stdout) == (0, "Nothing is left of any dead owner.\n")


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_sweep_refuses_an_invalid_age(seconds: str) -> None:
    done = invoke("sweep", "--older-than", seconds)
    assert done.exit_code == 2
    assert "--older-than" in done.output


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


@pytest.mark.parametrize("session", ["ffffffffffff", "../live/x", ""])
def test_history_of_an_unknown_session(session: str) -> None:
    done = invoke("history", "--session", session)
    assert done.exit_code == 2
    assert "`browserkeeper history` lists them" in done.output


def test_history_of_a_live_session(
    started: list[subprocess.Popen[str]], pids_of: PidFile, state_dir: Path
) -> None:
    start_run(started, pids_of, 1, *program("tree", pids_of, 0, 0))
    (record,) = (state_dir / "live").glob("*.json")
    done = cli("history", "--session", record.stem)
    assert done.returncode == 2
    assert "has not ended" in done.stderr


# ---------------------------------------------------------------------------------------- doctor


@pytest.mark.leaves_zombies(1, "doctor makes an orphan, and pytest, its PID 1 here, does not reap")
def test_doctor_warns_where_orphans_are_not_reaped() -> None:
    done = cli("doctor", "--json")
    document = json.loads(done.stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert document["schema"] == 1
    assert done.returncode == int(any(c["status"] == "fail" for c in checks.values()))
    assert document["ok"] == (done.returncode == 0)
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
    assert {"chrome", "firefox", "guard", "PID 1", "containment", "/dev/shm"} <= set(checks)
    assert checks["guard"]["status"] == "ok"
    assert checks["PID 1"]["status"] == "warn"
    assert "does not reap" in checks["PID 1"]["what"]


def test_doctor_under_run_finds_that_orphans_are_reaped() -> None:
    done = cli("run", "--", *CLI, "doctor")
    (line,) = (line for line in done.stdout.splitlines() if "PID 1" in line)
    assert line.startswith("ok ")
    assert "bk-guard" in line


def test_doctor_without_any_browser_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.errors import ResolveError
    from browserkeeper.status import doctor

    def nowhere(*_: object, **__: object) -> None:
        raise ResolveError("No chrome found. Install it.", (("PATH", "none"),))

    monkeypatch.setattr(doctor, "resolve", nowhere)
    checks = list(doctor.browsers())
    assert {check.status for check in checks} == {"fail"}
    assert {(check.what, check.remedy) for check in checks} == {("No chrome found", "Install it.")}


def test_doctor_reports_stale_locks_and_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.status import doctor

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock = tmp_path / ".wdm" / ".wdm-lock-chromedriver-linux64"
    profile = tmp_path / ".org.chromium.Chromium.abc"
    lock.parent.mkdir()
    lock.touch()
    profile.mkdir()
    assert doctor.webdriver_manager_locks().status == "ok"
    assert doctor.stale_profiles().status == "ok"
    for path in (lock, profile):
        os.utime(path, (0, 0))
    assert str(lock) in doctor.webdriver_manager_locks().remedy
    assert str(profile) in doctor.stale_profiles().remedy


def test_doctor_reads_the_limits_of_either_cgroup_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.process import limits
    from browserkeeper.status import doctor_linux

    outer, inner = tmp_path, tmp_path / "inner"
    inner.mkdir()
    (outer / "pids.max").write_text("100\n")
    (outer / "pids.current").write_text("60\n")
    (inner / "pids.max").write_text("max\n")
    (inner / "pids.current").write_text("5\n")
    monkeypatch.setattr(limits, "cgroup_directories", lambda _: [inner, outer])
    assert limits.cgroup_left("pids", ("pids.max", "pids.current")) == 40
    check = doctor_linux.processes()
    assert check.status == "warn"
    assert "only 40 more" in check.what


# ------------------------------------------------------------------------------------------- run


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_run_exits_with_the_status_of_its_command(script: str, status: int) -> None:
    assert run_shell(script).returncode == status


def test_run_passes_the_streams_through() -> None:
    done = run_shell("cat; echo err >&2", input="from stdin\n")
    assert (done.stdout, done.stderr) == ("from stdin\n", "err\n")


def test_run_takes_options_up_to_the_command_only() -> None:
    done = cli("run", "--timeout", "20", "echo", "--timeout", "x", "--json", "--", "--help")
    assert done.stdout == "--timeout x --json -- --help\n"


def test_run_passes_arguments_and_environment_unchanged() -> None:
    """exec keeps the pid; argv and environment reach the command as they were."""
    script = "import os, sys; print(sys.argv[1:], os.environ['GREETING'])"
    env = {**os.environ, "GREETING": "grüß dich"}
    done = cli("run", sys.executable, "-c", script, "a b", "", "ü", env=env)
    assert done.stdout == "['a b', '', 'ü'] grüß dich\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_run_forwards_signals_to_its_command(
    number: signal.Signals, started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    script = f"trap 'exit 9' {int(number)}; echo ready; while :; do sleep 0.05; done"
    words = (*CLI, "run", "--", "sh", "-c", script)
    # pytest may run with this signal ignored (nohup, a shell's background job); sh can trap no signal
    # that it finds ignored at its start.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        front = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, before)
    started.append(front)
    assert front.stdout is not None
    assert front.stdout.readline() == "ready\n"
    front.send_signal(number)
    assert front.wait(SECONDS) == 9


def test_run_ends_at_its_timeout() -> None:
    began = time.monotonic()
    assert run_shell("sleep 60", "--timeout", 0.3).returncode == 124
    assert time.monotonic() - began < 5
    (ended,) = cli_json("history")["ended"]
    assert ended["report"]["reason"] == "timeout"
    assert ended["session"]["deadline"] > ended["session"]["created"]


def test_run_waits_for_the_grace_period_before_sigkill() -> None:
    script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    done = run_shell(script, "--timeout", 1)
    assert (done.returncode, done.stdout) == (124, "ready\nasked\n")
    began = time.monotonic()
    assert run_shell("trap '' TERM; sleep 60", "--timeout", 0.3, "--grace", 0.3).returncode == 124
    assert time.monotonic() - began < 5


def test_run_ends_daemons_when_its_command_ends(pids_of: PidFile) -> None:
    assert cli("run", "--", *program("daemonise", pids_of)).returncode == 0
    (daemon,) = pids_of.read()
    assert witness.look(daemon) is None
    (ended,) = cli_json("history")["ended"]
    assert [p["pid"] for p in ended["report"]["processes"] if p["adopted"]] == [daemon]


def test_control_without_run_a_daemon_survives(pids_of: PidFile) -> None:
    subprocess.run(program("daemonise", pids_of), check=True)
    (daemon,) = pids_of.read()
    seen = witness.look(daemon)
    assert seen is not None
    assert witness.is_same(seen)
    witness.end_by_pid([seen])
    wait_until(lambda: not witness.is_same(seen))
    witness.reap_orphans(set())


@pytest.mark.leaves_zombies(2, "the guards' own, where PID 1 does not reap")
def test_a_killed_run_leaves_nothing(started: list[subprocess.Popen[str]], pids_of: PidFile) -> None:
    command = f"{' '.join(program('daemonise', pids_of))}; {' '.join(program('ignore_term', pids_of))}"
    running = start_run(started, pids_of, 2, "sh", "-c", command)
    running.front.kill()
    assert running.front.wait(5) == -signal.SIGKILL
    assert all_gone(running.members)
    assert wait_until(lambda: cli_json("history")["ended"])
    (ended,) = cli_json("history")["ended"]
    # The dying close their pipes a moment before they are dead; on a busy machine that is all
    # the guard sees.
    assert ended["report"]["reason"] in ("owner-died", "abandoned")
    assert ended["report"]["clean"]


def test_run_creates_a_tmpdir_for_its_command_and_removes_it(tmp_path: Path) -> None:
    done = run_shell("echo $TMPDIR; touch $TMPDIR/file; stat -c %a $TMPDIR")
    path, mode = done.stdout.split()
    assert os.path.basename(path).startswith("bk-")
    assert mode == "700"
    assert not os.path.exists(path)
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    assert run_shell("echo $TMPDIR", "--keep-tmpdir", env=env).stdout == f"{tmp_path}\n"
    assert tmp_path.exists()


def test_run_without_a_ledger_writes_no_record(state_dir: Path) -> None:
    assert run_shell("exit 4", "--no-ledger").returncode == 4
    assert not list(state_dir.rglob("*.json"))


def test_run_json_prints_the_path_of_the_coming_report() -> None:
    done = run_shell("echo out; echo err >&2", "--json")
    place, err = done.stderr.splitlines()
    assert (done.stdout, err) == ("out\n", "err")
    told = json.loads(place)
    assert told["schema"] == 1
    assert json.loads(Path(told["history"]).read_text())["session"]["id"] == told["session"]


@pytest.mark.parametrize("name", ["no-such-command", "./no/such/command", ""])
def test_run_of_a_missing_command_exits_with_127(name: str) -> None:
    done = invoke("run", "--", name)
    assert done.exit_code == 127
    assert done.output == f"browserkeeper run: {name}: not found\n"
    assert '"NotFound"' in invoke("run", "--json", "--", name).output


def test_run_of_a_file_that_is_not_executable_exits_with_126(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    for path in (tmp_path / "text", tmp_path):
        done = invoke("run", path)
        assert done.exit_code == 126
        assert done.output == f"browserkeeper run: {path}: cannot be executed\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_run_refuses_an_invalid_timeout(seconds: str) -> None:
    for option in ("--timeout", "--grace"):
        done = invoke("run", option, seconds, "--", "true")
        assert done.exit_code == 2
        assert option in done.output


def test_run_without_a_command_is_a_usage_error() -> None:
    done = invoke("run", "--")
    assert done.exit_code == 2
    assert "CMD" in done.output


def test_run_shortens_a_long_command_line_in_the_record_only() -> None:
    done = cli("run", "--", "sh", "-c", "echo $#; exit 3", "sh", *(["x" * 1000] * 500))
    assert (done.returncode, done.stdout) == (3, "500\n")
    (ended,) = cli_json("history")["ended"]
    assert len(json.dumps(ended["session"]["command"])) < 20_000


@pytest.mark.root
@pytest.mark.namespaces
def test_run_as_pid_1_reaps_orphans(pids_of: PidFile) -> None:
    """It reaps a stranger's orphans while the command runs, and keeps its status."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", *CLI)
    daemon = " ".join(program("daemonise", pids_of))
    script = f"{daemon}; cat /proc/1/comm; (sleep 0.1 & exec true); sleep 0.4; ps -eo stat; exit 5"
    done = subprocess.run(
        [*inside, "run", "--", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 5, done.stderr
    first, *states = done.stdout.split()
    assert first == "bk-guard"
    assert states
    assert not [state for state in states if state.startswith("Z")]


# --------------------------------------------------------------------- run, its guards and the shell


def test_a_run_whose_guard_is_killed_leaves_nothing(
    started: list[subprocess.Popen[str]], pids_of: PidFile
) -> None:
    running = start_run(started, pids_of, 1, *program("ignore_term", pids_of))
    (session,) = cli_json("ps")["sessions"]
    os.kill(session["guards"][0]["pid"], signal.SIGKILL)
    assert running.front.wait(5) in (126, 137)
    assert all_gone(running.members)
    (ended,) = cli_json("history")["ended"]
    assert ended["report"]["reason"] == "guard-died"


def test_run_prints_why_an_exec_failed(tmp_path: Path) -> None:
    """What which(1) cannot know: a file that the kernel refuses, a script without interpreter."""
    for content, status, words in (("junk", 126, "Exec format"), ("#!/no/such\n", 127, "No such file")):
        path = tmp_path / f"script{status}"
        path.write_text(content)
        path.chmod(0o755)
        done = cli("run", path)
        assert done.returncode == status
        assert str(path) in done.stderr
        assert words in done.stderr


def test_run_leaves_ignored_signals_ignored() -> None:
    """nohup(1), and what a shell starts in the background."""
    script = "trap '' HUP; exec \"$@\""
    words = (*CLI, "run", "--", "sh", "-c", "kill -HUP $$; echo alive")
    done = subprocess.run(["sh", "-c", script, "sh", *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n")


class Terminal:
    """An interactive shell on a pseudo-terminal, to type into."""

    def __init__(self) -> None:
        self.controller, terminal = pty.openpty()
        env = {
            **os.environ,
            "PS1": "$ ",
            "TERM": "dumb",
            "BK": f"{sys.executable} -m browserkeeper run --",
        }
        words = ["setsid", "-c", "bash", "--norc", "--noediting", "-i"]
        self.shell = subprocess.Popen(
            words, cwd=ROOT, env=env, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        os.set_blocking(self.controller, False)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def shows(self, text: str, seconds: float = 5) -> bool:
        """Does it come?  What was typed is echoed, so ask for something else."""
        return wait_until(lambda: text in self._read(), seconds)

    def _read(self) -> str:
        try:
            self.text += os.read(self.controller, 65536).decode(errors="replace")
        except OSError:  # nothing new, or hung up
            pass
        return self.text

    def close(self) -> None:
        jobs = [seen for seen in witness.below(self.shell.pid) if seen.parent == self.shell.pid]
        witness.end_by_pid(jobs)
        time.sleep(0.2)
        self.shell.kill()
        self.shell.wait()
        os.close(self.controller)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    if not (shutil.which("setsid") and shutil.which("bash")):
        pytest.skip("needs setsid(1) and bash")
    shell = Terminal()
    yield shell
    shell.close()


@pytest.mark.leaves_zombies(4, "where it fails, jobs are killed")
def test_ctrl_c_ends_a_run(terminal: Terminal) -> None:
    terminal.type("$BK sh -c 'echo rea''dy; exec sleep 600'; echo status=$?\n")
    assert terminal.shows("ready")
    terminal.type("\x03")
    assert terminal.shows("status=130")


@pytest.mark.leaves_zombies(4, "jobs of the shell that it leaves behind")
def test_ctrl_c_reaches_the_whole_pipeline(terminal: Terminal) -> None:
    """``sh`` waits for its child, so that both must hear it.  Between two children dash forgets a ^C."""
    terminal.type("echo rea''dy | $BK sh -c 'cat; sleep 600; true'; echo status=$?\n")
    assert terminal.shows("ready")
    assert wait_until(lambda: "sleep" in [seen.name for seen in witness.below(terminal.shell.pid)])
    terminal.type("\x03")
    assert terminal.shows("status=130")


@pytest.mark.leaves_zombies(4, "jobs of the shell that it leaves behind")
def test_ctrl_z_returns_the_terminal_to_the_shell(terminal: Terminal) -> None:
    terminal.type("$BK sh -c 'echo rea''dy; sleep 1; echo go''es on; exit 3'\n")
    assert terminal.shows("ready")
    terminal.type("\x1a")
    assert terminal.shows("Stopped")
    terminal.type("fg; echo status=$?\n")
    assert terminal.shows("goes on")
    assert terminal.shows("status=3")


@pytest.mark.leaves_zombies(4, "jobs of the shell that it leaves behind")
def test_a_run_in_the_background_does_not_take_the_terminal(terminal: Terminal) -> None:
    terminal.type("$BK sh -c 'echo rea''dy; exec sleep 600' &\n")
    assert terminal.shows("ready")
    terminal.type("echo he''re\n")
    assert terminal.shows("here")
    terminal.type("kill %1; wait %1; echo status=$?\n")
    assert terminal.shows("status=143")
