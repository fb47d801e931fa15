"""``browserkeeper doctor``: each check with its remedy."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.support.cli import CLI, cli


@pytest.mark.slow
@pytest.mark.leaves_zombies(1, "doctor makes an orphan, and pytest, its PID 1 here, does not reap")
def test_doctor_warns_where_orphans_are_not_reaped() -> None:
    done = cli("doctor", "--json")
    document = json.loads(done.stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert document["schema"] == 1
    assert done.returncode == int(any(c["status"] == "fail" for c in checks.values()))
    assert document["ok"] == (done.returncode == 0)
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
    assert {"chrome", "firefox", "guard", "PID 1", "containment", "/dev/shm"} <= set(checks)
    assert checks["guard"]["status"] == "ok"
    assert checks["PID 1"]["status"] == "warn"
    assert "does not reap" in checks["PID 1"]["what"]


def test_doctor_under_run_finds_that_orphans_are_reaped() -> None:
    done = cli("run", "--", *CLI, "doctor")
    (line,) = (line for line in done.stdout.splitlines() if "PID 1" in line)
    assert line.startswith("ok ")
    assert "bk-guard" in line


def test_doctor_without_any_browser_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from browserkeeper.errors import ResolveError
    from browserkeeper.status import doctor

    def nowhere(*_: object, **__: object) -> None:
        raise ResolveError("No chrome found. Install it.", (("PATH", "none"),))

    monkeypatch.setattr(doctor, "resolve", nowhere)
    checks = list(doctor.browsers())
    assert {check.status for check in checks} == {"fail"}
    assert {(check.what, check.remedy) for check in checks} == {("No chrome found", "Install it.")}


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
    from browserkeeper.status import doctor_limits

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
