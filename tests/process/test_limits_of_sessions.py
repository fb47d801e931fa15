"""Sessions and pools of real browsers whose owner, or who themselves, reach a limit of the system.

Each script is a process of its own.  Its control is that a plain ``open`` or ``Thread.start`` fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.guards import BOTH
from tests.support.owners import ROOT, output_of
from tests.support.waiting import SECONDS, wait_until

STARVE = """
import errno, gc, os, resource, sys, threading, time
from selenium.common.exceptions import NoSuchElementException
from browserkeeper import *
from browserkeeper import LimitError
from tests.support.starving import use_up_descriptors

def raised(action):
    try:
        return f"returned {action()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"

unraisable = []
sys.unraisablehook = lambda found: unraisable.append(found.exc_value)
"""

SESSION = (
    STARVE
    + """
name, profile = sys.argv[1:3]
session = browser(name, profile=profile)
driver = session.start()
driver.get("data:text/html,<p>x")
taken = use_up_descriptors(256)
print(raised(lambda: driver.find_element("id", "nothing")))
print(raised(lambda: driver.execute_script("return 42")))
print(session.memory() > 0, len(session.processes()) > 1)
waiting = threading.Thread(target=driver.execute_async_script, args=("setTimeout(arguments[0], 10000)",))
waiting.start()
pools = driver.command_executor._conn.pools
while not all(pools[key].pool.empty() for key in pools.keys()):  # until the one connection is in use
    time.sleep(0.01)
print(raised(lambda: driver.title))  # needs a second connection
waiting.join()
print(raised(lambda: driver.execute_script("return 43")))
print(raised(lambda: browser(name).start()))
print(raised(lambda: BrowserPool(name, max_size=1).open()))
report = session.close()
print(report.reason, report.clean, report.certificate, report.notes)
for fd in taken:
    os.close(fd)
gc.collect()
print(unraisable)
"""
)


@pytest.mark.parametrize("name", BOTH)
def test_a_session_of_an_owner_without_free_descriptors_lives_and_ends_in_order(
    name: str, tmp_path: Path
) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    lines = iter(output_of(SESSION, name, profile).splitlines())
    assert next(lines) == "plain open: EMFILE", "control"
    assert next(lines).startswith("NoSuchElementException:")
    assert next(lines) == "returned 42"
    assert next(lines) == "True True"
    second = next(lines)
    assert second.startswith("LimitError: 'getTitle' was not sent. This process may have 256 files open")
    assert second.endswith("The session goes on.")
    assert next(lines) == "returned 43"
    start = next(lines)
    assert start.startswith(f"LaunchError: {name} cannot be started. A start needs 16 files")
    assert "RLIMIT_NOFILE" in start
    assert next(lines).split(":")[0] in ("PoolUnavailable", "LimitError")
    assert next(lines) == "closed True ECHILD ()"
    assert next(lines) == "[]"


POOL = (
    STARVE
    + """
with BrowserPool("chrome", max_size=2, min_idle=2) as pool:
    pool.wait(120)
    before = {session.id for session in pool.sessions()}
    taken = use_up_descriptors(256)
    for _ in range(3):
        with pool.driver() as driver:
            print(raised(lambda: driver.find_element("id", "nothing")))
    until = time.monotonic() + 6  # longer than the pool waits between two looks at its browsers
    while time.monotonic() < until:
        time.sleep(0.1)
    print({session.id for session in pool.sessions()} == before)
    for fd in taken:
        os.close(fd)
    with pool.driver() as driver:
        print(session_of(driver).id in before, pool.stats()["browsers_lost"])
print(unraisable)
"""
)


@pytest.mark.chrome
def test_a_pool_of_an_owner_without_free_descriptors_keeps_its_browsers() -> None:
    lines = output_of(POOL).splitlines()
    assert lines[0] == "plain open: EMFILE", "control"
    assert [line.split(":")[0] for line in lines[1:4]] == ["NoSuchElementException"] * 3
    assert lines[4:] == ["True", "True 0", "[]"]


NO_CLOSE = (
    STARVE
    + """
def is_loaded():
    return "libgcc_s" in open("/proc/self/maps").read()
print(is_loaded())
pool = BrowserPool("chrome", max_size=1).open()
with pool.driver(timeout=120) as driver:
    driver.get("data:text/html,<p>x")
print(is_loaded())
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(raised(lambda: open("/dev/null")))
"""
)


@pytest.mark.chrome
def test_a_program_without_free_descriptors_ends_with_its_own_exit_status() -> None:
    """Not by an abort of glibc's, in a thread of the pool that is left at the interpreter's end."""
    before, after, error = output_of(NO_CLOSE).splitlines()
    assert error.startswith("OSError: [Errno 24]"), "control"
    assert (before, after) == ("False", "True")


NO_THREADS = """
import os, resource, sys, threading, time
from browserkeeper import *
from browserkeeper import LimitError

def raised(action):
    try:
        return f"returned {action()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"

def limit(number):
    resource.setrlimit(resource.RLIMIT_NPROC, (number, resource.getrlimit(resource.RLIMIT_NPROC)[1]))

def options():
    found = __import__("selenium.webdriver").webdriver.ChromeOptions()
    found.enable_bidi = True
    return found

session = browser("chrome", options=options())
driver = session.start()
driver.get("data:text/html,<p>x")
limit(1)
print(raised(threading.Thread(target=print).start))
"""

COMMANDS = """
print(raised(session.memory))
print(raised(lambda: driver.execute_script("return 42")))
print(raised(lambda: driver.find_element("id", "nothing")))
print(raised(lambda: driver.browser.get_client_windows()))  # Selenium's websocket has a thread
print(raised(lambda: driver.execute_script("return 43")))
print(raised(lambda: browser("chrome").start()))
print(raised(lambda: BrowserPool("chrome", max_size=1).open()))
report = session.close()
print(report.reason, report.clean, report.certificate)
"""

OTHER_ENDS = {
    "an exception that leaves the block": (
        "try:\n    session.__exit__(ValueError, ValueError('x'), None)\nfinally:\n"
        "    print(session.report.reason, session.report.clean)"
    ),
    "the interpreter's end": "print(session.pid, flush=True)",
}


@pytest.fixture
def plain_user(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user without any other process, whom RLIMIT_NPROC binds."""
    from tests.support.other_user import python_for_nobody

    python, env = python_for_nobody()
    home = Path("/tmp") / f"limits-{os.getpid()}"
    home.mkdir(mode=0o755, exist_ok=True)
    os.chown(home, USER, USER)
    return {**env, "HOME": str(home), "BROWSERKEEPER_STATE_DIR": str(home / "state"), "PYTHON": python}


USER = 54322


def output_as_user(env: dict[str, str], script: str) -> list[str]:
    done = subprocess.run(
        [env["PYTHON"], "-c", script],
        user=USER,
        group=USER,
        extra_groups=[],
        cwd="/",
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.chrome
@pytest.mark.root
def test_a_session_of_an_owner_without_threads_lives_and_ends_in_order(
    plain_user: dict[str, str],
) -> None:
    lines = output_as_user(plain_user, NO_THREADS + COMMANDS)
    assert lines[0] == "RuntimeError: can't start new thread", "control"
    assert lines[1] != "returned 0"  # an idle thread may be there to look
    assert lines[1].startswith(("returned", "LimitError"))
    assert lines[2] == "returned 42"
    assert lines[3].startswith("NoSuchElementException:")
    assert lines[4].startswith("LimitError: 'bidi' was not sent.")
    assert f"User {USER} may have 1 (RLIMIT_NPROC), and has " in lines[4]
    assert lines[5] == "returned 43"
    assert lines[6].startswith("LaunchError: ")
    assert "RLIMIT_NPROC" in lines[6]
    assert lines[7].startswith("PoolUnavailable: The pool cannot be opened.")
    assert "RLIMIT_NPROC" in lines[7]
    assert lines[8] == "closed True ECHILD"


@pytest.mark.chrome
@pytest.mark.root
@pytest.mark.parametrize("end", OTHER_ENDS)
def test_any_end_works_where_no_thread_can_be_started(end: str, plain_user: dict[str, str]) -> None:
    control, last = output_as_user(plain_user, NO_THREADS + OTHER_ENDS[end])
    assert control == "RuntimeError: can't start new thread"
    if last.isdigit():
        assert not Path("/proc", last).exists()
    else:
        assert last == "error True"


INHERITED = """
import resource, sys
name, limit, value = sys.argv[1:]
resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (int(value), int(value)))
from browserkeeper import *
try:
    browser(name).start()
except LaunchError as error:
    print(error.retryable, error.report is None or error.report.clean, str(error).splitlines()[0])
"""


@pytest.mark.parametrize(
    ("name", "limit", "value", "words"),
    [
        pytest.param("chrome", "AS", 4 << 30, "4,295 MB of address space", marks=pytest.mark.chrome),
        pytest.param("chrome", "FSIZE", 100_000, "100,000 bytes in one file", marks=pytest.mark.chrome),
        pytest.param("chrome", "NOFILE", 64, "64 files open in one", marks=pytest.mark.chrome),
        pytest.param("firefox", "FSIZE", 100_000, "100,000 bytes in one", marks=pytest.mark.firefox),
    ],
)
def test_a_browser_that_dies_of_an_inherited_limit_names_it_at_the_first_attempt(
    name: str, limit: str, value: int, words: str
) -> None:
    retryable, clean, text = output_of(INHERITED, name, limit, value).split(" ", 2)
    assert (retryable, clean) == ("False", "True")
    assert f"Probable cause: RLIMIT_{limit} allows {words}" in text


IN_A_CGROUP = """
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from browserkeeper import *
try:
    browser("chrome").start()
except LaunchError as error:
    print(error.retryable, str(error).splitlines()[0])
"""


@pytest.mark.chrome
@pytest.mark.root
@pytest.mark.parametrize(
    ("most", "words"), [(3, "may have 3 (pids.max)"), (40, "Probable cause: the cgroup")]
)
def test_a_cgroups_limit_of_processes_is_named_at_the_first_attempt(most: int, words: str) -> None:
    place = Path("/sys/fs/cgroup/pids", f"browserkeeper-test-{os.getpid()}-{time.time_ns()}")
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v1 of pids can be made: {error}")
    try:
        (place / "pids.max").write_text(str(most))
        retryable, text = output_of(IN_A_CGROUP, place).split(" ", 1)
    finally:
        assert wait_until(lambda: _is_removed(place))
    assert retryable == "False"
    assert words in text
    assert str(place) in text


MEMORY_RUNS_OUT = """
import os, sys
from browserkeeper import *
session = browser("chrome")
driver = session.start()
driver.get("about:blank")
if sys.argv[1] == "kill":
    os.kill(session.pid, 9)
else:  # the kernel chooses the browser's main process, and not this one
    with open(f"/proc/{session.pid}/oom_score_adj", "w") as file: file.write("1000")
    used = int(open("/sys/fs/cgroup/memory/memory.usage_in_bytes").read())
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    with open(limit, "w") as file: file.write(str(used + (20 << 20)))
    filled = b"x" * (60 << 20)
try:
    driver.get("about:blank")
except BrowserDied as error:
    print(str(error).splitlines()[0])
print(session.report.clean)
"""
AS_A_CONTAINER = """
echo $$ > $1/cgroup.procs
exec unshare -m -C sh -e -c '
    umount /sys/fs/cgroup/memory
    mount -t cgroup -o memory memory /sys/fs/cgroup/memory
    shift
    exec "$@"' sh "$@"
"""
"""Runs a program in a cgroup v1 of memory, with a cgroup namespace, as container engines do."""


@pytest.mark.chrome
@pytest.mark.root
@pytest.mark.parametrize("killer", ["the kernel", "kill"])
def test_a_browser_that_the_kernel_killed_for_memory_in_mid_session_names_it(killer: str) -> None:
    """The control is a browser that a person has killed."""
    place = Path("/sys/fs/cgroup/memory", f"browserkeeper-test-{os.getpid()}-{time.time_ns()}")
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v1 of memory can be made: {error}")
    python = [sys.executable, "-c", MEMORY_RUNS_OUT, killer]
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", AS_A_CONTAINER, "sh", place, *python],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=5 * SECONDS,
        )
    finally:
        assert wait_until(lambda: _is_removed(place))
    assert done.returncode == 0, done.stderr
    text, clean = done.stdout.splitlines()
    victims = ["its browser died"]
    if killer == "the kernel":  # it may choose the driver
        victims.append("its driver ended by itself")
    assert any(f"{victim} or was killed during 'get'" in text for victim in victims)
    assert clean == "True"
    words = (
        "Probable cause: the kernel killed a process for memory (memory.max of /sys/fs/cgroup/memory is "
    )
    assert (words in text) == (killer == "the kernel")


def _is_removed(place: Path) -> bool:
    try:
        place.rmdir()
    except OSError:
        return False
    return True
