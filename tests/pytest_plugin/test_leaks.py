"""Tests that leave browsers running: the leak check finds, names and ends them.

First with programs that only have the names of browsers, then with real browsers.  The control runs
without the leak check.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.fake_suite import FAKES, LENIENT
from tests.support.inner_pytest import InnerPytest, leaked_tests
from tests.support.waiting import SECONDS


@pytest.mark.leaves_zombies(12, "nothing reaps what the inner suite starts but PID 1")
def test_new_processes_with_the_name_of_a_browser_are_found_and_ended(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a=FAKES
        + """
KEPT = [popen()]
def test_nothing(): pass
def test_no_browser(): start(OTHER, "600")
def test_comes_and_goes(): subprocess.run([DRIVER, "0.1"], **QUIET)
def test_direct(): start(DRIVER, "600")
def test_below_another():
    start("sh", "-c", f"{DRIVER} 600 & wait")
    wait_for_driver(wait_for_child(PIDS[-1]))
def test_orphan(): orphan(DRIVER)
def test_orphan_of_a_new_session(): orphan(f"setsid {DRIVER}")
def test_of_another_run(): orphan(DRIVER, env={**os.environ, "BROWSERKEEPER_PYTEST": "elsewhere"})
@pytest.mark.keeper_allow_leak("issue 7")
def test_allowed(): start(DRIVER, "600")
def test_two():
    start(DRIVER, "600")
    start(DRIVER, "600")
    assert 0
class TestInstance:
    def test_instance(self):
        self.driver = popen()
def test_failed():
    driver = popen()
    assert 0
def test_those_before_live():
    assert KEPT[0].poll() is None
    assert [is_alive(pid) for pid in PIDS] == [True, False, False, True, False, False]
    KEPT[0].kill()
    KEPT[0].wait()
    os.kill(PIDS[0], 9)
"""
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("-v", "-rf", *LENIENT)
    assert set(leaked_tests(done)) == {
        *("test_direct", "test_below_another", "test_two"),
        *("test_orphan", "test_orphan_of_a_new_session", "TestInstance::test_instance"),
        "test_failed",
    }
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*test_direct left running (ended):"])
    done.stdout.fnmatch_lines(
        ["(keeper_leaks = auto is error here: the run uses the marker keeper_allow*"]
    )
    done.stdout.fnmatch_lines(
        ["*test_allowed left running (allowed: issue 7; ended at the end of the run):"]
    )
    done.stdout.fnmatch_lines(["*test_two left running (ended):", "  geckodriver *", "  geckodriver *"])
    done.stdout.fnmatch_lines(["*test_failed left running (ended):"])
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [p.name for p in left] == ["geckodriver"], "only the one of another run may be left"
    witness.clean_up(known)


@pytest.mark.leaves_zombies(9, "nothing reaps what the inner suite starts but PID 1")
def test_leaks_can_be_warnings_or_ignored(inner_pytest: InnerPytest) -> None:
    """A warning does not end the browser, neither after the test nor at the end of the run."""
    inner_pytest.write(
        test_a=FAKES
        + """
def test_a(): start(DRIVER, "600")
def test_b(): assert is_alive(PIDS[0])
"""
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("--keeper-leaks=warn", "-Wdefault")
    done.assert_outcomes(passed=2, warnings=1)
    done.stdout.fnmatch_lines(
        ["*LeakedBrowserWarning: test_a.py::test_a left 1 browser running (not ended*"]
    )
    done.stdout.fnmatch_lines(["*test_a left running (not ended):"])
    inner_pytest.run("--keeper-leaks=warn").assert_outcomes(passed=2, errors=1)
    inner_pytest.run("--keeper-leaks=off").assert_outcomes(passed=2)
    inner_pytest.run("--keeper-leaks=error").assert_outcomes(passed=1, failed=2)
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [p.name for p in left] == ["geckodriver"] * 3, "the control, off, leaves one too"
    witness.clean_up(known)


@pytest.mark.leaves_zombies(9, "nothing reaps what the inner suite starts but PID 1")
def test_a_fixtures_browser_is_no_leak_until_the_fixture_is_torn_down(inner_pytest: InnerPytest) -> None:
    inner_pytest.write(
        test_a=FAKES
        + """
@pytest.fixture(scope="module")
def tidy():
    process = popen()
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
        cls.process = popen()
    @classmethod
    def teardown_class(cls):
        cls.process.kill()
        cls.process.wait()
    def test_a(self, tidy, untidy): pass
    def test_b(self, tidy, untidy): assert tidy.poll() is None and is_alive(PIDS[0])

def test_c(tidy): assert tidy.poll() is None
def test_d(broken): pass
"""
    )
    done = inner_pytest.run("-v", "--keeper-leaks=error")
    assert leaked_tests(done)[:2] == ["TestOne::test_b", "test_d"]
    done.stdout.fnmatch_lines(["*started by the fixture 'untidy' (class scope), torn down here"])
    done.stdout.fnmatch_lines(["*started by the test's setup"])


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
def quit(driver):
    with open("quit", "a") as file:
        print(driver.capabilities["chrome"]["userDataDir"], file=file)
    driver.quit()

def test_chrome():
    plain().get(SITE)

def test_firefox():
    plain("firefox")

def test_quits():
    quit(plain())

def test_script():
    "A program that exits without ending its browser."
    script = "from test_suite import *; plain(); os._exit(0)"
    subprocess.run([sys.executable, "-c", script], check=True)

def test_kept_but_never_closed(request):
    from browserkeeper import browser
    session = request.node.session_of_ours = browser()
    session.start()

def test_driver(driver):
    driver.get(SITE)

@pytest.fixture(scope="module")
def shared():
    "Starts its browser at the first use."
    made = []
    def get():
        if not made:
            made.append(plain())
        return made[0]
    yield get
    quit(made[0])

@pytest.mark.parametrize("number", [1, 2])
def test_shared(shared, number):
    shared().get(SITE)
    shared().switch_to.new_window("tab")
    shared().get(SITE + "about")
"""
    )
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner_pytest.run("-v", *LENIENT)
    assert leaked_tests(done) == [f"test_{n}" for n in ("orphaned", "chrome", "firefox", "script")] + [
        "test_kept_but_never_closed"
    ]
    done.assert_outcomes(passed=9, failed=5)
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*::test_firefox left running (ended):"])
    done.stdout.fnmatch_lines(["  firefox* of geckodriver (pid *), started by the test's call"])
    assert witness.wait_until_gone(os.getpid(), known, SECONDS) == []
    # ChromeDriver removes the profile in quit().  Chromium's network service may still write its cache
    # then, and makes the directory again: on a busy machine after every third quit().
    quit = {Path(line) for line in (inner_pytest.path / "quit").read_text().splitlines()}
    assert len(quit) == 2
    profiles = {path.parent for path in inner_pytest.tmp.glob("*/Default")} - quit
    assert profiles == set()
    assert list(inner_pytest.tmp.glob("rust_mozprofile*")) == []
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
