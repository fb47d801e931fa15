"""Tests that leak real browsers: found, named, ended; and left where nobody looks (controls)."""

from __future__ import annotations

import os

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.inner_pytest import Inner, inner, leaked

__all__ = ["inner"]

pytestmark = [pytest.mark.chrome]

ORPHANED = """
def test_orphaned():
    "Its driver is killed, so the browser is nobody's child here."
    driver = plain()
    driver.get(SITE)
    driver.service.process.kill()
    driver.service.process.wait()
"""


@pytest.mark.firefox
@pytest.mark.leaves_zombies(100, "a plain browser's crash handlers and orphans are PID 1's to reap")
def test_a_test_that_leaks_fails_and_nothing_is_left(inner: Inner, site: Site) -> None:
    inner.visit(site).suite(
        ORPHANED
        + """
def test_chrome():
    plain().get(SITE)

def test_firefox():
    plain("firefox")

def test_quits():
    plain().quit()

def test_script():
    "A program that dies without a word to its browser."
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
    known = {process.pid for process in witness.below(os.getpid())}
    done = inner.run("-v")
    assert leaked(done) == [f"test_{n}" for n in ("orphaned", "chrome", "firefox", "script")] + [
        "test_kept_but_never_closed"
    ]
    done.assert_outcomes(passed=9, failed=5)
    done.stdout.fnmatch_lines(["*= browserkeeper =*", "*::test_firefox left running (ended):"])
    done.stdout.fnmatch_lines(["  firefox* of geckodriver (pid *), started by the test's call"])
    assert witness.wait_until_gone(os.getpid(), known, 2) == []
    profiles = [*inner.tmp.glob("*/Default"), *inner.tmp.glob("rust_mozprofile*")]
    assert profiles == []
    sockets = list(inner.tmp.glob("*/SingletonSocket"))
    assert len(sockets) == 2  # of the two browsers that ended by quit(), which leaves them


@pytest.mark.leaves_zombies(30, "a plain browser's processes, ended by the test itself")
def test_control_without_a_look_the_leak_is_left(inner: Inner, site: Site) -> None:
    inner.visit(site).suite(ORPHANED)
    known = {process.pid for process in witness.below(os.getpid())}
    inner.run("--keeper-leaks=off").assert_outcomes(passed=1)
    left = witness.alive(witness.new_below(os.getpid(), known))
    witness.clean_up(known)
    assert "chromium" in {process.name for process in left}
