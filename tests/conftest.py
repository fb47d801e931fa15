"""What every test gets: a state directory of its own, and a check that nothing is left after it.

pytest itself is made the subreaper of all that the tests start, so that an orphan of a session
comes here instead of to a PID 1 that may reap it before it is counted.

A test that needs a browser, root, a daemon and so on has a marker that says so (tests/support/needs.py);
where the need is missing the test is skipped with the reason.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.server import Site
from tests.support import needs, witness

pytest_plugins = (
    "pytester",  # for the runs inside of tests/pytest_plugin
    "tests.support.docker_rig",
    "tests.support.inner_pytest",
    "tests.support.results",
)
PROGRAMS = Path(__file__).resolve().parent.parent / "fixtures" / "programs"
UNPACKED = needs.UNPACKED
CI = os.environ.get("CI", "").lower() == "true"
SETTLE = 20.0
"""Seconds that the processes of a test may take to be gone: over 200 times the median (0.085 s) after an
owner's death.  Not longer, since a leaked process that ends by itself within this time is not seen."""


def restore_signals() -> None:
    """The defaults, also where the run was started by ``nohup``, by ``cmd &`` of a script or by a CI
    runner that ignores or blocks signals: programs that tests start would inherit that state."""
    for number in (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


witness.become_init()
restore_signals()
os.environ["BROWSERKEEPER_OFFLINE"] = "1"
needs.extend_path()


def pytest_configure() -> None:
    """A lane that takes too long prints the stacks of all its threads and exits."""
    if seconds := float(os.environ.pop("BROWSERKEEPER_LANE_SECONDS", "0")):
        # Nothing is captured at this moment, so descriptor 2 is the run's own.
        faulthandler.dump_traceback_later(seconds, exit=True, file=os.dup(2))


def pytest_collection_finish() -> None:
    """Keeps what there is by now, thousands of tests and the modules, out of each later garbage
    collection: one took over half a second, and tests make hundreds."""
    gc.collect()
    gc.freeze()


INTERRUPTED = threading.Event()


def pytest_keyboard_interrupt() -> None:
    """Called before the fixtures of the interrupted test are torn down."""
    INTERRUPTED.set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for need in needs.implied(item):
            item.add_marker(need)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for need in needs.NEEDS:
        if item.get_closest_marker(need) and (why := needs.missing(need)):
            if CI and need in needs.REQUIRED_BY_CI:
                pytest.fail(f"{why}, and CI=true allows no skipping; see `make setup`")
            pytest.skip(why)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture(autouse=True)
def requests_of_this_test(request: pytest.FixtureRequest) -> None:
    """All tests of the process share the site; ``site.requests`` is to have those of one test."""
    if "site" in request.fixturenames and isinstance(site := request.getfixturevalue("site"), Site):
        site.forget_requests()


@pytest.fixture(autouse=True)
def state_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short, since a few tests put sockets below it; removed whatever a test left in it."""
    directory = Path(tempfile.mkdtemp(prefix="bkstate-"))
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, state_dir: Path) -> Iterator[None]:
    """No process, no zombie, no file, no cgroup.

    ``@pytest.mark.leaves_zombies(n, reason)`` for the deaths after which PID 1, here pytest,
    has to reap; never for processes that live.
    """
    witness.reap_orphans(set())  # of a browser that a fixture of another module has started and ended
    known = {s.pid for s in witness.below(os.getpid())}
    baseline = witness.Baseline(state_dir)
    yield
    if INTERRUPTED.is_set():
        witness.clean_up(known)
        return
    left = witness.wait_until_gone(os.getpid(), known, SETTLE)
    zombies = witness.zombies(witness.new_below(os.getpid(), known))
    witness.clean_up(known)
    allowed = request.node.get_closest_marker("leaves_zombies")
    assert not left, f"still alive: {left}"
    assert len(zombies) <= (allowed.args[0] if allowed else 0), f"zombies: {zombies}"
    assert not baseline.new_files()
    assert not baseline.new_cgroups()
    assert not list(state_dir.glob("live/*"))


@pytest.fixture
def pids_of(tmp_path: Path) -> PidFile:
    return PidFile(tmp_path / "pids")


class PidFile:
    """Where a program of ``fixtures/programs`` writes the pids of what it started."""

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> list[int]:
        return [int(line) for line in self.path.read_text().split()] if self.path.exists() else []
