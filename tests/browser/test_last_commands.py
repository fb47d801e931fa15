"""What a session was doing when it ended badly: in its error, its report and the history.

Most sessions here have a fake driver, which answers each command with "done", and never one to open a
page (fixtures/programs/fake_driver.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, WebDriverException
from selenium.webdriver.common.by import By

from browserkeeper import (
    BrowserDied,
    BrowserkeeperError,
    BrowserSession,
    CommandTimeout,
    ExitReport,
    ForkedSessionError,
    LeaseEnded,
    LeaseTimeout,
    SessionClosed,
    SessionTimeout,
    adopt,
    browser,
    end_sessions,
)
from browserkeeper.cli import group
from browserkeeper.session import control_of
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import read_ended
from fixtures.server import Site
from tests.browser import foreign_owner
from tests.conftest import PROGRAMS, PidFile
from tests.grid.mock_hub import MockHub, silence
from tests.pool.pools import LIMIT, patient_pool
from tests.support import witness
from tests.support.cli import ROOT
from tests.support.waiting import wait_until
from tests.unit.test_command_targets import PARAMETERS, every_command

SECRET = "hunter2"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pids_of: PidFile) -> str:
    """The path of a driver that works, and of a browser beside it."""
    monkeypatch.setenv("FAKE_BROWSER", "hang")
    monkeypatch.setenv("FAKE_DRIVER", "works")
    monkeypatch.setenv("FAKE_DRIVER_PIDS", str(pids_of))
    for name in ("driver", "browser"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {PROGRAMS}/fake_{name}.py "$@"\n')
        script.chmod(0o755)
    return str(tmp_path / "driver")


def fake_session(fake: str, **more: Any) -> BrowserSession[Any]:
    return browser("chrome", driver_path=fake, binary=str(Path(fake).with_name("browser")), **more)


def of_history(session: BrowserSession[Any]) -> ExitReport:
    """The report that the history has."""
    return read_ended(Ledger.open().history_path(session.id)).report


def completed_history(session: BrowserSession[Any]) -> ExitReport:
    """The same, once it has the last commands: on a busy machine, later than the end returns."""
    assert wait_until(lambda: of_history(session).commands_known)
    return of_history(session)


def once_in_flight(
    session: BrowserSession[Any], act: Callable[[], object], seconds: float = 0.0
) -> threading.Thread:
    """Act, in another thread, when a command of this session is in flight for so many seconds."""
    control = control_of(session)
    assert control.attempt
    commands = control.attempt.ending.last_commands

    def is_in_flight() -> bool:
        return any(time.monotonic() - sent >= seconds for _, _, sent in commands.take().in_flight)

    thread = threading.Thread(target=lambda: wait_until(is_in_flight) and act())
    thread.start()
    return thread


def names(report: ExitReport | None) -> list[tuple[str, str, str]]:
    assert report is not None
    return [(one.name, one.target, one.outcome) for one in report.commands]


# --------------------------------------------------------------------------------- real browsers


@pytest.mark.chrome
def test_a_page_that_hangs_is_named_by_the_command_timeout(site: Site) -> None:
    for limit in (4, 40):
        session = browser("chrome", command_timeout=limit)
        with pytest.raises(CommandTimeout) as caught, session as driver:
            driver.get(f"{site.url}?q={SECRET}")
            with contextlib.suppress(NoSuchElementException):
                driver.find_element(By.ID, "login")
            with contextlib.suppress(NoSuchElementException):
                driver.find_element(By.XPATH, f"//a[text()='{SECRET}']")
            driver.execute_script("return arguments[0]", SECRET)
            driver.get(f"{site.url_for('never')}?{SECRET}")
        if len(names(session.report)) == 5:
            break  # else the machine was too busy for an earlier command
    report = session.report
    assert names(report) == [
        ("get", f"{site.url}?...", "ok"),
        ("findElement", 'css selector [id="login"]', "NoSuchElementException"),
        ("findElement", "xpath //a[text()=...]", "NoSuchElementException"),
        ("w3cExecuteScript", "", "ok"),
        ("get", f"{site.url_for('never')}?...", "in flight"),
    ]
    assert report is not None
    assert report.commands[-1].seconds >= limit - 0.1
    ages = [command.ago for command in report.commands]
    assert ages == sorted(ages, reverse=True)
    text = f"get {site.url_for('never')}?...: in flight for "
    assert text in str(caught.value)
    assert text in str(report)
    assert completed_history(session).commands == report.commands
    shown = CliRunner().invoke(group, ["history", "--session", session.id]).output
    assert " ".join(text.split()) in " ".join(shown.split())
    facts = json.loads(CliRunner().invoke(group, ["history", "--session", session.id, "--json"]).output)
    assert facts["report"]["commands"] == [dataclasses.asdict(one) for one in report.commands]
    everything = f"{caught.value}{report}{report.to_json()}{shown}{facts}"
    assert SECRET not in everything


@pytest.mark.chrome
def test_a_browser_that_is_killed_in_mid_command_names_it(site: Site) -> None:
    """With a command of BiDi, which goes over a websocket of Selenium's."""
    options = webdriver.ChromeOptions()
    options.enable_bidi = True
    session = browser("chrome", options=options)
    with pytest.raises(BrowserDied, match=r"get http://\S+/never: in flight"), session as driver:
        driver.browser.get_user_contexts()  # type: ignore[no-untyped-call]
        with contextlib.suppress(WebDriverException):
            driver.browser.remove_user_context(SECRET)
        _ = driver.title
        pid = session.pid
        assert pid
        once_in_flight(session, lambda: os.kill(pid, signal.SIGKILL), 0.5)
        driver.get(site.url_for("never"))
    found = names(session.report)
    assert found == names(completed_history(session))
    assert ("bidi", "browser.getUserContexts", "ok") in found
    assert ("bidi", "browser.removeUserContext", "ok") in found, "its answer is an error"
    assert found[-2:] == [("getTitle", "", "ok"), ("get", site.url_for("never"), "in flight")]
    assert SECRET not in str(session.report)


@pytest.mark.chrome
def test_a_lease_names_its_own_commands_only(site: Site) -> None:
    """Before its end, after it, and where another lease's browser has died meanwhile."""
    with patient_pool(max_size=1, min_idle=0, max_lease=LIMIT) as pool:
        with pool.lease() as lease:
            first = lease.driver
            first.get(f"{site.url}?first")
            first.find_element(By.CSS_SELECTOR, "body")
            browser_id = lease.browser_id
        with pytest.raises(LeaseTimeout) as caught, pool.lease() as lease:
            assert lease.browser_id == browser_id
            session = lease.session
            over = control_of(session).set_deadline
            once_in_flight(session, lambda: over(1, "lease-expired"))
            lease.driver.get(site.url_for("never"))
        assert names(session.report) == [("get", site.url_for("never"), "in flight")]
        assert names(caught.value.report) == names(session.report)
        assert "Its last command:\n" in str(caught.value)
        with pytest.raises(LeaseEnded) as refused:
            _ = first.title
        assert "never" not in str(refused.value)
        assert refused.value.report
        assert refused.value.report.commands == ()


# ------------------------------------------------------------------------------ without a browser


def test_no_secret_of_any_command_is_in_an_error_report_history_or_log(
    fake: str, caplog: pytest.LogCaptureFixture, state_dir: Path
) -> None:
    caplog.set_level(logging.DEBUG, "browserkeeper")
    commands = every_command() - {"get", "quit", "close", "newSession", "deleteSession"}
    session = fake_session(fake, command_timeout=30)
    driver = session.start()
    shown: list[object] = []
    attempt = control_of(session).attempt
    assert attempt is not None
    for number, name in enumerate(sorted(commands), 1):
        with contextlib.suppress(Exception):
            driver.execute(name, dict.fromkeys(PARAMETERS, SECRET))
        if number % 10 == 0:  # each of them is among the last twenty once
            shown += attempt.ending.last_commands.take().until(time.monotonic())
    deadline = once_in_flight(session, lambda: session.set_deadline(0.2))
    with pytest.raises(SessionTimeout) as caught:
        driver.execute(
            "get", {**dict.fromkeys(PARAMETERS, SECRET), "url": f"http://{SECRET}@h/?{SECRET}"}
        )
    deadline.join()
    report = session.report
    assert report is not None
    assert names(report)[-1] == ("get", "http://h/?...", "in flight")
    assert len(report.commands) == 20
    files = "".join(path.read_text() for path in state_dir.rglob("*.json"))
    assert "http://h/?..." in files
    logged = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "http://h/?..." in logged
    assert SECRET not in f"{shown}{caught.value!r}{caught.value}{report!r}{report}{files}{logged}"


def test_control_a_good_end_shows_no_commands(fake: str) -> None:
    session = fake_session(fake)
    with session as driver:
        _ = driver.title
    assert session.report
    assert session.report.commands == ()
    assert "getTitle" not in str(session.report)
    assert of_history(session).commands == ()


def test_an_exception_in_the_block_shows_them_in_the_report(fake: str) -> None:
    session = fake_session(fake)
    with pytest.raises(ZeroDivisionError) as caught, session as driver:
        _ = driver.title
        _ = 1 / 0
    assert names(session.report) == names(completed_history(session)) == [("getTitle", "", "ok")]
    assert "getTitle" not in str(caught.value), "the program's own error stays as it is"


def test_a_timeout_long_after_the_last_command_says_how_long(fake: str) -> None:
    session = fake_session(fake)
    with pytest.raises(SessionTimeout, match="getTitle: ok"), session as driver:
        _ = driver.title
        session.set_deadline(1.0)
        guard = control_of(session).attempt.guard  # type: ignore[union-attr]
        assert guard.wait_for("ended", deadline=time.monotonic() + 60)
        time.sleep(1.0)
    (command,) = session.report.commands if session.report else ()
    assert command.ago > 0.9, "until the end of the session, not until it was noticed"
    ended_at = session.report.ended_at if session.report else 0
    assert time.time() - ended_at > 1.0


def test_who_asks_for_the_driver_of_a_dead_session_is_told_what_died_and_what_it_was_doing(
    fake: str,
) -> None:
    session = fake_session(fake)
    with pytest.raises(BrowserDied), session as driver:
        _ = driver.title
        attempt: Any = control_of(session).attempt
        os.kill(attempt.driver_process.pid, signal.SIGKILL)
        _ = driver.current_url
    with pytest.raises(BrowserDied, match=r"(?s)ended by itself or was killed.*getTitle: ok"):
        _ = session.driver


def test_control_who_asks_for_the_driver_after_a_good_end_is_told_to_start_one(fake: str) -> None:
    session = fake_session(fake)
    with session as driver:
        _ = driver.title
    with pytest.raises(SessionClosed, match="use it inside `with`"):
        _ = session.driver


def test_commands_of_several_threads_are_all_in_flight(fake: str) -> None:
    session = fake_session(fake)
    errors: list[BaseException] = []

    def hang(driver: Any, number: int) -> None:
        try:
            driver.get(f"http://h/{number}")
        except BrowserkeeperError as error:
            errors.append(error)

    with contextlib.suppress(SessionTimeout), session as driver:
        threads = [threading.Thread(target=hang, args=(driver, number)) for number in range(3)]
        for thread in threads:
            thread.start()
        control = control_of(session)
        assert control.attempt
        flying = control.attempt.ending.last_commands
        assert wait_until(lambda: len(flying.take().in_flight) == 3)
        session.set_deadline(0.1)
        for thread in threads:
            thread.join()
    report = session.report
    assert {one[1] for one in names(report) if one[2] == "in flight"} == {
        f"http://h/{n}" for n in range(3)
    }
    assert len(errors) == 3
    assert all("http://h/1: in flight" in str(error) for error in errors)


def test_a_command_that_an_exception_from_outside_interrupts(fake: str) -> None:
    def alarm(*_: object) -> None:
        raise KeyError(SECRET)

    session, before = fake_session(fake), signal.signal(signal.SIGALRM, alarm)
    try:
        with pytest.raises(KeyError), session as driver:
            once_in_flight(session, lambda: os.kill(os.getpid(), signal.SIGALRM), 0.3)
            driver.get("http://h/x")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert names(session.report) == [("get", "http://h/x", "interrupted")]
    assert session.report
    assert session.report.commands[0].seconds >= 0.25
    assert SECRET not in str(session.report)


def test_a_session_that_the_program_forgot_shows_them_in_its_report(fake: str) -> None:
    session = fake_session(fake)
    driver = session.start()
    _ = driver.title
    id = session.id
    with pytest.warns(ResourceWarning, match="never closed"):
        del driver, session
    report = read_ended(Ledger.open().history_path(id)).report
    assert (report.reason, names(report)) == ("abandoned", [("getTitle", "", "ok")])


@pytest.mark.leaves_zombies(10, "the orphans of a killed owner, or of killed guards, belong to PID 1")
@pytest.mark.parametrize("victim", ["owner", "guards"])
def test_who_died_decides_what_is_known(victim: str, fake: str, state_dir: Path) -> None:
    """A killed owner takes the knowledge with it.  Killed guards do not."""
    script = (
        "import sys, time; from browserkeeper import browser, BrowserDied\n"
        "session = browser('chrome', driver_path=sys.argv[1], binary=sys.argv[2])\n"
        "driver = session.start(); driver.title\n"
        "print(session.id, session.guard_pid, flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    while True: driver.title; time.sleep(0.01)\n"  # the driver dies some time after its guards
        "except BrowserDied as error: print(error, flush=True)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, fake, str(Path(fake).with_name("browser"))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdin
    assert owner.stdout
    id, guard = owner.stdout.readline().split()
    ledger = Ledger.open()
    if victim == "owner":
        owner.kill()
        assert wait_until(lambda: ledger.history_path(id).exists())
        owner.communicate()
    else:
        pair = [int(guard), *(s.pid for s in witness.below(int(guard)) if s.parent == int(guard))]
        for pid in pair:
            os.kill(pid, signal.SIGSTOP)
        for pid in reversed(pair):  # the death of the standby would continue the primary
            os.kill(pid, signal.SIGKILL)
        said, _ = owner.communicate("\n", timeout=120)
        assert "getTitle: ok" in said
    report = read_ended(ledger.history_path(id)).report
    assert report.commands_known == (victim == "guards")
    assert ("not known" in str(report)) == (victim == "owner")
    assert ("getTitle" in str(report)) == (victim == "guards")


def test_a_fork_neither_sees_nor_changes_them(fake: str) -> None:
    session = fake_session(fake)
    with pytest.raises(ZeroDivisionError), session as driver:
        _ = driver.title
        child = os.fork()
        if child == 0:
            try:
                driver.get("http://h/of-the-child")
            except ForkedSessionError as error:
                os._exit(3 if "getTitle" in str(error) else 0)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        _ = 1 / 0
    assert names(session.report) == [("getTitle", "", "ok")]


def test_a_history_that_cannot_be_written_is_named_in_the_report(
    fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    session = fake_session(fake)
    with pytest.raises(ZeroDivisionError), session as driver:
        _ = driver.title
        monkeypatch.setattr("browserkeeper.state.ledger.write_atomically", full)
        _ = 1 / 0
    assert names(session.report) == [("getTitle", "", "ok")]
    assert "the last commands are not in the history: [Errno 28]" in str(session.report)
    assert session.report
    assert session.report.clean, "it is no part of the session that is left"
    entry = of_history(session)
    assert (entry.reason, entry.commands_known) == ("error", False)


def test_an_operators_end_shows_them_to_the_owner(fake: str) -> None:
    session = fake_session(fake, label="nightly")
    with pytest.raises(BrowserDied, match="was ended by an operator") as caught, session as driver:
        _ = driver.title
        control = control_of(session)
        ending = threading.Thread(
            target=lambda: wait_until(lambda: not control.at_rest) and end_sessions("nightly", wait=60)
        )
        ending.start()
        try:
            driver.get("http://h/slow")
        finally:
            ending.join()
    assert "  get http://h/slow: in flight for" in str(caught.value)
    assert names(session.report) == [("getTitle", "", "ok"), ("get", "http://h/slow", "in flight")]


def test_a_session_on_a_grid_shows_them_without_the_grids_address() -> None:
    """The Grid's own address has credentials, and each command is sent to it."""
    for limit in (2, 20):
        with MockHub() as hub:
            remote = hub.url.replace("http://", f"http://jane:{SECRET}@")
            session = browser(remote=remote, command_timeout=limit)
            with pytest.raises(CommandTimeout) as caught, session as driver:
                _ = driver.title
                hub.behaviour["command"] = silence
                driver.find_element(By.CSS_SELECTOR, f"[title='{SECRET}']")
        if len(names(session.report)) == 2:
            break  # else the machine was too busy for the first command
    assert names(session.report) == names(completed_history(session))
    assert names(session.report) == [
        ("getTitle", "", "ok"),
        ("findElement", "css selector [title='...']", "in flight"),
    ]
    assert "findElement css selector [title='...']: in flight" in str(caught.value)
    assert SECRET not in f"{caught.value}{session.report}{of_history(session)}"


@pytest.mark.leaves_zombies(40, "the orphans of an adopted driver belong to PID 1")
@pytest.mark.chrome
def test_of_an_adopted_driver_no_commands_are_known(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a driver that is killed leaves a directory there
    driver = foreign_owner.selenium("chrome")
    with pytest.raises(ZeroDivisionError), adopt(driver) as adopted:
        driver.get(site.url)
        _ = 1 / 0
    report = adopted.report
    assert report is not None
    assert (report.reason, report.commands) == ("error", ())
    assert "last commands" not in str(report)
    assert "last commands" not in str(read_ended(Ledger.open().history_path(adopted.id)).report)
