"""The plugin ends what is plainly the test's own, and nothing else: no guard above pytest, no browser of
a service under test, no driver that a suite keeps on purpose.

With programs that only have the names of browsers.  In each inner run there is a control: a browser that
is the test's own, in the same place, is ended and reported.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from browserkeeper.guard.files import write_atomically
from browserkeeper.process import identity_of
from browserkeeper.process.containment import Containment
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.pytest_plugin import holders, xdist_controller
from browserkeeper.pytest_plugin.settings import Settings
from browserkeeper.report import ExitReport
from browserkeeper.session.record import describe
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import EndedSession, new_id
from tests.support import guards, witness
from tests.support.fake_suite import FAKES, LENIENT
from tests.support.inner_pytest import InnerPytest, leaked_tests
from tests.support.waiting import SECONDS, deadline_in

pytestmark = pytest.mark.leaves_zombies(20, "nothing reaps what inner suites start but PID 1")
RUN = (sys.executable, "-m", "browserkeeper", "run", "--")


@pytest.fixture
def known() -> Iterator[set[int]]:
    """The processes from before the test; the new ones are ended after it."""
    found = {process.pid for process in witness.below(os.getpid())}
    yield found
    witness.clean_up(found)


# ------------------------------------------------------------------------------- guards above pytest

GUARDED = (
    FAKES
    + """
def guards_above():
    pid, found = os.getpid(), []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if pid and b"BROWSERKEEPER_DOCUMENT=" in Path(f"/proc/{pid}/environ").read_bytes():
            found.append(pid)
    return found

def test_leaks():
    start(DRIVER, "600")

def test_leaks_below_a_guard_of_its_own():
    start(sys.executable, "-m", "browserkeeper", "run", "--", "sh", "-c",
          f"{DRIVER} 600 & echo $! > inner; wait")
    wait_for_driver(pid_in("inner"))

def test_orphan():
    orphan(DRIVER)

def test_the_guards_live():
    "The control: the guards above pytest are there, and it is them that a search upwards finds."
    assert len(guards_above()) >= 2
    assert all(map(is_alive, guards_above()))
    assert not is_alive(pid_in("inner"))
"""
)


@pytest.mark.parametrize("below", [RUN, (*RUN, *RUN)], ids=["run", "nested"])
@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "xdist"])
def test_a_leak_of_a_guarded_run_does_not_end_the_run(
    inner_pytest: InnerPytest, known: set[int], below: tuple[str, ...], workers: tuple[str, ...]
) -> None:
    inner_pytest.write(test_a=GUARDED)
    words = ("-v", "--keeper-leaks=error", *LENIENT, *workers)
    done = inner_pytest.run(*words, plugins=("xdist",) if workers else (), below=below)
    done.assert_outcomes(passed=4, failed=3)
    assert done.ret == 1
    assert witness.wait_until_gone(os.getpid(), known, SECONDS) == []


def test_a_crashed_workers_leak_does_not_end_a_guarded_run(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    """The orphan of a dead worker has the guard above pytest for its parent."""
    inner_pytest.write(
        test_a=FAKES
        + """
@pytest.fixture(scope="session")
def service():
    start("sh", "-c", f"{DRIVER} 600 & echo $! > of-the-service; wait")
    front = start(sys.executable, "-m", "browserkeeper", "run", "--",
                  "sh", "-c", f"{DRIVER} 600 & echo $! > of-the-guarded; wait")
    Path("front").write_text(f"{front}\\n")
    for name in ("of-the-service", "of-the-guarded"):
        wait_for_driver(pid_in(name))

def test_crashes(service):
    start(DRIVER, "600")
    wait_for_driver(PIDS[-1])
    os.kill(os.getpid(), 9)

def test_goes_on():
    assert is_alive(pid_in("of-the-service")) and is_alive(pid_in("of-the-guarded"))
    os.kill(pid_in("front"), 15)
    wait_for(lambda: not is_alive(pid_in("front")))
"""
    )
    done = inner_pytest.run("-n1", "--keeper-leaks=error", plugins=("xdist",), below=RUN)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines_random(
        [
            "Left running, ended now: geckodriver (pid *",
            "Left running, not ended: geckodriver (pid *, held by process:sh",
        ]
    )


# ------------------------------------------------------------------------------- services under test

SERVICES = (
    FAKES
    + """
import http.server, multiprocessing, threading, unittest, urllib.request
LOOP = 'while read line; do ' + DRIVER + ' 600 <&- & echo $! > "$line"; done'

class Service:
    "A process that opens a browser at each request."
    def __init__(self, *before):
        self.process = subprocess.Popen([*before, "sh", "-c", LOOP], stdin=subprocess.PIPE)
    def open(self, name):
        self.process.stdin.write(f"{name}\\n".encode())
        self.process.stdin.flush()
        wait_for_driver(pid_in(name))
    def stop(self, *names):
        for name in names:
            os.kill(pid_in(name), 9)
        self.process.stdin.close()
        self.process.wait()

@pytest.fixture(scope="session")
def service():
    service = Service()
    yield service
    service.stop("one", "two", "four")

@pytest.fixture(scope="module")
def guarded():
    service = Service(sys.executable, "-m", "browserkeeper", "run", "--")
    yield service
    service.stop("three")

@pytest.fixture(scope="class")
def asks_at_once(service):
    "Its set-up makes another fixture's service open a browser, which outlives this fixture."
    service.open("four")

def test_first_request(service): service.open("one")
def test_second_request(service):
    assert is_alive(pid_in("one"))
    service.open("two")
def test_guarded(guarded): guarded.open("three")
def test_later(service, guarded):
    assert all(is_alive(pid_in(name)) for name in ("one", "two", "three"))

class TestAsks:
    def test_asks(self, asks_at_once): pass

def test_after_it(): assert is_alive(pid_in("four"))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.browsers.append(popen())
        self.send_response(204)
        self.end_headers()
    def log_message(self, *words): pass

@pytest.fixture(scope="session")
def in_process():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.browsers = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        for browser in server.browsers:
            browser.kill()
            browser.wait()

def test_server_in_a_thread(in_process):
    urllib.request.urlopen("http://127.0.0.1:%d/" % in_process.server_port).close()
def test_its_browser_lives(in_process): assert in_process.browsers[0].poll() is None

@pytest.fixture(scope="module")
def lazy():
    made = []
    def get():
        if not made:
            made.append(popen())
        return made[0]
    yield get
    made[0].kill()
    made[0].wait()

def test_lazy(lazy): lazy()
def test_lazy_again(lazy): assert lazy().poll() is None

def work(name):
    Path(name).write_text("%d\\n" % start(DRIVER, "600"))

@pytest.fixture(scope="module")
def pool():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        yield pool
        os.kill(pid_in("five"), 9)
        pool.close()
        pool.join()

def test_pool_worker(pool): pool.apply(work, ["five"])
def test_pool_worker_again(pool): assert is_alive(pid_in("five"))

class TestOfUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.driver = popen()
        cls.other = popen()
    @classmethod
    def tearDownClass(cls):
        for process in (cls.driver, cls.other):
            process.kill()
            process.wait()
    def test_one(self): self.driver.poll()
    def test_two(self): assert self.driver.poll() is None

def test_own(service):
    "The control, with the services at work."
    start(DRIVER, "600")
def test_own_below_another(service):
    Service().open("six")
"""
)


def test_the_browsers_of_services_and_of_wider_fixtures_live_on(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    done = inner_pytest.write(test_a=SERVICES).run("-v", "--keeper-leaks=error", *LENIENT)
    assert leaked_tests(done) == ["test_own", "test_own_below_another"]
    done.assert_outcomes(passed=16, failed=2)
    assert witness.wait_until_gone(os.getpid(), known, SECONDS) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_a_services_orphan_that_comes_to_pytest_is_the_services(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    """As PID 1 of a container, or as a subreaper, pytest gets other processes' orphans for children."""
    inner_pytest.write(
        test_a=FAKES
        + """
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
LOOP = 'while read line; do sh -c "' + DRIVER + r' 600 <&- & echo \\$! > $line"; done'

@pytest.fixture(scope="session")
def service():
    service = popen("sh", "-c", LOOP, stdin=subprocess.PIPE)
    yield service
    os.kill(pid_in("one"), 9)
    service.stdin.close()
    service.wait()

def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

def test_asks(service):
    service.stdin.write(b"one\\n")
    service.stdin.flush()
    wait_for_driver(pid_in("one"))
    wait_for(lambda: parent(pid_in("one")) == os.getpid())
def test_lives(service): assert is_alive(pid_in("one"))
def test_own(service):
    pid = orphan(DRIVER)
    wait_for(lambda: parent(pid) == os.getpid())
"""
    )
    done = inner_pytest.run("-v", "--keeper-leaks=error")
    assert leaked_tests(done) == ["test_own"]
    done.assert_outcomes(passed=3, failed=1)


# ------------------------------------------------------------------------------- kept on purpose

KEPT = (
    FAKES
    + """
import atexit, functools, queue, threading
ONE = None
TASKS = queue.Queue()

@functools.lru_cache
def cached(): return popen()

class Helper:
    driver = None

class Lazy:
    @functools.cached_property
    def driver(self): return popen()
LAZY = Lazy()

def serve():
    while task := TASKS.get():
        task()
THREAD = threading.Thread(target=serve, name="worker 1", daemon=True)
THREAD.start()

def test_global():
    global ONE
    ONE = popen()
def test_global_again():
    global ONE
    before, ONE = ONE, popen()
    note(before)
    note(ONE)
def test_cache(): note(cached())
def test_class():
    Helper.driver = popen()
    note(Helper.driver)
def test_property(): note(LAZY.driver)
class Spawned:
    "Other people's class for a process, such as ptyprocess.PtyProcess."
    def __init__(self, pid): self.pid = pid
def test_foreign_class():
    Helper.spawned = Spawned(start(DRIVER, "600"))
    note(Helper.spawned)
def test_config(request):
    request.config.driver = popen()
    note(request.config.driver)
def test_atexit():
    driver = popen()
    atexit.register(driver.poll)
    note(driver)
def test_thread():
    done = threading.Event()
    def task():
        start(DRIVER, "600")
        done.set()
    TASKS.put(task)
    done.wait()
def test_the_thread_lives(): pass
def test_detached():
    "As undetected-chromedriver does: its browser is no child of its driver."
    Helper.detached = popen()
    note(Helper.detached)
    with open("pids", "a") as file:
        print(orphan(DRIVER), file=file)
def test_own():
    "The control, beside all those."
    start(DRIVER, "600")
@pytest.mark.keeper_allow_leak("it is meant")
def test_allowed():
    Helper.other = popen()
    note(Helper.other)

def note(process):
    with open("pids", "a") as file:
        print(process.pid, file=file)
"""
)
HOLDERS = (
    *("test_a.ONE", "test_a.cached", "test_a.Helper.driver", "test_a.LAZY", "pytest.Config"),
    *("test_a.Helper.detached", "test_a.Helper.spawned", "unknown", "'thread:worker 1'"),
)


def kept_processes(inner_pytest: InnerPytest) -> list[bool]:
    pids = map(int, (inner_pytest.path / "pids").read_text().split())
    return [(seen := witness.look(pid)) is not None and seen.state not in "ZX" for pid in pids]


def test_a_driver_that_a_suite_keeps_is_named_once_and_not_ended(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    inner_pytest.write(test_a=KEPT)
    done = inner_pytest.run("-v", "--keeper-leaks=error", "-Wdefault", *LENIENT)
    done.assert_outcomes(passed=13, failed=1, warnings=len(HOLDERS))
    assert leaked_tests(done) == ["test_own"]
    text = done.stdout.str()
    for holder in HOLDERS:
        line = f"If it is meant to outlive the test, add to pytest.ini: keeper_shared = {holder}\n"
        assert text.count(line) == 1, holder
    assert kept_processes(inner_pytest) == [True] * 11
    witness.clean_up(known)

    (inner_pytest.path / "pids").unlink()
    inner_pytest.ini(keeper_shared=" ".join(HOLDERS))
    done = inner_pytest.run("-v", *LENIENT)
    done.assert_outcomes(passed=13, failed=1)
    assert kept_processes(inner_pytest) == [True] * 11


def test_a_filter_that_makes_warnings_errors_does_not_fail_a_suite_that_keeps_a_driver(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    """The notice is in the summary then.  Nor does it hide a leak."""
    inner_pytest.write(
        test_a=FAKES
        + """
KEPT = []
def test_both():
    KEPT.append(popen())
    start(DRIVER, "600")
def test_notice():
    KEPT.append([popen()])
    pytest.more = KEPT[1]
"""
    )
    (inner_pytest.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nkeeper_capture = 'never'\n"
    )
    done = inner_pytest.run(*LENIENT)
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.no_fnmatch_line("ERROR*")
    done.stdout.fnmatch_lines(
        [
            "*test_both left 1 browser running (ended now):",
            "*= browserkeeper =*",
            "*test_both left a browser running that is not plainly its own. It was not ended:",
            "*held by test_a.KEPT",
            'If it is meant to outlive the test, add to pyproject.toml: keeper_shared = ["test_a.KEPT"]',
        ]
    )


HELD: dict[str, object] = {}


def test_the_holder_of_a_session_of_ours_is_found(state_dir: Path) -> None:
    """A session holds its guard, also where the suite has frozen what it had imported.  The control:
    once the variable is empty, nothing of that name does."""
    gc.freeze()
    guard = guards.start(("/bin/sleep", "600"))
    HELD["guard"] = [guard]
    assert holders.find(guard.pid, set()) == f"{__name__}.HELD"
    HELD.clear()
    assert holders.find(guard.pid, set()) in (holders.THE_TEST, holders.UNKNOWN)
    guard.end("closed", deadline_in())


def test_an_object_of_a_process_that_has_ended_holds_no_other_of_its_pid() -> None:
    process = subprocess.Popen(["sleep", "600"])
    HELD["process"] = process
    assert holders.find(process.pid, set()) == f"{__name__}.HELD"
    process.kill()
    process.wait()
    assert holders.find(process.pid, set()) == ""
    HELD.clear()


def test_a_class_whose_module_is_no_text_does_not_stop_the_search() -> None:
    """As Cython's function type: its ``__module__`` is a descriptor.  The object beside it is found."""
    odd = type("Odd", (), {"__module__": property(lambda self: "")})()
    process = subprocess.Popen(["sleep", "600"])
    HELD["both"] = [odd, process]
    try:
        assert holders.find(process.pid, set()) == f"{__name__}.HELD"
    finally:
        HELD.clear()
        process.kill()
        process.wait()


JOB_SERVER = """
import json, os, subprocess, sys, time
while True:
    for name in os.listdir():
        if name.endswith(".job"):
            job = json.loads(open(name).read())
            os.unlink(name)
            print(subprocess.Popen(["./geckodriver", "600"], env=job).pid, file=open("job-pid", "w"))
    time.sleep(0.01)
"""


def test_a_job_servers_job_with_our_environment_lives_on(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    """The job has the mark of the test, as the orphan has which is the control."""
    server = subprocess.Popen([sys.executable, "-c", JOB_SERVER], cwd=inner_pytest.path)
    inner_pytest.write(
        test_a=FAKES
        + """
import json
def test_job():
    Path("draft").write_text(json.dumps(dict(os.environ)))
    os.rename("draft", "one.job")
    wait_for_driver(pid_in("job-pid"))
def test_orphan(): orphan(DRIVER)
def test_the_job_lives(): assert is_alive(pid_in("job-pid"))
"""
    )
    done = inner_pytest.run("-v", "--keeper-leaks=error")
    server.kill()
    server.wait()
    assert leaked_tests(done) == ["test_orphan"]
    done.assert_outcomes(passed=3, failed=1)


# ------------------------------------------------------------------------------- the rules of old

OUTERMOST_GUARD = """
from browserkeeper.pytest_plugin import browser_processes, leaks

def outermost(process, line):
    found = [
        ancestor.identity
        for ancestor in browser_processes.ancestors(process)
        if browser_processes.system.marker_value(ancestor.pid, browser_processes.DOCUMENT) is not None
    ]
    return found[-1] if found else None

leaks.guard_of = outermost
"""
ANYTHING_NEW = """
from browserkeeper.pytest_plugin import holders, leaks

detector = leaks.LeakDetector
detector._present = lambda self: {seen.identity for seen in self._below_us() if seen.kind}
detector._started_since = lambda self, before: self._present() - before
leaks._scope_of = lambda process, run: None
holders.find = lambda pid, old_threads: ""
"""


def test_control_the_outermost_guard_is_the_runs_own(inner_pytest: InnerPytest, known: set[int]) -> None:
    """A leak ends the whole run, before its second test."""
    inner_pytest.write(conftest=OUTERMOST_GUARD, test_a=GUARDED)
    done = inner_pytest.run("-v", "--keeper-leaks=error", *LENIENT, below=RUN)
    assert done.ret != 1
    done.stdout.no_fnmatch_line("*test_leaks_below_a_guard_of_its_own PASSED*")


def test_control_whatever_is_new_is_the_tests(inner_pytest: InnerPytest, known: set[int]) -> None:
    """The browsers of a service and of a global variable are ended."""
    inner_pytest.write(
        conftest=ANYTHING_NEW,
        test_a=FAKES
        + """
KEPT = []
@pytest.fixture(scope="session")
def service():
    start("sh", "-c", f"while ! [ -e ask ]; do sleep 0.01; done; {DRIVER} 600 & echo $! > one; wait")
def test_service(service):
    open("ask", "w").close()
    wait_for_driver(pid_in("one"))
def test_global(): KEPT.append(popen())
def test_harm(): assert not is_alive(pid_in("one")) and KEPT[0].poll() == -9
""",
    )
    done = inner_pytest.run("-v", "--keeper-leaks=error", *LENIENT)
    assert leaked_tests(done) == ["test_service", "test_global"]
    done.assert_outcomes(passed=3, failed=2)


# ------------------------------------------------------------------------------- keeper_leaks = auto

LEAKS = FAKES + 'def test_leaks(): start(DRIVER, "600"); print(os.environ.get("BROWSERKEEPER_PYTEST"))\n'
OVERRIDE = """
@pytest.fixture
def driver(driver): return driver
def test_driver(driver): pass
"""
NOT_OURS = """
@pytest.fixture
def keeper_of_the_zoo(): return 1
@pytest.mark.keeper_of_keys
def test_names_of_others(keeper_of_the_zoo): pass
@pytest.fixture
def driver(): return 1
def test_driver(driver): pass
@pytest.mark.parametrize("driver", [1, 2])
def test_parameter(driver): pass
"""
UNKNOWN_MARK = ("-Wignore::pytest.PytestUnknownMarkWarning",)
USES = {
    "option": ("", {}, ("--keeper-capture=failure",)),
    "ini": ("", {"keeper_headed": "false"}, ()),
    "marker": ("@pytest.mark.keeper_skip('edge')\ndef test_marked(): pass", {}, ()),
    "fixture": ("def test_args(keeper_browser_args): pass", {}, ()),
    "override": (OVERRIDE, {}, ("-k", "test_leaks or test_driver")),
}


@pytest.mark.parametrize("use", USES)
def test_auto_looks_for_leaks_in_runs_that_use_something_of_ours(
    inner_pytest: InnerPytest, known: set[int], use: str
) -> None:
    text, ini, words = USES[use]
    done = inner_pytest.ini(**ini).write(test_a=LEAKS + text).run("-v", "-rE", *words)
    assert leaked_tests(done) == ["test_leaks"]
    done.stdout.fnmatch_lines(["(keeper_leaks = auto is error here: the run uses the *"])


def test_auto_touches_nothing_in_other_runs(inner_pytest: InnerPytest, known: set[int]) -> None:
    """A fixture ``driver`` of the suite's own is none of ours.  The control is the same with error."""
    done = inner_pytest.write(test_a=LEAKS + NOT_OURS).run("-rP", *UNKNOWN_MARK)
    done.assert_outcomes(passed=5)
    done.stdout.fnmatch_lines(["None"])
    left = witness.alive(witness.new_below(os.getpid(), known))
    assert [process.name for process in left] == ["geckodriver"]
    inner_pytest.run("--keeper-leaks=error", *UNKNOWN_MARK).assert_outcomes(passed=5, failed=1)


def test_auto_begins_when_a_test_asks_for_a_fixture_at_run_time(
    inner_pytest: InnerPytest, known: set[int]
) -> None:
    inner_pytest.write(
        test_a=FAKES
        + """
def test_before(): start(DRIVER, "600")
def test_asks(request):
    start(DRIVER, "600")
    request.getfixturevalue("keeper_browser_args")
    start(DRIVER, "600")
def test_after(): start(DRIVER, "600")
def test_alive(): assert [is_alive(pid) for pid in PIDS] == [True, True, False, False]
"""
    )
    done = inner_pytest.run("-v")
    assert leaked_tests(done) == ["test_asks", "test_after"]
    done.assert_outcomes(passed=4, failed=2)


# ------------------------------------------------------------------------------- dead xdist workers


def write_ended(state_dir: Path, reason: str, **facts: Any) -> None:
    """Into the history: a session of this process, but for ``facts``."""
    session = describe(new_id(), "chrome", Containment("subreaper", ""), created=1e9, timeout=None)
    session = dataclasses.replace(session, **facts)
    report = ExitReport(session.id, "chrome", reason, "subreaper", "ECHILD")
    path = Ledger.open(state_dir).history_path(session.id)
    write_atomically(str(path), EndedSession(session, report).to_json())


def test_a_dead_workers_sessions_are_told_by_its_whole_identity(state_dir: Path) -> None:
    """Whatever the word for their end is.  Not by the pid: that of the controls is the same."""
    owner = identity_of(os.getpid())
    for reason in ("owner-died", "abandoned", "closed", "guard-died"):
        write_ended(state_dir, reason)
    write_ended(state_dir, "owner-died", owner=ProcessIdentity(owner.pid, owner.start - 9))
    write_ended(state_dir, "owner-died", host="another/machine/pid:[1]")
    found = xdist_controller.sessions_of_dead(owner)
    assert sorted(line.split(": ")[2].split(",")[0] for line in found) == [
        *("abandoned", "guard-died", "owner-died")
    ]


def test_a_worker_of_another_machine_is_no_process_of_this_one() -> None:
    """Its pid is that of this process.  The control is the same pid in a gateway of this machine."""
    hooks = xdist_controller.ControllerHooks(Settings())
    for name, is_local in {"gw0": True, "gw1": False}.items():
        spec, info = SimpleNamespace(popen=is_local), SimpleNamespace(pid=os.getpid())
        hooks.pytest_xdist_newgateway(SimpleNamespace(id=name, spec=spec, _rinfo=lambda info=info: info))
    assert hooks.workers == {"gw0": identity_of(os.getpid())}
