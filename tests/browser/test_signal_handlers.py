"""A signal handler closes a session or a pool, whatever lock the thread that it has interrupted holds.

Each case runs in a process of its own, since the failure that it shows is a thread that waits for ever.
"""

from __future__ import annotations

import tempfile
import threading
import time

import pytest

from browserkeeper.session.apart import run_apart
from tests.support.owners import output_of
from tests.support.waiting import wait_until

START = """
import contextlib, logging, random, signal, sys, threading, time
from browserkeeper import BrowserkeeperError, BrowserPool, browser
from browserkeeper.session import control_of

URL = "data:text/html,hello"

def http_locks(driver):
    '''The locks of urllib3's pool of connections to the driver.'''
    manager = driver.command_executor._conn
    return [manager.pools[key].pool.mutex for key in manager.pools.keys()]
"""

LOCKS = """
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class Spans(SpanProcessor):
    lock = threading.Lock()

    def on_end(self, span):
        with self.lock:
            pass

if sys.argv[1] == "spans":
    trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(Spans())

logging.basicConfig(level=logging.INFO)
# A lock that the handler has interrupted is waited for; a busy machine needs longer to end a browser.
CLOSE_TIMEOUT = 3 if sys.argv[1] == "session" else 10
session = browser("chrome", close_timeout=CLOSE_TIMEOUT)
driver = session.start()
driver.get(URL)
control = control_of(session)
locks = {
    "log": lambda: [logging.getLogger().handlers[0].lock],
    "session": lambda: [control._lock, control.attempt.ending._lock],
    "http": lambda: http_locks(driver),
    "spans": lambda: [Spans.lock],
    "threads": lambda: [threading._active_limbo_lock],
}[sys.argv[1]]()
assert locks

def handler(*_):
    assert session.close().clean

signal.signal(signal.SIGALRM, handler)
with contextlib.ExitStack() as held:
    for lock in locks:
        held.enter_context(lock)
    signal.raise_signal(signal.SIGALRM)  # runs the handler here
print("closed", session.report.certificate)
"""

RANDOM = """
def handler(*_):
    assert session.close().clean

signal.signal(signal.SIGALRM, handler)
for number in range(4):
    session = browser("chrome")
    driver = session.start()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 0.1))
    with contextlib.suppress(BrowserkeeperError):
        while True:
            driver.get(URL)
            driver.title
    assert session.report.clean, session.report
print("closed", session.report.certificate)
"""

POOL = """
pool = BrowserPool("chrome", max_size=1, isolation="context", checkout_timeout=300, start_timeout=300,
                   close_timeout=3 if sys.argv[1] == "session" else 10)
pool.open()
lease = pool.lease()
driver = lease.driver
control = control_of(lease.session)
locks = {
    "session": lambda: [control._lock, control.attempt.ending._lock],
    "channel": lambda: [lease._handler.browser._contexts.connection._socket.lock],
    "http": lambda: http_locks(driver),
    "threads": lambda: [threading._active_limbo_lock],
}[sys.argv[1]]()
reports = []
signal.signal(signal.SIGALRM, lambda *_: reports.extend(pool.close()))
with contextlib.ExitStack() as held:
    for lock in locks:
        held.enter_context(lock)
    signal.raise_signal(signal.SIGALRM)
assert reports and all(report.clean for report in reports), reports
print("closed", reports[-1].certificate)
"""


CUT_OFF = """
logging.basicConfig(level=logging.INFO)
pool = BrowserPool("chrome", max_size=1, isolation="context", checkout_timeout=300, start_timeout=300)
pool.open()
lease = pool.lease()
session = browser("chrome", start_timeout=300)
driver = session.start()
locks = [logging.getLogger().handlers[0].lock, threading._active_limbo_lock]
for one, its_driver in ((session, driver), (lease.session, lease.driver)):
    its_driver.get(URL)
    control = control_of(one)
    locks += [control._lock, control.attempt.ending._lock, *http_locks(its_driver)]
locks.append(lease._handler.browser._contexts.connection._socket.lock)

def handler(*_):
    session.cut_off()
    pool.cut_off()

signal.signal(signal.SIGALRM, handler)
with contextlib.ExitStack() as held:
    for lock in locks:
        held.enter_context(lock)
    signal.raise_signal(signal.SIGALRM)
assert all(report.clean for report in pool.close())
print("closed", session.close().certificate)
"""

ADOPTED = """
from browserkeeper import adopt
from tests.browser import foreign_owner
driver = foreign_owner.selenium("chrome")
session = adopt(driver, close_timeout=5)
driver.get(URL)
reports = []
signal.signal(signal.SIGALRM, lambda *_: reports.append(session.close()))
with contextlib.ExitStack() as held:
    for lock in [*http_locks(driver), driver.service.process._waitpid_lock]:
        held.enter_context(lock)
    signal.raise_signal(signal.SIGALRM)
assert reports[0].clean, reports
print("closed", reports[0].certificate)
"""


def run(script: str, *words: str) -> str:
    return output_of(START + script, *words).splitlines()[-1]


@pytest.mark.chrome
@pytest.mark.parametrize("lock", ["session", "http", "spans", "log", "threads"])
def test_a_handler_closes_a_session_whose_thread_holds_a_lock(lock: str) -> None:
    assert run(LOCKS, lock) == "closed ECHILD"


@pytest.mark.chrome
def test_a_handler_closes_a_session_at_random_moments_of_its_commands() -> None:
    assert run(RANDOM) == "closed ECHILD"


@pytest.mark.chrome
@pytest.mark.parametrize("lock", ["session", "channel", "http", "threads"])
def test_a_handler_closes_a_pool_whose_thread_holds_a_lock(lock: str) -> None:
    """``channel``: of our websocket to the browser, which a thread holds while it sends a command."""
    assert run(POOL, lock) == "closed ECHILD"


@pytest.mark.chrome
def test_a_handler_cuts_off_a_session_and_a_pool_while_their_thread_holds_all_locks() -> None:
    assert run(CUT_OFF) == "closed ECHILD"


@pytest.mark.chrome
@pytest.mark.leaves_zombies(
    40, "an adopting guard is no ancestor: orphans belong to PID 1, which is pytest"
)
def test_a_handler_closes_an_adopted_session_whose_thread_holds_the_locks_of_its_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver is Selenium's own, whose process is a Popen.  It leaves an empty directory in TMPDIR,
    which cannot be traced to it."""
    with tempfile.TemporaryDirectory(prefix="tmpadopt") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        assert run(ADOPTED) == "closed two-scans"


def test_control_a_lock_of_the_interrupted_thread_is_never_free_in_the_handler() -> None:
    """The same call without a thread of its own: it blocks until its caller has returned."""
    mutex = threading.Lock()
    with mutex:
        assert not mutex.acquire(timeout=0.2)


def test_what_runs_apart_is_done_when_its_lock_is_free() -> None:
    mutex, done = threading.Lock(), []

    def action() -> None:
        with mutex:
            done.append(time.monotonic())

    with mutex:
        run_apart(action, 0.1)
        assert not done
    assert wait_until(lambda: done)
