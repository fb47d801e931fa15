"""The pool with real browsers: browsers that die, hang or age, and leases that never end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest

from browserkeeper import (
    BrowserDied,
    BrowserPool,
    LaunchError,
    LeaseTimeout,
    PoolUnavailable,
    ResolveError,
    SessionTimeout,
    browser,
    session_of,
)
from browserkeeper.drivers.contexts.chromium import ChromiumContexts as Contexts
from browserkeeper.pool.browser import PooledBrowser
from browserkeeper.session import control_of
from fixtures.server import Site
from tests.pool.pools import LIMIT, patient_pool
from tests.pool.test_threads import in_thread
from tests.support import witness
from tests.support.clock import start_seconds
from tests.support.guards import BOTH
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.chrome


def leased_browser_id(pool: BrowserPool[Any]) -> str:
    """Takes a lease and releases it."""
    with pool.lease() as lease:
        return lease.browser_id


def pid_of_idle_browser(pool: BrowserPool[Any]) -> int:
    """Waits until one browser is idle."""
    assert wait_until(lambda: pool.stats()["pool_available"] == 1)
    assert pool._controller is not None
    (member,) = pool._controller.scheduler.members("idle")
    pid: int = member.browser.identity.pid
    return pid


# ------------------------------------------------------------------ renewal and replacement


@pytest.mark.parametrize("name", BOTH)
def test_leases_are_isolated_and_no_browser_is_lost(name: str, site: Site) -> None:
    with patient_pool(name, max_size=2, min_idle=1) as pool:
        for _ in range(3):
            pool.wait()
            with pool.lease() as lease:
                lease.driver.get(site.url_for("cookies"))
                assert "visits" not in lease.driver.find_element("id", "received").text
                assert session_of(lease.driver) is lease.session
                assert len(lease.driver.window_handles) == 1
        assert pool.stats()["browsers_lost"] == 0
    assert all(report.clean for report in pool.close())
    assert not pool.sessions()


@pytest.mark.parametrize("step", ["_targets", "renew"])
def test_a_launch_that_fails_in_its_first_renewal_leaves_no_socket(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Contexts) -> None:
        raise OSError("cut off")

    def sockets() -> set[str]:
        names = set()
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # another thread has closed it
                names.add(os.readlink(file))
        return {name for name in names if name.startswith("socket:")}

    pool = patient_pool("chrome", max_size=1)
    monkeypatch.setattr(Contexts, step, fail)
    before = sockets()
    with pytest.raises(OSError, match="cut off"):
        PooledBrowser(pool.config).launch()
    assert sockets() <= before


def test_a_browser_is_replaced_after_max_uses_leases(site: Site) -> None:
    with patient_pool("chrome", max_size=1, max_uses=3) as pool:
        seen = [leased_browser_id(pool) for _ in range(5)]
        assert len(set(seen[:3])) == 1
        assert seen[3] != seen[2]
        assert pool.stats()["retired_max_uses"] == 1


def test_a_browser_above_max_memory_is_replaced_after_its_lease() -> None:
    with patient_pool("chrome", max_size=1, max_memory=10 * 2**20) as pool:
        first = leased_browser_id(pool)
        assert wait_until(lambda: pool.stats().get("retired_max_memory"))
        assert leased_browser_id(pool) != first


def test_a_recycled_browser_serves_until_its_replacement_is_ready() -> None:
    with patient_pool("chrome", max_size=1) as pool:
        pool.wait()
        first = pid_of_idle_browser(pool)
        pool.recycle()
        seen = witness.look(first)
        assert seen or pool.stats()["browsers_num"] == 2, "it serves until its replacement is ready"
        assert wait_until(lambda: pool.stats().get("retired_recycled"))
        assert wait_until(lambda: not witness.look(first))
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)


# ------------------------------------------------------------------ death and hanging


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_browser_is_not_leased(number: signal.Signals, site: Site) -> None:
    with patient_pool("chrome", max_size=1) as pool:
        pid = pid_of_idle_browser(pool)
        os.kill(pid, number)
        assert wait_until(lambda: (seen := witness.look(pid)) is None or seen.state in "ZXT")
        with pool.lease() as lease:
            assert lease.session.pid != pid
            lease.driver.get(site.url)
        assert wait_until(lambda: not witness.look(pid))


def test_the_death_of_an_idle_browser_is_noticed_without_a_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("browserkeeper.pool.scheduler.PING_EVERY", 3600.0)
    with patient_pool("chrome", max_size=1) as pool:
        pid = pid_of_idle_browser(pool)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: pool.stats()["browsers_lost"] == 1)
        assert pid_of_idle_browser(pool) != pid


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("when", ["between commands", "during a command"])
def test_a_lease_whose_browser_dies_gets_browser_died(name: str, when: str, site: Site) -> None:
    with patient_pool(name, max_size=1, min_idle=0) as pool:
        with pool.lease() as lease:
            driver, pid = lease.driver, lease.session.pid
            driver.get(site.url)
            assert pid is not None
            if when == "during a command":
                earlier = len(site.requests)
                killer = threading.Thread(target=kill_when_requested, args=(site, earlier, pid))
                killer.start()
            else:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(BrowserDied) as caught:
                driver.get(site.url_for("never", when=when))
                driver.get(site.url)
            assert caught.value.report is not None
            assert caught.value.report.clean
        with pool.lease() as lease:
            lease.driver.get(site.url)


def kill_when_requested(site: Site, earlier: int, pid: int) -> None:
    """Kill the browser as soon as it has requested the page that never answers."""
    assert wait_until(lambda: any("/never" in line for line in site.requests[earlier:]))
    os.kill(pid, signal.SIGKILL)


def test_a_browser_whose_driver_was_killed_is_not_leased(site: Site) -> None:
    with patient_pool("chrome", max_size=1) as pool:
        pid = pid_of_idle_browser(pool)
        seen = witness.look(pid)
        assert seen is not None
        driver = witness.look(seen.parent)
        assert driver is not None
        os.kill(seen.parent, signal.SIGKILL)
        assert wait_until(lambda: not witness.is_same(driver))
        with pool.lease() as lease:
            assert lease.session.pid != pid


def test_the_lease_after_a_crashed_tab_works(site: Site) -> None:
    with patient_pool("chrome", max_size=1) as pool:
        with pool.lease() as lease, pytest.raises(Exception, match="crash"):
            lease.driver.get("chrome://crash")
        with pool.lease() as lease:
            lease.driver.get(site.url)
            assert lease.driver.title


# ------------------------------------------------------------------ leases that do not end


def test_max_lease_cuts_off_a_command_in_flight(site: Site) -> None:
    limit = max(2.0, 2 * start_seconds())
    with patient_pool("chrome", max_size=1, max_lease=limit, min_idle=0) as pool:
        with pytest.raises(LeaseTimeout, match="max_lease") as caught, pool.lease() as lease:
            pid = lease.session.pid
            lease.driver.get(site.url_for("never", case="deadline"))
        assert caught.value.report is not None
        assert caught.value.report.reason == "lease-expired"
        assert caught.value.report.clean
        assert isinstance(caught.value, TimeoutError)
        assert pid is not None
        assert not witness.look(pid)
        with pool.lease() as lease:
            control_of(lease.session).set_deadline(LIMIT, "lease-expired")  # a slow page is no failure
            lease.driver.get(site.url)


def test_max_lease_is_kept_while_the_user_runs_no_command() -> None:
    with patient_pool("chrome", max_size=1, max_lease=1, min_idle=0) as pool:
        lease = pool.lease()
        assert wait_until(lambda: pool.stats()["browsers_lost"] == 1)
        with pytest.raises(LeaseTimeout):
            lease.driver.get("about:blank")
        with pytest.raises(LeaseTimeout):
            lease.release()
        with contextlib.suppress(LeaseTimeout), pool.lease() as other:  # may be over at once, too
            assert other.browser_id != lease.browser_id


def test_max_lease_is_kept_where_a_later_deadline_is_set_for_another_reason() -> None:
    """A Celery task's limit, or the user's own; to take that back leaves ``max_lease``, too."""
    with patient_pool("chrome", max_size=1, max_lease=1.5, min_idle=0) as pool:
        lease = pool.lease()
        lease.session.set_deadline(500)
        control_of(lease.session).set_deadline(500, "task-limit")
        lease.session.set_deadline(None)
        assert wait_until(lambda: pool.stats()["browsers_lost"] == 1)
        with pytest.raises(LeaseTimeout, match="max_lease"):
            lease.release()


def test_a_deadline_that_a_lease_has_set_does_not_end_the_next_lease() -> None:
    with patient_pool("chrome", max_size=1, min_idle=0) as pool:
        with pool.lease() as lease:
            first = lease.browser_id
            lease.session.set_deadline(3, "own")
        with pool.lease() as lease:
            if lease.browser_id == first:  # else the machine was too slow for the first lease
                time.sleep(3.5)
            assert lease.driver.title == ""


OWNER = """
import time
from browserkeeper import BrowserPool
pool = BrowserPool("chrome", max_size=2, min_idle=2, checkout_timeout=300, {more}).open()
pool.wait()
lease = pool.lease()
print(lease.session.pid, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def owner_of_a_lease(more: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that has a lease, and the pid of the lease's browser.  Killed at the end."""
    command = [sys.executable, "-c", OWNER.format(more=more)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            yield owner, int(owner.stdout.readline())
        finally:
            owner.kill()


@pytest.mark.leaves_zombies(2, "each browser's standby guard goes to PID 1 when its owner is killed")
def test_max_lease_is_kept_while_the_owner_is_stopped() -> None:
    """The guard process keeps the deadline."""
    with owner_of_a_lease("max_lease=8") as (owner, pid):
        os.kill(owner.pid, signal.SIGSTOP)
        assert wait_until(lambda: (seen := witness.look(pid)) is None or seen.state == "Z")


@pytest.mark.leaves_zombies(2, "each browser's standby guard goes to PID 1 when its owner is killed")
def test_no_browser_outlives_an_owner_that_is_killed() -> None:
    with owner_of_a_lease() as (owner, _):
        browsers = witness.below(owner.pid)
        assert len(browsers) > 10
    assert wait_until(lambda: not any(map(witness.is_same, browsers)))


# ------------------------------------------------------------------ closing


def test_closing_during_launches_leaves_nothing() -> None:
    for delay in (0.0, 0.05, 0.2, 0.5):
        pool = patient_pool("chrome", max_size=2, min_idle=2, launch_concurrency=2).open()
        time.sleep(delay)  # four different moments of a launch
        pool.close()


def test_closing_cuts_off_a_lease_of_another_thread(site: Site) -> None:
    pool = patient_pool("chrome", max_size=1).open()
    started = len(site.requests)

    def visit() -> None:
        with pool.lease() as lease:
            lease.driver.get(site.url_for("never", case="close"))

    thread, result = in_thread(visit)
    assert wait_until(lambda: any("case=close" in line for line in site.requests[started:]))
    reports = pool.close()
    thread.join(300)
    assert isinstance(result[0], Exception)
    assert len(reports) == 1
    assert reports[0].clean


def test_a_pool_that_is_not_closed_ends_with_its_process() -> None:
    script = "from browserkeeper import BrowserPool as P; p = P(max_size=1).open(); p.wait(300)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ launches that fail


def test_waiting_requests_are_refused_if_there_is_no_such_browser() -> None:
    with patient_pool("chrome", binary="/no/such/chrome", max_size=1) as pool:
        with pytest.raises(PoolUnavailable, match="/no/such/chrome") as caught:
            pool.lease()
        assert isinstance(caught.value.cause, ResolveError)


def test_waiting_requests_are_refused_if_browsers_do_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "chrome"
    broken.write_text('#!/bin/sh\necho Chromium 156.0.8078.79\n[ "$1" = --version ] || exit 1\n')
    broken.chmod(0o755)
    with patient_pool("chrome", binary=str(broken), max_size=1) as pool:
        with pytest.raises(PoolUnavailable, match=r"\(1 failure; the pool") as caught:
            pool.lease()
        assert isinstance(caught.value.cause, LaunchError)
        assert pool.stats()["leaks"] == 0


# ------------------------------------------------------------------ map, on browsers


def test_map_goes_on_after_an_error_and_after_a_dead_browser(site: Site) -> None:
    killed: list[int] = []

    def visit(driver: Any, url: str) -> str:
        if "about" in url and not killed:
            pid = session_of(driver).pid
            assert pid is not None
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        driver.get(url)
        if "no-such-page" in url:
            raise LookupError(driver.title)
        return str(driver.title)

    urls = [
        site.url,
        site.url_for("about"),
        site.url_for("no-such-page"),
        *[site.url_for("special")] * 6,
    ]
    with patient_pool("chrome", max_size=2) as pool:
        outcomes = list(pool.map(visit, urls, retries=1))
    assert sorted(outcome.item for outcome in outcomes) == sorted(urls)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert [type(outcome.error) for outcome in failed] == [LookupError]
    (about,) = [outcome for outcome in outcomes if "about" in outcome.item]
    assert about.attempts == 2


# ------------------------------------------------------------------ what the pool needs of a session


@pytest.mark.leaves_zombies(20, "what leaves its parent under the portable guard goes to PID 1")
@pytest.mark.parametrize("containment", ["subreaper", "portable"])
def test_a_deadline_of_a_session_can_be_set_moved_and_taken_back(containment: Any) -> None:
    session = browser("chrome", containment=containment)
    with session as driver:
        session.set_deadline(4, "late")
        session.set_deadline(None)
        driver.get("about:blank")
        time.sleep(4.5)  # the deadline that was taken back would have passed
        assert driver.title == ""
        session.set_deadline(0.1, "late")
        assert wait_until(lambda: isinstance(control_of(session).failure(), SessionTimeout))
    assert session.report is not None
    assert session.report.reason == "late"


def test_two_driver_objects_share_one_session(site: Site) -> None:
    class CommandHandler:
        names: ClassVar[list[str]] = []
        bidi_filter = None

        def run_command(self, name: str, params: Any, command: Callable[[], Any]) -> Any:
            self.names.append(name)
            return command()

        def observe_command(self, name: str, params: Any) -> AbstractContextManager[None]:
            return nullcontext()

        def quit_driver(self) -> None:
            self.names.append("quit")

    session = browser("chrome")
    with session as driver:
        other = control_of(session).driver_for(CommandHandler())
        other.get(site.url)
        assert other.title == driver.title
        assert other.session_id == driver.session_id
        other.quit()
        assert CommandHandler.names == ["get", "getTitle", "quit"]
        assert driver.title
