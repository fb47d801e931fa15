"""What every test gets: a state directory of its own, and a witness that nothing is left after it.

pytest itself is made the subreaper of all that the tests start, so that an orphan of a session
comes here instead of to a PID 1 that may reap it before it is counted.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.server import Site
from tests.support import witness

pytest_plugins = (
    "pytester",  # for the runs inside of test_pytest_plugin*.py
    "tests.support.docker_rig",
)
PROGRAMS = Path(__file__).resolve().parent.parent / "fixtures" / "programs"
UNPACKED = Path(__file__).resolve().parent.parent / ".tools" / "usr"
"""Where scripts/unpack.sh puts the daemons of Debian's packages that nobody wants installed."""
CI = os.environ.get("CI", "").lower() == "true"
SETTLE = 5.0
"""Seconds that the last test's processes may take to be gone."""

witness.become_init()
os.environ["BROWSERKEEPER_OFFLINE"] = "1"
for folder in (Path.home() / ".cargo" / "bin", UNPACKED / "bin", UNPACKED / "sbin"):
    os.environ["PATH"] += f"{os.pathsep}{folder}"


def _missing(browser: str) -> str:
    if browser == "firefox":
        have = shutil.which("firefox") or shutil.which("firefox-esr")
        return "" if have and shutil.which("geckodriver") else "no Firefox with geckodriver"
    have = shutil.which("chromium") or shutil.which("google-chrome")
    return "" if have and shutil.which("chromedriver") else "no Chromium with chromedriver"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for browser in ("chrome", "firefox"):
        if item.get_closest_marker(browser) and (why := _missing(browser)):
            if CI:
                pytest.fail(f"{why}, and CI=true allows no skipping; see `make setup`")
            pytest.skip(why)
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


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
    known = {s.pid for s in witness.below(os.getpid())}
    files, groups = witness.files(), witness.cgroups()
    yield
    left = witness.wait_until_gone(os.getpid(), known, SETTLE)
    zombies = witness.zombies(witness.new_below(os.getpid(), known))
    witness.clean_up(known)
    allowed = request.node.get_closest_marker("leaves_zombies")
    assert not left, f"still alive: {left}"
    assert len(zombies) <= (allowed.args[0] if allowed else 0), f"zombies: {zombies}"
    assert not witness.files() - files
    assert not witness.cgroups() - groups
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
