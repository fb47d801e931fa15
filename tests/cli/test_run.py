"""``browserkeeper run``: exit status, signals, streams, TMPDIR, and that nothing survives it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browserkeeper.process import guard_process
from tests.conftest import PidFile
from tests.support import witness
from tests.support.cli import CLI, ROOT, cli, cli_json, invoke, run_shell, start_run
from tests.support.guards import altered_guard, plan_for, program
from tests.support.waiting import SECONDS, wait_until


def all_gone(members: list[witness.Seen]) -> bool:
    """Waits until none of these processes exists."""
    return wait_until(lambda: not any(map(witness.is_same, members)))


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
    """Empty arguments, spaces and non-ASCII text included."""
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
    assert time.monotonic() - began < 30
    (ended,) = cli_json("history")["ended"]
    assert ended["report"]["reason"] == "timeout"
    assert ended["session"]["deadline"] > ended["session"]["created"]


def test_run_waits_for_the_grace_period_before_sigkill() -> None:
    script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    done = run_shell(script, "--timeout", 2)
    if not done.stdout:  # a busy machine: the time was over before the shell had set its trap
        done = run_shell(script, "--timeout", 20)
    assert (done.returncode, done.stdout) == (124, "ready\nasked\n")
    began = time.monotonic()
    assert run_shell("trap '' TERM; sleep 60", "--timeout", 0.3, "--grace", 0.3).returncode == 124
    assert time.monotonic() - began < 30


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
    assert running.front.wait(SECONDS) == -signal.SIGKILL
    assert all_gone(running.members)
    assert wait_until(lambda: cli_json("history")["ended"])
    (ended,) = cli_json("history")["ended"]
    assert ended["report"]["reason"] == "owner-died"
    assert ended["report"]["clean"]


def test_run_creates_a_tmpdir_for_its_command_and_removes_it(tmp_path: Path) -> None:
    done = run_shell("echo $TMPDIR; touch $TMPDIR/file; stat -c %a $TMPDIR")
    path, mode = done.stdout.split()
    assert os.path.basename(path).startswith("bk-")
    assert mode == "1700"
    assert not os.path.exists(path)
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    assert run_shell("echo $TMPDIR", "--keep-tmpdir", env=env).stdout == f"{tmp_path}\n"
    assert tmp_path.exists()


def test_run_without_a_ledger_writes_no_record(state_dir: Path) -> None:
    assert run_shell("exit 4", "--no-ledger").returncode == 4
    assert not list(state_dir.rglob("*.json"))


def test_run_takes_a_label() -> None:
    assert run_shell("exit 0", "--label", "nightly").returncode == 0
    (ended,) = cli_json("history", "--label", "night*")["ended"]
    assert (ended["session"]["kind"], ended["session"]["label"]) == ("run", "nightly")
    for label, more in (("two\nlines", ()), ("", ()), ("nightly", ("--no-ledger",))):
        done = run_shell("exit 0", "--label", label, *more)
        assert done.returncode == 125
        assert "browserkeeper: --label" in done.stderr


def test_run_json_prints_the_path_of_the_coming_report() -> None:
    done = run_shell("echo out; echo err >&2", "--json")
    line, err = done.stderr.splitlines()
    assert (done.stdout, err) == ("out\n", "err")
    place = json.loads(line)
    assert place["schema"] == 1
    assert json.loads(Path(place["history"]).read_text())["session"]["id"] == place["session"]


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
    for option in ("--timeout",) if seconds == "0" else ("--timeout", "--grace"):
        done = invoke("run", option, seconds, "--", "true")
        assert done.exit_code == 125
        assert option in done.output


def test_run_without_a_command_is_a_usage_error() -> None:
    done = invoke("run", "--")
    assert done.exit_code == 125
    assert "CMD" in done.output


def test_run_shortens_a_long_command_line_in_the_record_only() -> None:
    done = cli("run", "--", "sh", "-c", "echo $#; exit 3", "sh", *(["x" * 1000] * 500))
    assert (done.returncode, done.stdout) == (3, "500\n")
    (ended,) = cli_json("history")["ended"]
    assert len(json.dumps(ended["session"]["command"])) < 20_000


@pytest.mark.root
@pytest.mark.namespaces
def test_run_as_pid_1_reaps_orphans(pids_of: PidFile) -> None:
    """Orphans of any process are reaped while the command runs; the exit status is the command's."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", *CLI)
    daemon = " ".join(program("daemonise", pids_of))
    reaped = "for i in $(seq 300); do ps -eo stat | grep -q ^Z || break; sleep 0.1; done"
    script = (
        f"{daemon}; cat /proc/1/comm; (sleep 0.1 & exec true); sleep 1.5; {reaped}; ps -eo stat; exit 5"
    )
    done = subprocess.run(
        [*inside, "run", "--", "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
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
    assert running.front.wait(SECONDS) in (126, 137)
    assert all_gone(running.members)
    (ended,) = cli_json("history")["ended"]
    assert ended["report"]["reason"] == "guard-died"


def test_run_prints_why_an_exec_failed(tmp_path: Path) -> None:
    """Errors that only exec shows: a file that the kernel refuses, a script without its interpreter."""
    for content, status, words in (("junk", 126, "Exec format"), ("#!/no/such\n", 127, "No such file")):
        path = tmp_path / f"script{status}"
        path.write_text(content)
        path.chmod(0o755)
        done = cli("run", path)
        assert done.returncode == status
        assert str(path) in done.stderr
        assert words in done.stderr


def test_run_leaves_ignored_signals_ignored() -> None:
    """As under nohup(1), or as a background job of a shell."""
    script = "trap '' HUP; exec \"$@\""
    words = (*CLI, "run", "--", "sh", "-c", "kill -HUP $$; echo alive")
    done = subprocess.run(["sh", "-c", script, "sh", *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n")


STREAMS = "exec 9>{file}; for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ] && echo $fd >&9; done; exit 5"
"""Writes which of the standard streams are open."""


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("option", ["--json", "--keep-tmpdir"])
def test_run_with_closed_streams_runs_its_command_with_closed_streams(
    redirection: str, option: str, tmp_path: Path
) -> None:
    """The same streams are open as where a shell runs the command."""
    seen = {}
    for name, words in (("shell", ()), ("run", (*CLI, "run", option, "--"))):
        file = tmp_path / name
        script = f'"$@" {redirection}'
        command = (*words, "sh", "-c", STREAMS.format(file=file))
        done = subprocess.run(
            ["sh", "-c", script, "sh", *command], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 5
        assert "Traceback" not in done.stderr
        seen[name] = file.read_text()
    assert seen["run"] == seen["shell"]
    assert ("1" in seen["run"]) == (">&-" not in redirection.split())


class Terminal:
    """An interactive shell on a pseudo-terminal."""

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

    def shows(self, text: str) -> bool:
        """Waits until this text is printed.  Typed text is echoed, so it must differ from that."""
        return wait_until(lambda: text in self._read())

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
    """Both ``sh`` and the child that it waits for get the signal.  dash ignores one that comes
    between two children, so the test waits until the second runs."""
    terminal.type("echo rea''dy | $BK sh -c 'cat; sleep 600; true'; echo status=$?\n")
    assert terminal.shows("ready")
    assert wait_until(lambda: "sleep" in [seen.name for seen in witness.below(terminal.shell.pid)])
    terminal.type("\x03")
    assert terminal.shows("status=130")


@pytest.mark.leaves_zombies(4, "where it fails, jobs are killed")
def test_another_ctrl_c_ends_the_grace(terminal: Terminal, tmp_path: Path) -> None:
    """The first one has ended the command; what it left ignores both that and SIGTERM."""
    deaf = f"(trap '' INT TERM; touch {tmp_path}/there; exec sleep 600) & exec sleep 600"
    terminal.type(f'${{BK%--}} --grace 300 -- sh -c "{deaf}"; echo status=$?\n')
    assert wait_until((tmp_path / "there").exists)

    def ended_after_a_key() -> bool:
        terminal.type("\x03")
        return "status=130" in terminal._read()

    assert wait_until(ended_after_a_key, pause=0.3)


@pytest.mark.leaves_zombies(4, "jobs of the shell that it leaves behind")
def test_ctrl_z_returns_the_terminal_to_the_shell(terminal: Terminal, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo rea''dy; until [ -e {go} ]; do sleep 0.05; done; echo go''es on; exit 3"
    terminal.type(f"$BK sh -c '{script}'\n")
    assert terminal.shows("ready")
    terminal.type("\x1a")
    assert terminal.shows("Stopped")
    go.touch()
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


class SessionLeader:
    """``browserkeeper run`` as the leader of a terminal's session, as in ``xterm -e`` and ``ssh -t``."""

    def __init__(self, script: str, *before: str, words: tuple[str, ...] = ()):
        self.controller, terminal = pty.openpty()
        start = words or (*CLI, "run", "--", "bash", "-c", script)
        self.front = subprocess.Popen(
            ["setsid", "-c", *before, *start],
            cwd=ROOT,
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        os.close(terminal)

    def wait_for(self, text: str) -> None:
        printed = ""
        while text not in printed:
            printed += os.read(self.controller, 65536).decode()

    def hang_up(self) -> None:
        os.close(self.controller)

    def end_alive(self) -> None:
        """By SIGTERM; fails if it has ended before."""
        time.sleep(0.3)
        assert self.front.poll() is None
        self.front.terminate()
        assert self.front.wait(SECONDS) == 128 + signal.SIGTERM


@pytest.fixture
def hangups(tmp_path: Path) -> Path:
    """The file that a command writes a line into for each SIGHUP."""
    return tmp_path / "hangups"


def trapping(hangups: Path, reaction: str) -> str:
    return f"trap 'echo x >>{hangups}; {reaction}' HUP; echo ready; while :; do sleep 0.05; done"


needs_setsid = pytest.mark.skipif(
    not (shutil.which("setsid") and shutil.which("bash")), reason="needs setsid(1) and bash"
)


@needs_setsid
def test_a_hangup_reaches_the_command_of_a_run_that_leads_its_session(hangups: Path) -> None:
    leader = SessionLeader(trapping(hangups, "exit 3"))
    leader.wait_for("ready")
    leader.hang_up()
    assert leader.front.wait(SECONDS) == 3
    assert hangups.read_text() == "x\n"


@needs_setsid
def test_a_hangup_ends_a_command_that_has_no_handler() -> None:
    leader = SessionLeader("echo ready; exec sleep 600")
    leader.wait_for("ready")
    leader.hang_up()
    assert leader.front.wait(SECONDS) == 128 + signal.SIGHUP


@needs_setsid
def test_a_stopped_command_is_continued_to_get_its_hangup(hangups: Path) -> None:
    """The kernel sends SIGCONT with a hangup."""
    leader = SessionLeader(f"trap 'echo x >>{hangups}; exit 3' HUP; echo ready; kill -STOP $$; sleep 9")
    leader.wait_for("ready")
    below = [seen for seen in witness.below(leader.front.pid) if seen.name == "bash"]
    assert wait_until(
        lambda: any((now := witness.look(seen.pid)) and now.state == "T" for seen in below)
    )
    leader.hang_up()
    assert leader.front.wait(SECONDS) == 3


@needs_setsid
def test_a_command_that_has_a_handler_for_the_hangup_lives_on(hangups: Path) -> None:
    leader = SessionLeader(trapping(hangups, "true"))
    leader.wait_for("ready")
    leader.hang_up()
    assert wait_until(hangups.exists)
    leader.end_alive()


@needs_setsid
def test_a_command_below_nohup_ignores_the_hangup(tmp_path: Path) -> None:
    started = tmp_path / "started"
    nohup = ("sh", "-c", 'exec nohup "$@" >/dev/null', "sh")
    leader = SessionLeader(f"touch {started}; exec sleep 600", *nohup)
    assert wait_until(started.exists)
    leader.hang_up()
    leader.end_alive()


@needs_setsid
def test_a_change_of_the_window_reaches_the_command_of_a_session_leader_once(hangups: Path) -> None:
    """The terminal sends this signal to the whole process group, so it is not passed on."""
    leader = SessionLeader(trapping(hangups, "true").replace("HUP", "WINCH"))
    leader.wait_for("ready")
    fcntl.ioctl(leader.controller, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    assert wait_until(hangups.exists)
    time.sleep(0.3)
    leader.front.terminate()
    leader.front.wait(SECONDS)
    leader.hang_up()
    assert hangups.read_text() == "x\n"


@needs_setsid
def test_control_a_front_that_passes_no_hangup_on_lets_the_command_live(
    hangups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = altered_guard(
        tmp_path / "altered", ("leads_session = os.getsid(0) == owner", "leads_session = False")
    )
    monkeypatch.setattr(guard_process, "GUARD_DIRECTORY", altered)
    plan = plan_for(("bash", "-c", trapping(hangups, "exit 3")))
    leader = SessionLeader("", words=tuple(guard_process.foreground_command(plan, front=True)))
    leader.wait_for("ready")
    leader.hang_up()
    time.sleep(0.5)
    assert leader.front.poll() is None
    assert not hangups.exists()
    leader.front.terminate()
    leader.front.wait(SECONDS)
