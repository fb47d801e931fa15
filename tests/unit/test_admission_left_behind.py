"""What stopped and killed processes leave in the queue of the gate holds no other start back."""

from __future__ import annotations

import json
import select
import time
from pathlib import Path

import pytest

from browserkeeper import HostBusy
from browserkeeper.admission import waiting
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.slots import describe_self
from browserkeeper.admission.tickets import LATE, Ticket
from browserkeeper.guard.bells import CALLED, SUFFIX, ring_first
from browserkeeper.state.ledger import Ledger

NAME = "0-000000000000001-0123456789abcdef"


@pytest.fixture
def gate(state_dir: Path) -> Gate:
    (state_dir / "limits.toml").write_text("max_browsers = 1\n")
    gate = Gate(Ledger.open(state_dir))
    gate.acquire(SlotRequest(), 0).release()  # makes the directories
    return gate


def ticket_of(gate: Gate, pid: int) -> Ticket:
    """A live one, as a process of this number would have it."""
    return Ticket(gate.ledger.queue, {**describe_self(""), "kind": "browser", "pid": pid})


def call_in_vain(gate: Gate, ticket: Ticket) -> None:
    called = gate.ledger.queue / f"{ticket.name}{CALLED}"
    called.write_text(json.dumps({"monotonic": time.monotonic() - LATE - 1}))


def test_all_starts_of_a_stopped_process_are_passed_over_at_once(gate: Gate) -> None:
    """Not one every three seconds: a program may wait with many threads."""
    stopped = [ticket_of(gate, 7) for _ in range(3)]
    call_in_vain(gate, stopped[0])
    gate.acquire(SlotRequest(), 0).release()
    for ticket in stopped:
        ticket.close()


def test_control_starts_of_a_process_that_answers_come_first(gate: Gate) -> None:
    stopped, waiting = ticket_of(gate, 7), ticket_of(gate, 8)
    call_in_vain(gate, stopped)
    with pytest.raises(HostBusy):
        gate.acquire(SlotRequest(), 0)
    stopped.close()
    waiting.close()


def test_a_start_that_has_called_another_one_looks_again_when_that_one_is_late(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far behind in the queue it would look again after 10 s."""
    stopped = [ticket_of(gate, number) for number in range(2, 9)]
    asked: list[float] = []

    class Poll:
        def register(self, *_: object) -> None: ...

        def poll(self, milliseconds: float) -> None:
            asked.append(milliseconds / 1000)
            raise KeyError("enough")

    monkeypatch.setattr(select, "poll", Poll)
    monkeypatch.setattr(waiting, "TELL_AFTER", 1000.0)
    with pytest.raises(KeyError):
        gate.acquire(SlotRequest(), None)
    assert LATE < asked[0] < LATE + 1
    for ticket in stopped:
        ticket.close()


def test_the_end_of_a_session_wakes_also_who_is_behind_one_that_does_not_answer(gate: Gate) -> None:
    """Else a slot would be free for up to 10 s after each end, beside some programs that are stopped."""
    stopped, second, third = (ticket_of(gate, number) for number in (1, 2, 3))
    tickets = [stopped, second, third]

    def rung() -> list[bool]:
        ring_first(str(gate.ledger.queue))
        found = [bool(select.select([ticket.bell], [], [], 0)[0]) for ticket in tickets]
        for ticket in tickets:
            ticket.bell.clear()
        return found

    assert rung() == [True, False, False], "control"
    call_in_vain(gate, stopped)
    assert rung() == [True, True, False]
    call_in_vain(gate, second)
    assert rung() == [True, True, True]
    for ticket in tickets:
        ticket.close()


@pytest.mark.parametrize("suffix", [SUFFIX, CALLED])
def test_what_belongs_to_no_ticket_is_removed(gate: Gate, suffix: str) -> None:
    """A process was killed, or left the queue, in between."""
    orphan = gate.ledger.queue / f"{NAME}{suffix}"
    foreign = gate.ledger.queue / f"notes{suffix}"
    orphan.touch()
    foreign.touch()
    waiting = ticket_of(gate, 7)
    with pytest.raises(HostBusy):
        gate.acquire(SlotRequest(), 0.01)
    assert not orphan.exists()
    assert foreign.exists()
    assert (gate.ledger.queue / f"{waiting.name}{SUFFIX}").exists()
    waiting.close()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_limit_that_changes_between_its_reading_and_the_decision_counts(
    gate: Gate, before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start may wait for the gate's lock, or be stopped, in between."""
    file = gate.ledger.directory / "limits.toml"
    file.write_text(f"max_browsers = {before}\n")
    held = gate.acquire(SlotRequest(), 0)
    prepare = gate._files._require_directories

    def change() -> None:
        if file.read_text() != f"max_browsers = {after}\n":
            file.write_text(f"max_browsers = {after}\n")
        prepare()

    monkeypatch.setattr(gate._files, "_require_directories", change)
    if after > 1:
        gate.acquire(SlotRequest(), 0).release()
    else:
        with pytest.raises(HostBusy, match="max_browsers = 1"):
            gate.acquire(SlotRequest(), 0)
    held.release()
