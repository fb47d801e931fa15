"""``browserkeeper doctor``: each check with its remedy."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from browserkeeper.status import doctor_limits, doctor_linux
from tests.support.cli import CLI, ROOT
from tests.support.owners import output_of
from tests.support.waiting import SECONDS

LIMIT = 5 * SECONDS
"""Of a whole doctor, some of whose checks may take 10 or 15 s each on a busy machine."""


def run_doctor(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)


@pytest.mark.slow
@pytest.mark.leaves_zombies(1, "doctor makes an orphan, and pytest, its PID 1 here, does not reap")
def test_doctor_warns_where_orphans_are_not_reaped() -> None:
    done = run_doctor(*CLI, "doctor", "--json")
    document = json.loads(done.stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert document["schema"] == 1
    assert done.returncode == int(any(c["status"] == "fail" for c in checks.values()))
    assert document["ok"] == (done.returncode == 0)
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
    assert {"chrome", "firefox", "selenium", "guard", "PID 1", "containment", "/dev/shm"} <= set(checks)
    assert {"host's limits", "slots", "drain"} <= set(checks)
    assert checks["guard"]["status"] == "ok"
    assert checks["PID 1"]["status"] == "warn"
    assert "does not reap" in checks["PID 1"]["what"]


def test_doctor_under_run_finds_that_orphans_are_reaped() -> None:
    done = run_doctor(*CLI, "run", "--", *CLI, "doctor")
    (line,) = (line for line in done.stdout.splitlines() if "PID 1" in line)
    assert line.startswith("ok ")
    assert "bk-guard" in line


def test_doctor_goes_on_where_the_machine_is_too_busy_to_make_an_orphan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_slow(*words: object, timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", too_slow)
    check = doctor_linux.pid_1()
    assert (check.name, check.status) == ("PID 1", "warn")
    assert check.remedy


def test_doctor_without_any_browser_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.errors import ResolveError
    from browserkeeper.status import doctor, programs

    def nowhere(*_: object, **__: object) -> None:
        raise ResolveError("No chrome found. Install it.", (("PATH", "none"),))

    monkeypatch.setattr(programs, "resolve", nowhere)
    checks = list(doctor.browsers())
    assert {check.status for check in checks} == {"fail"}
    assert {(check.what, check.remedy) for check in checks} == {("No chrome found", "Install it.")}
    assert "closed" not in doctor_linux.driver_port().what, "no driver was looked at"


def test_doctor_reports_stale_locks_and_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.status import doctor

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock = tmp_path / ".wdm" / ".wdm-lock-chromedriver-linux64"
    profile = tmp_path / ".org.chromium.Chromium.abc"
    lock.parent.mkdir()
    lock.touch()
    profile.mkdir()
    assert doctor.webdriver_manager_locks().status == "ok"
    assert doctor.stale_profiles().status == "ok"
    for path in (lock, profile):
        os.utime(path, (0, 0))
    assert str(lock) in doctor.webdriver_manager_locks().remedy
    assert str(profile) in doctor.stale_profiles().remedy


def test_doctor_reads_the_limits_of_either_cgroup_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from browserkeeper.process import limits

    outer, inner = tmp_path, tmp_path / "inner"
    inner.mkdir()
    (outer / "pids.max").write_text("100\n")
    (outer / "pids.current").write_text("60\n")
    (inner / "pids.max").write_text("max\n")
    (inner / "pids.current").write_text("5\n")
    monkeypatch.setattr(limits, "cgroup_directories", lambda _: [inner, outer])
    assert limits.cgroup_left("pids", limits.PIDS_FILES) == 40
    check = doctor_limits.processes()
    assert check.status == "warn"
    assert "only 40 more" in check.what


LOW = """
import resource
from browserkeeper.status import doctor_limits
for name, value in {"NOFILE": 200, "FSIZE": 1 << 20, "CPU": 60, "AS": 8 << 30}.items():
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
for check in (doctor_limits.open_files(), doctor_limits.inherited()):
    print(check.status, check.what, "|", check.remedy)
"""


def test_doctor_names_each_limit_that_is_too_low_for_a_browser() -> None:
    files, inherited = output_of(LOW).splitlines()
    assert files.startswith("warn limit 200, 19")
    assert "hard limit 200" in files
    assert inherited.startswith("warn ")
    for name, value in {
        "NOFILE": "200 files open",
        "FSIZE": "1 MB in one file",
        "CPU": "60 seconds of processor time",
        "AS": "8,590 MB of address space",
    }.items():
        assert f"RLIMIT_{name} allows {value}" in inherited
        assert f"systemd's Limit{name}=" in inherited


def test_doctor_says_for_how_many_browsers_the_limits_are_enough() -> None:
    for check in (doctor_limits.open_files(), doctor_limits.memory(), doctor_limits.inotify()):
        assert "enough for about" in check.what or check.what == "no limit", check


def test_doctor_warns_of_limits_of_the_whole_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These cannot be reached in a test without harm to others."""
    (tmp_path / "file-nr").write_text("9990\t0\t10000\n")
    monkeypatch.setattr(doctor_limits, "FILE_NR", str(tmp_path / "file-nr"))
    assert "only 10 more" in doctor_limits.open_files_of_the_system().what
    monkeypatch.setattr(doctor_limits, "_inotify_instances", lambda: 128)
    monkeypatch.setattr(doctor_limits, "number_in", lambda path: 128)
    check = doctor_limits.inotify()
    assert (check.status, check.what) == (
        "warn",
        "0 of 128 instances are free: enough for about 0 browsers",
    )
    assert "max_user_instances" in check.remedy
