"""Wrong arguments, programs and places: each is a typed error with a remedy, and leaves nothing."""

from __future__ import annotations

import math
import os
import pickle
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver

from browserkeeper import (
    BrowserkeeperError,
    ConfigError,
    ContainmentError,
    ExitReport,
    LaunchError,
    LeakError,
    LedgerError,
    ProfileError,
    ResolveError,
    SessionTimeout,
    VersionMismatch,
    browser,
)
from browserkeeper import errors as errors_module
from browserkeeper.session.control import SessionControl
from browserkeeper.session.launch import Attempt
from fixtures.server import Site
from tests.conftest import PROGRAMS, PidFile
from tests.support import witness
from tests.support.clock import start_seconds
from tests.support.guards import BOTH
from tests.support.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
FAKE_DRIVER = str(PROGRAMS / "fake_driver.py")
FAKE_BROWSER = str(PROGRAMS / "fake_browser.py")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("chrom", "chrome"), ("Fire-Fox", "firefox"), ("safari", ""), ("", ""), (None, "")],
)
def test_an_unknown_browser_is_refused_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="Unknown browser") as caught:
        browser(name)
    assert (f"Did you mean {hint!r}?" in str(caught.value)) == bool(hint)


@pytest.mark.parametrize("name", ["timeout", "start_timeout", "command_timeout", "close_timeout"])
@pytest.mark.parametrize("value", [-1, 0, math.nan, math.inf, "10", True, [1]])
def test_times_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}=.*seconds"):
        browser(**{name: value})  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"attempts": 0}, "attempts=0: give a whole number, 1 or more"),
        ({"attempts": 1.5}, "whole number"),
        ({"containment": "subreeper"}, "Did you mean 'subreaper'"),
        ({"debugging": "socket"}, "Choose from pipe, port"),
        ({"on_leak": "explode"}, "Choose from raise, warn, ignore"),
        ({"window_size": (0, 10)}, "from 1 to 32767"),
        ({"window_size": "big"}, "give \\(width, height\\)"),
        ({"arguments": "--one-string"}, "give a list of strings"),
        ({"arguments": [1]}, "non-empty string"),
        ({"preferences": ["a"]}, "dict with string keys"),
        ({"env": {1: "a"}}, "dict with string keys"),
        ({"env": {"A=B": "1"}}, "the name 'A=B'"),
        ({"env": {"": "1"}}, "the name ''"),
        ({"env": {"A": "x\0y"}}, "cannot have a NUL"),
        ({"profile": 3}, "give a path"),
        ({"binary": ""}, "give a path"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        browser(**arguments)  # type: ignore[call-overload]


def test_a_window_without_a_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ConfigError, match="xvfb-run"):
        browser(headless=False)


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.parametrize(
    ("name", "options"), [("chrome", webdriver.FirefoxOptions), ("firefox", webdriver.ChromeOptions)]
)
def test_options_of_another_browser_are_refused(name: str, options: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="Options, not selenium"):
        browser(name, options=options()).start()


@pytest.mark.parametrize("name", BOTH)
def test_a_file_in_the_place_of_the_directory_for_downloads_is_refused(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=f"{file}, is a file"):
        browser(name, download_dir=file).start()


def test_a_preference_that_names_a_file_as_directory_for_downloads_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=f"{file}, is a file"):
        browser(preferences={"download.default_directory": str(file)}).start()


# ------------------------------------------------------------------ binaries


@pytest.mark.parametrize("which", ["binary", "driver_path"])
@pytest.mark.chrome
def test_a_path_that_is_no_executable_file_is_refused(which: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("hello")
    for path, match in (
        (tmp_path / "no", "does not exist"),
        (tmp_path, "is not a file"),
        (plain, "chmod"),
    ):
        with pytest.raises(ResolveError, match=match):
            browser(**{which: path}).start()  # type: ignore[call-overload]


@pytest.mark.chrome
def test_a_program_that_is_no_browser_or_no_driver_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResolveError, match=r"is not a chromium: --version .* says"):
        browser(binary="/bin/ls").start()
    with pytest.raises(ResolveError, match="is not a chromedriver"):
        browser(driver_path="/bin/ls").start()
    monkeypatch.setenv("FAKE_BROWSER", "not-a-browser")
    with pytest.raises(ResolveError, match="is not a chromium"):
        browser(binary=FAKE_BROWSER).start()


@pytest.mark.chrome
def test_a_driver_that_prints_no_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "rubbish")
    with pytest.raises(ResolveError, match="is not a chromedriver"):
        browser(driver_path=FAKE_DRIVER).start()


@pytest.mark.chrome
def test_a_driver_of_another_major_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "wrong-major")
    with pytest.raises(VersionMismatch, match="majors must be equal") as caught:
        browser(driver_path=FAKE_DRIVER).start()
    assert caught.value.driver_version.startswith("12.")
    assert caught.value.browser_version.split(".")[0] in str(caught.value)


@pytest.mark.chrome
def test_a_driver_that_does_not_answer_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "slow-version")
    monkeypatch.setattr("browserkeeper.drivers.probe.TIMEOUT", 1.0)
    with pytest.raises(ResolveError, match="did not answer within 1 s"):
        browser(driver_path=FAKE_DRIVER).start()


@pytest.mark.parametrize(
    ("behaviour", "match"),
    [
        ("exit", "ended before it opened its port"),
        ("mute", "opened no port within {limit} s"),
        ("silent-session", "did not answer within start_timeout={limit} s"),
        ("http-rubbish", "did not start"),
        ("http-500", "did not start"),
        ("spawns-child", "did not answer within start_timeout={limit} s"),
    ],
)
@pytest.mark.chrome
def test_a_driver_that_misbehaves_is_a_launch_error(
    behaviour: str, match: str, monkeypatch: pytest.MonkeyPatch, pids_of: PidFile
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", behaviour)
    monkeypatch.setenv("FAKE_DRIVER_PIDS", str(pids_of))
    shortest = max(4, math.ceil(2 * start_seconds()))
    binary = _fitting_browser(monkeypatch)
    for limit in (shortest, 10 * shortest):
        began = time.monotonic()
        session = browser(driver_path=FAKE_DRIVER, binary=binary, start_timeout=limit)
        with pytest.raises(LaunchError) as caught:
            session.start()
        assert time.monotonic() - began < limit + 30
        if re.search(match.format(limit=limit), str(caught.value)):
            break  # else the machine was too busy for the limit
    caught.match(match.format(limit=limit))
    assert caught.value.report is not None
    assert caught.value.report.clean
    assert not [pid for pid in pids_of.read() if witness.look(pid)]


@pytest.mark.chrome
def test_a_driver_that_refused_in_time_is_not_called_late(
    monkeypatch: pytest.MonkeyPatch, pids_of: PidFile
) -> None:
    """The deadline passes while the launch that failed is ended."""
    end = SessionControl._end

    def slow_end(control: SessionControl[object], reason: str) -> ExitReport:
        report = end(control, reason)
        assert isinstance(control.attempt, Attempt)
        control._start.deadline = 0.0
        object.__setattr__(control.attempt.plan, "deadline", 0.0)
        return report

    monkeypatch.setenv("FAKE_DRIVER", "http-500")
    monkeypatch.setenv("FAKE_DRIVER_PIDS", str(pids_of))
    monkeypatch.setattr(SessionControl, "_end", slow_end)
    binary = _fitting_browser(monkeypatch)
    with pytest.raises(LaunchError, match="did not start") as caught:
        browser(driver_path=FAKE_DRIVER, binary=binary, attempts=1).start()
    assert "did not answer within" not in str(caught.value)


def _fitting_browser(monkeypatch: pytest.MonkeyPatch) -> str:
    """A browser of the fake driver's major version, so that it is the launch that fails."""
    monkeypatch.setenv("FAKE_BROWSER", "hang")
    return FAKE_BROWSER


@pytest.mark.chrome
def test_a_browser_that_hangs_is_a_launch_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that exits is in test_launch.py."""
    binary = _fitting_browser(monkeypatch)
    for limit in (4, 40):
        with pytest.raises(LaunchError) as caught:
            browser(binary=binary, start_timeout=limit, attempts=1).start()
        if "opened no port" not in str(caught.value):
            break  # else the machine was too busy for the driver
    caught.match(f"did not answer within start_timeout={limit} s")
    assert caught.value.report
    assert caught.value.report.clean


@pytest.mark.chrome
def test_a_failed_launch_is_tried_again_and_the_first_error_is_chained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "exit")
    binary = _fitting_browser(monkeypatch)
    with pytest.raises(LaunchError) as caught:
        browser(driver_path=FAKE_DRIVER, binary=binary, attempts=3).start()
    assert [r.message[:8] for r in caplog.records if "trying again" in r.message] == [
        "launch 1",
        "launch 2",
    ]
    assert isinstance(caught.value.__cause__, LaunchError)


# ------------------------------------------------------------------ places


@pytest.mark.chrome
@pytest.mark.parametrize("name", ["chrome", pytest.param("firefox", marks=pytest.mark.firefox)])
def test_a_profile_in_use_is_refused(name: str, site: Site, tmp_path: Path) -> None:
    with browser(name, profile=tmp_path) as driver:
        driver.get(site.url)
        with pytest.raises(ProfileError, match="in use by"):
            browser(name, profile=tmp_path).start()
        assert driver.title


@pytest.mark.chrome
def test_a_profile_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ProfileError, match="cannot be made"):
        browser(profile="/proc/no/profile").start()


def test_an_unwritable_state_directory_is_a_ledger_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", "/proc/no/state")
    with pytest.raises(LedgerError, match="Set BROWSERKEEPER_STATE_DIR"):
        browser().start()


@pytest.mark.chrome
def test_an_unusable_tmpdir_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROWSERKEEPER_TMPDIR", "/no/such")
    with pytest.raises(ConfigError, match="set BROWSERKEEPER_TMPDIR"):
        browser().start()
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("BROWSERKEEPER_TMPDIR", str(long))
    with pytest.raises(ConfigError, match="too long"):
        browser().start()


@pytest.mark.chrome
def test_a_log_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ConfigError, match="log='/no/such/log' cannot be written"):
        browser(log="/no/such/log").start()
    with pytest.raises(ConfigError, match="not a regular file"):
        browser(log="/dev/null").start()


PARTS = ("live", "history", "pools", "locks", "unseen", "gate", "gate/slots", "gate/turns", "gate/queue")
"""Of the state directory."""


@pytest.mark.root
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("full", ["state", "tmp"])
def test_a_full_disk_is_an_error_and_leaves_nothing(
    full: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a tmpfs of 64 kB that is full."""
    disk = Path(f"/tmp/tmp-full-{os.getpid()}")
    disk.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        disk.rmdir()
        pytest.skip("no tmpfs can be mounted here")
    try:
        if full == "state":
            monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(disk))
            for part in PARTS:
                (disk / part).mkdir(mode=0o700)
        else:
            monkeypatch.setenv("BROWSERKEEPER_TMPDIR", str(disk))
        _fill(disk)
        with pytest.raises((LedgerError, LaunchError), match=str(disk)):
            browser(name, start_timeout=60, attempts=1).start()
        assert {p.name for p in disk.iterdir()} <= {"filler", *PARTS}
        left = ("live/*", "locks/*", "gate/slots/*", "gate/turns/*", "gate/queue/*")
        assert not [path for pattern in left for path in disk.glob(pattern)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass


@pytest.mark.chrome
def test_a_containment_that_this_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "browserkeeper.process.containment.writable_cgroup", lambda: ("", "no cgroup v2")
    )
    with pytest.raises(ContainmentError, match="Delegate=yes"):
        browser(containment="cgroup").start()


# ------------------------------------------------------------------ leaks


@pytest.mark.chrome
@pytest.mark.root
@pytest.mark.skipif(not os.path.isdir("/sys/fs/cgroup/freezer"), reason="no cgroup v1 freezer")
@pytest.mark.parametrize("on_leak", ["raise", "warn", "ignore"])
def test_a_leak_is_raised_warned_of_or_ignored(on_leak: str, site: Site) -> None:
    """A driver in a frozen v1 cgroup survives SIGKILL: the only leak that a test can make."""
    ice = Path("/sys/fs/cgroup/freezer", f"leak-test-{os.urandom(4).hex()}")
    ice.mkdir()
    session = browser(close_timeout=1, on_leak=on_leak)  # type: ignore[call-overload]
    try:
        session.start().get(site.url)
        driver, guard = session.processes()[0].pid, session.guard_pid
        (ice / "cgroup.procs").write_text(str(driver))
        (ice / "freezer.state").write_text("FROZEN")
        if on_leak == "raise":
            with pytest.raises(LeakError, match="survives: chromedriver") as caught:
                session.close()
            assert caught.value.report
            # Others, too, where the machine was too busy for their end; and Chromium stays a zombie for
            # as long as its frozen parent cannot reap it.
            assert driver in {s.pid for s in caught.value.report.survivors if s.state != "Z"}
        elif on_leak == "warn":
            with pytest.warns(ResourceWarning, match="survives: chromedriver"):
                session.close()
        else:
            assert not session.close().clean
    finally:
        (ice / "freezer.state").write_text("THAWED")
        assert wait_until(lambda: not (ice / "cgroup.procs").read_text())
        ice.rmdir()
    # A thread of the owner reaps the guard, some time after its end.
    assert wait_until(lambda: not os.path.exists(f"/proc/{guard}"))


def test_every_error_pickles() -> None:
    made: list[BrowserkeeperError] = [
        LaunchError("no", log_tail="tail", retryable=False),
        ResolveError("none", (("PATH", "no chromium"),)),
        VersionMismatch("bad", "1", "2"),
        SessionTimeout("late", None),
        LedgerError("bad"),
        ConfigError("bad"),
    ]
    for error in made:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.__dict__ == error.__dict__
    assert isinstance(made[3], TimeoutError)
    assert {name for name in errors_module.__all__ if not hasattr(errors_module, name)} == set()


@pytest.mark.chrome
def test_the_firefox_wrapper_is_readable_by_its_user_only(state_dir: Path) -> None:
    from browserkeeper.drivers.firefox import bound_binary
    from browserkeeper.drivers.probe import Program

    path, obstacle = bound_binary(Program("/usr/bin/firefox", "1.2.3", "PATH"), state_dir)
    if obstacle:
        pytest.skip(obstacle)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
