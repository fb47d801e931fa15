"""The host's gate in ``ps`` and ``top``: slots, starts that wait, a drain, limits that are not valid."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.admission import drain
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.slots import Slot
from browserkeeper.report import Operator
from browserkeeper.state.ledger import Ledger
from browserkeeper.status.snapshot import snapshot
from tests.support.cli import ROOT, cli_json, invoke
from tests.support.waiting import SECONDS, wait_until

Take = Callable[..., Slot]


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open(state_dir)


def set_limits(ledger: Ledger, text: str) -> Path:
    path = ledger.directory / "limits.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def take(ledger: Ledger) -> Iterator[Take]:
    """Takes slots without waiting, whatever the limit; given back after the test."""
    taken: list[Slot] = []

    def make(label: str = "", kind: Any = "browser") -> Slot:
        taken.append(Gate(ledger).force(kind, label=label))
        return taken[-1]

    yield make
    for slot in taken:
        slot.release()


class Stopped(Exception):
    """The end of a wait, by the test."""


class Waiter(threading.Thread):
    """A start that waits for a slot until :meth:`stop`."""

    def __init__(self, ledger: Ledger, **request: Any):
        super().__init__()
        self.gate, self.request, self.stopped = Gate(ledger), SlotRequest(**request), False

    def run(self) -> None:
        try:
            self.gate.acquire(self.request, 10 * SECONDS, self.check).release()
        except Stopped:
            pass

    def check(self) -> None:
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        self.stopped = True
        self.request.wake()
        self.join(SECONDS)
        assert not self.is_alive()


@pytest.fixture
def wait_for_slot(ledger: Ledger) -> Iterator[Callable[..., Waiter]]:
    """Starts a start that waits; returns when it waits."""
    waiters: list[Waiter] = []

    def make(**request: Any) -> Waiter:
        waiters.append(Waiter(ledger, **request))
        waiters[-1].start()
        number = len(waiters)
        its = waiters[-1].request  # it has its bell when its ticket is written
        assert wait_until(lambda: waiting_starts() == number and its.bell is not None)
        return waiters[-1]

    yield make
    for waiter in waiters:
        waiter.stop()


def waiting_starts() -> int:
    host = snapshot().host
    return 0 if host is None else len(host.state.waiting) + len(host.state.standby)


# --------------------------------------------------------------------------------------- nothing new


def test_without_limits_and_waiters_nothing_is_said_of_the_host(take: Take) -> None:
    take("checkout")
    assert invoke("ps").output == "No live sessions.\n"
    empty = {"schema": 1, "ok": True, "sessions": [], "pools": [], "bad_records": []}
    assert cli_json("ps") == empty
    assert cli_json("top") == empty
    assert "Host" not in invoke("top", "--once").output


# ------------------------------------------------------------------------------------------- limits


def test_ps_and_top_show_slots_and_the_starts_that_wait(
    ledger: Ledger, take: Take, wait_for_slot: Callable[..., Waiter]
) -> None:
    path = set_limits(ledger, 'max_browsers = 2\nmin_memory = "1MiB"\nmax_grid_sessions = 4\n')
    for label in ("checkout-a", "checkout-b"):
        take(label)
    take(kind="grid")
    wait_for_slot(label="nightly[1]")
    wait_for_slot(priority="standby")
    pid = os.getpid()
    for command in (("ps",), ("top", "--once")):
        text = invoke(*command).output
        summary = rf"^Host: 2 of 2 browsers \(max_browsers = 2 in {re.escape(str(path))}\), "
        summary += r"1 of 4 Grid sessions \(max_grid_sessions = 4 in .*\), "
        summary += (
            r"\S+ GiB of memory left, of which 1\.00 MiB must stay \(min_memory = .*\); 2 starts wait\.$"
        )
        assert re.search(summary, text, re.MULTILINE), text
        assert re.search(rf'^  waits: \S+ \({pid}\) "nightly\[1\]", for \d+\.\d s$', text, re.MULTILINE)
        assert re.search(rf"^  waits, as a standby: \S+ \({pid}\), for \d+\.\d s$", text, re.MULTILINE)
        document = cli_json(*command)
        assert document["ok"] is True
        host = document["host"]
        assert host["limits"]["max_browsers"] == {"value": 2, "where": f"max_browsers = 2 in {path}"}
        assert (host["browsers"], host["grid_sessions"]) == (2, 1)
        assert [one["label"] for one in host["held"]] == ["checkout-a", "checkout-b", ""]
        (waits,), (standby,) = host["waiting"], host["standby"]
        assert (waits["label"], waits["pid"], waits["kind"]) == ("nightly[1]", pid, "browser")
        assert 0 <= waits["seconds"] < SECONDS
        assert standby["label"] == ""
        assert host["memory_left"] > 0
        assert (host["draining"], host["problem"]) == ("", "")


def test_a_start_that_waits_for_a_limit_of_its_own_is_shown(
    take: Take, wait_for_slot: Callable[..., Waiter]
) -> None:
    """No limit of the host is set."""
    take()
    wait_for_slot(max_browsers=1, label="modest")
    text = invoke("ps").output
    assert "Host: 1 browser; 1 start waits.\n" in text
    assert '"modest"' in text


def test_a_limit_alone_is_shown(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "3")
    text = invoke("ps").output
    assert "Host: 0 of 3 browsers (BROWSERKEEPER_MAX_BROWSERS=3); no start waits.\n" in text
    assert cli_json("ps")["host"]["limits"]["min_memory"] is None


WAITER = """
import sys
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
Gate(Ledger.open()).acquire(SlotRequest(label="killed", max_browsers=1), None)
"""


def test_a_killed_waiter_and_a_slot_that_was_given_back_are_shown_no_more(
    ledger: Ledger, take: Take
) -> None:
    set_limits(ledger, "max_browsers = 5\n")
    slot = take("checkout")
    waiter = subprocess.Popen([sys.executable, "-c", WAITER], cwd=ROOT)
    assert wait_until(lambda: waiting_starts() == 1)
    assert wait_until(lambda: '"killed"' in invoke("ps").output)  # its ticket is there before its text
    waiter.send_signal(signal.SIGKILL)
    waiter.wait()
    assert "Host: 1 of 5 browsers" in invoke("ps").output
    assert "; no start waits.\n" in invoke("ps").output
    slot.release()
    assert "Host: 0 of 5 browsers" in invoke("ps").output


def test_many_waiters_are_counted_and_the_first_are_listed(
    take: Take, wait_for_slot: Callable[..., Waiter]
) -> None:
    take()
    for number in range(12):
        wait_for_slot(max_browsers=1, label=f"number {number}")
    text = invoke("ps").output
    assert "; 12 starts wait.\n" in text
    assert re.findall(r'"number (\d+)"', text) == [str(number) for number in range(10)]
    assert "… and 2 more, see --json." in text
    assert len(cli_json("ps")["host"]["waiting"]) == 12


# ------------------------------------------------------------------------------ drained, and wrong


def test_a_drain_is_shown(ledger: Ledger) -> None:
    drain.start(ledger, Operator("deployer", "ansible", 7, 0.0, "a deploy"))
    text = invoke("ps").output
    assert re.search(r"^Host: no session starts: the host is drained by .*a deploy", text, re.MULTILINE)
    assert "drained" in cli_json("ps")["host"]["draining"]
    assert "Host: no session starts" in invoke("top", "--once").output
    drain.end(ledger)
    assert "Host" not in invoke("ps").output


@pytest.mark.parametrize("text", ["max_browser = 3\n", "max_browsers = 0\n", "max_browsers\n", "\n"])
def test_limits_that_are_not_valid_are_a_problem(ledger: Ledger, text: str) -> None:
    path = set_limits(ledger, text)
    done = invoke("ps")
    assert done.exit_code == 1
    assert re.search(
        rf"^host: {re.escape(str(path))}.*; under a limit no browser starts until that is right",
        done.output,
        re.MULTILINE,
    )
    document = cli_json("ps", status=1)
    assert document["ok"] is False
    assert str(path) in document["host"]["problem"]
    assert invoke("top", "--once").exit_code == 0
    path.unlink()
    assert invoke("ps").exit_code == 0


def test_a_variable_that_is_not_valid_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    monkeypatch.setenv("BROWSERKEEPER_MAX_BROWSERS", "many")
    done = invoke("ps")
    assert done.exit_code == 1
    assert "host: BROWSERKEEPER_MAX_BROWSERS='many': give a whole number" in done.output
