"""Several leases in one Chromium (``leases_per_browser``): who ends with whom, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchWindowException, WebDriverException
from selenium.webdriver.common.by import By

from browserkeeper import (
    BrowserDied,
    BrowserPool,
    CommandTimeout,
    ConfigError,
    DownloadTooLarge,
    Lease,
    LeaseTimeout,
    PoolTimeout,
    PoolUnavailable,
    SessionClosed,
    SessionTimeout,
)
from browserkeeper.drivers.contexts.chromium import is_internal
from browserkeeper.errors import LaunchError
from browserkeeper.session.seat import Seat
from fixtures.server import Site
from tests.pool.pools import LIMIT, patient_pool
from tests.support import witness
from tests.support.clock import start_seconds
from tests.support.download_site import download_site, partial_files
from tests.support.owners import Owner
from tests.support.proxies import RecordingProxy, RecordingTarget
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.chrome
HANG = "setTimeout(() => {}, 1e9)"
"""An asynchronous script that never calls back."""
ENDLESS = "while (true) {}"


def shared_pool(leases: int = 3, **given: Any) -> BrowserPool[Any]:
    return patient_pool(
        **{"max_size": 1, "leases_per_browser": leases, "launch_concurrency": 2, **given}
    )


def name_of(error: BaseException | None) -> str:
    """The name of its class: an error may be of a class that is Selenium's as well."""
    return type(error).__name__


class Hanging:
    """A command of a lease that waits for its answer, in a thread of its own."""

    def __init__(self, lease: Lease[Any], run: Callable[[Any], object] | None = None):
        self.error: BaseException | None = None
        driver = lease.driver
        driver.set_script_timeout(10 * SECONDS)
        self._run = run or (lambda driver: driver.execute_async_script(HANG))
        self._sent = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(driver,), daemon=True)
        self._thread.start()
        self._sent.wait(SECONDS)

    def _call(self, driver: Any) -> None:
        self._sent.set()
        try:
            self._run(driver)
        except BaseException as error:  # which the test looks at
            self.error = error

    def wait(self) -> BaseException | None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the command has no answer"
        return self.error


class Worker:
    """A lease that opens pages, one after the other, for the whole of a block."""

    def __init__(self, lease: Lease[Any], site: Site):
        self.pages = 0
        self.error: BaseException | None = None
        self._lease, self._site, self._stop = lease, site, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._lease.driver.get(self._site.url)
                assert self._lease.driver.title
                self.pages += 1
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *given: object) -> None:
        before = self.pages  # two more pages: one may have begun before
        wait_until(lambda: self.pages > before + 1 or self.error)
        self._stop.set()
        self._thread.join(SECONDS)
        assert self.error is None, f"the neighbour has failed: {self.error!r}"


@contextlib.contextmanager
def several(pool: BrowserPool[Any], number: int) -> Iterator[list[Lease[Any]]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(pool.lease()) for _ in range(number)]


def browser_of(lease: Lease[Any]) -> int:
    pid = lease.session.pid
    assert pid
    return pid


# ------------------------------------------------------------------ places


@pytest.mark.compat
def test_leases_share_a_browser_and_one_too_many_starts_another(site: Site) -> None:
    with shared_pool(3, max_size=2) as pool, several(pool, 4) as leases:
        ids = [lease.browser_id for lease in leases]
        assert sorted(map(ids.count, set(ids))) == [1, 3]
        assert len({browser_of(lease) for lease in leases}) == 2
        assert len(pool.sessions()) == 2
        stats = pool.stats()
        assert (stats["pool_browsers"], stats["browsers_num"]) == (2, 2)
        assert (stats["pool_leased"], stats["pool_max"], stats["leases_per_browser"]) == (4, 6, 3)
        for number, lease in enumerate(leases):
            lease.driver.get(site.url)
            lease.driver.add_cookie({"name": "number", "value": str(number)})
            lease.driver.execute_script(f"localStorage.number = {number}")
        seen = [
            (
                lease.driver.get_cookie("number")["value"],
                lease.driver.execute_script("return localStorage.number"),
            )
            for lease in leases
        ]
        assert seen == [(str(number), str(number)) for number in range(4)]
        assert [len(lease.driver.window_handles) for lease in leases] == [1] * 4
        pids = [lease.driver.caps["goog:processID"] for lease in leases]
        assert pids == [browser_of(lease) for lease in leases]
        assert {lease.uses for lease in leases} >= {1, 2, 3}
    reports = pool.close()
    assert [report.clean for report in reports] == [True, True]
    assert {report.certificate for report in reports} <= {"ECHILD", "two-scans"}


def test_control_by_default_each_lease_has_a_browser(site: Site) -> None:
    with patient_pool(max_size=2) as pool, several(pool, 2) as leases:
        assert len({browser_of(lease) for lease in leases}) == 2
        assert pool.stats()["leases_per_browser"] == 1


def test_eight_leases_at_once_are_in_one_browser(site: Site) -> None:
    """Launches that come while the browser starts wait for it, and start no other."""
    with shared_pool(8, min_idle=8, launch_concurrency=8) as pool:
        with several(pool, 8) as leases:
            hanging = [Hanging(lease, lambda driver: driver.get(site.url)) for lease in leases]
            assert [one.wait() for one in hanging] == [None] * 8
            assert len({browser_of(lease) for lease in leases}) == 1
            assert pool.stats()["pool_browsers"] == 1
            with pytest.raises(PoolTimeout, match="raise max_size") as raised:
                pool.lease(timeout=0.2)
            assert raised.value.__cause__ is None  # it did not wait for the host
        assert pool.stats()["browsers_num"] == 1


# ------------------------------------------------------------------ the end of one lease


def set_deadline(lease: Lease[Any]) -> None:
    lease.session.set_deadline(0.3, "late")


def nothing(lease: Lease[Any]) -> None:
    """The pool's own limits end it."""


ENDS: dict[str, tuple[Callable[[Lease[Any]], object], dict[str, Any], type[Exception]]] = {
    "a deadline of the user's": (set_deadline, {}, SessionTimeout),
    "max_lease": (nothing, {"max_lease": 8.0}, LeaseTimeout),
    "command_timeout": (nothing, {"command_timeout": 8.0}, CommandTimeout),
    "quit()": (lambda lease: lease.driver.quit(), {}, SessionClosed),
    "session.close()": (lambda lease: lease.session.close(), {}, SessionClosed),
    "session.cut_off()": (lambda lease: lease.session.cut_off(), {}, SessionClosed),
}


@pytest.mark.parametrize(
    ("how", "script"),
    [
        ("a deadline of the user's", "await"),
        ("a deadline of the user's", "endless"),
        ("quit()", "await"),
        ("session.close()", "endless"),
        ("session.cut_off()", "endless"),
    ],
)
def test_the_end_of_a_lease_leaves_its_neighbours(
    how: str, script: str, one_browser: BrowserPool[Any], site: Site
) -> None:
    end, _, kind = ENDS[how]
    run = None if script == "await" else (lambda driver: driver.execute_script(ENDLESS))
    with several(one_browser, 2) as (lease, neighbour), Worker(neighbour, site):
        lease.driver.get(site.url)
        lease.driver.switch_to.new_window("tab")
        hanging = Hanging(lease, run)
        browser = browser_of(neighbour)
        end(lease)
        assert name_of(hanging.wait()) == kind.__name__
        report = lease.session.report
        assert report
        assert (report.certificate, report.clean) == ("context-closed", True)
        with pytest.raises(kind):
            _ = lease.driver.title
        lease.release()
        # Its place is free again, and nothing of it is there.
        with one_browser.lease() as next_lease:
            assert browser_of(next_lease) == browser
            assert next_lease.driver.get_cookies() == []
    assert one_browser.stats()["browsers_num"] == 1


@pytest.mark.parametrize("how", ["max_lease", "command_timeout"])
def test_a_limit_of_the_pool_ends_the_lease_alone(how: str, site: Site) -> None:
    _, limits, kind = ENDS[how]
    limits = {name: max(least, 4 * start_seconds()) for name, least in limits.items()}
    with shared_pool(2, min_idle=2, **limits) as pool:
        pool.wait()
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(pool.lease())
            hanging = Hanging(lease)
            assert name_of(hanging.wait()) == kind.__name__
            controller = pool._controller
            assert controller is not None
            if how == "max_lease":  # a slow page is no failure
                controller.config = dataclasses.replace(controller.config, max_lease=LIMIT)
            neighbour = stack.enter_context(pool.lease())
            neighbour.driver.get(site.url)
            with contextlib.suppress(LeaseTimeout):
                lease.release()
        assert pool.stats()["browsers_num"] == 1


def test_a_place_is_free_although_its_late_lease_is_never_given_back(
    one_browser: BrowserPool[Any],
) -> None:
    held = [one_browser.lease() for _ in range(3)]
    held[0].session.set_deadline(0.1, "late")
    with one_browser.lease() as fourth:
        assert fourth.driver.title == ""
    for lease in held:
        lease.release()


def test_a_cancelled_task_ends_its_lease_alone(one_browser: BrowserPool[Any], site: Site) -> None:
    errors: list[BaseException] = []

    async def hang(hangs: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def run(driver: Any) -> None:
            driver.set_script_timeout(10 * SECONDS)
            loop.call_soon_threadsafe(hangs.set)
            try:
                driver.execute_async_script(HANG)
            except BaseException as error:
                errors.append(error)

        async with one_browser.alease() as lease:
            await asyncio.to_thread(run, lease.driver)

    async def cancel() -> None:
        hangs = asyncio.Event()
        task = asyncio.create_task(hang(hangs))
        await hangs.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with one_browser.lease() as neighbour, Worker(neighbour, site):
        asyncio.run(cancel())
        assert wait_until(lambda: errors)
        assert name_of(errors[0]) in ("SessionClosed", "LeaseEnded")
    assert one_browser.stats()["browsers_num"] == 1


def crash(lease: Lease[Any]) -> BaseException | None:
    return Hanging(lease, lambda driver: driver.get("chrome://crash")).wait()


def test_a_tab_that_crashes_leaves_the_neighbours(one_browser: BrowserPool[Any], site: Site) -> None:
    with several(one_browser, 2) as (lease, neighbour), Worker(neighbour, site):
        assert isinstance(crash(lease), WebDriverException)
    with several(one_browser, 3) as leases:
        for lease in leases:
            lease.driver.get(site.url)
    assert one_browser.stats()["browsers_num"] == 1


LIMITS = {
    "session.seat.LEAVE_TIMEOUT": 120.0,
    "session.seat.LONGEST_LEAVE": 120.0,
    "session.shared_session.BACKSTOP": 130.0,
    "pool.browser.RENEW_TIMEOUT": 300.0,
    "pool.browser.PING_TIMEOUT": 300.0,
}


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """On a busy machine a neighbour must not end because another lease takes long to end."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in LIMITS.items():
            patch.setattr(f"browserkeeper.{name}", seconds)
        yield


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real limits for the end of a lease, for tests in which no browser confirms it."""
    monkeypatch.setattr("browserkeeper.session.seat.LEAVE_TIMEOUT", 5.0)


@pytest.fixture(scope="module")
def one_browser() -> Iterator[BrowserPool[Any]]:
    """A pool whose browser lives through all tests that do not end it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        import tempfile

        patch.setenv(
            "BROWSERKEEPER_STATE_DIR",
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bkstate-")),
        )
        pool = stack.enter_context(shared_pool(3, max_uses=None, min_idle=3))
        pool.wait()
        yield pool


# ------------------------------------------------------------------ the end of the browser


def pid_of(party: str, lease: Lease[Any]) -> int:
    standby = lease.session.guard_pid
    assert standby
    primary = next(s.pid for s in witness.below(standby) if s.parent == standby)
    driver = next(s.pid for s in witness.below(primary) if "chromedriver" in s.name)
    return {"browser": browser_of(lease), "driver": driver, "primary": primary, "standby": standby}[
        party
    ]


@pytest.mark.parametrize("party", ["browser", "driver", "primary", "standby"])
@pytest.mark.leaves_zombies(2, "the primary guard's own zombie, where its standby was killed")
def test_the_death_of_a_party_ends_all_leases_at_once(party: str, site: Site) -> None:
    with shared_pool(3, min_idle=3) as pool:
        with several(pool, 3) as leases:
            hanging = [Hanging(lease) for lease in leases[:2]]
            tree = {process.pid for process in leases[0].session.processes()}
            os.kill(pid_of(party, leases[0]), signal.SIGKILL)
            assert [name_of(one.wait()) for one in hanging] == ["BrowserDied"] * 2
            for lease in leases:  # the third one was idle
                with pytest.raises(BrowserDied):
                    _ = lease.driver.title
                report = lease.session.report
                assert report
                assert report.clean
            assert not tree & {s.pid for s in witness.below(os.getpid()) if s.state != "Z"}
        with pool.lease() as lease:
            lease.driver.get(site.url)
        assert pool.stats()["browsers_num"] == 2


@pytest.mark.parametrize("party", ["browser", "driver"])
def test_a_browser_that_does_not_confirm_the_end_of_a_lease_is_ended(
    party: str, site: Site, impatience: None
) -> None:
    with shared_pool(2, min_idle=2) as pool:
        with several(pool, 2) as (lease, neighbour):
            hanging = [Hanging(lease), Hanging(neighbour)]
            os.kill(pid_of(party, lease), signal.SIGSTOP)
            lease.session.set_deadline(0.1, "late")
            errors = [one.wait() for one in hanging]
            assert list(map(name_of, errors)) == ["SessionTimeout", "BrowserDied"]
            assert "did not answer in time" in str(errors[1])
            reports = [lease.session.report, neighbour.session.report]
            assert [report and (report.reason, report.clean) for report in reports] == [
                ("late", True),
                ("hung", True),
            ]
        with pool.lease() as lease:
            lease.driver.get(site.url)


OWNER = """
import os, signal, sys, threading
from browserkeeper import BrowserPool
from browserkeeper.pool import browser
from browserkeeper.session import shared_session
browser.RENEW_TIMEOUT = 300  # of a busy machine
shared_session.BACKSTOP = 6
pool = BrowserPool("chrome", max_size=1, leases_per_browser=2, min_idle=2, start_timeout=300).open()
leases = [pool.lease(timeout=300) for _ in range(2)]
for lease in leases:
    lease.driver.get("data:,x")
if sys.argv[1] == "stop":
    leases[0].session.set_deadline(0.1, "late")
print("ready", leases[0].session.pid, flush=True)
os.kill(os.getpid(), signal.SIGSTOP if sys.argv[1] == "stop" else signal.SIGKILL)
for lease in leases:
    try:
        lease.driver.title
    except Exception as error:
        print(type(error).__name__, flush=True)
print("done", flush=True)
pool.close()
"""


def test_a_stopped_owner_does_not_keep_a_late_lease_alive() -> None:
    """The guard ends the browser, since nothing else can end the lease."""
    owner = Owner(sys.executable, "-c", OWNER, "stop")
    pid = int(owner.wait_for("ready").split()[1])
    browser = witness.look(pid)
    assert wait_until(lambda: browser is None or not witness.is_same(browser))
    os.kill(owner.pid, signal.SIGCONT)
    owner.wait_for("SessionTimeout")
    owner.wait_for("BrowserDied")
    owner.wait_for("done")
    assert owner.wait() == 0


@pytest.mark.leaves_zombies(2, "the standby guard's own, since its owner was killed")
def test_a_killed_owner_leaves_nothing() -> None:
    owner = Owner(sys.executable, "-c", OWNER, "kill")
    owner.wait_for("ready")
    owner.wait()  # the fixture `nothing_left` looks


# ------------------------------------------------------------------ the end of the pool


@pytest.mark.parametrize("after", [0.0, 0.4, 1.0, 2.0])
def test_a_pool_that_is_closed_in_mid_launch_leaves_nothing(after: float) -> None:
    pool = shared_pool(4, max_size=2, min_idle=8, launch_concurrency=3).open()
    time.sleep(after)
    assert all(report.clean for report in pool.close())


def test_closing_the_pool_ends_all_leases() -> None:
    with shared_pool(3, min_idle=3) as pool:
        leases = [pool.lease() for _ in range(3)]
        hanging = [Hanging(lease) for lease in leases]
        (report,) = pool.close()
        assert report.clean
        assert [name_of(one.wait()) for one in hanging] == ["SessionClosed"] * 3


# ------------------------------------------------------------------ browsers that are replaced


def retire(pool: BrowserPool[Any], lease: Lease[Any]) -> None:
    lease.retire("banned")


def recycle(pool: BrowserPool[Any], lease: Lease[Any]) -> None:
    pool.recycle()


def no_word(pool: BrowserPool[Any], lease: Lease[Any]) -> None:
    """A limit of the pool replaces the browser."""


@pytest.mark.parametrize(
    ("do", "limits", "reason"),
    [
        (retire, {}, "requested"),
        (recycle, {}, "recycled"),
        (no_word, {"max_memory": 1}, "max_memory"),
        (no_word, {"max_uses": 2}, "max_uses"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_browser_is_replaced_whole_and_its_running_leases_go_on(
    do: Callable[..., None], limits: dict[str, Any], reason: str, site: Site
) -> None:
    with shared_pool(2, min_idle=1, **limits) as pool:
        neighbour, lease = pool.lease(), pool.lease()
        old = browser_of(neighbour)
        old_process = witness.look(old)
        assert browser_of(lease) == old
        do(pool, lease)
        lease.release()
        # For some reasons the browser serves until its replacement is ready.
        assert wait_until(lambda: pool.stats().get(f"retired_{reason}", 0) >= 1)
        with pool.lease() as third:
            assert browser_of(third) != old
            neighbour.driver.get(site.url)
            assert browser_of(neighbour) == old
        neighbour.release()
        assert old_process
        assert wait_until(lambda: not witness.is_same(old_process))
        assert wait_until(lambda: pool.stats()["pool_browsers"] <= 1)


def test_a_smaller_pool_has_fewer_browsers(site: Site) -> None:
    with shared_pool(2, max_size=2, min_idle=0) as pool:
        with several(pool, 3):
            pool.resize(1)
        assert wait_until(lambda: pool.stats()["pool_browsers"] <= 1)
        with several(pool, 2) as leases:
            assert len({browser_of(lease) for lease in leases}) == 1


# ------------------------------------------------------------------ what a lease may have, and do


def test_each_lease_has_its_own_identity(one_browser: BrowserPool[Any], site: Site) -> None:
    words: list[dict[str, Any]] = [
        {"locale": "de-DE", "timezone": "Asia/Tokyo", "user_agent": "Mozilla/5.0 First"},
        {"locale": "fr-FR", "user_agent": "Mozilla/5.0 Second", "block": ["*account*"]},
        {},
    ]
    zone = "Intl.DateTimeFormat().resolvedOptions().timeZone"
    script = f"return [navigator.language, {zone}, navigator.userAgent]"
    with contextlib.ExitStack() as stack:
        leases = [stack.enter_context(one_browser.lease(**each)) for each in words]
        for _ in range(2):
            found = []
            for lease in leases:
                lease.driver.get(site.url)
                found.append(lease.driver.execute_script(script))
            assert found[0] == ["de-DE", "Asia/Tokyo", "Mozilla/5.0 First"]
            assert (found[1][0], found[1][2]) == ("fr-FR", "Mozilla/5.0 Second")
            assert found[2][0] not in ("de-DE", "fr-FR")
            assert "Chrome" in found[2][2]


def test_each_lease_has_its_own_proxy_and_storage_state(
    one_browser: BrowserPool[Any], site: Site
) -> None:
    page = ("text/html", "<title>page</title>")
    with (
        RecordingTarget({f"/{number}": page for number in range(3)}) as target,
        RecordingProxy("http", "me", "first-password", name="first") as first,
        RecordingProxy("socks5", "me", "second-password", name="second") as second,
        contextlib.ExitStack() as stack,
    ):
        words: list[dict[str, Any]] = [{"proxy": first.url}, {"proxy": second.url}, {}]
        leases = [stack.enter_context(one_browser.lease(**each)) for each in words]
        for number, lease in enumerate(leases):
            lease.driver.get(f"{target.url}/{number}")
        assert [target.ways(f"/{number}") for number in range(3)] == [{"first"}, {"second"}, {""}]
        leases[2].driver.get(site.url)
        for number, lease in enumerate(leases):
            lease.driver.execute_script(f"localStorage.own = {number}")
        states = [lease.storage_state() for lease in leases]
        origins = [[one["origin"] for one in state["origins"]] for state in states]
        assert site.url.rstrip("/") not in origins[0] + origins[1]
        assert origins[2] == [site.url.rstrip("/")]
        assert [state["origins"][0]["localStorage"][0]["value"] for state in states] == ["0", "1", "2"]


def test_downloads_are_each_leases_own_and_end_with_it() -> None:
    def click(lease: Lease[Any], link: str) -> None:
        lease.driver.get(downloads.url)
        lease.driver.find_element(By.ID, link).click()

    with (
        download_site() as downloads,
        shared_pool(2, min_idle=2, max_download="1MB") as pool,
        several(pool, 2) as (lease, neighbour),
    ):
        click(lease, "endless")
        with neighbour.expect_download() as download:
            click(neighbour, "file")
        assert download.path
        assert download.path.is_file()
        assert wait_until(lambda: any(one.size > 0 for one in lease.downloads))
        assert [one.name for one in lease.downloads] == ["endless.bin"]
        assert [one.name for one in neighbour.downloads] == ["file.bin"]
        assert lease.download_dir != neighbour.download_dir
        folder = lease.download_dir
        assert folder
        lease.session.set_deadline(0.1, "late")
        assert wait_until(lambda: lease.session.report is not None)
        assert wait_until(lambda: not folder.exists())
        assert download.path.is_file()
        neighbour.driver.get(downloads.url)
        # The bound is each lease's own, and ends no neighbour.
        with pool.lease() as third:
            downloads.flowing.set()
            with pytest.raises(DownloadTooLarge), third.expect_download():
                click(third, "endless")
            third.driver.get(downloads.url)
        neighbour.driver.get(downloads.url)


def test_a_download_that_its_lease_cuts_off_leaves_no_partial_file_of_the_users(tmp_path: Path) -> None:
    with (
        download_site() as downloads,
        shared_pool(2, min_idle=2, download_dir=tmp_path) as pool,
        pool.lease() as neighbour,
    ):
        for how in ("release", "deadline"):
            lease = pool.lease()
            lease.driver.get(downloads.url)
            lease.driver.find_element(By.ID, "endless").click()
            assert wait_until(lambda: partial_files(tmp_path))
            if how == "deadline":
                lease.session.set_deadline(0.1, "late")
                assert wait_until(lambda: lease.session.report is not None)  # noqa: B023
            lease.release()
            assert wait_until(lambda: not os.listdir(tmp_path))
        neighbour.driver.get(downloads.url)


REFUSED: dict[str, Callable[[Any], object]] = {
    "a DevTools command for the browser": lambda driver: driver.execute_cdp_cmd("Browser.close", {}),
    "a DevTools command for all windows": lambda driver: driver.execute_cdp_cmd("Target.getTargets", {}),
    "a DevTools command for another context": lambda driver: driver.execute_cdp_cmd(
        "Storage.getCookies", {"browserContextId": "0"}
    ),
    "addresses of the browser's profile": lambda driver: driver.execute_cdp_cmd(
        "Autofill.setAddresses", {"addresses": []}
    ),
    "BiDi": lambda driver: driver.script.execute("() => 1"),
    "start_devtools()": lambda driver: driver.start_devtools(),
    "a page that ends the browser": lambda driver: driver.get("chrome://quit"),
    "such a page by DevTools": lambda driver: driver.execute_cdp_cmd(
        "Page.navigate", {"url": " Chrome:restart"}
    ),
    "a page whose scripts may open all others": lambda driver: driver.get("chrome://version"),
    "such a page in a frame": lambda driver: driver.execute_cdp_cmd(
        "Page.navigate", {"url": "view-source:chrome://newtab"}
    ),
    "a command that is not known": lambda driver: driver.execute("setCastSinkToUse", {"sinkName": "x"}),
}


def test_what_would_reach_the_neighbours_is_refused(one_browser: BrowserPool[Any], site: Site) -> None:
    with several(one_browser, 2) as (lease, neighbour):
        neighbour.driver.get(site.url)
        for what, do in REFUSED.items():
            with pytest.raises(ConfigError, match="leases_per_browser=1"):
                do(lease.driver)
                pytest.fail(f"{what} is not refused")
        lease.driver.get(site.url)
        assert neighbour.driver.title
    stats = one_browser.stats()
    assert (stats["browsers_num"], stats.get("retired_beyond", 0)) == (1, 0)


def test_control_a_lease_with_a_browser_of_its_own_may_have_it(site: Site) -> None:
    with patient_pool(max_size=1) as pool, pool.lease() as lease:
        assert lease.driver.execute_cdp_cmd("Target.getTargets", {})["targetInfos"]


def test_a_window_of_another_lease_does_not_exist(one_browser: BrowserPool[Any]) -> None:
    with several(one_browser, 2) as (lease, neighbour):
        with pytest.raises(NoSuchWindowException):
            lease.driver.switch_to.window(neighbour.driver.current_window_handle)
        own = lease.driver.current_window_handle
        lease.driver.switch_to.new_window("tab")
        lease.driver.switch_to.window(own)
        assert len(lease.driver.window_handles) == 2
        assert len(neighbour.driver.window_handles) == 1


def test_hooks_are_called_for_each_place(site: Site) -> None:
    configured: list[str] = []

    def configure(driver: webdriver.Chrome) -> None:
        driver.set_script_timeout(77)
        driver.execute_cdp_cmd("Browser.getVersion", {})  # it may reach all leases
        configured.append(driver.current_window_handle)

    with shared_pool(2, configure=configure, min_idle=2) as pool, several(pool, 2) as leases:
        assert len(set(configured)) == 2
        for lease in leases:
            assert lease.driver.timeouts.script == 77
            with pytest.raises(ConfigError, match="leases_per_browser=1"):
                lease.driver.execute_cdp_cmd("Browser.getVersion", {})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("chrome://quit", True),
        ("CHROME:quit", True),
        ("\tchro\nme:/\\restart/?x", True),
        ("view-source:view-source:chrome://inspect", True),
        ("about:quit", True),
        ("devtools://devtools/bundled/inspector.html", True),
        ("edge://restart", True),
        ("brave://quit", True),
        ("chrome-untrusted://print/", True),
        ("chrome://version", True),
        ("chrome://newtab/", True),
        ("about:version?x", True),
        ("about:blank#x", False),
        ("chrome://crash", False),
        ("chrome://hang/x", False),
        ("http://chrome/quit", False),
        ("data:,chrome://quit", False),
        ("view-source:http://x/", False),
        ("", False),
        (None, False),
    ],
)
def test_pages_of_the_browser_itself_are_known_however_they_are_written(
    url: object, expected: bool
) -> None:
    assert is_internal(url) is expected


# ------------------------------------------------------------------ launches that fail


def test_a_browser_that_does_not_start_is_one_failed_launch(tmp_path: Path) -> None:
    binary = tmp_path / "browser"
    binary.write_text("#!/bin/sh\nexit 3\n")
    binary.chmod(0o700)
    with shared_pool(4, min_idle=4, launch_concurrency=4, binary=str(binary)) as pool:
        with pytest.raises(PoolUnavailable):
            pool.lease(timeout=SECONDS)
        assert pool.stats()["pool_browsers"] <= 1


def test_a_session_that_cannot_be_attached_leaves_nothing_and_no_neighbour_fails(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    attach, failures = Seat.connect, [2]

    def connect(seat: Seat, handler: Any) -> Any:
        if seat.number == 2 and failures[0]:
            failures[0] -= 1
            raise LaunchError("not now")
        return attach(seat, handler)

    monkeypatch.setattr(Seat, "connect", connect)
    with shared_pool(2, max_size=2, min_idle=1) as pool:
        with several(pool, 2) as (lease, other):
            lease.driver.get(site.url)
            other.driver.get(site.url)
        assert pool.stats()["browsers_errors"] >= 1


REFUSED_ARGUMENTS: dict[str, dict[str, Any]] = {
    "firefox": {"name": "firefox"},
    "fresh": {"isolation": "fresh"},
    "none": {"isolation": "none"},
    "a Grid": {"remote": "http://127.0.0.1:4444"},
    "an extension": {"arguments": ["--load-extension=/x"]},
    "the pipe": {"arguments": ["--remote-debugging-pipe"]},
    "the pipe by name": {"debugging": "pipe"},
    "0": {"leases_per_browser": 0},
    "True": {"leases_per_browser": True},
    "2.0": {"leases_per_browser": 2.0},
    "text": {"leases_per_browser": "2"},
    "None": {"leases_per_browser": None},
    "min_idle": {"max_size": 1, "min_idle": 3},
}


@pytest.mark.parametrize("what", REFUSED_ARGUMENTS)
def test_what_cannot_be_shared_is_refused_by_name(what: str) -> None:
    with pytest.raises(ConfigError, match="leases_per_browser"):
        BrowserPool(**{"leases_per_browser": 2, **REFUSED_ARGUMENTS[what]})


REFUSED_OPTIONS: dict[str, tuple[str, Any]] = {
    "a trace": ("perfLoggingPrefs with traceCategories", {"traceCategories": "devtools.timeline"}),
    "one process": ("--single-process", "--single-process"),
    "the middle button": ("middleClickPasteAllowed", "--blink-settings=middleClickPasteAllowed=true"),
    "pasting": ("DOMPasteAllowed", "--blink-settings=imagesEnabled=false, DOMPasteAllowed=1"),
    "scripts that paste": ("avaScriptCanAccessClipboard", "blink-settings=JavaScriptCanAccessClipboard"),
}


@pytest.mark.parametrize("what", REFUSED_OPTIONS)
def test_options_by_which_a_lease_reaches_others_are_refused_by_name(what: str) -> None:
    named, given = REFUSED_OPTIONS[what]
    options = webdriver.ChromeOptions()
    if isinstance(given, str):
        options.add_argument(given)
    else:
        options.add_experimental_option("perfLoggingPrefs", given)
    with pytest.raises(ConfigError, match=f"leases_per_browser=2 cannot be used with .*{named}"):
        BrowserPool(leases_per_browser=2, options=options)
    BrowserPool(leases_per_browser=1, options=options)  # the control
    harmless = webdriver.ChromeOptions()
    harmless.add_argument("--blink-settings=imagesEnabled=false,middleClickPasteAllowed=false")
    harmless.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True})
    BrowserPool(leases_per_browser=2, options=harmless)


@pytest.mark.parametrize("what", ["mobileEmulation", "BiDi"])
def test_options_of_one_session_are_refused_by_name(what: str) -> None:
    options = webdriver.ChromeOptions()
    if what == "BiDi":
        options.enable_bidi = True
    else:
        options.add_experimental_option("mobileEmulation", {"deviceName": "Pixel 5"})
    with pytest.raises(ConfigError, match=f"leases_per_browser=2 cannot be used with .*{what}"):
        BrowserPool(leases_per_browser=2, options=options)
    BrowserPool(leases_per_browser=1, options=options)  # the control
