"""The doctor's checks of the host's gate: limits, slots, a drain."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.admission import drain, memory
from browserkeeper.admission.gate import Gate
from browserkeeper.report import Operator
from browserkeeper.state.ledger import Ledger
from browserkeeper.status import doctor_host


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open(state_dir)


def write(ledger: Ledger, text: str, mode: int = 0o600) -> Path:
    path = ledger.directory / "limits.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_limits_the_doctor_says_where_they_could_be(ledger: Ledger) -> None:
    check = doctor_host.limits()
    assert check.status == "ok"
    assert check.what == f"none is set, in the environment or in {ledger.directory / 'limits.toml'}"


def test_the_limits_are_named_with_their_sources(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(ledger, 'max_browsers = 3\nmin_memory = "1MiB"\n')
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "2")
    monkeypatch.setenv("BROWSERKEEPER_MAX_GRID_SESSIONS", "9")
    check = doctor_host.limits()
    assert check.status == "ok"
    assert check.what.split("; ") == [
        f"BROWSERKEEPER_MAX_BROWSERS=2 (max_browsers = 3 in {path} is looser)",
        f"min_memory = 1MiB in {path}",
        "BROWSERKEEPER_MAX_GRID_SESSIONS=9",
    ]


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("max_browsers = 0\n", 0o600, "line 1: max_browsers=0: give a whole number, 1 or more"),
        ("# ours\nmax_browser = 3\n", 0o600, "line 2: unknown name 'max_browser'"),
        ("max_browsers = \n", 0o600, "line 1: not valid TOML"),
        ("max_browsers = 3\n", 0o666, "other users can write it"),
    ],
)
def test_limits_that_are_not_valid_fail_the_check(
    ledger: Ledger, text: str, mode: int, says: str
) -> None:
    path = write(ledger, text, mode)
    check = doctor_host.limits()
    assert check.status == "fail"
    assert str(path) in check.what
    assert says in check.what
    assert "no session starts" in check.remedy


def test_a_variable_that_is_not_valid_or_misspelt_is_named(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSER", "3")
    check = doctor_host.limits()
    assert (check.status, check.what) == ("warn", "BROWSERKEEPER_MAX_BROWSER is set, and means nothing")
    assert "BROWSERKEEPER_MAX_BROWSERS?" in check.remedy
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "many")
    assert doctor_host.limits().status == "fail"


def test_bounds_that_the_memory_cannot_meet_are_named(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda: (2 << 30, "the cgroup /job"))
    write(ledger, "max_browsers = 5\n")
    assert doctor_host.limits().status == "ok"
    write(ledger, "max_browsers = 12\n")
    check = doctor_host.limits()
    assert check.status == "warn"
    assert (
        "12 browsers need about 4.10 GiB with one light page each, and the cgroup /job has 2.00 GiB"
        in check.what
    )
    write(ledger, 'min_memory = "3GiB"\n')
    check = doctor_host.limits()
    assert (check.status, check.remedy) == ("fail", "Lower it.")
    assert "can never be met: the cgroup /job has 2.00 GiB of memory in all" in check.what


def test_slots_are_counted(ledger: Ledger) -> None:
    assert doctor_host.slots().what == "0 held by browsers, 0 by sessions of Grids; starts that wait: 0"
    slot = Gate(ledger).force("grid")
    assert "0 held by browsers, 1 by sessions of Grids" in doctor_host.slots().what
    slot.release()


def test_a_file_system_without_locks_is_named(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    check = doctor_host.slots()
    assert check.status == "warn"
    assert str(ledger.slots) in check.what
    assert "BROWSERKEEPER_STATE_DIR" in check.remedy


def test_a_drain_is_named_with_its_remedy(ledger: Ledger) -> None:
    assert doctor_host.drained().status == "ok"
    drain.start(ledger, Operator("deployer", "ansible", 7, 0.0, "a deploy"))
    check = doctor_host.drained()
    assert check.status == "warn"
    assert "a deploy" in check.what
    assert "browserkeeper resume" in check.remedy
