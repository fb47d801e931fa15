"""Tests that leave browsers running: the leak check finds, names and ends them.

First with programs that only have the names of browsers, then with real browsers.  The control runs
without the leak check.
"""

from __future__ import annotations

import os

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.inner_pytest import InnerPytest, leaked_tests
from tests.support.waiting import SECONDS

FAKES = """
import os, shutil, subprocess, time
import pytest

def fake(name):
    return os.path.abspath(shutil.copy("/bin/sleep", name))

DRIVER, OTHER = fake("geckodriver"), fake("worker")
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
KEPT = [subprocess.Popen([DRIVER, "600"], **QUIET)]

def start(*words):
    KEPT.append(subprocess.Popen(words, **QUIET))  # returns when the program has been executed

def orphan(program, **more):
    script = f"{program} 600 >/dev/null 2>&1 </dev/null & echo $!"
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, **more)
    wait_for_driver(int(done.stdout))

def wait_for_driver(pid):
    "Until the process has executed DRIVER."
    while open(f"/proc/{pid}/comm").read().strip() != "geckodriver":
        time.sleep(0.01)

def wait_for_child(pid):
    while not (children := open(f"/proc/{pid}/task/{pid}/children").read().split()):
        time.sleep(0.01)
    return int(children[0])
"""
"""The first lines of a suite that starts programs with the names of browsers."""


@pytest.mark.leaves_zombies(12, "the inner run ends orphans, and PID 1 has to reap them")
def test_new_processes_with_the_name_of_a_browser_are_found_and_ended(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a=FAKES
        + """
def test_nothing(): pass
def test_no_browser(): start(OTHER, "600")
def test_comes_and_goes(): subprocess.run([DRIVER, "0.1"], **QUIET)
def test_direct(): start(DRIVER, "600")
def test_below_another():
    start("sh", "-c", f"{DRIVER} 600 & wait")
    wait_for_driver(wait_for_child(KEPT[-1].pid))
def test_orphan(): orphan(DRIVER)
def test_orphan_of_a_new_session(): orphan(f"setsid {DRIVER}")
def test_of_another_run(): orphan(DRIVER, env={**os.environ, "BROWSERKEEPER_PYTEST": "elsewhere"})
@pytest.mark.keeper_allow_leak("issue 7")
def test_allowed(): start(DRIVER, "600")
def test_two():
    start(DRIVER, "600")
    start(DRIVER, "600")
    assert 0
def test_those_before_live():
    assert KEPT[0].poll() is None
    assert [process.poll() for process in KEPT] == [None, None, -9, 0, None, -9, -9]
    KEPT[0].kill()
    KEPT[1].kill()
"""
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("-v", "-rf")
    assert set(leaked_tests(done)) == {
        *("test_direct", "test_below_another", "test_two"),
        *("test_orphan", "test_orphan_of_a_new_session"),
    }
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*test_direct left running (ended):"])
    done.stdout.fnmatch_lines(
        ["*test_allowed left running (allowed: issue 7; ended at the end of the run):"]
    )
    done.stdout.fnmatch_lines(["*test_two left running (ended):", "  geckodriver *", "  geckodriver *"])
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [p.name for p in left] == ["geckodriver"], "only the one of another run may be left"
    witness.clean_up(known)


def test_leaks_can_be_warnings_or_ignored(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(test_a=FAKES + 'def test_a(): start(DRIVER, "600")\ndef test_b(): KEPT[0].kill()')
    known = {process.pid for process in witness.below(os.getpid())}
    inner_pytest.run("--keeper-leaks=warn", "-Wdefault").assert_outcomes(passed=2, warnings=1)
    inner_pytest.run("--keeper-leaks=warn").assert_outcomes(passed=2, errors=1)
    inner_pytest.run("--keeper-leaks=off").assert_outcomes(passed=2)
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [p.name for p in left] == ["geckodriver"], "the control leaves it"
    witness.clean_up(known)


def test_a_fixtures_browser_is_no_leak_until_the_fixture_is_torn_down(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a=FAKES
        + """
@pytest.fixture(scope="module")
def tidy():
    process = subprocess.Popen([DRIVER, "600"], **QUIET)
    yield process
    process.kill()
    process.wait()

@pytest.fixture(scope="class")
def untidy():
    start(DRIVER, "600")

@pytest.fixture(scope="module")
def broken():
    start(DRIVER, "600")
    raise RuntimeError("after the start")

class TestOne:
    @classmethod
    def setup_class(cls):
        cls.process = subprocess.Popen([DRIVER, "600"], **QUIET)
    @classmethod
    def teardown_class(cls):
        cls.process.kill()
        cls.process.wait()
    def test_a(self, tidy, untidy): pass
    def test_b(self, tidy, untidy): assert tidy.poll() is None and KEPT[1].poll() is None

def test_c(tidy): assert tidy.poll() is None
def test_d(broken): pass
def test_e(): KEPT[0].kill()
"""
    )
    done = inner_pytest.run("-v")
    assert leaked_tests(done)[:2] == ["TestOne::test_b", "test_d"]
    done.stdout.fnmatch_lines(["*started by the fixture 'untidy' (class scope), torn down here"])
    done.stdout.fnmatch_lines(["*started by the test's setup"])


PATIENT = """
from browserkeeper.pytest_plugin import leaks

LEAKING = ("orphaned", "chrome", "firefox", "script", "kept")

def pytest_runtest_setup(item):
    "A test that ends its browser may take its time; one that leaks would wait for nothing."
    leaks.SETTLE = 1.5 if any(word in item.name for word in LEAKING) else 60.0
"""

ORPHANED = """
def test_orphaned():
    "Its driver is killed, so the browser becomes an orphan."
    driver = plain()
    driver.get(SITE)
    driver.service.process.kill()
    driver.service.process.wait()
"""


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.leaves_zombies(100, "a plain browser's crash handlers and orphans are PID 1's to reap")
def test_a_leaking_test_fails_and_its_browsers_are_ended(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).suite(
        ORPHANED
        + """
def test_chrome():
    plain().get(SITE)

def test_firefox():
    plain("firefox")

def test_quits():
    plain().quit()

def test_script():
    "A program that exits without ending its browser."
    script = "from test_suite import *; plain(); os._exit(0)"
    subprocess.run([sys.executable, "-c", script], check=True)

def test_kept_but_never_closed():
    from browserkeeper import browser
    session = browser()
    session.start()
    KEPT.append(session)

def test_driver(driver):
    driver.get(SITE)

@pytest.fixture(scope="module")
def shared():
    driver = plain()
    yield driver
    driver.quit()

@pytest.mark.parametrize("number", [1, 2])
def test_shared(shared, number):
    shared.get(SITE)
    shared.switch_to.new_window("tab")
    shared.get(SITE + "about")
"""
    )
    inner_pytest.write(conftest=PATIENT)
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("-v")
    assert leaked_tests(done) == [f"test_{n}" for n in ("orphaned", "chrome", "firefox", "script")] + [
        "test_kept_but_never_closed"
    ]
    done.assert_outcomes(passed=9, failed=5)
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*::test_firefox left running (ended):"])
    done.stdout.fnmatch_lines(["  firefox* of geckodriver (pid *), started by the test's call"])
    assert witness.wait_until_gone(os.getpid(), known, SECONDS) == []
    profiles = [*inner_pytest.tmp.glob("*/Default"), *inner_pytest.tmp.glob("rust_mozprofile*")]
    assert profiles == []
    sockets = list(inner_pytest.tmp.glob("*/SingletonSocket"))
    assert len(sockets) == 2  # of the two browsers that ended by quit(), which leaves them


@pytest.mark.chrome
@pytest.mark.leaves_zombies(30, "a plain browser's processes, ended by the test itself")
def test_control_without_the_leak_check_the_browser_stays(inner_pytest: InnerPytest, site: Site) -> None:
    inner_pytest.visit(site).suite(ORPHANED)
    known = {process.pid for process in witness.below(os.getpid())}
    inner_pytest.run("--keeper-leaks=off").assert_outcomes(passed=1)
    left = witness.alive(witness.new_below(os.getpid(), known))
    witness.clean_up(known)
    assert "chromium" in {process.name for process in left}
