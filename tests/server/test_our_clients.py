"""``browser(server=…)`` and ``BrowserPool(server=…)`` against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException

from browserkeeper import BrowserPool, browser, lease_of
from browserkeeper.errors import (
    BrowserDied,
    ForkedSessionError,
    LeaseTimeout,
    PoolTimeout,
    ServerError,
    SessionClosed,
    SessionTimeout,
)
from browserkeeper.report import RemoteEnd
from browserkeeper.session import server_lease
from browserkeeper.wire.address import ServerAddress
from browserkeeper.wire.http import Answer
from fixtures.server import Site
from tests.server.running import LIMIT, RunningServer
from tests.support import witness
from tests.support.owners import Owner
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chrome

SECRET = "s3cr3t-value-of-a-header"
PATIENT = ("--queue-timeout", str(LIMIT))
HANG = "while (true) {}"


def processes_of_browsers(server: RunningServer) -> set[int]:
    return {one.pid for one in witness.below(server.pid)}


def main_processes(server: RunningServer) -> list[witness.Seen]:
    """The main processes of the browsers below the server."""
    found = []
    for one in witness.below(server.pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{one.pid}/cmdline").read_bytes().split(b"\0")
            is_main = not any(word.startswith(b"--type=") for word in words)
            is_main = is_main and one.name != "bk-browser"  # has the browser's words, and is not it
            if is_main and any(word.startswith(b"--headless") for word in words):
                found.append(one)
    pids = {one.pid for one in found}
    return [one for one in found if one.parent not in pids]  # a child has its words until it executes


@pytest.mark.parametrize("failures", [1, 3])
@pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError("reset")])
def test_a_look_for_a_session_that_fails_is_made_again(
    error: Exception, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the machine is busy.  The control: a server that cannot be reached is given up long
    before the limit."""
    answers: list[Answer | Exception] = [error] * failures + [Answer(200, b'{"value": []}')] * 3

    def ask(*request: object) -> Answer:
        if not answers:
            raise ConnectionRefusedError("refused")
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(server_lease, "ask", ask)
    with monkeypatch.context() as patient:
        patient.setattr(server_lease, "UNREACHABLE_PATIENCE", LIMIT)  # the looks themselves may be late
        reason, remote = request_that_ends()
    assert (reason, remote.gone) == ("closed", True), remote
    assert not answers
    _, remote = request_that_ends()
    assert remote.gone is None
    assert "refused" in remote.answer


def request_that_ends() -> tuple[str, RemoteEnd]:
    guard = server_lease.LeaseGuard(ServerAddress.parse("unix:/run/bk.sock"), "id", LIMIT)
    return guard.end("closed", time.monotonic() + LIMIT)


@pytest.mark.compat
def test_a_session_of_a_server_is_a_session(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    upload = tmp_path / "upload.txt"
    upload.write_text("hello")
    with RunningServer(tmp_path, *PATIENT, "--max", "2", "--min-idle", "0") as server:
        own = processes_of_browsers(server)
        monkeypatch.setenv("BROWSERKEEPER_SERVER", server.address)
        options = webdriver.ChromeOptions()
        options.enable_downloads = True
        words: dict[str, Any] = {"locale": "de-DE", "extra_headers": {"X-Secret": SECRET}}
        session = browser(options=options, label="of variable", timeout=LIMIT, **words)
        with session as driver:
            assert isinstance(driver, webdriver.Chrome)
            driver.get(site.url_for("/"))
            assert driver.execute_script("return navigator.language") == "de-DE"
            driver.execute_script("document.body.innerHTML = '<input type=file id=f>'")
            driver.find_element("id", "f").send_keys(str(upload))
            assert driver.execute_script("return document.getElementById('f').files[0].size") == 5
            with pytest.raises(NoSuchElementException):
                driver.find_element("id", "missing")
            (listed,) = server.sessions
            assert (listed["label"], str(os.getpid()) in listed["client"]) == ("of variable", True)
            assert (session.pid, session.guard_pid, session.tmpdir) == (None, None, "")
            assert (session.processes(), session.containment) == ([], "server")
            # The browser is below the server, and not below this process.
            assert processes_of_browsers(server) - own
            with_bidi = webdriver.ChromeOptions()
            with_bidi.enable_bidi = True
            # A second one at the same time, whose BiDi connection is over the unix socket, too.
            with browser(server=server.address, options=with_bidi, wait=LIMIT) as other:
                other.get(site.url_for("/"))
                (tree,) = other.browsing_context.get_tree()
                assert tree.url == site.url_for("/")
                assert len(server.sessions) == 2
        report = session.report
        assert report is not None
        assert report.remote is not None
        assert (report.reason, report.clean, report.verified) == ("closed", True, True)
        assert (report.certificate, report.remote.gone) == ("server-answer", True)
        assert session.close() is report
        assert server.is_free()
        texts = [caplog.text, server.log, report.to_json(), repr(session.config)]
        assert not [text for text in texts if SECRET in text]


def test_deaths_deadlines_and_calls_to_stop(site: Site, tmp_path: Path) -> None:
    with RunningServer(tmp_path, *PATIENT, "--max", "1") as server:
        # a deadline of the session, in mid-command
        session = browser(server=server.address, wait=LIMIT)
        with pytest.raises(SessionTimeout, match="deadline of 1 s") as late, session as driver:
            session.set_deadline(1)
            driver.execute_script(HANG)
        assert late.value.report is session.report
        assert late.value.report is not None
        assert late.value.report.verified is True
        assert wait_until(server.is_free)

        # a browser that dies: at once, with the processes that have ended there
        session = browser(server=server.address, wait=LIMIT)
        with pytest.raises(BrowserDied) as died, session as driver:
            driver.get(site.url_for("/"))
            (browser_process,) = main_processes(server)
            os.kill(browser_process.pid, signal.SIGKILL)
            driver.set_script_timeout(LIMIT)
            driver.execute_async_script("")
        report = died.value.report
        assert report is not None
        assert report.remote is not None
        assert report.reason in ("browser-died", "exited", "connection-lost")
        assert browser_process.pid in [one.pid for one in report.remote.processes]
        assert report.clean

        # no place within the wait; a wait that is called off; neither leaves a lease
        with browser(server=server.address, wait=LIMIT) as driver:
            with pytest.raises(PoolTimeout) as full:
                browser(server=server.address, wait=0.5).start()
            assert server.address in str(full.value)
            waiting = browser(server=server.address, wait=None)
            errors: list[BaseException] = []

            def start() -> None:
                try:
                    waiting.start()
                except BaseException as error:
                    errors.append(error)

            thread = threading.Thread(target=start)
            thread.start()
            assert wait_until(lambda: server.ask("/status")["queue"])
            waiting.close()
            thread.join(LIMIT)
            assert isinstance(errors[0], SessionClosed)
            assert len(server.sessions) == 1
            assert wait_until(lambda: not server.ask("/status")["queue"])

        # close() in another thread cuts a command off
        session = browser(server=server.address, wait=LIMIT)
        driver = session.start()
        closer = threading.Timer(0.5, session.close)
        closer.start()
        with pytest.raises(SessionClosed):
            driver.execute_script(HANG)
        closer.join(LIMIT)
        assert wait_until(server.is_free)


OWNER = """
import sys, time
from browserkeeper import browser
with browser(server=sys.argv[1], wait=600) as driver:
    print("open", flush=True)
    if sys.argv[2] == "command":
        driver.execute_script("while (true) {}")
    time.sleep(3600)
"""


@pytest.mark.parametrize("moment", ["idle", "command"])
def test_a_killed_owner_frees_its_lease(tmp_path: Path, moment: str) -> None:
    """The control: an owner that is only stopped keeps its lease, which the same look sees."""
    with RunningServer(tmp_path, *PATIENT, "--max", "1") as server:
        owner = Owner(sys.executable, "-c", OWNER, server.address, moment)
        owner.wait_for("open")
        os.kill(owner.pid, signal.SIGSTOP)
        time.sleep(1)
        assert len(server.sessions) == 1
        owner.kill()
        assert wait_until(server.is_free)
        with browser(server=server.address, wait=LIMIT) as driver:  # the place is free, and usable
            assert driver.current_url


@pytest.mark.leaves_zombies(4, "a guard's own, whose parent was the server")
def test_a_killed_server_is_not_taken_for_an_end_that_was_seen(tmp_path: Path) -> None:
    """Its guards leave nothing (``nothing_left`` looks); this client could not look, and says so."""
    with RunningServer(tmp_path, *PATIENT, "--max", "1") as server:
        session = browser(server=server.address, on_leak="ignore", wait=LIMIT)
        driver = session.start()
        server.end(signal.SIGKILL)
        with pytest.raises(BrowserDied, match="connection to the server"):
            _ = driver.title
        report = session.close()
        assert report.remote is not None
        assert (report.remote.gone, report.verified, report.certificate) == (None, None, None)
        assert not report.clean
        with pytest.raises(ServerError, match="browserkeeper serve") as absent:
            browser(server=server.address, attempts=1).start()
        assert absent.value.reason == "absent"


def test_a_pool_leases_from_the_server(site: Site, tmp_path: Path) -> None:
    configured: list[str] = []
    with RunningServer(tmp_path, *PATIENT, "--max", "2") as server:
        with BrowserPool(
            server=server.address,
            max_size=3,
            max_lease=LIMIT,
            checkout_timeout=LIMIT,
            configure=lambda driver: configured.append(driver.session_id),
            check=lambda driver: driver.title == "",
        ) as pool:
            assert server.is_free()  # no browsers are kept
            with pool.lease(label="mine", locale="fr-FR") as lease:
                language = lease.driver.execute_script("return navigator.language")
                assert language == "fr-FR"
                assert lease_of(lease.driver) is lease
                (listed,) = server.sessions
                assert listed["label"] == "mine"
                assert lease.download_dir is None
            with pool.lease(label="next") as lease:
                assert lease.driver.execute_script("return navigator.language") != "fr-FR"

            async def label_of_a_task() -> object:
                async with pool.alease(label="of a task") as lease:
                    assert lease.driver
                    return server.sessions[0]["label"]

            assert asyncio.run(label_of_a_task()) == "of a task"

            def title(driver: webdriver.Remote, number: int) -> str:
                driver.get(f"data:text/html,<title>{number}</title>")
                return driver.title

            outcomes = {one.item: one.value for one in pool.map(title, range(4), workers=2)}
            assert outcomes == {number: str(number) for number in range(4)}
            assert len(configured) == len(set(configured)) >= 6
            assert wait_until(server.is_free)
            full = pytest.raises(PoolTimeout, match="wait in the queue of the server")
            with pool.lease(), pool.lease(), full:
                pool.lease(timeout=0.5)
            assert wait_until(server.is_free)
            with pool.lease() as lease:
                driver = lease.driver
                threading.Timer(0.5, pool.cut_off).start()
                with pytest.raises(SessionClosed):
                    driver.execute_script(HANG)
        assert all(report.clean for report in pool.close())
        assert server.is_free()

        late = pytest.raises(LeaseTimeout)
        with (
            BrowserPool(server=server.address, max_lease=2, checkout_timeout=LIMIT) as pool,
            late,
            pool.lease() as lease,
        ):
            lease.driver.execute_script(HANG)
        assert wait_until(server.is_free)


def test_a_fork_neither_uses_nor_ends_its_parents_lease(tmp_path: Path) -> None:
    with (
        RunningServer(tmp_path, *PATIENT, "--max", "2") as server,
        browser(server=server.address, wait=LIMIT) as driver,
    ):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = "used"
            try:
                _ = driver.title
            except ForkedSessionError:
                said = "refused"
                with browser(server=server.address, wait=LIMIT) as own:
                    said += f", own {own.title!r}"
            finally:
                os.write(write, said.encode())
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100).decode() == "refused, own ''"
        os.close(read)
        os.close(write)
        assert driver.title == ""  # the parent's session goes on, over the same connection
        assert wait_until(lambda: len(server.sessions) == 1)
