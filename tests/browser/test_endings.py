"""Every way a session can end, on real browsers: what is raised, what is left, in what time.

What is left is judged by the ``nothing_left`` fixture of conftest, after every test here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

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
)
from browserkeeper.process.containment import writable_cgroup
from fixtures.server import Site
from tests.support import witness
from tests.support.guards import BOTH
from tests.support.waiting import wait_until

GENEROUS = 15.0
"""Seconds; a deadline against hanging, not a measurement."""


def guards_of(session: BrowserSession[webdriver.Remote]) -> dict[str, int]:
    """The pids of the pair, found by the witness."""
    standby = session.guard_pid
    assert standby
    primary = next(s.pid for s in witness.below(standby) if s.parent == standby)
    return {"standby": standby, "primary": primary}


@pytest.mark.parametrize("name", BOTH)
def test_exception_in_the_block(name: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(ZeroDivisionError), session as driver:
        driver.get(site.url)
        _ = 1 / 0
    assert session.report
    assert (session.report.reason, session.report.clean) == ("error", True)


@pytest.mark.parametrize("name", BOTH)
def test_timeout_cuts_off_a_command(name: str, site: Site) -> None:
    limit = 8 if name == "firefox" else 5
    session = browser(name, timeout=limit)
    began = time.monotonic()
    with pytest.raises(SessionTimeout, match=f"its timeout of {limit} s") as caught, session as driver:
        driver.get(site.url_for("never"))
    assert time.monotonic() - began < limit + GENEROUS
    assert caught.value.report is session.report
    assert session.report
    assert (session.report.reason, session.report.clean) == ("timeout", True)


@pytest.mark.chrome
def test_timeout_while_the_block_does_something_else(site: Site) -> None:
    session = browser(timeout=4)
    with pytest.raises(SessionTimeout, match="when its block ended"), session as driver:
        driver.get(site.url)
        wait_until(lambda: not session.processes(), GENEROUS)


@pytest.mark.chrome
def test_timeout_during_the_launch() -> None:
    with pytest.raises(SessionTimeout, match="did not start within the session's timeout"):
        browser(timeout=0.15).start()


@pytest.mark.parametrize("name", BOTH)
def test_command_timeout(name: str, site: Site) -> None:
    session = browser(name, command_timeout=2)
    with pytest.raises(CommandTimeout, match=r"command_timeout=2 s during 'get'"), session as driver:
        driver.get(site.url_for("never"))
    assert session.report
    assert (session.report.reason, session.report.clean) == ("command-timeout", True)


@pytest.mark.chrome
def test_keyboard_interrupt_in_mid_command(site: Site) -> None:
    """After it the next command would block for 30 s and more: nobody is asked, all is killed."""
    session = browser()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), session as driver:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        driver.get(site.url_for("never"))
    assert time.monotonic() - began < GENEROUS
    assert session.report
    assert session.report.clean


class TimeIsUp(Exception):
    """As Celery's SoftTimeLimitExceeded: an Exception that a signal handler raises anywhere."""


def _time_is_up(number: int, frame: object) -> None:
    raise TimeIsUp


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeIsUp])
@pytest.mark.parametrize("name", BOTH)
def test_an_interruption_of_the_launch_stays_what_it_is(name: str, kind: type[BaseException]) -> None:
    session = browser(name)
    before = signal.signal(signal.SIGUSR1, _time_is_up)
    try:
        with pytest.raises(kind):
            number = signal.SIGINT if kind is KeyboardInterrupt else signal.SIGUSR1
            threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
            session.start()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert session.report
    assert session.report.clean


@pytest.mark.chrome
def test_exception_in_a_worker_thread(site: Site) -> None:
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
def test_each_containment(containment: str, site: Site) -> None:
    if containment == "cgroup" and not writable_cgroup()[0]:
        pytest.skip(writable_cgroup()[1])
    session = browser(containment=containment)  # type: ignore[call-overload]
    with session as driver:
        driver.get(site.url)
        assert session.containment == containment
    assert session.report
    assert (session.report.containment, session.report.certificate) == (containment, "ECHILD")


@pytest.mark.parametrize("name", BOTH)
def test_close_from_another_thread_releases_the_command(name: str, site: Site) -> None:
    session = browser(name)
    driver = session.start()
    threading.Timer(1, session.close).start()
    with pytest.raises(SessionClosed, match="was closed during 'get'"):
        driver.get(site.url_for("never"))
    assert session.close().clean


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("victim", ["driver", "browser"])
def test_killed_under_us(name: str, victim: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied) as caught, session as driver:
        driver.get(site.url)
        pid = session.processes()[0].pid if victim == "driver" else session.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            driver.get(site.url)
    assert session.report
    assert session.report.clean
    assert caught.value.report is session.report


@pytest.mark.parametrize("name", BOTH)
def test_browser_killed_in_mid_command(name: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied), session as driver:
        assert session.pid
        threading.Timer(1, os.kill, (session.pid, signal.SIGKILL)).start()
        driver.get(site.url_for("never"))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("victim", ["driver", "browser"])
def test_stopped_under_us(name: str, victim: str, site: Site) -> None:
    """quit() would return at once with 9 processes alive, or block for minutes."""
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
    """The browser lives, so it is not BrowserDied; the session ends as any other."""
    from selenium.common.exceptions import WebDriverException

    session = browser(command_timeout=20)
    with session as driver, pytest.raises(WebDriverException, match="tab crashed"):
        driver.get(site.url)
        driver.get("chrome://crash")
    assert session.report
    assert session.report.clean


@pytest.mark.parametrize("name", BOTH)
def test_an_open_alert_does_not_hold_it(name: str, site: Site) -> None:
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
def test_a_beforeunload_dialog_does_not_hold_it(site: Site) -> None:
    session = browser()
    with session as driver:
        driver.get(site.url_for("beforeunload"))
        driver.find_element(By.TAG_NAME, "body").click()
    assert session.report
    assert session.report.clean


@pytest.mark.chrome
def test_a_page_that_takes_memory(site: Site) -> None:
    session = browser()
    with session as driver:
        before = session.memory()
        driver.get(site.url_for("memory?mb=150"))
        assert wait_until(lambda: session.memory() > before + 100e6)
    assert session.report
    assert session.report.clean


# ------------------------------------------------------------------ the guard's death


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("victim", ["primary", "standby"])
@pytest.mark.leaves_zombies(1, "a primary guard whose standby was killed belongs to PID 1")
def test_one_guard_killed(name: str, victim: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied, match="its guard was killed"), session as driver:
        driver.get(site.url)
        os.kill(guards_of(session)[victim], signal.SIGKILL)
        driver.get(site.url)
        driver.get(site.url)
    assert session.report
    assert (session.report.clean, session.report.certificate) == (True, "ECHILD")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(40, "nobody is left to reap")
def test_both_guards_killed_the_owner_finishes(name: str, site: Site) -> None:
    session = browser(name)
    with pytest.raises(BrowserDied, match="its guard was killed"), session as driver:
        driver.get(site.url)
        _kill_pair(session)
        driver.get(site.url)
        driver.get(site.url)
    assert session.report
    assert (session.report.clean, session.report.certificate) == (True, "two-scans")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(40, "nobody is left to reap")
def test_both_guards_killed_the_browser_goes_by_itself(name: str, site: Site) -> None:
    """PDEATHSIG takes the driver; Chromium ends with its pipe, Firefox by setpriv's PDEATHSIG."""
    session = browser(name)
    session.start().get(site.url)
    _kill_pair(session)
    tree = [s for s in witness.below(os.getpid()) if s.pid in {p.pid for p in session.processes()}]
    assert wait_until(lambda: not any(map(witness.is_same, tree)))
    assert session.close().clean


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "nobody is left to reap")
def test_control_without_the_pipe_the_browser_stays(site: Site) -> None:
    session = browser(debugging="port", containment="subreaper")
    session.start().get(site.url)
    browser_process = witness.look(session.pid or 0)
    assert browser_process
    _kill_pair(session)
    stays = not wait_until(lambda: not witness.is_same(browser_process), 2)
    assert session.close().clean  # the second line takes it
    assert stays


def _kill_pair(session: BrowserSession[webdriver.Remote]) -> None:
    pair = guards_of(session)
    os.kill(pair["standby"], signal.SIGSTOP)  # or it would finish for the primary guard
    os.kill(pair["primary"], signal.SIGKILL)
    os.kill(pair["standby"], signal.SIGKILL)


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
def test_owner_sigkilled(name: str, when: str, site: Site) -> None:
    done = run_owner(site, name, "sigkill", when)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.chrome
@pytest.mark.parametrize("death", ["sigterm", "os._exit", "segfault", "unhandled"])
@pytest.mark.leaves_zombies(1, "the guard's own: its owner is dead and pytest is PID 1")
def test_owner_ends_otherwise(death: str, site: Site) -> None:
    done = run_owner(site, "chrome", death)
    assert done.stdout.startswith("["), done.stderr


@pytest.mark.chrome
def test_control_plain_selenium_leaves_all_of_it(site: Site, state_dir: Path) -> None:
    """The same death without us: the witness sees the leak, so its silence above means something."""
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
def test_a_normal_exit_without_close_is_cleaned_up(site: Site) -> None:
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
def test_bystanders_are_left_alone(site: Site) -> None:
    """Another session, and a process that merely looks like a driver, outlive this one's end."""
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
