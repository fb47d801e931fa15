"""The other doors to a server: pytest's ``--keeper-server``, and Celery's ``install(app, server=…)``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.celery.workers import running_redis, running_worker
from tests.server.running import LIMIT, RunningServer
from tests.support import witness
from tests.support.inner_pytest import InnerPytest
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chrome

PATIENT = ("--queue-timeout", str(LIMIT))
USAGE_ERROR = 4
SUITE = """
import pytest

@pytest.fixture(scope="session")
def keeper_browser_args(keeper_browser_args):
    return {**keeper_browser_args, "wait": 600}

@pytest.mark.parametrize("number", range(2))
def test_a(driver, number):
    driver.get("data:text/html,<title>a page</title>")
    assert driver.caps["browserkeeper:server"]
    assert driver.title == "a page"

def test_fails(driver):
    driver.get("data:text/html,<title>of the failed test</title>")
    assert driver.title == ""
"""


def test_pytest_leases_its_browsers_from_a_server(inner_pytest: InnerPytest, tmp_path: Path) -> None:
    """Also in xdist's workers, and with warm browsers, which the server has."""
    inner_pytest.write(test_suite=SUITE)
    known = {one.pid for one in witness.below(os.getpid())}
    with RunningServer(tmp_path, *PATIENT, "--max", "2") as server:
        words = ("-n2", "--keeper-trace=retain-on-failure")
        done = inner_pytest.run(f"--keeper-server={server.address}", *words, plugins=("xdist",))
        done.assert_outcomes(passed=2, failed=1)
        done.stdout.fnmatch_lines([f"*from {server.address}*"])
        (folder,) = inner_pytest.folders
        assert "of the failed test" in (folder / "page.html").read_text()
        assert not (folder / "driver.log").exists()  # it is the server's
        trace = (folder / "trace.html").read_text()
        assert "The browser is that of a server" in trace
        assert "<b>getTitle</b>" in trace
        assert wait_until(server.is_free)
    assert not witness.alive(witness.new_below(os.getpid(), known))
    done = inner_pytest.run(f"--keeper-server={server.address}")
    assert done.ret == USAGE_ERROR
    done.stderr.fnmatch_lines(["*--keeper-server: No server*browserkeeper serve*"])


@pytest.mark.redis
@pytest.mark.leaves_zombies(12, "the worker's children")
def test_the_children_of_a_celery_worker_lease_from_a_server(site: Site, tmp_path: Path) -> None:
    """A child that is killed in its task frees its lease.  The control: until then it has it."""
    with RunningServer(tmp_path, *PATIENT, "--max", "2") as server, running_redis() as redis:
        install = {"server": server.address, "wait": LIMIT}
        with running_worker(redis, "prefork", install=install) as worker:
            found = worker.run("installed.title", site.url)
            assert found["title"] == "The Leaky Shelf"
            assert not worker.records()  # no session of this host but the server's
            assert wait_until(server.is_free)
            sent = worker.send("installed.pids")
            assert wait_until(lambda: sent.state == "PROGRESS", LIMIT)
            (listed,) = server.sessions
            child = sent.result["child"]
            assert str(child) in listed["client"]
            assert "installed.pids" in listed["label"]
            os.kill(child, signal.SIGKILL)
            assert wait_until(server.is_free)
