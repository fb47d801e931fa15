"""Every way in which a session can end, with real browsers: what is raised, and that nothing is left.

The ``nothing_left`` fixture of conftest.py looks for processes and files after each test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from browserkeeper import (
    BrowserDied,
    BrowserSession,
    CommandTimeout,
    SessionClosed,
    SessionTimeout,
    browser,
    session_of,
)
from browserkeeper.guard.guard import Guard
from browserkeeper.guard.life import Watch
from browserkeeper.guard.virtual_display import VirtualDisplay
from browserkeeper.process.containment import writable_cgroup
from browserkeeper.session import control_of
from fixtures.server import Site
from tests.support import witness
from tests.support.clock import limits_after_start
from tests.support.cut_off import cut_off_by_timeout
from tests.support.guards import BOTH
from tests.support.waiting import until_it_fails, wait_until

GENEROUS = 60.0
"""Seconds that an end may take on a busy machine; it takes less than one."""


def wait_until_ended(session: BrowserSession[webdriver.Remote], seconds: float) -> None:
    wait_until(lambda: not session.processes(), seconds)


def guards_of(session: BrowserSession[webdriver.Remote]) -> dict[str, int]:
    """The pids of both guards, by the process tree."""
    standby = session.guard_pid
    assert standby
    primary = next(s.pid for s in witness.below(standby) if s.parent == standby)
    return {"standby": standby, "primary": primary}


@pytest.mark.parametrize("name", BOTH)
def test_an_exception_in_the_block_ends_the_session(name: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(ZeroDivisionError), session as driver:
        driver.get(site.url)
        _ = 1 / 0
    assert session.report
    assert (session.report.reason, session.report.clean) == ("error", True)


@pytest.mark.parametrize("name", BOTH)
def test_the_timeout_cuts_off_a_command(name: str, site: Site) -> None:
    session, error = cut_off_by_timeout(
        name, lambda limit: browser(name, timeout=limit), site.url_for("never"), GENEROUS
    )
    assert error.report is session.report
    assert session.report
    assert (session.report.reason, session.report.clean) == ("timeout", True)


@pytest.mark.chrome
def test_the_timeout_is_raised_when_the_block_ends_if_no_command_ran_then(site: Site) -> None:
    for limit in limits_after_start("chrome"):
        session = browser(timeout=limit)
        at_rest = False
        with pytest.raises(SessionTimeout) as caught, session as driver:
            driver.get(site.url)
            at_rest = True
            wait_until_ended(session, limit + GENEROUS)
        if at_rest:
            break
    caught.match("when its block ended")


@pytest.mark.chrome
def test_the_timeout_ends_a_launch() -> None:
    with pytest.raises(SessionTimeout, match="did not start within the session's timeout"):
        browser(timeout=0.15).start()


@pytest.mark.parametrize("name", BOTH)
def test_a_command_timeout_ends_the_session(name: str, site: Site) -> None:
    session = browser(name, command_timeout=2)
    with pytest.raises(CommandTimeout, match=r"command_timeout=2 s during 'get'"), session as driver:
        driver.get(site.url_for("never"))
    assert session.report
    assert (session.report.reason, session.report.clean) == ("command-timeout", True)


@pytest.mark.chrome
def test_a_keyboard_interrupt_during_a_command_ends_the_session_soon(site: Site) -> None:
    """A command after the interrupted one would block for 30 s or more, so the browser is killed."""
    session = browser()
    with pytest.raises(KeyboardInterrupt), session as driver:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        driver.get(site.url_for("never"))
    assert session.report
    assert session.report.clean
    assert session.report.seconds["close"] < 20, "a command would have blocked for longer"


class TimeIsUp(Exception):
    """Raised by a signal handler, at any line, as Celery's SoftTimeLimitExceeded is."""


def _time_is_up(number: int, frame: object) -> None:
    raise TimeIsUp


def _signal_when_guarded(session: BrowserSession[webdriver.Remote], number: signal.Signals) -> None:
    """Send this process a signal during the launch, when there is a guard to end it."""
    assert wait_until(lambda: session.guard_pid is not None)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeIsUp])
@pytest.mark.parametrize("name", BOTH)
def test_an_exception_from_a_signal_handler_during_the_launch_is_raised_unchanged(
    name: str, kind: type[BaseException]
) -> None:
    session = browser(name)
    number = signal.SIGINT if kind is KeyboardInterrupt else signal.SIGUSR1
    thread = threading.Thread(target=_signal_when_guarded, args=(session, number))
    before = signal.signal(signal.SIGUSR1, _time_is_up)
    is_late = False
    try:
        with pytest.raises(kind):
            thread.start()
            session.start()
            is_late = True
            thread.join()
        assert session.report is not None or is_late
    finally:
        with contextlib.suppress(kind):
            thread.join()
        signal.signal(signal.SIGUSR1, before)
        session.close()
    assert session.report
    assert session.report.clean


@pytest.mark.chrome
def test_an_exception_between_the_guards_start_and_the_first_look_at_it_ends_the_guard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pids = []

    def interrupt(pid: int) -> NoReturn:
        pids.append(pid)
        raise TimeIsUp

    monkeypatch.setattr("browserkeeper.session.launch.identity_of", interrupt)
    with pytest.raises(TimeIsUp):
        browser().start()
    assert [witness.look(pid) for pid in pids] == [None]


@pytest.mark.chrome
def test_an_exception_in_a_worker_thread_ends_its_session(site: Site) -> None:
    session = browser()

    def work() -> None:
        with contextlib.suppress(ZeroDivisionError), session as driver:
            driver.get(site.url)
            _ = 1 / 0

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert session.report
    assert (session.report.reason, session.report.clean) == ("error", True)


@pytest.mark.chrome
@pytest.mark.parametrize("containment", ["subreaper", "cgroup"])
def test_each_containment_ends_with_a_certificate(containment: str, site: Site) -> None:
    if containment == "cgroup" and not writable_cgroup()[0]:
        pytest.skip(writable_cgroup()[1])
    session = browser(containment=containment)  # type: ignore[call-overload]
    with session as driver:
        driver.get(site.url)
        assert session.containment == containment
    assert session.report
    assert (session.report.containment, session.report.certificate) == (containment, "ECHILD")


@pytest.mark.parametrize("name", BOTH)
def test_close_in_another_thread_cuts_off_the_command(name: str, site: Site) -> None:
    session = browser(name)
    driver = session.start()
    control = control_of(session)
    threading.Thread(target=lambda: wait_until(lambda: not control.at_rest) and session.close()).start()
    with pytest.raises(SessionClosed, match="was closed during 'get'"):
        driver.get(site.url_for("never"))
    assert session.close().clean


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("victim", ["driver", "browser"])
def test_a_killed_driver_or_browser_is_browser_died(name: str, victim: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied) as caught, session as driver:
        driver.get(site.url)
        pid = session.processes()[0].pid if victim == "driver" else session.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        until_it_fails(driver, site.url)
    assert session.report
    assert session.report.clean
    assert caught.value.report is session.report


@pytest.mark.parametrize("name", BOTH)
def test_a_browser_killed_during_a_command_is_browser_died(name: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied), session as driver:
        assert session.pid
        threading.Timer(1, os.kill, (session.pid, signal.SIGKILL)).start()
        driver.get(site.url_for("never"))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("victim", ["driver", "browser"])
def test_a_stopped_driver_or_browser_is_ended_in_bounded_time(
    name: str, victim: str, site: Site
) -> None:
    """Selenium's quit() would return at once with 9 processes alive, or block for minutes."""
    session = browser(name)
    began = time.monotonic()
    with session as driver:
        driver.get(site.url)
        began = time.monotonic()
        pid = session.processes()[0].pid if victim == "driver" else session.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
    assert time.monotonic() - began < GENEROUS
    assert session.report
    assert session.report.clean


@pytest.mark.chrome
def test_a_crashed_tab_is_seleniums_error(site: Site) -> None:
    """Not BrowserDied, since the browser lives; the session goes on."""
    from selenium.common.exceptions import WebDriverException

    session = browser(command_timeout=20)
    with session as driver, pytest.raises(WebDriverException, match="tab crashed"):
        driver.get(site.url)
        driver.get("chrome://crash")
    assert session.report
    assert session.report.clean


@pytest.mark.parametrize("name", BOTH)
def test_an_open_alert_does_not_delay_the_end(name: str, site: Site) -> None:
    session = browser(name)
    with session as driver:
        driver.get(site.url)
        driver.execute_script("setTimeout(() => alert('hello'), 0)")
        assert wait_until(lambda: _alert_is_open(driver))
    assert session.report
    assert session.report.clean


def _alert_is_open(driver: webdriver.Remote) -> bool:
    from selenium.common.exceptions import NoAlertPresentException

    try:
        return bool(driver.switch_to.alert.text)
    except NoAlertPresentException:
        return False


@pytest.mark.chrome
def test_a_beforeunload_dialog_does_not_delay_the_end(site: Site) -> None:
    session = browser()
    with session as driver:
        driver.get(site.url_for("beforeunload"))
        driver.find_element(By.TAG_NAME, "body").click()
    assert session.report
    assert session.report.clean


@pytest.mark.chrome
def test_memory_grows_with_a_page_that_uses_much(site: Site) -> None:
    session = browser()
    with session as driver:
        before = session.memory()
        driver.get(site.url_for("memory?mb=400"))  # other browsers, which share pages, lower a PSS
        assert wait_until(lambda: session.memory() > before + 100e6)
    assert session.report
    assert session.report.clean


# ------------------------------------------------------------------ the guard's death


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("victim", ["primary", "standby"])
@pytest.mark.leaves_zombies(1, "a primary guard whose standby was killed belongs to PID 1")
def test_the_other_guard_ends_the_session_where_one_was_killed(
    name: str, victim: str, site: Site
) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied, match="its guard was killed"), session as driver:
        driver.get(site.url)
        os.kill(guards_of(session)[victim], signal.SIGKILL)
        until_it_fails(driver, site.url)
    assert session.report
    assert (session.report.clean, session.report.certificate) == (True, "ECHILD")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(40, "no guard is left to reap them")
def test_the_owner_ends_the_session_where_both_guards_were_killed(name: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied, match="its guard was killed"), session as driver:
        driver.get(site.url)
        kill_both_guards(session)
        until_it_fails(driver, site.url)
    assert session.report
    assert (session.report.clean, session.report.certificate) == (True, "two-scans")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(40, "no guard is left to reap them")
def test_the_browser_ends_by_itself_where_both_guards_were_killed(name: str, site: Site) -> None:
    """PR_SET_PDEATHSIG kills the driver and, set by setpriv, Firefox; Chromium ends with its pipe."""
    session = browser(name)
    session.start().get(site.url)
    kill_both_guards(session)
    tree = [s for s in witness.below(os.getpid()) if s.pid in {p.pid for p in session.processes()}]
    assert wait_until(lambda: not any(map(witness.is_same, tree)))
    assert session.close().clean


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "no guard is left to reap them")
def test_with_a_debugging_port_the_browser_ends_by_itself_as_well(site: Site) -> None:
    """By setpriv, as Firefox."""
    session = browser(debugging="port")
    session.start().get(site.url)
    kill_both_guards(session)
    tree = [s for s in witness.below(os.getpid()) if s.pid in {p.pid for p in session.processes()}]
    assert wait_until(lambda: not any(map(witness.is_same, tree)))
    assert session.close().clean


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "no guard is left to reap them")
def test_control_without_pipe_and_setpriv_the_browser_stays(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "setpriv" else found(name))
    session = browser(debugging="port", containment="subreaper")
    session.start().get(site.url)
    browser_process = witness.look(session.pid or 0)
    assert browser_process
    kill_both_guards(session)
    stays = not wait_until(lambda: not witness.is_same(browser_process), 2)
    assert session.close().clean  # the owner ends it
    assert stays


def kill_both_guards(session: BrowserSession[webdriver.Remote]) -> None:
    pair = guards_of(session)
    os.kill(pair["standby"], signal.SIGSTOP)  # or it would finish for the primary guard
    os.kill(pair["primary"], signal.SIGKILL)
    os.kill(pair["standby"], signal.SIGKILL)


# ------------------------------------------------------------------ the reason for an end


@pytest.mark.parametrize("written", ["connection-lost", "browser-died", "hung"])
@pytest.mark.parametrize("ended", ["display", "driver", ""])
def test_a_guard_knows_better_why_an_owners_commands_fail(written: str, ended: str) -> None:
    """The owner was the first to notice."""
    guard = SimpleNamespace(
        bound=None,
        owner=SimpleNamespace(read=lambda: [[written]]),
        command=SimpleNamespace(has_ended=lambda: ended == "driver"),
        display_is_ending=lambda: ended == "display",
    )
    better = {
        ("connection-lost", "display"): "display-died",
        ("browser-died", "display"): "display-died",
        ("connection-lost", "driver"): "exited",
    }
    assert Watch(cast("Guard", guard))._reason_of_owner() == better.get((written, ended), written)


def test_a_display_that_cannot_be_reaped_yet_is_ending() -> None:
    guard = Guard.__new__(Guard)
    display = subprocess.Popen(["/bin/sleep", "600"])
    guard.display = cast("VirtualDisplay", SimpleNamespace(pid=display.pid))
    assert not guard.display_is_ending()
    display.kill()
    os.waitid(os.P_PID, display.pid, os.WEXITED | os.WNOWAIT)
    assert not guard.display_has_ended()
    assert guard.display_is_ending()
    display.wait()
    assert guard.display_has_ended()


# ------------------------------------------------------------------ the owner's death

OWNER = """
import os, sys, threading, time
sys.path.insert(0, {root!r})
from browserkeeper import browser
def die():
    {death}
session = browser({name!r}, attempts=1)
if {launching!r}:
    threading.Timer(0.25, die).start()
driver = session.start()
driver.get({url!r})
print([p.pid for p in session.processes()], flush=True)
if {mid_command!r}:
    threading.Timer(0.5, die).start()
    driver.get({never!r})
die()
time.sleep(60)
"""
DEATHS = {
    "sigkill": "os.kill(os.getpid(), 9)",
    "sigterm": "os.kill(os.getpid(), 15)",
    "os._exit": "os._exit(0)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "unhandled": "raise RuntimeError('unhandled')",
}


def run_owner(site: Site, name: str, death: str, when: str = "idle") -> subprocess.CompletedProcess[str]:
    script = OWNER.format(
        root=str(Path(__file__).resolve().parent.parent.parent),
        death=DEATHS[death],
        name=name,
        url=site.url,
        never=site.url_for("never"),
        launching=when == "launch",
        mid_command=when == "command",
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("when", ["launch", "command", "idle"])
@pytest.mark.leaves_zombies(2, "the guards' own (during a launch two versions are being asked for)")
def test_nothing_is_left_where_the_owner_was_sigkilled(name: str, when: str, site: Site) -> None:
    done = run_owner(site, name, "sigkill", when)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.chrome
@pytest.mark.parametrize("death", ["sigterm", "os._exit", "segfault", "unhandled"])
@pytest.mark.leaves_zombies(1, "the guard's own: its owner is dead and pytest is PID 1")
def test_nothing_is_left_however_the_owner_ends(death: str, site: Site) -> None:
    done = run_owner(site, "chrome", death)
    assert done.stdout.startswith("["), done.stderr


@pytest.mark.chrome
def test_control_plain_selenium_leaves_driver_browser_and_files(site: Site, state_dir: Path) -> None:
    """The same death of a program that uses Selenium alone: the witness finds the leak."""
    script = f"""
import os, shutil
from selenium import webdriver
options = webdriver.ChromeOptions()
options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
for a in ("--headless=new", "--no-sandbox"): options.add_argument(a)
driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
driver.get({site.url!r})
os.kill(os.getpid(), 9)
"""
    known = {s.pid for s in witness.below(os.getpid())}
    tmpdir = state_dir / "t"  # short, since Chrome puts a socket there; removed with the state directory
    tmpdir.mkdir()
    env = {**os.environ, "TMPDIR": str(tmpdir)}
    subprocess.run([sys.executable, "-c", script], check=False, env=env)
    left = witness.wait_until_gone(os.getpid(), known, 1)
    files = list(tmpdir.iterdir())
    witness.clean_up(known)
    assert len(left) > 5
    assert files


@pytest.mark.chrome
def test_an_exit_without_close_ends_the_session(site: Site) -> None:
    script = f"""
from browserkeeper import browser
driver = browser().start()
driver.get({site.url!r})
print("bye")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "bye\n"


@pytest.mark.chrome
def test_other_sessions_and_processes_of_the_same_name_are_left_alone(site: Site) -> None:
    """Another session, and another process named chromedriver, outlive the end of a session."""
    lookalike = subprocess.Popen(["chromedriver", "600"], executable="/bin/sleep")
    with browser() as other:
        other.get(site.url)
        session = browser()
        with session as driver:
            driver.get(site.url)
            _kill_then_close(session, lambda: driver.get(site.url))
        assert other.title
    assert lookalike.poll() is None
    lookalike.kill()
    lookalike.wait()


def _kill_then_close(session: BrowserSession[webdriver.Chrome], command: Callable[[], object]) -> None:
    assert session.pid
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(BrowserDied):
        command()


@pytest.mark.chrome
def test_the_sessions_report_says_that_no_history_was_written(state_dir: Path) -> None:
    """The history's directory has been replaced by a file; the control is the session before."""
    with browser("chrome") as driver:
        before = session_of(driver)
    assert before.report is not None
    assert not [note for note in before.report.notes if "history" in note]
    with browser("chrome") as driver:
        session = session_of(driver)
        (state_dir / "history").rename(state_dir / "moved")
        (state_dir / "history").write_text("no directory")
    assert session.report is not None
    assert session.report.clean
    (note,) = [note for note in session.report.notes if "history" in note]
    assert note.startswith("no history was written: [Errno 20]")
