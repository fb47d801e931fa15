"""``browserkeeper top`` on a real terminal: what its screen shows, and that the terminal is restored."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from browserkeeper.cli.top_readings import Meter
from browserkeeper.cli.top_screen import fitting
from browserkeeper.process import system
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.pool_state import PoolState, publish, withdraw
from browserkeeper.status.snapshot import Snapshot
from tests.conftest import PidFile
from tests.support import witness
from tests.support.cli import CLI, ROOT, cli, cli_json, invoke, start_run
from tests.support.guards import SLEEP_FOREVER, program
from tests.support.ledger import add_live, new_session
from tests.support.waiting import wait_until

ENTERED, LEFT, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"
BUSY = (sys.executable, "-I", "-S", "-c", "while True: pass")
HUNGRY = (*BUSY[:-1], "x = bytearray(60_000_000); import time; time.sleep(600)")
Started = list[subprocess.Popen[str]]


class Terminal:
    """``top`` on a pseudo-terminal, and the screen that a person would see."""

    def __init__(self, *arguments: str, columns: int = 120, lines: int = 24):
        self.controller, self.terminal = pty.openpty()
        self.before = termios.tcgetattr(self.terminal)
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.output = b""
        self._set_size(columns, lines)
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [*CLI, "top", "--interval", "0.2", *arguments],
            cwd=ROOT,
            env={**env, "TERM": "xterm-256color"},
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
        )

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)
        self.process.send_signal(signal.SIGWINCH)  # the kernel sends it to a foreground job only

    def read(self) -> None:
        """Until nothing more is printed, but not for longer than a second: ``top`` may print faster than
        the screen is emulated."""
        end = time.monotonic() + 1
        while time.monotonic() < end and select.select([self.controller], [], [], 0.02)[0]:
            part = os.read(self.controller, 65536)
            self.output += part
            self.stream.feed(part)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def shows(self, pattern: str) -> re.Match[str]:
        assert self.comes_to(lambda: re.search(pattern, self.text, re.MULTILINE)), self.text
        found = re.search(pattern, self.text, re.MULTILINE)
        assert found
        return found

    def comes_to(self, condition: Callable[[], object]) -> bool:
        def look() -> object:
            self.read()
            return condition()

        return wait_until(look)

    def press(self, keys: bytes) -> None:
        os.write(self.controller, keys)

    def status(self) -> int:
        """Waits until it has ended, and returns its exit status."""
        assert self.comes_to(lambda: self.process.poll() is not None)
        self.read()
        return self.process.wait()

    @property
    def restored(self) -> bool:
        left = self.output.rfind(LEFT) > self.output.rfind(ENTERED) >= 0
        seen = self.output.rfind(CURSOR) > self.output.rfind(b"\x1b[?25l") >= 0
        return left and seen and termios.tcgetattr(self.terminal) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.status()
        os.close(self.terminal)
        os.close(self.controller)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    mine: list[Terminal] = []

    def make(*arguments: str, **size: int) -> Terminal:
        mine.append(Terminal(*arguments, **size))
        return mine[-1]

    yield make
    for one in mine:
        one.close()


def wait_until_listed(name: str) -> None:
    assert wait_until(lambda: f"  {name}  " in cli("ps").stdout)


def order(screen: Terminal) -> list[str]:
    """The browser, here the program's name, of each session, from the top down."""
    return re.findall(r"^[0-9a-f]{12}  ?(\S+)", screen.text, re.MULTILINE)


# ------------------------------------------------------------------------------------- the screen


@pytest.mark.slow
def test_keys_sort_the_sessions_and_q_ends_top(
    terminal: Callable[..., Terminal], started: Started, tmp_path: Path
) -> None:
    for name, words in (("old", SLEEP_FOREVER), ("hungry", HUNGRY), ("busy", BUSY)):
        (tmp_path / name).symlink_to(words[0])
        start_run(started, PidFile(tmp_path / "none"), 0, str(tmp_path / name), *words[1:])
        wait_until_listed(name)
    screen = terminal()
    screen.shows(r"^browserkeeper [\d:]{8}: 3 sessions, 3 processes, \d+\.\d MB, \d+% CPU, 0 zombies$")
    screen.shows(r"^session +browser +state +memory +cpu +age +deadline +procs +owner")
    assert screen.comes_to(lambda: order(screen)[:1] == ["hungry"])
    screen.press(b"c")
    screen.shows(r"\(now: cpu\)")
    screen.shows(r"^[0-9a-f]{12} +busy +live +\d+\.\d MB +([1-9]\d*)%")
    assert screen.comes_to(lambda: order(screen)[:1] == ["busy"])
    screen.press(b"a")
    screen.shows(r"\(now: age\)")
    assert screen.comes_to(lambda: order(screen) == ["old", "hungry", "busy"])
    screen.resize(120, 7)
    screen.shows("^1 more session|^2 more sessions than this terminal has room for$")
    assert screen.comes_to(lambda: len(order(screen)) < 3)
    screen.resize(120, 24)
    assert screen.comes_to(lambda: len(order(screen)) == 3)
    screen.press(b"q")
    assert screen.status() == 0
    assert screen.comes_to(lambda: screen.restored)


def test_the_key_t_shows_process_trees(
    terminal: Callable[..., Terminal], started: Started, pids_of: PidFile
) -> None:
    start_run(started, pids_of, 3, *program("tree", pids_of, 2, 1))
    tree = r"^\S+  [0-9a-f]{12}  live .*\n  (\d+) \S+ S .*MB\n    (\d+) .*\n    (\d+) "
    screen = terminal()
    screen.shows("^session +browser")
    assert not re.search(tree, screen.text, re.MULTILINE)
    screen.press(b"t")
    assert {int(pid) for pid in screen.shows(tree).groups()} == set(pids_of.read())
    screen.resize(80, 8)
    screen.shows("^[123] more lines? than this terminal has room for$")
    screen.press(b"t")
    screen.shows("^session +browser")
    screen.press(b"q")
    assert screen.status() == 0
    terminal("--tree").shows(tree)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_top_and_restore_the_terminal(
    terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    screen = terminal()
    screen.shows(r"^No live sessions\.$")
    assert termios.tcgetattr(screen.terminal) != screen.before
    assert screen.comes_to(lambda: not screen.restored)
    screen.process.send_signal(number)
    assert screen.status() == 0
    assert screen.comes_to(lambda: screen.restored)
    assert b"Traceback" not in screen.output


def test_control_a_killed_top_does_not_restore_the_terminal(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.shows(r"^No live sessions\.$")
    screen.process.kill()
    assert screen.status() == -signal.SIGKILL
    assert not screen.restored


def test_a_suspended_top_restores_the_terminal_until_it_continues(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.shows(r"^No live sessions\.$")
    screen.process.send_signal(signal.SIGTSTP)

    def stopped() -> bool:
        found = witness.look(screen.process.pid)
        return found is not None and found.state == "T"

    assert screen.comes_to(stopped)
    assert screen.comes_to(lambda: screen.restored)  # printed before the stop, and perhaps read after it
    screen.process.send_signal(signal.SIGCONT)
    assert screen.comes_to(lambda: not screen.restored)
    screen.press(b"q")
    assert screen.status() == 0
    assert screen.comes_to(lambda: screen.restored)


def test_a_narrow_terminal_gets_fewer_columns_and_no_wrapped_lines(
    terminal: Callable[..., Terminal], started: Started, pids_of: PidFile
) -> None:
    start_run(started, pids_of, 3, *program("zombie_maker", pids_of, 2))
    screen = terminal(columns=80)
    screen.shows(r"^[0-9a-f]{12} .* live +\d+\.\d MB +\d+% ")
    screen.shows(r"^zombie: pid \d+ of session [0-9a-f]{12}; its parent does not reap it")
    screen.shows(r"^session +browser +state +memory +cpu +age ")
    assert "zombies" in screen.text
    assert "contained" not in screen.text
    screen.resize(40, 12)
    screen.shows(r"^session +browser +memory +cpu$")
    rows = r"^[0-9a-f]{12} "  # the frame may come in parts
    assert screen.comes_to(lambda: len(re.findall(rows, screen.text, re.MULTILINE)) == 1)


def test_labels_are_shortened_to_the_terminals_width(
    terminal: Callable[..., Terminal], state_dir: Path
) -> None:
    ledger, label = Ledger.open(state_dir), "tests/test_basket.py::test_total[" + "x" * 60 + "-EUR]"
    session = dataclasses.replace(new_session(), label=label)
    other = dataclasses.replace(new_session(), label="監視")
    for one in (session, other):
        add_live(ledger, one)
    screen = terminal(columns=100)
    screen.shows(r"^session +browser .* label$")
    screen.shows(rf"^{session.id} +chromium .*  ?tests/\S+…\S+EUR\]$")
    screen.shows(rf"^{other.id} .* 監 ?視")
    screen.resize(200, 24)
    assert screen.comes_to(lambda: label in screen.text)
    screen.resize(62, 24)
    screen.shows(rf"^{session.id} +chromium .*  ?tests/\S*…\S*EUR\]$")
    assert len([line for line in screen.lines if session.id in line and ": " not in line]) == 1
    screen.press(b"t")
    screen.resize(200, 24)
    assert screen.comes_to(
        lambda: re.search(rf"^chromium  {session.id}  .*EUR\]", screen.text, re.MULTILINE)
    )
    only = terminal("--label", "監*", columns=120)
    only.shows(rf"^{other.id} ")
    assert session.id not in only.text
    for one in (session, other):
        ledger.record_path(one.id).unlink()
    only.shows(r"^No live session has such a label\.$")


def test_a_process_name_cannot_send_escape_sequences(
    terminal: Callable[..., Terminal], started: Started, tmp_path: Path
) -> None:
    hostile = tmp_path / "\x1b[31mred"
    shutil.copy("/bin/sleep", hostile)
    start_run(started, PidFile(tmp_path / "none"), 0, str(hostile), "600")
    screen = terminal()
    screen.shows("\N{REPLACEMENT CHARACTER}\\[31mred")
    assert b"\x1b[31mred" not in screen.output


# ------------------------------------------------------------------------------------- one frame


def test_without_a_terminal_top_prints_one_frame(started: Started, pids_of: PidFile) -> None:
    assert cli("top").stdout.splitlines()[1:] == ["No live sessions."]
    start_run(started, pids_of, 3, *program("tree", pids_of, 2, 1))
    lines = cli("top", "--once").stdout.splitlines()
    assert re.match(r"browserkeeper \S+ 1 session, 3 processes, ", lines[0])
    assert lines[2].startswith("SESSION ")
    assert "guarded by" not in str(lines)
    trees = cli("top", "--once", "--tree").stdout
    assert all(re.search(rf"^ +{pid} ", trees, re.MULTILINE) for pid in pids_of.read())
    (session,) = cli_json("top")["sessions"]
    assert session["state"] == "live"
    assert 0 <= session["processor"] < 4
    assert len(session["processes"]) == 3


def test_top_shows_the_state_of_pooled_browsers(
    terminal: Callable[..., Terminal], started: Started, state_dir: Path
) -> None:
    start_run(started, PidFile(state_dir / "none"), 0, *SLEEP_FOREVER)
    wait_until_listed("sleep")
    (session,) = cli_json("ps")["sessions"]
    me = system.facts(os.getpid())
    assert me is not None
    stats = {"pool_leased": 1, "pool_max": 4, "requests_waiting": 2}
    doing = {session["id"]: "leased"}
    state = PoolState(1, "sleep", me.identity, "mine.py", system.host_id(), time.time(), doing, stats)
    publish(Ledger.open(), state)
    (seen,) = cli_json("top")["sessions"]
    assert seen["pooled"] == "leased"
    screen = terminal()
    screen.shows(rf"^{session['id']} +sleep +live +leased ")
    screen.shows(rf"^Pool of mine\.py \({os.getpid()}\), sleep: .*1 leased.*, of 4; 2 waiting\.$")
    withdraw(Ledger.open(), state)
    assert screen.comes_to(lambda: "leased" not in screen.text)


@pytest.mark.parametrize("arguments", [("--interval", "0"), ("--interval", "nan"), ("--sort", "size")])
def test_bad_input_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = invoke("top", *arguments)
    assert done.exit_code == 2
    assert arguments[0] in done.output


def test_a_meter_of_no_sessions_has_no_readings() -> None:
    meter = Meter()
    assert meter.read(Snapshot((), (), (), ())) == []


def test_columns_that_do_not_fit_are_left_out_one_by_one() -> None:
    row = dict.fromkeys(
        ("session", "browser", "state", "memory", "cpu", "age", "deadline", "procs", "zombies", "owner"),
        "x" * 8,
    )
    assert fitting([{**row, "contained": "cgroup"}], 200) == [*row, "contained"]
    assert "deadline" not in fitting([{**row, "contained": "cgroup"}], 92)
    narrowest = fitting([{**row, "contained": "cgroup"}], 10)
    assert narrowest == ["session", "browser", "memory", "cpu"]
    labelled = {**row, "label": "x" * 200}
    assert fitting([labelled], 200) == [*row, "label"]
    assert fitting([labelled], 60) == [*narrowest, "label"]
    assert fitting([labelled], 50) == narrowest
