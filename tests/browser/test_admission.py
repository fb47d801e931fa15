"""Starts go through the host's gate: real browsers against a limit, with a witness that asks ``/proc``.

How a start that waits is ended is in ``test_waiting_starts.py``, where no browser is needed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from browserkeeper import HostBusy, adopt, browser, session_of, sweep
from browserkeeper.admission.gate import Gate
from browserkeeper.state.ledger import Ledger
from tests.support import witness
from tests.support.guards import BOTH
from tests.support.owners import Owner
from tests.support.waiting import wait_until
from tests.unit.test_admission_memory import JOIN, cgroup  # noqa: F401

LIMIT = "BROWSERKEEPER_MAX_BROWSERS"
PROGRAM = """
import sys, time
from browserkeeper import browser
print("asks", flush=True)
session = browser(sys.argv[1], label=sys.argv[2] or None, wait=None)
with session as driver:
    print("has", session.guard_pid, flush=True)
    sys.stdin.readline()
print("done", round(session.report.seconds["slot_wait"], 3), flush=True)
"""


class Program(Owner):
    """A program that starts one browser, and ends it when it is told to :meth:`go_on`."""

    def __init__(self, name: str = "chrome", label: str = "", *before: str):
        self._read, self._write = os.pipe()
        words = (*before, sys.executable, "-c", PROGRAM, name, label)
        with os.fdopen(self._read) as stdin:
            self.process = subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def go_on(self) -> None:
        write, self._write = self._write, -1  # at a second call its number may be another file's
        os.close(write)

    def has_browser(self) -> bool:
        return browsers_below(self.pid) > 0

    def waits(self) -> bool:
        """By what the gate shows to everybody."""
        return self.pid in {one.pid for one in Gate(Ledger.open()).state().waiting}

    def finish(self) -> float:
        """Let it end; for how many seconds its start had waited."""
        self.go_on()
        return float(self.wait_for("done").split()[1]) + 0 * self.wait()


def browsers_below(root: int) -> int:
    """How many main processes of a Chromium or a Firefox there are, each the child of a driver; of an
    isolated driver the process that stands for its browser.

    A browser's own children look like it until they execute their program.
    """
    found = witness.below(root)
    drivers = {seen.pid for seen in found if seen.name in ("chromedriver", "geckodriver")}
    return sum(seen.parent in drivers and is_browser(seen.pid) for seen in found)


def is_browser(pid: int) -> bool:
    """True for one that a driver has started to drive it, False while it is asked for its version."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"--remote-debugging-pipe" in words or bool({b"-marionette", b"--marionette"} & set(words))


class Witness:
    """Counts the browsers below this process, every 20 ms: the most that there were at once."""

    def __init__(self) -> None:
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, browsers_below(os.getpid()))

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()


def slots(kind: str = "") -> list[str]:
    """The files of the slots."""
    directory = Path(os.environ["BROWSERKEEPER_STATE_DIR"], "gate", "slots")
    return [path.name for path in directory.glob(f"{kind}*")]


def nobody_waits() -> bool:
    return not list(Path(os.environ["BROWSERKEEPER_STATE_DIR"], "gate", "queue").iterdir())


@pytest.fixture
def first() -> Iterator[Program]:
    """A program that has a browser."""
    program = Program(label="checkout-monitor")
    program.wait_for("has")
    yield program
    with contextlib.suppress(OSError):
        program.go_on()
    program.wait()


# ------------------------------------------------------------------ a limit


@pytest.mark.parametrize("name", BOTH)
def test_with_a_limit_of_one_the_second_program_starts_when_the_first_ends(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    with Witness() as seen:
        one = Program(name)
        one.wait_for("has")
        two = Program(name)
        assert wait_until(two.waits)
        assert not two.has_browser()
        one.finish()
        two.wait_for("has")
        assert two.has_browser()
        assert two.finish() > 0
    assert seen.most == 1
    assert not slots()
    assert nobody_waits()


@pytest.mark.chrome
def test_without_a_limit_both_run_at_once() -> None:
    """The control.  Their slots count all the same, so that a limit can be set at any time."""
    with Witness() as seen:
        programs = [Program(), Program()]
        for program in programs:
            program.wait_for("has")
        assert len(slots("browser")) == 2
        assert wait_until(lambda: seen.most == 2)
        for program in programs:
            program.finish()
    assert seen.most == 2
    assert not slots()


@pytest.mark.chrome
def test_who_is_refused_is_told_the_limit_the_holders_and_those_that_wait(
    first: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    two = Program(label="nightly")
    assert wait_until(two.waits)
    for start in (browser(wait=0).start, browser(wait=0)(lambda: pytest.fail("it was called"))):
        with pytest.raises(HostBusy) as caught:
            start()
        error, text = caught.value, str(caught.value)
        assert text.startswith("No browser may be started now: 1 browser runs or starts, and ")
        assert f"{LIMIT}=1 is set. Held by -c (pid {first.pid}, 'checkout-monitor', for " in text
        assert f"Waiting: -c (pid {two.pid}, 'nightly', for " in text
        assert (
            "End one of them (`browserkeeper end`), raise the limit, or wait longer with wait=" in text
        )
        assert "this very program" not in text
        assert (error.reason, error.limit, error.limit_source) == ("full", 1, f"{LIMIT}=1")
        (holder,), (waiting,) = error.holders, error.waiting
        assert (holder.pid, holder.label, holder.kind) == (first.pid, "checkout-monitor", "browser")
        assert Path(os.environ["BROWSERKEEPER_STATE_DIR"], "live", f"{holder.session}.json").exists()
        assert abs(time.time() - holder.since) < 3600
        assert (waiting.pid, waiting.label, waiting.session) == (two.pid, "nightly", "")
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), vars(again)) == (text, vars(error))
    first.go_on()
    two.wait_for("has")
    two.finish()


@pytest.mark.chrome
def test_a_limit_that_the_operator_raises_lets_the_waiting_program_start(
    first: Program, state_dir: Path
) -> None:
    limits = state_dir / "limits.toml"
    limits.write_text("max_browsers = 1\n")
    two = Program()
    assert wait_until(two.waits)
    limits.write_text("max_browsers = 2  # since noon\n")
    two.wait_for("has")
    assert first.has_browser()
    three = Program()
    assert wait_until(three.waits)
    limits.unlink()
    three.wait_for("has")
    assert len(slots("browser")) == 3
    for program in (two, three):
        program.finish()


# ------------------------------------------------------------------ deaths


@pytest.mark.chrome
@pytest.mark.leaves_zombies(20, "the owner, or both guards, are killed")
@pytest.mark.parametrize("victims", ["owner", "guards", "owner and guards"])
def test_after_any_death_the_next_program_starts(victims: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "1")
    one = Program()
    standby = int(one.wait_for("has").split()[1])
    two = Program()
    assert wait_until(two.waits)
    (primary,) = (seen.pid for seen in witness.below(standby) if seen.parent == standby)
    guards = [standby, primary] * ("guards" in victims)
    for pid in guards:  # else one of them may end the session before the next one is killed
        os.kill(pid, signal.SIGSTOP)
    for pid in [*reversed(guards), *[one.pid] * ("owner" in victims)]:
        os.kill(pid, signal.SIGKILL)
    two.wait_for("has")
    one.go_on()
    one.wait()
    two.finish()
    assert not slots()
    sweep(dry_run=False)  # the TMPDIR of a session whose owner and guards are all dead


@pytest.mark.chrome
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_a_program_that_dies_or_stops_while_it_waits_holds_nobody_back(
    how: str, first: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "1")
    two, three = Program(), Program()
    assert wait_until(lambda: two.waits() and three.waits())
    os.kill(two.pid, getattr(signal, how))
    first.go_on()
    three.wait_for("has")
    three.finish()
    if how == "SIGSTOP":
        os.kill(two.pid, signal.SIGCONT)
        two.wait_for("has")
        two.finish()
    else:
        two.go_on()
        two.wait()
    browser(max_browsers=1, wait=0).start().quit()
    assert nobody_waits()


# ------------------------------------------------------------------ memory


@pytest.mark.chrome
@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize("is_bounded", [True, False])
def test_a_start_waits_while_too_little_memory_is_left_in_its_cgroup(
    is_bounded: bool,
    cgroup: tuple[Path, str],  # noqa: F811
    state_dir: Path,
) -> None:
    """The bound is a little more than is left beside one browser.  The control has none."""
    directory, limit = cgroup
    (directory / limit).write_text(str(1 << 30))
    join = ("sh", "-c", JOIN, "sh", str(directory))
    with Witness() as seen:
        one = Program("chrome", "", *join)
        one.wait_for("has")
        if is_bounded:
            bound = (1 << 30) - used_in(directory) + 60_000_000
            (state_dir / "limits.toml").write_text(f"min_memory = {bound}\n")
        two = Program("chrome", "", *join)
        two.wait_for("asks")
        if is_bounded:
            assert wait_until(two.waits)
        else:
            two.wait_for("has")
            assert wait_until(lambda: seen.most == 2)
        one.finish()
        if is_bounded:
            two.wait_for("has")
        two.finish()
    assert seen.most == (1 if is_bounded else 2)
    assert not slots()


def used_in(directory: Path) -> int:
    """Bytes that a cgroup uses, without the page cache that the kernel drops when memory is needed."""
    names = ("memory.usage_in_bytes", "memory.current")
    used = next(int((directory / n).read_text()) for n in names if (directory / n).exists())
    facts = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
    return used - int(facts.get("total_inactive_file") or facts["inactive_file"])


# ------------------------------------------------------------------ browsers that run already


@pytest.mark.chrome
@pytest.mark.leaves_zombies(20, "an adopted browser's processes come to PID 1")
def test_a_driver_is_adopted_without_waiting_and_counts_then(tmp_path: Path) -> None:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox"):
        options.add_argument(argument)
    plain = Service(shutil.which("chromedriver"), env={**os.environ, "TMPDIR": str(tmp_path)})
    with browser(max_browsers=1) as driver:
        with adopt(webdriver.Chrome(options, plain)) as adopted:
            assert [name.split("-")[0] for name in sorted(slots())] == ["adopted", "browser"]
            with pytest.raises(HostBusy) as caught:
                browser(max_browsers=2, wait=0).start()
            found = {one.session: one.kind for one in caught.value.holders}
            assert found == {adopted.id: "adopted", session_of(driver).id: "browser"}
        assert not slots("adopted")
        browser(max_browsers=2, wait=0).start().quit()
    assert not slots()
