"""Sessions that a program drops: they end at once, by reference counting, with a warning that names the
place of their start.

Each test runs a script in a process of its own, with the cyclic garbage collector off: pytest's frames
would hold a driver, and a collection of another test's garbage would hide a circle.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support.guards import BOTH
from tests.support.owners import ROOT, output_of
from tests.support.waiting import SECONDS

PRELUDE = """
import contextlib, gc, os, sys, threading, _thread, warnings, weakref
gc.disable()
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from browserkeeper import BrowserPool, browser, session_of
name, url = sys.argv[1:]

def is_ended(pid, act):
    "What act() warns of, where the process is gone when it returns; else 'alive'."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    if os.path.exists(f"/proc/{pid}"):
        return "alive"
    places = [f"{os.path.basename(one.filename)}:{one.lineno}" for one in caught]
    texts = [str(one.message) for one in caught if "never closed" in str(one.message)]
    return f"{len(texts)} {places[0]} {places[0] in texts[0]}" if texts else "no warning"

def drop(box, **arguments):
    "Ends when the box is emptied."
    driver = browser(name, **arguments).start()  # START
    box.append(driver)
    return session_of(driver).pid
"""
START = PRELUDE.split("# START")[0].count("\n") + 1
ENDED = f"1 <string>:{START} True"
"""What ``is_ended`` prints: one warning, whose place is the start's, and whose text names the place."""


def run(script: str, name: str, site: Site) -> list[str]:
    return output_of(PRELUDE + script, name, site.url).splitlines()


@pytest.mark.compat
@pytest.mark.parametrize("name", BOTH)
def test_a_driver_that_was_used_in_every_way_is_ended_as_soon_as_it_is_dropped(
    name: str, site: Site
) -> None:
    script = """
options = webdriver.FirefoxOptions() if name == "firefox" else webdriver.ChromeOptions()
options.enable_bidi = True
box = []
pid = drop(box, options=options)

def use(driver):
    driver.get(url)
    driver.script.add_console_message_handler(print)
    driver.network, driver.storage, driver.browsing_context.get_tree()
    driver.fedcm, driver.mobile, driver.switch_to.active_element.text
    with contextlib.suppress(AttributeError):  # Selenium 4.40 has none
        driver.request
    with contextlib.suppress(WebDriverException):
        driver.find_element("id", "there-is-none")
    with contextlib.suppress(TypeError):
        driver.execute_script("return 1", object())

use(box[0])
print(is_ended(pid, box.clear))
gc.set_debug(gc.DEBUG_SAVEALL)
gc.collect()
ours = [type(one).__name__ for one in gc.garbage if type(one).__module__.startswith("browserkeeper.")]
print(sorted({"Attempt", "BrowserSession", "Chrome", "Firefox", "SessionControl"} & set(ours)))
"""
    assert run(script, name, site) == [ENDED, "[]"]


@pytest.mark.parametrize("name", BOTH)
def test_a_driver_is_ended_when_it_is_dropped_while_an_interrupted_command_goes_on(
    name: str, site: Site
) -> None:
    """As an interrupted cell of a notebook leaves it.  The command's thread waits for its answer."""
    script = """
box = []
pid = drop(box)
try:
    threading.Timer(1, _thread.interrupt_main).start()
    box[0].get(url + "never")
except KeyboardInterrupt:
    pass
print(is_ended(pid, box.clear))
"""
    assert run(script, name, site) == [ENDED]


@pytest.mark.chrome
def test_each_way_to_drop_a_session_ends_it(site: Site) -> None:
    script = """
box = []
pid = drop(box, debugging="port")
box[0].start_devtools()
print("DevTools:", is_ended(pid, box.clear))

box.append(session := browser(name))
pid = (session.start(), session.pid)[1]
del session
print("session alone:", is_ended(pid, box.clear))

stack = contextlib.ExitStack()
pid = session_of(stack.enter_context(browser(name))).pid
print("exit stack:", is_ended(pid, lambda: globals().pop("stack")))

def drivers():
    driver = browser(name).start()
    yield driver

generator = drivers()
pid = session_of(next(generator)).pid
print("generator:", is_ended(pid, lambda: globals().pop("generator")))

driver = browser(name).start()
session = session_of(driver)
pid = session.pid
del driver
print("session of a driver:", os.path.exists(f"/proc/{pid}"), session.driver.title == "")
print("both:", is_ended(pid, lambda: globals().pop("session")))

driver = browser(name).start()
pid = session_of(driver).pid
driver = browser(name).start()
print("another has its name:", os.path.exists(f"/proc/{pid}"))
driver.quit()
"""
    lines = dict(line.split(": ") for line in run(script, "chrome", site))
    assert lines.pop("DevTools") == ENDED
    assert lines.pop("session of a driver") == "True True"
    assert lines.pop("another has its name") == "False"
    assert set(lines) == {"session alone", "exit stack", "generator", "both"}
    for way, line in lines.items():
        assert line.startswith("1 <string>:"), way
        assert line.endswith(" True"), way


@pytest.mark.chrome
def test_a_lease_that_is_dropped_goes_back_at_once(site: Site) -> None:
    script = """
with BrowserPool(name, max_size=1, min_idle=0) as pool:
    lease = pool.lease()
    lease.driver.get(url)
    gone = weakref.ref(lease._handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del lease
        print(gone() is None, "dropped without release" in str(caught[0].message))
    with pool.lease() as lease:
        print(lease.uses)
    driver = pool.lease().driver
    driver.get(url)
    gone = weakref.ref(driver)
    del driver
    print(gone())
"""
    assert run(script, "chrome", site) == ["True True", "1", "None"]


@pytest.mark.chrome
def test_control_a_driver_in_a_circle_of_the_programs_own_is_ended_by_the_cyclic_collector(
    site: Site,
) -> None:
    script = """
box = []
pid = drop(box)
box[0].page = {"driver": box[0]}
print(is_ended(pid, box.clear))
print(is_ended(pid, gc.collect))
"""
    assert run(script, "chrome", site) == ["alive", ENDED]


KILLS_ITS_CHILDREN = """
import contextlib, os, sys, time
import psutil
from browserkeeper import browser, session_of
driver = browser("chrome").start()
session = session_of(driver)
print(session.tmpdir, session.id, flush=True)
del session
children = psutil.Process().children(recursive=True)
for child in children:  # parents first: else a guard may end the session between two kills
    with contextlib.suppress(psutil.NoSuchProcess):
        child.suspend()
for child in reversed(children):  # the death of the standby guard would continue the primary
    with contextlib.suppress(psutil.NoSuchProcess):
        child.kill()
time.sleep(1)  # the witness reaps none of them
if sys.argv[1] == "drops":
    del driver
    time.sleep(0.5)
    os._exit(0)
"""


@pytest.mark.chrome
@pytest.mark.parametrize("end", ["exits", "drops"])
@pytest.mark.leaves_zombies(40, "no guard is left to reap them")
def test_a_program_that_kills_all_its_children_leaves_no_files(end: str, state_dir: Path) -> None:
    """The guards too, so that the program itself has to clean up."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", KILLS_ITS_CHILDREN, end],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=5 * SECONDS,
    )
    tmpdir, session = done.stdout.split()
    assert not os.path.lexists(tmpdir)
    assert not list(state_dir.glob(f"live/{session}*"))
    assert "was never closed, and was ended now" in done.stderr
