"""Sessions on a real Selenium Grid: however the owner ends, its slot is free soon after.

The witness is the Grid's own status, which ``rig.py`` reads without code of browserkeeper.  The controls
use Selenium's ``webdriver.Remote``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.remote.client_config import ClientConfig
from urllib3 import Retry

from browserkeeper import (
    BrowserDied,
    BrowserPool,
    BrowserSession,
    GridError,
    SessionTimeout,
    browser,
    sweep,
)
from fixtures.server import Site
from tests.grid.rig import BINARIES, PATIENCE, Grid, asked, plain_options, running_grid, stays_taken
from tests.grid.wire import Wire
from tests.support import witness
from tests.support.cut_off import cut_off_by_timeout
from tests.support.guards import BOTH
from tests.support.inner_pytest import InnerPytest
from tests.support.owners import Owner
from tests.support.waiting import until_it_fails, wait_until

SOON = 60.0
"""Seconds for a slot to be free, with a page load in flight: 0.3 to 1.2 measured (docs/remote.md).
Less than the Grid's own session timeout."""
CONTROL_WATCHED = 8.0
"""Seconds for which the control sees that plain Selenium's slot stays taken."""
ROOT = str(Path(__file__).resolve().parent.parent.parent)

OWNER = """
import sys, time
sys.path.insert(0, {root!r})
from tests.grid.rig import asked, plain_options
url, name, how, page = sys.argv[1:]
if how == "plain":
    from selenium import webdriver
    driver = webdriver.Remote(url, options=plain_options(name))
    print("live", flush=True)
else:
    from browserkeeper import browser
    session = browser(remote=url, **asked(name))
    print("starting", flush=True)
    driver = session.start()
    print("live", session.guard_pid, flush=True)
if page:
    driver.get(page)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    with running_grid() as running:
        yield running


@pytest.fixture(autouse=True)
def slots_are_free(grid: Grid) -> Iterator[None]:
    """After each test.  What a failing test left is ended, so that the next test has its slots."""
    yield
    if not wait_until(grid.is_free):
        left = f"left on the Grid: {grid.sessions()}, {grid.queued()} queued"
        for session in grid.sessions():
            grid.end_session(session)
        pytest.fail(left)


def start_owner(grid: Grid, name: str, how: str = "browserkeeper", page: str = "") -> Owner:
    return Owner(sys.executable, "-c", OWNER.format(root=ROOT), grid.url, name, how, page)


# ------------------------------------------------------------------------------- usual sessions


@pytest.mark.compat
@pytest.mark.parametrize("name", BOTH)
def test_a_session_on_a_grid(name: str, grid: Grid, site: Site) -> None:
    session = browser(remote=grid.url, **asked(name))
    with session as driver:
        driver.get(site.url)
        assert driver.title
        assert isinstance(driver, webdriver.Firefox if name == "firefox" else webdriver.Chrome)
        assert grid.sessions() == {driver.session_id}
        assert session.pid is None, "pids of the Grid's machine mean nothing here"
        number = driver.session_id
    report = session.report
    assert report
    assert report.remote
    assert (report.reason, report.clean, report.verified) == ("closed", True, None)
    assert (report.remote.session, report.remote.gone, report.remote.slot_free) == (number, True, True)
    assert report.remote.grid == grid.url


@pytest.mark.compat
@pytest.mark.chrome
def test_files_are_uploaded_to_the_grid(grid: Grid, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "upload.txt"
    file.write_text("hello")
    with browser(remote=grid.url, **asked("chrome")) as driver:
        driver.get("data:text/html,<input type=file id=f>")
        driver.find_element("id", "f").send_keys(str(file))
        there = driver.execute_script("return document.getElementById('f').files[0].name")
        assert there == "upload.txt"


@pytest.mark.parametrize("name", BOTH)
def test_a_timeout_ends_a_page_load(name: str, grid: Grid, site: Site) -> None:
    session, _ = cut_off_by_timeout(
        name,
        lambda limit: browser(remote=grid.url, timeout=limit, **asked(name)),
        site.url_for("never"),
        SOON,
    )
    assert session.report
    assert session.report.remote
    assert (session.report.reason, session.report.remote.gone) == ("timeout", True)


# ----------------------------------------------------------------- the owner or the guards die


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(1, "the guard, whose owner was killed, is a child of PID 1")
def test_the_death_of_the_owner_frees_the_slot(name: str, grid: Grid) -> None:
    """During a page load, for which a plain DELETE would wait."""
    with Site() as site:  # of this test alone: nothing else has asked it for the page
        owner = start_owner(grid, name, page=site.url_for("never"))
        owner.wait_for("live")
        site.wait_for("/never", PATIENCE)
        owner.kill()
        assert wait_until(grid.is_free)


@pytest.mark.chrome
def test_control_a_plain_remote_driver_keeps_its_slot(grid: Grid) -> None:
    owner = start_owner(grid, "chrome", "plain")
    owner.wait_for("live")
    (session,) = grid.sessions()
    owner.kill()
    assert stays_taken(grid, session, CONTROL_WATCHED)
    grid.end_session(session)  # the Grid's session timeout is longer than the next test waits


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.6])
@pytest.mark.chrome
@pytest.mark.leaves_zombies(1, "the guard, whose owner was killed, is a child of PID 1")
def test_killing_the_owner_during_the_start_leaves_no_slot_taken(seconds: float, grid: Grid) -> None:
    owner = start_owner(grid, "chrome")
    owner.wait_for("starting")
    time.sleep(seconds)
    owner.kill()
    time.sleep(2)
    assert wait_until(grid.is_free)


@pytest.mark.parametrize("victim", ["primary", "standby", "both"])
@pytest.mark.chrome
@pytest.mark.leaves_zombies(3, "guards that were killed with their owner are children of PID 1")
def test_owner_and_guards_killed_at_once(victim: str, grid: Grid) -> None:
    """The relay gets SIGTERM from the kernel at the death of its guard, and frees the slot."""
    owner = start_owner(grid, "chrome")
    standby = int(owner.wait_for("live").split()[1])
    primary = next(s.pid for s in witness.below(standby) if s.parent == standby)
    pids = {"primary": [primary], "standby": [standby], "both": [standby, primary]}[victim]
    for pid in (owner.pid, *pids):
        os.kill(pid, signal.SIGKILL)
    owner.wait()
    assert wait_until(grid.is_free)
    assert wait_until(lambda: not witness.alive([s for s in [witness.look(primary)] if s]))
    sweep(dry_run=False)


def relay_of(session: BrowserSession[webdriver.Remote]) -> int:
    """The only process below the guards."""
    assert session.guard_pid
    return witness.below(session.guard_pid)[-1].pid


@pytest.mark.chrome
def test_the_owner_frees_the_slot_where_the_relay_was_killed(grid: Grid) -> None:
    session = browser(remote=grid.url, **asked("chrome"))
    with pytest.raises(BrowserDied), session as driver:
        os.kill(relay_of(session), signal.SIGKILL)
        _ = driver.title
    assert session.report
    assert session.report.remote
    assert (session.report.remote.gone, session.report.clean) == (True, True)


@pytest.mark.chrome
@pytest.mark.leaves_zombies(3, "the whole local part of the session was killed")
def test_a_sweep_frees_the_slot_where_owner_guards_and_relay_were_killed(grid: Grid) -> None:
    owner = start_owner(grid, "chrome")
    standby = int(owner.wait_for("live").split()[1])
    tree = [standby, *(s.pid for s in witness.below(standby))]
    for pid in (owner.pid, tree[-1], *tree[:-1]):
        os.kill(pid, signal.SIGSTOP)
    for pid in (owner.pid, *reversed(tree)):  # the death of the standby would continue the primary
        os.kill(pid, signal.SIGKILL)
    owner.wait()
    assert wait_until(lambda: not witness.alive([s for s in map(witness.look, tree) if s]))
    assert grid.sessions(), "the control: no process is left that frees the slot"
    found = sweep(dry_run=False)
    assert [f.removed for f in found if f.kind == "session"] == [True], found
    assert not grid.sessions()
    report = found[0].report
    assert report
    assert report.remote
    assert report.remote.gone


# ------------------------------------------------------------------------------------- a full Grid


@pytest.mark.chrome
def test_a_full_grid_raises_grid_error_and_leaves_no_request_queued(grid: Grid) -> None:
    others = [webdriver.Remote(grid.url, options=plain_options("chrome")) for _ in range(grid.slots)]
    try:
        for seconds in (4, 16):  # a busy machine may need more than 4 until the request is queued
            session = browser(remote=grid.url, start_timeout=seconds, attempts=1, **asked("chrome"))
            with pytest.raises(GridError) as caught:
                session.start()
            assert not grid.queued(), "its request left the queue"
            report = caught.value.report
            if report and report.remote and report.remote.queued:
                break
    finally:
        for other in others:
            other.quit()
    assert "no free slot" in str(caught.value)
    assert report
    assert report.remote
    assert (report.remote.queued, report.remote.gone) == (True, True)


# ------------------------------------------------------------------------------ a Grid that fails


@pytest.mark.chrome
def test_a_grid_that_hangs_or_dies_costs_bounded_time() -> None:
    """Raises typed errors and leaves nothing on this machine.  The test has a Grid of its own, since it
    breaks it."""
    with running_grid() as grid:
        session = browser(remote=grid.url, close_timeout=3, **asked("chrome"))
        with pytest.raises(SessionTimeout) as hung, session as driver:
            os.kill(grid.server, signal.SIGSTOP)
            assert wait_until(lambda: witness.is_stopped(grid.server))
            session.set_deadline(2)
            until_it_fails(driver)
        os.kill(grid.server, signal.SIGCONT)
        assert hung.value.report
        assert hung.value.report.remote
        assert not hung.value.report.clean, "it is unknown whether a Grid that hangs has the session"
        assert "session timeout" in str(hung.value.report.problems)

        session = browser(remote=grid.url, close_timeout=3, **asked("chrome"))
        with pytest.raises(BrowserDied), session as driver:
            grid.stop()
            until_it_fails(driver)
        with pytest.raises(GridError, match="cannot be reached"):
            browser(
                remote=grid.url, start_timeout=60, close_timeout=3, attempts=1, **asked("chrome")
            ).start()


# ---------------------------------------------------------------------- a connection that breaks

BUTTON = """
document.body.innerHTML = "<button>Order</button>";
document.querySelector("button").onclick = () => {
    const request = new XMLHttpRequest();
    request.open("GET", "/ordered", false);
    request.send();
};
"""


def order(driver: webdriver.Remote, site: Site, wire: Wire) -> None:
    """Click the button; the answer to the click is lost."""
    driver.get(site.url)
    driver.execute_script(BUTTON)
    button = driver.find_element("tag name", "button")
    wire.cut_answer_to("/click")
    button.click()


@pytest.mark.chrome
def test_a_click_whose_answer_is_lost_is_made_once(grid: Grid) -> None:
    with Wire(grid.port) as wire, Site() as site:
        session = browser(remote=wire.url, attempts=1, **asked("chrome"))
        with pytest.raises(BrowserDied, match=r"POST .*/click .* not sent again"), session as driver:
            order(driver, site, wire)
        assert wire.cuts == 1
        assert site.requests.count("GET /ordered") == 1
        assert session.report
        assert session.report.clean


@pytest.mark.chrome
def test_control_a_client_that_retries_orders_twice(grid: Grid) -> None:
    retries = {"retries": Retry(3, allowed_methods=None)}
    with Wire(grid.port) as wire, Site() as site:
        config = ClientConfig(
            wire.url, init_args_for_pool_manager={"init_args_for_pool_manager": retries}
        )
        driver = webdriver.Remote(wire.url, options=plain_options("chrome"), client_config=config)
        try:
            order(driver, site, wire)
        finally:
            driver.quit()
        assert wire.cuts == 1
        assert site.requests.count("GET /ordered") == 2


# ------------------------------------------------------------------------------------- credentials


@pytest.mark.chrome
def test_credentials_are_in_no_process_file_or_message(
    state_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cr3t/wort"
    with running_grid(slots=1, password=secret) as grid:
        monkeypatch.setenv("BROWSERKEEPER_REMOTE", grid.url.replace("//", "//me:s3cr3t%2Fwort@"))
        session = browser(remote=grid.url, log=str(state_dir / "log"), **asked("chrome"))
        with session as driver:
            _ = driver.title
            seen = [
                Path(f"/proc/{pid}/{what}").read_bytes()
                for pid in witness_below_guard(session)
                for what in ("cmdline", "environ")
            ]
            records = [path.read_bytes() for path in Path(session.tmpdir).iterdir() if path.is_file()]
        records += [path.read_bytes() for path in state_dir.rglob("*") if path.is_file()]
        assert session.report
        texts = [repr(session), str(session.report), session.report.to_json(), repr(session.config)]
        with pytest.raises(GridError, match="credentials") as caught:
            browser(remote=grid.url.replace("//", "//me:wr0ng@"), **asked("chrome")).start()
        texts += [str(caught.value), caplog.text]
        everything = b"\n".join([*seen, *records, *(text.encode() for text in texts)])
        assert b"s3cr3t" not in everything
        assert b"wr0ng" not in everything
        assert b"bWU6" not in everything, "base64 of `me:`"
        assert session.report.clean


def witness_below_guard(session: BrowserSession[webdriver.Remote]) -> list[int]:
    assert session.guard_pid
    return [session.guard_pid, *(s.pid for s in witness.below(session.guard_pid))]


# --------------------------------------------------------------------- pools and the pytest plugin


@pytest.mark.chrome
def test_a_pool_on_a_grid(grid: Grid, site: Site) -> None:
    """Each lease has a new session, and closing the pool leaves none."""
    seen = set()
    with BrowserPool(remote=grid.url, max_size=1, **asked("chrome")) as pool:
        for _ in range(2):
            with pool.lease(60) as lease:
                lease.driver.get(site.url)
                seen.add(lease.driver.session_id)
    assert len(seen) == 2
    assert grid.is_free()


@pytest.mark.chrome
def test_the_pytest_option(inner_pytest: InnerPytest, grid: Grid, site: Site) -> None:
    inner_pytest.write(
        conftest=f"""
        import pytest

        @pytest.fixture(scope="session")
        def keeper_browser_args(keeper_browser_args):
            where = {{"binary": {BINARIES["chrome"]!r}, "arguments": ["--no-sandbox"]}}
            return {{**keeper_browser_args, **where}}
        """
    )
    inner_pytest.suite(
        f"""
        def test_it(keeper_driver):
            keeper_driver.get({site.url!r})
            assert keeper_driver.command_handler.config.remote
        """
    )
    done = inner_pytest.run("--keeper-remote", grid.url)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines([f"browserkeeper: chrome,*on {grid.url}"])
    assert grid.is_free()
