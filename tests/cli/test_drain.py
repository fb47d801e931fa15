"""``browserkeeper drain`` and ``resume``: no new sessions on this host, and those that run finish."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import browserkeeper
from browserkeeper import errors
from browserkeeper.admission import drain as drains
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.limits import Kind
from browserkeeper.process import system
from browserkeeper.report import Operator
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.operators import this_operator
from tests.support import witness
from tests.support.cli import CLI, cli, cli_json, invoke
from tests.support.ledger import add_free_lock, add_live, dead_record, new_session, write_record
from tests.support.owners import Owner, output_of
from tests.support.sessions import Sessions
from tests.support.waiting import SECONDS, deadline_in, wait_until

# ------------------------------------------------------------------ the file


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open()


def test_a_drain_says_who_has_drained_the_host_since_when_and_why(ledger: Ledger) -> None:
    assert drains.present(ledger) is None
    assert drains.start(ledger, this_operator("deploy of 12.3", "browserkeeper drain")) is None
    found = drains.present(ledger)
    assert found is not None
    assert found.operator is not None
    assert (found.operator.pid, found.reason) == (os.getpid(), "deploy of 12.3")
    assert abs(found.since - time.time()) < 60
    assert f"(browserkeeper drain, pid {os.getpid()})" in str(found)
    assert drains.path_of(ledger).stat().st_mode & 0o777 == 0o600
    assert drains.end(ledger) == found
    assert drains.present(ledger) is None


def test_draining_twice_keeps_the_time_and_ending_twice_is_nothing(ledger: Ledger) -> None:
    first = Operator("alice", "drain", 7, 1000.0, "deploy")
    drains.start(ledger, first)
    before = drains.start(ledger, Operator("bob", "drain", 8, 2000.0))
    assert before is not None
    assert before.operator == first
    now = drains.present(ledger)
    assert now is not None
    assert now.operator == Operator("bob", "drain", 8, 1000.0, "deploy")
    assert drains.end(ledger) == now
    assert drains.end(ledger) is None


def pretend_it_is_of_boot(ledger: Ledger, boot: str) -> None:
    path = drains.path_of(ledger)
    document = json.loads(path.read_text())
    document["drain"]["boot"] = boot
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("survives_reboot", [False, True])
def test_a_drain_survives_a_reboot_only_if_asked(ledger: Ledger, survives_reboot: bool) -> None:
    drains.start(ledger, this_operator(), survives_reboot=survives_reboot)
    pretend_it_is_of_boot(ledger, "00000000-0000-0000-0000-000000000000")
    found = drains.present(ledger)
    assert (found is not None) == survives_reboot
    drains.end(ledger)
    assert not drains.path_of(ledger).exists()


def test_a_second_drain_cannot_make_the_first_one_shorter(ledger: Ledger) -> None:
    drains.start(ledger, this_operator(), survives_reboot=True)
    drains.start(ledger, this_operator())
    found = drains.present(ledger)
    assert found is not None
    assert found.survives_reboot


@pytest.mark.parametrize("unknown", ["the file's", "this machine's"])
def test_a_drain_holds_where_a_boot_id_is_not_known(
    ledger: Ledger, unknown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains.start(ledger, this_operator())
    if unknown == "the file's":
        pretend_it_is_of_boot(ledger, "")
    else:
        pretend_it_is_of_boot(ledger, "another")
        monkeypatch.setattr(drains, "_boot", lambda: "")
    assert drains.present(ledger) is not None


def test_the_offset_of_a_time_namespace_is_no_other_boot(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains.start(ledger, this_operator())
    here = system.host()
    elsewhere = type(here)(here.machine, f"{here.boot}+86400", *list(vars(here).values())[2:])
    monkeypatch.setattr(system, "host", lambda: elsewhere)
    assert drains.present(ledger) is not None


@pytest.mark.parametrize("drained", [False, True])
def test_a_drain_that_cannot_be_written_is_an_error_and_changes_nothing(
    ledger: Ledger, drained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if drained:
        drains.start(ledger, this_operator("first"))

    def full(path: str, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drains, "write_atomically", full)
    what = "drained as before" if drained else "not drained"
    with pytest.raises(errors.LedgerError, match=f"No space left on device. The host is {what}"):
        drains.start(ledger, this_operator("second"))
    found = drains.present(ledger)
    assert (found.reason if found else None) == ("first" if drained else None)


NOT_VALID = {
    "empty": b"",
    "cut off": b'{"schema": 1, "drain": {"opera',
    "no JSON": b"\x00\xff\xfe",
    "nested too deep": b"[" * 200_000,
    "not a drain": b'{"schema": 1}',
    "of another type": b'{"schema": 1, "drain": [1]}',
    "of no boot": b'{"schema": 1, "drain": {"boot": null, "survives_reboot": false, "operator": {}}}',
    "of another schema": b'{"schema": 99, "drain": {}}',
}


@pytest.mark.parametrize(
    "what",
    [
        *(*NOT_VALID, "a directory", "a link", "a pipe", "writable by others"),
        pytest.param("another user's", marks=pytest.mark.root),
    ],
)
def test_a_file_that_is_not_valid_counts_as_a_drain_and_is_named(ledger: Ledger, what: str) -> None:
    drains.start(ledger, this_operator())
    path = drains.path_of(ledger)
    if what == "writable by others":
        path.chmod(0o666)
    elif what == "another user's":
        os.chown(path, 65534, 65534)
    else:
        path.unlink()
        make_at(path, what)
    found = drains.present(ledger)
    assert found is not None
    assert found.operator is None
    assert str(path) in str(found)
    if what == "a directory":
        with pytest.raises(errors.LedgerError, match="cannot be removed"):
            drains.end(ledger)
        path.rmdir()
    drains.end(ledger)
    assert drains.present(ledger) is None


def make_at(path: Path, what: str) -> None:
    if what == "a directory":
        path.mkdir()
    elif what == "a link":
        path.symlink_to("/etc/passwd")
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(NOT_VALID[what])
        path.chmod(0o600)


WITHOUT_DESCRIPTORS = """
from browserkeeper.admission import drain
from browserkeeper.process import reserve
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.operators import this_operator
from tests.support.starving import use_up_descriptors
ledger, operator = Ledger.open(), this_operator("deploy")
reserve.fill()
taken = use_up_descriptors(64)
print(drain.present(ledger))
os.close(taken.pop())
os.close(taken.pop())
drain.start(ledger, operator)
taken += [os.open("/dev/null", 0), os.open("/dev/null", 0)]
print(drain.present(ledger).reason)
"""


def test_a_process_without_free_descriptors_does_not_take_the_host_for_drained() -> None:
    """Its pools would close their idle browsers."""
    lines = output_of(f"import os{WITHOUT_DESCRIPTORS}").splitlines()
    assert lines == ["plain open: EMFILE", "None", "deploy"]


def test_texts_of_the_file_are_shortened_and_their_types_are_checked() -> None:
    strange = {"user": "a" * 9999, "program": 7, "pid": True, "at": 1e300, "reason": None}
    assert Operator.from_dict(strange) == Operator("a" * 200, "?", 0, 0.0, "")
    assert Operator.parse("[" * 100_000) == Operator.parse("3") == Operator()


@pytest.mark.parametrize(
    ("before", "shown"),
    [("alice", "alice as "), ("", ""), ("\x1b[31m", "")],
)
def test_the_operator_is_the_user_and_the_one_before_sudo(
    before: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", before)
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_name="root"))
    assert this_operator().user == f"{shown}root"


def test_a_user_without_a_name_is_shown_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000_000)
    assert this_operator().user == "uid 4000000000"


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31m", "x" * 201, 7])
def test_a_reason_that_is_no_line_of_text_is_refused(reason: object) -> None:
    with pytest.raises(errors.ConfigError, match="reason="):
        this_operator(reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"survive_reboot": "yes"}, "survive_reboot='yes'"),
        ({"survive_reboot": 1}, "survive_reboot=1"),
        ({"wait": False}, "wait=False"),
        ({"wait": 10**400}, "wait=1000"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_and_drains_nothing(
    ledger: Ledger, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(errors.ConfigError, match=named):
        browserkeeper.drain(**given)
    assert drains.present(ledger) is None


# ------------------------------------------------------------------ starts that wait


@pytest.mark.parametrize("kind", ["browser", "grid"])
def test_a_start_is_refused_or_waits_until_the_host_is_resumed(ledger: Ledger, kind: Kind) -> None:
    gate = Gate(ledger)
    gate.acquire(SlotRequest(kind), 0).release()  # the control
    browserkeeper.drain("deploy of 12.3")
    with pytest.raises(errors.HostBusy, match=r"is drained by .* at .* UTC: deploy of 12") as caught:
        gate.acquire(SlotRequest(kind), 0)
    assert caught.value.reason == "draining"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(gate.acquire, SlotRequest(kind, label="nightly"), SECONDS)
        assert wait_until(lambda: gate.state().waiting)
        assert not waiting.done()
        browserkeeper.resume()
        waiting.result().release()
    assert not gate.state().held


@pytest.mark.parametrize("what", ["rubbish", "a directory"])
def test_a_drain_file_that_is_not_valid_holds_starts_back_and_is_named(
    ledger: Ledger, what: str
) -> None:
    path = drains.path_of(ledger)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if what == "a directory":
        path.mkdir()
    else:
        path.write_text("{")
    with pytest.raises(errors.HostBusy, match=f"{path}.*`browserkeeper resume` removes it"):
        Gate(ledger).acquire(SlotRequest(), 0)
    path.rmdir() if what == "a directory" else browserkeeper.resume()
    Gate(ledger).acquire(SlotRequest(), 0).release()


def test_a_drain_holds_starts_back_where_no_slots_can_be_made(ledger: Ledger) -> None:
    """As on a file system without locks, where starts go ahead if nothing limits them."""
    ledger.slots.parent.mkdir(mode=0o700, exist_ok=True)
    if ledger.slots.exists():
        ledger.slots.rmdir()
    ledger.slots.write_text("no directory")
    gate = Gate(ledger)
    gate.acquire(SlotRequest(), 0).release()  # the control
    drains.start(ledger, this_operator())
    with pytest.raises(errors.HostBusy, match="is drained by"):
        gate.acquire(SlotRequest(), 0)
    gate.force().release()  # the browser of an adopted driver runs already


STOPPED_IN_ITS_DECISION = """
import os, signal
from browserkeeper.admission import drain
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.errors import HostBusy
from browserkeeper.state.ledger import Ledger

look = drain.present

def look_and_stop(ledger):
    found = look(ledger)
    if found is None:
        print("looked", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return found

drain.present = look_and_stop
try:
    Gate(Ledger.open()).acquire(SlotRequest(), 0)
    print("started", flush=True)
except HostBusy as error:
    print(error.reason, flush=True)
"""


def test_a_start_that_has_looked_before_the_drain_and_was_stopped_cannot_go_on(ledger: Ledger) -> None:
    owner = Owner(sys.executable, "-c", STOPPED_IN_ITS_DECISION)
    owner.wait_for("looked")
    assert wait_until(lambda: witness.is_stopped(owner.pid))
    assert browserkeeper.drain() == []
    os.kill(owner.pid, signal.SIGCONT)
    assert owner.wait_for("") == "draining\n"
    assert owner.wait() == 0


def test_a_start_that_was_admitted_before_the_drain_is_waited_for(ledger: Ledger) -> None:
    slot = Gate(ledger).acquire(SlotRequest(label="nightly"), 0)
    (one,) = browserkeeper.drain()
    assert (one.session, one.label, one.owner) == ("", "nightly", os.getpid())
    assert "a session that is starting" in str(one)
    slot.release()
    assert browserkeeper.drain() == []


# ------------------------------------------------------------------ the command line


def test_drain_and_resume_say_what_they_do_and_may_be_repeated(state_dir: Path) -> None:
    first = cli("drain", "--reason", "deploy of 12.3")
    assert first.returncode == 0, first.stderr
    assert "No session starts until `browserkeeper resume` or a reboot" in first.stdout
    assert first.stdout.endswith("No session runs.\n")
    again = invoke("drain", "--survive-reboot")
    assert (again.exit_code, "drained already" in again.stdout) == (0, True)
    assert "until `browserkeeper resume`: " in again.stdout
    assert "deploy of 12.3" in again.stdout
    document = cli_json("drain")
    assert document["was_drained"] is True
    assert document["drain"]["operator"]["reason"] == "deploy of 12.3"
    assert document["drain"]["survives_reboot"] is True
    assert document["running"] == []
    assert "They were held back by " in cli("resume").stdout
    assert (done := invoke("resume")).stdout == "The host is not drained.\n"
    assert done.exit_code == 0
    assert json.loads(invoke("resume", "--json").stdout) == {"schema": 1, "ended": None}


def test_a_drain_file_that_is_not_valid_is_replaced_and_removed(ledger: Ledger) -> None:
    drains.start(ledger, this_operator())
    path = drains.path_of(ledger)
    path.write_text("{")
    assert f"not valid, and was replaced ({path}" in invoke("drain").output
    path.write_text("{")
    assert f"{path}, which was not valid, is removed" in invoke("resume").output
    path.mkdir()
    refused = invoke("resume")
    assert refused.exit_code == 3
    assert f"{path} cannot be removed" in refused.output
    assert invoke("drain").exit_code == 3
    path.rmdir()


@pytest.mark.parametrize(
    "words", [["--wait", "-1"], ["--wait", "nan"], ["--wait", "soon"], ["--reason", "two\nlines"], ["x"]]
)
def test_nonsense_is_refused_and_drains_nothing(ledger: Ledger, words: list[str]) -> None:
    assert invoke("drain", *words).exit_code == 2
    assert drains.present(ledger) is None


def test_a_drain_that_waits_returns_when_the_last_session_has_ended(sessions: Sessions) -> None:
    id = sessions.start("nightly")
    left = invoke("drain", "--wait", "0.1")
    assert left.exit_code == 4
    assert f'1 session still running: sleep session {id} "nightly" of test' in left.stdout
    assert invoke("drain").exit_code == 0  # without --wait it is no failure that one runs
    assert [one.session for one in browserkeeper.drain()] == [id]
    with subprocess.Popen(
        [*CLI, "drain", "--wait", "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert id in waiting.stderr.readline()
        sessions.guards[id].end("closed", deadline_in())
        assert waiting.wait(SECONDS) == 0
        assert waiting.stdout is not None
        assert waiting.stdout.read().endswith("No session runs.\n")
    assert browserkeeper.draining() is not None
    assert browserkeeper.resume() is not None
    assert browserkeeper.draining() is None
    assert browserkeeper.resume() is None


def test_ctrl_c_ends_the_waiting_and_not_the_drain(sessions: Sessions) -> None:
    sessions.start()
    with subprocess.Popen(
        [*CLI, "drain", "--wait", "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert "waiting for 1 session" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(SECONDS) == 130
        assert "The drain stays in force" in waiting.stderr.read()
    assert drains.present(sessions.ledger) is not None


def test_a_drain_that_another_program_ends_waits_no_longer(sessions: Sessions) -> None:
    sessions.start()
    with subprocess.Popen(
        [*CLI, "drain", "--wait", "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert "waiting for 1 session" in waiting.stderr.readline()
        browserkeeper.resume()
        assert waiting.wait(SECONDS) == 1
        assert "Another program has ended the drain" in waiting.stderr.read()


def test_a_drain_waits_for_no_run_and_for_no_dead_session(
    sessions: Sessions, state_dir: Path, tmp_path: Path
) -> None:
    run, other = sessions.start(kind="run"), sessions.start(kind="adopted")
    orphan = write_record(state_dir, json.dumps(dead_record("0123456789ab", tmp_path)))
    add_free_lock(state_dir, "0123456789ab")
    unguarded = dataclasses.replace(new_session(), lock="there is one")
    add_live(sessions.ledger, unguarded)
    add_free_lock(state_dir, unguarded.id)
    elsewhere = sessions.start(host="another/machine/pid:[1]")
    assert {one.session for one in browserkeeper.drain()} == {other, elsewhere, unguarded.id}
    assert sessions.is_live(run)
    for path in (orphan, sessions.ledger.record_path(unguarded.id)):
        path.unlink()


def test_a_run_is_not_held_back(ledger: Ledger) -> None:
    drains.start(ledger, this_operator())
    done = cli("run", "--", "echo", "it runs")
    assert (done.returncode, done.stdout) == (0, "it runs\n")
