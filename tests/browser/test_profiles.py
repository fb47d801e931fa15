"""Profiles that are kept: who has one, two sessions that want the same one, locks that are left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from browserkeeper import ConfigError, ProfileError, browser, session_of
from browserkeeper.config import SessionConfig
from browserkeeper.drivers import profile_holders
from browserkeeper.drivers.profile import ProfileInUse, profile_of
from browserkeeper.drivers.profile_holders import Finding, chromium, firefox, owner_of_lock
from browserkeeper.guard.members import Members
from browserkeeper.guard.profile import KeptProfile
from browserkeeper.process import system
from tests.support import witness
from tests.support.owners import Owner
from tests.support.waiting import wait_until

HOST = os.uname().nodename
LOCKS = ("SingletonLock", "SingletonSocket", "SingletonCookie")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
FIREFOX = shutil.which("firefox") or shutil.which("firefox-esr") or ""
ZOMBIES = pytest.mark.leaves_zombies(40, "a browser that no guard is the parent of")


def with_lock(profile: Path, target: str, age: float = 60) -> Path:
    """A profile as a killed Chromium leaves it."""
    profile.mkdir(exist_ok=True)
    for name, text in zip(LOCKS, (target, "/tmp/none/SingletonSocket", "123"), strict=True):
        (profile / name).symlink_to(text)
    made = time.time() - age
    os.utime(profile / "SingletonLock", (made, made), follow_symlinks=False)
    return profile


def start_plain(words: list[str], home: Path) -> subprocess.Popen[bytes]:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home)}
    return subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def persons_chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile of a plain Chromium that runs."""
    home = tmp_path_factory.mktemp("c")
    profile = home / "profile"
    words = [CHROMIUM, "--headless=new", "--no-sandbox", "--remote-debugging-port=0"]
    process = start_plain([*words, f"--user-data-dir={profile}", "about:blank"], home)
    assert wait_until(lambda: profile_holders.owner_of_databases(profile) is not None)
    yield profile
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def persons_firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile of a plain Firefox that runs."""
    home = tmp_path_factory.mktemp("f")
    profile = home / "profile"
    profile.mkdir()
    words = [FIREFOX, "-headless", "-no-remote", "-profile", str(profile), "about:blank"]
    process = start_plain(words, home)
    assert wait_until(lambda: firefox(profile).holder)
    yield profile
    process.kill()
    process.wait()


# ------------------------------------------------------------------ locks of a Chromium


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a program that is no browser."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.chrome
@pytest.mark.parametrize("whose", ["another host's", "sleep's", "our own"])
def test_a_lock_of_no_living_browser_costs_nothing(whose: str, sleeper: int, tmp_path: Path) -> None:
    target = {
        "another host's": "otherhost-42",
        "sleep's": f"{HOST}-{sleeper}",
        "our own": f"{HOST}-{os.getpid()}",
    }[whose]
    profile = with_lock(tmp_path / "profile", target)
    with browser(profile=profile) as driver:
        lock = os.readlink(profile / "SingletonLock")
        assert lock == f"{HOST}-{session_of(driver).pid}"
    assert witness.look(sleeper)


@pytest.mark.chrome
@ZOMBIES
def test_control_a_plain_chromium_believes_a_lock_of_another_host(tmp_path: Path) -> None:
    profile = with_lock(tmp_path / "profile", "otherhost-42")
    words = [CHROMIUM, "--headless=new", "--no-sandbox", f"--user-data-dir={profile}", "about:blank"]
    assert start_plain(words, tmp_path).wait(60) == 21


def test_locks_of_the_dead_are_stale(sleeper: int, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    of_others = (f"{HOST}-1", f"{HOST}-{sleeper}", f"{HOST}-{os.getpid()}")
    for number, target in enumerate((f"{HOST}-{dead.pid}", "a-b-7", *of_others)):
        profile = with_lock(tmp_path / f"p{number}", target)
        assert chromium(profile) == Finding(stale=target)
    for number, target in enumerate(of_others):  # the process is older than the lock
        profile = with_lock(tmp_path / f"n{number}", target, age=0)
        assert chromium(profile) == Finding(stale=target)
    assert chromium(tmp_path / "none") == Finding()
    for number, target in enumerate(("", "rubbish", "host-", "-5", "host-x")):
        profile = tmp_path / f"r{number}"
        profile.mkdir()
        (profile / "SingletonLock").symlink_to(target or "x")
        assert chromium(profile) == Finding()


@pytest.mark.chrome
def test_a_living_browser_is_found_whatever_its_lock_says(persons_chromium: Path, sleeper: int) -> None:
    lock = persons_chromium / "SingletonLock"
    of_browser = os.readlink(lock)
    try:
        for target in (of_browser, "otherhost-42", f"{HOST}-{sleeper}", f"{HOST}-1"):
            lock.unlink()
            lock.symlink_to(target)
            assert (
                chromium(persons_chromium).holder == f"the browser with pid {of_browser.split('-')[-1]}"
            )
    finally:
        lock.unlink()
        lock.symlink_to(of_browser)


@pytest.mark.chrome
def test_a_pid_that_is_another_browsers_now_is_not_believed(
    persons_chromium: Path, tmp_path: Path
) -> None:
    """Chromium itself would kill that browser: it does so where the lock's holder does not answer."""
    of_other = os.readlink(persons_chromium / "SingletonLock")
    profile = with_lock(tmp_path / "profile", of_other)
    with browser(profile=profile):
        pass
    assert witness.look(int(of_other.split("-")[-1]))


@pytest.mark.chrome
@pytest.mark.root
@pytest.mark.namespaces
@ZOMBIES
def test_a_browser_in_another_container_is_seen_by_its_databases(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    script = (
        f"hostname container; exec {CHROMIUM} --headless=new --no-sandbox --remote-debugging-port=0 "
    )
    script += f"--user-data-dir={profile} about:blank"
    container = [
        "unshare",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        script,
    ]
    process = start_plain(container, tmp_path)
    try:
        assert wait_until(lambda: os.path.lexists(profile / "SingletonLock"))
        assert os.readlink(profile / "SingletonLock").startswith("container-")
        with pytest.raises(ProfileError, match="is in use by"):  # also right after its start
            browser(profile=profile).start()
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not chromium(profile).holder)
    with browser(profile=profile) as driver:  # the container has another name each time
        assert driver.current_url


def test_what_cannot_be_looked_at_is_in_use(
    sleeper: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = with_lock(tmp_path / "foreign", "otherhost-42")
    for kind, words in (
        ("nfs4", r"\(nfs4\) may be shared"),
        ("fuse.sshfs", "shared"),
        ("", "not known"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(profile_holders, "_file_system", lambda path, kind=kind: kind)
            with pytest.raises(ProfileError, match=f"{words}.*delete .*SingletonLock"):
                ProfileInUse(foreign, chromium).check()
    here = with_lock(tmp_path / "here", f"{HOST}-{sleeper}", age=0)
    monkeypatch.setattr(profile_holders, "_open_files", lambda pid: None)  # another user's process
    assert chromium(here) == Finding(stale=f"{HOST}-{sleeper}")
    monkeypatch.setattr(system, "program", lambda pid: "chromium")
    assert "cannot be looked into" in chromium(here).holder
    monkeypatch.setattr(system, "facts", lambda pid: None)  # hidepid
    assert "which /proc does not show" in chromium(here).holder


def test_the_file_systems_that_machines_share_are_known() -> None:
    shared = ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "fuse", "ceph", "lustre")
    assert all(map(profile_holders._SHARED_BY_MACHINES.search, shared))
    local = ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs", "fuseblk")
    assert not any(map(profile_holders._SHARED_BY_MACHINES.search, local))
    assert profile_holders._file_system(Path("/proc")) == "proc"


def test_a_lock_that_answers_is_in_use(tmp_path: Path) -> None:
    profile = with_lock(tmp_path / "p", "otherhost-42")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        (profile / "SingletonSocket").unlink()
        (profile / "SingletonSocket").symlink_to(tmp_path / "s")
        assert chromium(profile).holder == "the browser with pid 42 on otherhost"
    assert chromium(profile).stale  # the socket's file is still there


def test_a_lock_that_was_exchanged_is_not_removed(tmp_path: Path) -> None:
    profile = with_lock(tmp_path / "p", "newhost-1")

    def find(_: Path) -> Finding:
        return Finding(stale="otherhost-42")

    ProfileInUse(profile, find).check()
    assert os.readlink(profile / "SingletonLock") == "newhost-1"
    assert sorted(path.name for path in profile.iterdir()) == sorted(LOCKS)


@pytest.mark.firefox
def test_asking_for_firefoxs_lock_does_not_take_it(persons_firefox: Path, tmp_path: Path) -> None:
    """A Firefox that starts while its lock is taken fails."""
    owner = owner_of_lock(persons_firefox / ".parentlock")
    assert owner
    assert firefox(persons_firefox).holder == f"the Firefox with pid {owner}"
    (tmp_path / ".parentlock").touch()
    (tmp_path / "lock").symlink_to("10.0.0.1:+42")  # of a Firefox in another container
    assert firefox(tmp_path) == Finding()


def test_a_firefoxs_lock_that_cannot_be_asked_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> Callable[[Path], int]:
        def ask(_: Path) -> int:
            raise OSError(number, os.strerror(number))

        return ask

    monkeypatch.setattr(profile_holders, "owner_of_lock", refuse(errno.EACCES))
    assert "cannot be asked (Permission denied)" in firefox(tmp_path).holder
    monkeypatch.setattr(profile_holders, "owner_of_lock", refuse(errno.ENOLCK))  # no such locks there
    assert firefox(tmp_path) == Finding()
    (tmp_path / "lock").symlink_to(f"127.0.0.1:+{os.getpid()}")
    assert f"the process with pid {os.getpid()}" in firefox(tmp_path).holder


# ------------------------------------------------------------------ profiles in the arguments


def spellings(name: str, profile: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Ways to name it."""
    link = tmp_path / "link"
    link.symlink_to(profile)
    relative = os.path.relpath(profile)
    if name == "chrome":
        options: Any = webdriver.ChromeOptions()
        options.add_argument(f"--user-data-dir={profile}")
        words = [[f"--user-data-dir={relative}"], [f"user-data-dir={link}/"]]
    else:
        options = webdriver.FirefoxOptions()
        options.add_argument("-profile")
        options.add_argument(str(profile))
        words = [["--profile", relative], [f"--profile={link}"], ["-P", "work"]]
    given: list[dict[str, Any]] = [{"arguments": arguments} for arguments in words]
    return [*given, {"options": options}, {"profile": link}, {"profile": relative}]


@pytest.mark.chrome
@pytest.mark.parametrize("name", ["chrome", pytest.param("firefox", marks=pytest.mark.firefox)])
def test_a_profile_is_refused_however_it_is_named(
    name: str,
    persons_chromium: Path,
    persons_firefox: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    profile = persons_chromium if name == "chrome" else persons_firefox
    monkeypatch.setenv("HOME", str(tmp_path))
    ini = tmp_path / ".mozilla" / "firefox" / "profiles.ini"
    ini.parent.mkdir(parents=True)
    ini.write_text(f"[Profile0]\nName=work\nIsRelative=0\nPath={profile}\n")
    for given in spellings(name, profile, tmp_path):
        with pytest.raises(
            ProfileError, match=r"is in use by the (browser|Firefox) with pid \d+\. Close"
        ):
            browser(name, **given).start()
    assert os.path.lexists(profile / ("SingletonLock" if name == "chrome" else "lock"))


def test_the_profile_of_a_session_is_the_one_that_is_named(tmp_path: Path) -> None:
    def directory(name: str, **given: Any) -> Path | None:
        profile = profile_of(SessionConfig.build(name=name, **given))
        return profile.directory if profile else None

    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("one")
    one = str(tmp_path / "one")
    assert directory("chrome", profile=one, arguments=[f"--user-data-dir={tmp_path}/link"]) == Path(one)
    assert directory("firefox", arguments=["--Profile", one]) == Path(one)
    assert directory("firefox", arguments=["-P", "no such profile"]) is None
    assert directory("chrome", arguments=["--profile-directory=Work"]) is None
    for name, arguments in (
        ("chrome", ["--user-data-dir=/tmp/two"]),
        ("firefox", ["-profile", "/tmp/two"]),
        ("firefox", ["-P", "work"]),
    ):
        with pytest.raises(ConfigError, match="Give only one of the two"):
            browser(name, profile=one, arguments=arguments).start()


# ------------------------------------------------------------------ two sessions at once


@pytest.mark.chrome
@pytest.mark.parametrize("name", ["chrome", pytest.param("firefox", marks=pytest.mark.firefox)])
def test_of_three_sessions_that_start_at_once_one_gets_the_profile(name: str, tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "link").symlink_to("profile")
    outcomes = list[Any]()
    at_once, all_tried = threading.Barrier(3), threading.Event()

    def start(directory: Path) -> None:
        session: Any = browser(name, profile=directory)
        at_once.wait()
        try:
            driver = session.start()
        except Exception as error:
            outcomes.append(error)
            return
        try:
            all_tried.wait(60)
            driver.get("data:text/html,<title>mine</title>")
            outcomes.append(driver.title)
        finally:
            session.close()

    places = (tmp_path / "profile", tmp_path / "link", tmp_path / "." / "profile")
    threads = [threading.Thread(target=start, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(outcomes) == 2)
    all_tried.set()
    for thread in threads:
        thread.join()
    losers = [outcome for outcome in outcomes if outcome != "mine"]
    assert len(losers) == 2
    for loser in losers:
        assert isinstance(loser, ProfileError)
        assert "is in use by" in str(loser)
    assert not {path.name for path in (tmp_path / "profile").iterdir()} & set(LOCKS)


@pytest.mark.chrome
@pytest.mark.leaves_zombies(2, "the owner was killed")
def test_a_session_whose_browser_has_not_started_yet_has_the_profile(tmp_path: Path) -> None:
    """In another process; its browser is a script that sleeps."""
    script = tmp_path / "browser"
    version = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=True).stdout
    script.write_text(
        f"#!/bin/sh\ncase $* in --version) echo '{version}'; exit;; esac\nexec sleep 600\n"
    )
    script.chmod(0o755)
    program = (
        "import sys; from browserkeeper import browser;"
        "browser(binary=sys.argv[1], arguments=['--user-data-dir=' + sys.argv[2]]).start()"
    )
    profile = tmp_path / "profile"
    owner = Owner(sys.executable, "-c", program, str(script), str(profile))
    try:
        held = "is in use by session [0-9a-f]{12} of browserkeeper, whose guard has pid"
        assert wait_until(lambda: profile.is_dir() and "browserkeeper" in _session_with(profile))
        with pytest.raises(ProfileError, match=held):
            browser(profile=profile).start()
    finally:
        owner.kill()
    assert wait_until(lambda: not _session_with(profile).startswith("session "))
    with browser(profile=profile):  # the guards of the dead owner have let go of it
        pass


def _session_with(profile: Path) -> str:
    return profile_holders.session_with(profile)


@pytest.mark.chrome
def test_a_plain_browser_that_comes_in_between_wins(
    persons_chromium: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the check: the browser of the session exits, and the error is the same."""
    monkeypatch.setattr(ProfileInUse, "check", lambda self: None)
    with pytest.raises(ProfileError, match=r"is in use by the browser with pid \d+"):
        browser(profile=persons_chromium).start()
    assert not [record for record in caplog.records if "trying again" in record.getMessage()]
    assert chromium(persons_chromium).holder


# ------------------------------------------------------------------ forced ends


@pytest.mark.chrome
@pytest.mark.parametrize("name", ["chrome", pytest.param("firefox", marks=pytest.mark.firefox)])
def test_a_forced_end_leaves_no_lock_in_a_profile(name: str, tmp_path: Path) -> None:
    session: Any = browser(name, profile=tmp_path)
    session.start()
    lock = tmp_path / ("SingletonLock" if name == "chrome" else "lock")
    assert os.path.lexists(lock)
    os.kill(session.processes()[0].pid, signal.SIGKILL)  # the driver
    assert wait_until(lambda: not os.path.lexists(lock))
    session.close()
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {*LOCKS, "lock"}


@pytest.mark.chrome
def test_the_standby_guard_removes_the_locks_too(tmp_path: Path) -> None:
    session = browser(profile=tmp_path)
    session.start()
    guard = session.processes()[0]
    parent = system.facts(guard.pid)
    assert parent
    os.kill(parent.parent, signal.SIGKILL)  # the primary guard, the driver's parent
    assert wait_until(lambda: not os.path.lexists(tmp_path / "SingletonLock"))
    session.close()


def test_locks_of_others_are_left(tmp_path: Path, sleeper: int) -> None:
    for number, (target, age) in enumerate(
        (
            (f"otherhost-{sleeper}", 0),
            (f"{HOST}-{sleeper}", 0),
            (f"{HOST}-1", 0),
            (f"{HOST}-999999999", 60),
        )
    ):
        profile = with_lock(tmp_path / f"p{number}", target, age)
        (profile / "lock").symlink_to(f"127.0.0.1:+{sleeper}")
        _remove_locks(profile, born=time.time())
        assert {path.name for path in profile.iterdir()} == {*LOCKS, "lock"}
    ours = with_lock(tmp_path / "ours", "elsewhere-7")
    (ours / "SingletonSocket").unlink()
    (ours / "SingletonSocket").symlink_to("/tmp/bk-1/org.chromium.Chromium.x/SingletonSocket")
    _remove_locks(ours, born=time.time())
    assert not list(ours.iterdir())


def _remove_locks(profile: Path, born: float) -> None:
    class Nothing:
        pid = status = None

    hold = KeptProfile(str(profile), "/tmp/bk-1")
    hold.open()
    hold.take()
    hold.remove_locks(Members(Nothing(), Nothing(), lambda: 0.0), born)  # type: ignore[arg-type]


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("browserkeeper.guard.profile.fcntl.flock", refuse)
    for path in (tmp_path, tmp_path / "missing"):
        hold = KeptProfile(str(path), "")
        hold.open()
        hold.take()
