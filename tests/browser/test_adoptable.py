"""Which processes ``adopt()`` takes, and that it leaves a driver alone where it fails.

The driver is a stand-in with small processes: what counts is which processes are ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browserkeeper import AdoptedSession, ConfigError, LaunchError, adopt, browser
from browserkeeper.process.guard_process import GuardProcess
from browserkeeper.session import adoptable, adopted
from browserkeeper.session.ending import GuardEnd
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import Record
from tests.browser.test_outside import ERRORS, Handler, alarmed, handler, raised_by
from tests.support import witness
from tests.support.waiting import deadline_in, wait_until

__all__ = ["handler"]

pytestmark = pytest.mark.leaves_zombies(10, "the orphans of a killed driver belong to PID 1")


class Driver:
    """A driver as other code has started it: a process with a child, which is its browser."""

    def __init__(self) -> None:
        script = "sleep 600 & echo $!; wait"
        self.process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.browser = int(self.process.stdout.readline())
        self.service = self
        self.caps: dict[str, Any] = {"browserName": "firefox", "moz:processID": self.browser}
        self.command_executor = self
        self.quits = 0

    def quit(self) -> None:
        self.quits += 1

    def close(self) -> None:
        """Of the command executor."""

    def is_alive(self) -> bool:
        return self.process.poll() is None and witness.look(self.browser) is not None

    def end(self) -> None:
        for pid in (self.browser, self.process.pid):
            if witness.look(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def driver() -> Iterator[Any]:
    driver = Driver()
    yield driver
    driver.end()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with the driver."""
    process = subprocess.Popen(["/bin/sleep", "600"])
    yield process
    process.kill()
    process.wait()


def is_left_alone(driver: Any) -> bool:
    """True if driver and browser live, and no guard, record or lock of an adoption is there."""
    ledger = Ledger.open()
    left = [*ledger.records(), *ledger.lock_files(), *ledger.ended()]
    driver.quit()
    return driver.is_alive() and not left and driver.quits == 1


def test_driver_and_browser_are_ended_and_a_bystander_is_not(
    driver: Any, bystander: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(ConfigError, match="label="):
        adopt(driver, label="two\nlines")
    session: AdoptedSession[Any] = adopt(driver, label="theirs")
    (record,) = Ledger.open().records()
    assert isinstance(record, Record)
    assert record.session.label == "theirs"
    assert {process.pid for process in session.processes()} == {driver.process.pid, driver.browser}
    report = session.close()
    assert (report.reason, report.certificate, report.clean) == ("closed", "two-scans", True)
    assert report.label == "theirs"
    assert not driver.is_alive()
    assert bystander.poll() is None


# ------------------------------------------------------------------ whose number it is


OTHERS: dict[str, Callable[[subprocess.Popen[bytes]], object]] = {
    "a bystander": lambda bystander: bystander.pid,
    "PID 1": lambda bystander: 1,
    "True": lambda bystander: True,
    "this process": lambda bystander: os.getpid(),
    "its parent": lambda bystander: os.getppid(),
    "a kernel thread": lambda bystander: 2,
    "0": lambda bystander: 0,
    "a negative number": lambda bystander: -1,
    "no process": lambda bystander: 2**22 + 1,
    "no number": lambda bystander: "12",
}


@pytest.mark.parametrize("name", ["moz:processID", "goog:processID", "browser_pid"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_number_in_the_capabilities_is_not_believed(
    name: str, other: str, driver: Any, bystander: subprocess.Popen[bytes]
) -> None:
    """The browser is in another pid namespace, say: its number is another process's here."""
    number = OTHERS[other](bystander)
    del driver.caps["moz:processID"]
    if name == "browser_pid":
        driver.browser_pid = number
    else:
        driver.caps[name] = number
    with pytest.raises(ConfigError, match="By its capabilities the driver's browser is process"):
        adopt(driver)
    assert bystander.poll() is None
    assert is_left_alone(driver)


@pytest.mark.root
def test_a_process_of_another_user_is_refused_though_it_listens_on_the_port(driver: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.set_inheritable(True)
        other = subprocess.Popen(
            ["setpriv", "--reuid", "65534", "--clear-groups", "/bin/sleep", "600"],
            pass_fds=[server.fileno()],
        )
        port = server.getsockname()[1]
        driver.caps = {"goog:processID": other.pid, "o": {"debuggerAddress": f"127.0.0.1:{port}"}}
        try:
            assert wait_until(lambda: (seen := witness.look(other.pid)) and seen.name == "sleep")
            with pytest.raises(ConfigError, match=r"\(sleep\), which is not below the driver"):
                adopt(driver)
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()
    assert is_left_alone(driver)


def test_a_driver_that_has_quit_is_refused_though_another_child_has_its_pid_now(
    driver: Any, bystander: subprocess.Popen[bytes]
) -> None:
    class Reaped:
        pid = bystander.pid
        returncode: int | None = 0

    driver.service, own = type("Service", (), {"process": Reaped})(), driver.service
    try:
        with pytest.raises(ConfigError, match="The driver's process is gone"):
            adopt(driver)
        assert bystander.poll() is None
        Reaped.returncode = None  # the control
        driver.caps = {"browserName": "chrome"}
        adopt(driver).close()
        assert bystander.wait() == 0  # close() has reaped it
    finally:
        driver.service = own


def test_a_driver_that_this_process_has_not_started_is_refused(
    driver: Any, bystander: subprocess.Popen[bytes]
) -> None:
    class Other:
        pid = os.getppid()

    driver.service, own = type("Service", (), {"process": Other})(), driver.process
    with pytest.raises(ConfigError, match="was not started by this process"):
        adopt(driver)
    driver.service.process.pid = driver.browser
    with pytest.raises(ConfigError, match="was not started by this process"):
        adopt(driver)
    driver.service.process = own
    assert is_left_alone(driver)


@pytest.mark.parametrize("key", ["debuggerAddress", "webSocketUrl"])
def test_a_browser_that_is_not_below_the_driver_is_known_by_its_port(key: str, driver: Any) -> None:
    """As undetected-chromedriver starts it."""
    listen = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-I", "-S", "-c", listen]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        port = int(other.stdout.readline())
        driver.caps = {"goog:processID": other.pid}
        if key == "webSocketUrl":
            driver.caps[key] = f"ws://127.0.0.1:{port}/session/1"
        else:
            driver.caps["goog:chromeOptions"] = {key: f"localhost:{port}"}
        session: AdoptedSession[Any] = adopt(driver)
        assert other.pid in {process.pid for process in session.processes()}
        assert session.close().clean
        other.wait(60)  # for its status: the end of the session has reaped it


def test_control_the_old_rule_ends_the_process_with_that_number(
    driver: Any, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process that exists was believed to be the browser."""
    driver.caps["moz:processID"] = bystander.pid
    monkeypatch.setattr(adoptable, "_is_on_its_port", lambda process, capabilities: True)
    adopt(driver).close()
    bystander.wait(60)  # for its status: the end of the session has reaped it


# ------------------------------------------------------------------ adoptions that fail


def test_an_adoption_without_a_writable_record_leaves_the_driver_alone(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "record_path", lambda self, id: self.directory / "no" / id)
    with pytest.raises(LaunchError, match=r"\(record\).*left alone"):
        adopt(driver)
    assert is_left_alone(driver)


def have_no_guard_ready(patch: pytest.MonkeyPatch) -> None:
    """Have each wait for a guard that is ready end at once, as if its time were over."""
    wait = GuardProcess.wait_for

    def wait_for(guard: GuardProcess, *names: str, deadline: float) -> dict[str, Any] | None:
        return None if "ready" in names else wait(guard, *names, deadline=deadline)

    patch.setattr(GuardProcess, "wait_for", wait_for)


def test_an_adoption_that_takes_too_long_leaves_the_driver_alone(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_no_guard_ready(monkeypatch)
    with pytest.raises(LaunchError, match=r"no answer within 15 s.*left alone"):
        adopt(driver)
    assert is_left_alone(driver)


def test_control_the_old_end_of_a_failed_adoption_ends_the_driver(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard was told to end, as at the end of any session."""
    keep = adopted._keep

    def fail(guard: GuardProcess) -> None:
        keep(guard)
        raise LaunchError("too late")

    def end(guarded: Any) -> None:
        guarded._guard.end("failed", deadline_in())

    monkeypatch.setattr(adopted, "_keep", fail)
    with monkeypatch.context() as patch, pytest.raises(LaunchError, match="too late"):
        patch.setattr(GuardEnd, "release", end)
        adopt(driver)
    assert not driver.is_alive()


def test_an_adoption_that_fails_after_the_guard_keeps_the_driver_leaves_it_alone(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = adopted._keep

    def fail(guard: GuardProcess) -> None:
        keep(guard)
        raise LaunchError("too late")

    monkeypatch.setattr(adopted, "_keep", fail)
    with pytest.raises(LaunchError, match="too late"):
        adopt(driver)
    assert is_left_alone(driver)


@pytest.mark.parametrize("event", ["ready", "spawned"])
def test_an_adoption_whose_guard_is_killed_leaves_the_driver_alone(
    event: str, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for = GuardProcess.wait_for

    def killed(guard: GuardProcess, *names: str, deadline: float) -> Any:
        if event == names[0]:
            os.kill(guard.pid, signal.SIGKILL)
            assert wait_until(lambda: not guard.is_alive())
        return wait_for(guard, *names, deadline=deadline)

    monkeypatch.setattr(GuardProcess, "wait_for", killed)
    made: list[AdoptedSession[Any]] = []
    error = raised_by(lambda: made.append(adopt(driver)))
    if made:  # its guard had answered "spawned" before it was killed
        assert event == "spawned"
        assert made[0].close().clean
        return
    assert isinstance(error, LaunchError)
    assert "left alone" in str(error)
    assert is_left_alone(driver)


@pytest.mark.parametrize("moment", [*range(6), 20, 40])
def test_an_exception_from_outside_leaves_the_driver_alone(
    moment: int, driver: Any, handler: Handler
) -> None:
    error = ERRORS[moment % len(ERRORS)]
    made: list[AdoptedSession[Any]] = []
    raised = alarmed(lambda: made.append(adopt(driver)), 0.01 * moment, error, handler)
    if made:
        made[0].close()
    else:
        assert raised is error
        assert is_left_alone(driver)


def test_an_owner_that_dies_before_the_adoption_is_complete_leaves_the_driver_alone(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard is ready, and its owner's end of the pipe is closed instead of an answer."""

    def close(guard: GuardProcess) -> None:
        assert guard._control
        guard._control.close()

    monkeypatch.setattr(GuardProcess, "keep", close)
    with pytest.raises(LaunchError, match=r"\(adopt\).*left alone"):
        adopt(driver)
    assert is_left_alone(driver)


def test_a_driver_of_ours_is_refused() -> None:
    class Managed:
        command_handler = browser("chrome")

    with pytest.raises(ConfigError, match="own"):
        adopt(Managed())  # type: ignore[type-var]
