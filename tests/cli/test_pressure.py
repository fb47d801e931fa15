"""What monitoring sees of the host's gate: /pressure, /readyz, the metrics of slots."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from browserkeeper import BrowserPool, browser
from browserkeeper.admission import drain
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.admission.tickets import Ticket
from browserkeeper.errors import ConfigError, HostBusy, LedgerError, PoolTimeout, SessionTimeout
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.report import Operator
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.pool_state import publish
from browserkeeper.status.pressure import Drain, Pressure, Slots, pressure
from browserkeeper.telemetry.collector import registry
from browserkeeper.telemetry.server import Server
from browserkeeper.telemetry.tally import Tally
from browserkeeper.watch.readiness import Readiness
from browserkeeper.watch.rounds import Watch
from tests.cli.test_metrics import samples, value
from tests.pool.test_pool_state import a_state
from tests.support.cli import ROOT, cli
from tests.support.waiting import SECONDS, wait_until
from tests.support.watching import Watching, watching

__all__ = ["watching"]  # a fixture

FULL = {"full": "1 browser runs."}
DRAINED = {"draining": "The host is drained."}
BAD = {"limits": "limits.toml, line 1."}
SHORT = {"memory": "Too little memory."}


def a_pressure(blocks: dict[str, str] | None = None, **changed: Any) -> Pressure:
    facts = {"browsers": Slots(1, "here", 1, 2, 12.5), "grid": Slots(), "memory_left": 5_000_000}
    return Pressure(at=1e9, **{**facts, **changed}, blocks=blocks or {})


# ------------------------------------------------------------------------------------- readiness


class Scene:
    """A gate whose pressure a test sets, and a clock that it moves."""

    def __init__(self, patience: float = 300.0):
        self.now, self.found = 1000.0, a_pressure()
        self.readiness = Readiness(patience, self.read, lambda: self.now)

    def read(self) -> Pressure:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def at(self, seconds: float, blocks: dict[str, str] | None = None) -> str:
        """What is wrong, so many seconds after the first look."""
        self.now, self.found = 1000.0 + seconds, a_pressure(blocks)
        return self.readiness.why_not_ready()


@pytest.mark.parametrize("blocks", [FULL, SHORT, FULL | SHORT])
def test_a_host_that_is_full_for_long_is_not_ready(blocks: dict[str, str]) -> None:
    scene = Scene()
    assert [scene.at(0, blocks), scene.at(299, blocks)] == ["", ""]
    found = scene.at(301, blocks)
    assert found.startswith("No browser could start for 301 s. ")
    assert all(sentence in found for sentence in blocks.values())
    assert "2 starts wait, the first for 12 s." in found
    assert scene.at(302) == "", "one free slot, and it is ready again"


def test_a_host_that_was_free_in_between_has_not_been_full_for_long() -> None:
    scene = Scene()
    looks = [scene.at(0, FULL), scene.at(200), scene.at(201, FULL), scene.at(500, FULL)]
    assert looks == [""] * 4
    assert scene.at(501, FULL).startswith("No browser could start for 300 s.")


def test_a_host_whose_pools_have_idle_browsers_is_ready_unless_it_is_drained() -> None:
    scene = Scene(patience=0)
    scene.found = a_pressure(FULL, browsers=Slots(1, "here", 1, idle=1))
    assert scene.readiness.why_not_ready() == ""
    scene.found = a_pressure(FULL | DRAINED, browsers=Slots(1, "here", 1, idle=1))
    assert "drained" in scene.readiness.why_not_ready()


def test_one_cause_after_another_counts_as_one_time() -> None:
    scene = Scene()
    assert scene.at(0, FULL) == ""
    assert scene.at(301, SHORT).startswith("No browser could start for 301 s. Too little memory.")


@pytest.mark.parametrize("blocks", [DRAINED, BAD, DRAINED | FULL])
def test_a_drain_and_limits_that_are_not_valid_count_at_once(blocks: dict[str, str]) -> None:
    scene = Scene()
    assert next(iter(blocks.values())) in scene.at(0, blocks)
    assert scene.at(1) == ""


def test_with_a_patience_of_0_a_full_host_is_not_ready_at_once() -> None:
    assert Scene(patience=0).at(0, FULL).startswith("No browser could start for 0 s.")


def test_the_rounds_of_the_watch_count_as_looks() -> None:
    scene = Scene()
    scene.found = a_pressure(FULL)
    scene.readiness.look()
    assert scene.at(301, FULL)


def test_a_gate_that_cannot_be_read_is_not_ready_and_keeps_the_time() -> None:
    scene = Scene()
    assert scene.at(0, FULL) == ""
    scene.found = LedgerError("no such thing")  # type: ignore[assignment]
    assert "cannot be read: no such thing" in scene.readiness.why_not_ready()
    assert scene.at(301, FULL).startswith("No browser could start for 301 s.")


# --------------------------------------------------------------------------------- over HTTP


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def server(scene: Scene) -> Iterator[Server]:
    running = Server("127.0.0.1:0", Tally(), str, scene.readiness.why_not_ready, scene.readiness.look)
    yield running
    running.close()


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(server.address, timeout=SECONDS)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def test_pressure_is_json_with_status_200_also_when_the_host_is_full(
    server: Server, scene: Scene
) -> None:
    status, kind, body = ask(server, "/pressure")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body)["reason"] == ""
    scene.found = a_pressure(FULL | DRAINED, drain=Drain(5.0, "deploy"))
    status, _, body = ask(server, "/pressure")
    found = json.loads(body)
    assert status == 200
    assert found["blocked_by"] == ["full", "draining"]
    assert found["reason"] == ("1 browser runs. The host is drained. 2 starts wait, the first for 12 s.")
    assert found["drain"] == {"since": 5.0, "reason": "deploy"}
    assert ask(server, "/readyz")[0] == 503
    assert ask(server, "/healthz")[0] == 200, "a full host is healthy"


def test_pressure_of_a_gate_that_cannot_be_read_fails_with_the_reason(
    server: Server, scene: Scene
) -> None:
    scene.found = LedgerError("it is a link")  # type: ignore[assignment]
    status, kind, body = ask(server, "/pressure")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body) == {
        "schema": 1,
        "error": "the gate of this host cannot be read: it is a link",
    }


def test_pressure_answers_other_methods_and_paths_as_the_probes_do(server: Server) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert ask(server, "/pressure", method)[0] == ask(server, "/healthz", method)[0] == 200
    for path in ("/pressure/", "/pressures", "/Pressure", "/x/pressure"):
        status, _, body = ask(server, path)
        assert (status, "/pressure" in body) == (404, True)
    assert ask(server, "/pressure?verbose=1")[0] == 200


@pytest.mark.parametrize("path", ["/pressure", "/readyz", "/healthz", "/metrics", "/unknown"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_to_head_has_no_body(server: Server, method: str, path: str) -> None:
    """RFC 9110, 9.3.2.  ``http.client`` would leave the body unread."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS) as client:
        client.sendall(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert (answer.partition(b"\r\n\r\n")[2] == b"") == (method == "HEAD")


def test_every_field_of_pressure_is_documented() -> None:
    page = (ROOT / "docs" / "host.md").read_text()
    section = page[page.index("## Monitoring") : page.index("## Bad input")]
    assert [name for name in a_pressure().to_dict() if f"`{name}`" not in section] == []


# --------------------------------------------------------------------------- of a real gate


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open(state_dir)


def set_limits(ledger: Ledger, text: str) -> None:
    path = ledger.directory / "limits.toml"
    path.write_text(text)
    os.utime(path, (1e9, 1e9))


def test_without_limits_nothing_is_blocked(ledger: Ledger) -> None:
    found = pressure().to_dict()
    assert (found["reason"], found["blocked_by"], found["slots"], found["free"]) == ("", [], None, None)
    assert found["memory_left"] > 0
    assert (found["draining"], found["drain"]) == (False, None)


def test_a_full_host_says_the_limit_its_place_and_who_waits(ledger: Ledger) -> None:
    set_limits(ledger, "max_browsers = 1\n")
    gate = Gate(ledger)
    assert pressure().to_dict()["free"] == 1
    slot = gate.acquire(SlotRequest(label="secret-customer"), 0)
    try:
        found = pressure().to_dict()
        assert (found["slots"], found["held"], found["free"]) == (1, 1, 0)
        assert found["blocked_by"] == ["full"]
        assert "max_browsers = 1" in found["slots_set_by"]
        assert "limits.toml" in found["reason"]
        text = generate_latest(registry(Tally())).decode()
        assert value(samples(text), "slots_held", kind="browser") == 1
        assert value(samples(text), "slots_limit", kind="browser") == 1
        assert value(samples(text), "start_blocked", reason="full") == 1
        assert value(samples(text), "gate_up") == 1
        assert "secret" not in text + json.dumps(found)
    finally:
        slot.release()
    assert pressure().to_dict()["free"] == 1


def raising_at_call(number: int, error: BaseException) -> Callable[[], float]:
    """A check of a wait: it raises when it is called for the ``number``-th time."""
    calls = iter(range(1, number))

    def check() -> float:
        if next(calls, None) is None:
            raise error
        return 0.0

    return check


def test_sessions_on_a_grid_have_numbers_of_their_own_and_block_no_browser(ledger: Ledger) -> None:
    set_limits(ledger, "max_browsers = 1\nmax_grid_sessions = 1\n")
    slot = Gate(ledger).acquire(SlotRequest("grid"), 0)
    adopted = Gate(ledger).force()
    try:
        found = pressure().to_dict()
        assert (found["grid_slots"], found["grid_held"], found["grid_free"]) == (1, 1, 0)
        assert (found["held"], found["blocked_by"]) == (1, ["full"]), "an adopted browser is a browser"
        adopted.release()
        found = pressure().to_dict()
        assert (found["held"], found["blocked_by"], found["grid_held"]) == (0, [], 1)
        scraped = samples(generate_latest(registry(Tally())).decode())
        assert value(scraped, "slots_held", kind="grid") == 1
        assert value(scraped, "slots_limit", kind="grid") == 1
    finally:
        adopted.release()
        slot.release()


def test_slots_of_idle_browsers_of_pools_are_told(ledger: Ledger) -> None:
    """Not those of leased ones, nor of a pool that is dead: the controls."""
    set_limits(ledger, "max_browsers = 3\n")
    slots = []
    for session in ("idle-one", "leased", "of-a-dead-pool"):
        slots.append(Gate(ledger).acquire(SlotRequest(), 0))
        slots[-1].bind(session)
    lock = publish(ledger, a_state(sessions={"idle-one": "idle", "leased": "leased"}))
    no_process = ProcessIdentity(2**22 - 1, 1.0)
    publish(ledger, a_state(number=2, owner=no_process, sessions={"of-a-dead-pool": "idle"})).close()
    try:
        found = pressure()
        assert (found.browsers.held, found.browsers.idle, found.grid.idle) == (3, 1, 0)
        assert list(found.blocks) == ["full"]
    finally:
        lock.close()
        for slot in slots:
            slot.release()


def test_a_start_that_is_refused_is_counted(ledger: Ledger) -> None:
    set_limits(ledger, "max_browsers = 1\n")
    gate = Gate(ledger)
    slot = gate.acquire(SlotRequest(), 0)
    try:
        for wait in (0, 0, 0.05):
            with pytest.raises(HostBusy):
                gate.acquire(SlotRequest(), wait)
        with pytest.raises(SessionTimeout):
            gate.acquire(SlotRequest(), 60, raising_at_call(3, SessionTimeout("too late")))
        with pytest.raises(KeyboardInterrupt):
            gate.acquire(SlotRequest(), 60, raising_at_call(3, KeyboardInterrupt()))
        with pytest.raises(SessionTimeout):
            gate.acquire(SlotRequest(), 60, raising_at_call(1, SessionTimeout("too late")))
    finally:
        slot.release()
    found = samples(generate_latest(registry(Tally())).decode())
    assert value(found, "slot_refusals_total", reason="full") == 2
    assert value(found, "slot_wait_timeouts_total", reason="full") == 2, (
        "neither what was interrupted, nor what never came to wait"
    )
    assert value(found, "slot_refusals_total", reason="draining") == 0
    gate.acquire(SlotRequest(), 0).release()
    found = samples(generate_latest(registry(Tally())).decode())
    assert value(found, "slot_refusals_total", reason="full") == 2, "the control: this one got a slot"


def slot_wait_timeouts() -> float:
    found = samples(generate_latest(registry(Tally())).decode())
    return value(found, "slot_wait_timeouts_total", reason="full")


@pytest.mark.chrome
def test_sessions_and_pools_count_each_start_without_a_slot_once(ledger: Ledger) -> None:
    """No browser is started.  What a pool asks for waits without a limit, so only its request fails."""
    set_limits(ledger, "max_browsers = 1\n")
    slot = Gate(ledger).acquire(SlotRequest(), 0)
    try:
        with pytest.raises(HostBusy):
            browser("chromium", wait=0).start()
        with pytest.raises(HostBusy):
            browser("chromium", wait=0.2).start()
        before = slot_wait_timeouts()
        for timeout in (2, 20):  # it begins before the wait, which is what counts
            with pytest.raises(SessionTimeout):
                browser("chromium", timeout=timeout).start()
            if slot_wait_timeouts() > before:  # else a busy machine has not come to wait within 2 s
                break
        with BrowserPool("chromium", max_size=1) as pool, pytest.raises(PoolTimeout):
            pool.lease(0.5)
        drain.start(ledger, Operator("somebody"))
        with pytest.raises(HostBusy):
            browser("chromium", wait=0).start()
    finally:
        drain.end(ledger)
        slot.release()
    found = samples(generate_latest(registry(Tally())).decode())
    assert value(found, "slot_refusals_total", reason="full") == 1
    assert value(found, "slot_refusals_total", reason="draining") == 1
    assert value(found, "slot_wait_timeouts_total", reason="full") == 2
    assert value(found, "pool_wait_timeouts_total", browser="chromium") == 1
    assert pressure().browsers == Slots(1, pressure().browsers.set_by)


@pytest.mark.parametrize("text", ["", "max_browsers = 0\n", "max_browser = 3\n", "\0\1\2", "[["])
def test_limits_that_are_not_valid_block_and_name_the_file(text: str, ledger: Ledger) -> None:
    set_limits(ledger, text)
    found = pressure()
    assert list(found.blocks) == ["limits"]
    assert "limits.toml" in found.reason
    assert "limits.toml" in Readiness().why_not_ready()
    with pytest.raises(ConfigError):
        Gate(ledger).acquire(SlotRequest(), 0)
    scraped = samples(generate_latest(registry(Tally())).decode())
    assert value(scraped, "start_blocked", reason="limits") == 1
    assert value(scraped, "slot_refusals_total", reason="limits") == 1


def test_a_limits_file_that_is_being_written_is_read_again(ledger: Ledger) -> None:
    """The control is above: one that stays empty blocks."""
    set_limits(ledger, "")
    pauses: list[float] = []

    def write_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        set_limits(ledger, "max_browsers = 7\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", write_meanwhile)
        found = pressure()
    assert (found.browsers.limit, found.blocks, len(pauses)) == (7, {}, 1)


def test_a_program_that_was_stopped_with_the_gates_lock_stops_no_probe(ledger: Ledger) -> None:
    set_limits(ledger, "max_browsers = 1\n")
    slot = Gate(ledger).acquire(SlotRequest(), 0)
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print(flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(ledger.gate / "lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline()
        os.kill(holder.pid, signal.SIGSTOP)
        assert pressure().browsers == Slots(1, pressure().browsers.set_by, held=1)
        assert "max_browsers = 1" in Readiness(0).why_not_ready()
    finally:
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate("\n", SECONDS)
        slot.release()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0rubbish",
        b"[]",
        b'{"pid": "x", "monotonic": -Infinity, "kind": 7}',
        b'{"monotonic": NaN}',
    ],
)
def test_a_slot_or_ticket_with_rubbish_in_it_counts_all_the_same(content: bytes, ledger: Ledger) -> None:
    """Its lock decides.  A file without a lock is none: the control."""
    set_limits(ledger, "max_browsers = 1\n")
    slot = Gate(ledger).acquire(SlotRequest(), 0)
    ticket = Ticket(ledger.queue, {})
    try:
        files = [Path(slot.path), *(path for path in ledger.queue.iterdir() if path.is_file())]
        for path in files:
            path.write_bytes(content)
            (path.parent / f"{path.name[:-1]}{'1' if path.name[-1] == '0' else '0'}").write_bytes(
                content
            )
        found = pressure()
        assert (found.browsers.held, found.browsers.waiting) == (1, 1)
        assert "Infinity" not in json.dumps(found.to_dict())
        assert "NaN" not in json.dumps(found.to_dict())
        generate_latest(registry(Tally()))
    finally:
        ticket.close()
        slot.release()
    assert pressure().browsers.held == 0


HOLDER = """
import sys
from browserkeeper.admission.gate import Gate, SlotRequest
from browserkeeper.state.ledger import Ledger
gate = Gate(Ledger.open())
slot = gate.acquire(SlotRequest(label="holder"), float(sys.argv[1]))
print(flush=True)
input()
"""


def test_holders_and_waiters_that_are_killed_are_in_no_number(ledger: Ledger) -> None:
    """A waiter that was stopped still counts: it goes on one day."""
    set_limits(ledger, "max_browsers = 1\n")

    def numbers() -> tuple[int, int]:
        found = pressure().browsers
        return found.held, found.waiting

    def start(wait: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(wait)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with contextlib.ExitStack() as stack:
        processes = []
        for expected in ((1, 0), (1, 1), (1, 2)):
            process = stack.enter_context(start(600))
            stack.callback(process.kill)
            processes.append(process)
            assert wait_until(functools.partial(lambda e: numbers() == e, expected))
        holder, first, second = processes
        os.kill(second.pid, signal.SIGSTOP)
        assert numbers() == (1, 2)
        assert pressure().browsers.longest_wait > 0
        first.kill()
        assert wait_until(lambda: numbers() == (1, 1))
        holder.kill()
        assert wait_until(lambda: numbers() == (0, 1))
        second.kill()
        assert wait_until(lambda: numbers() == (0, 0))


def test_a_host_that_starts_no_browser_is_no_finding_of_a_round(ledger: Ledger) -> None:
    """`watch --once` is the HEALTHCHECK of a container: it must not be restarted since it is drained."""
    drain.start(ledger, Operator("somebody"))
    kinds = {notice.kind for notice in Watch(60, Tally()).round()}
    set_limits(ledger, "rubbish")
    kinds |= {notice.kind for notice in Watch(60, Tally()).round()}
    assert kinds <= {"processes-low", "memory-low", "space-low", "zombies"}, "those of this machine"
    drain.end(ledger)


def test_memory_below_the_bound_blocks(ledger: Ledger) -> None:
    set_limits(ledger, 'min_memory = "1000TiB"\n')
    found = pressure().to_dict()
    assert found["blocked_by"] == ["memory"]
    assert found["memory_bound"] == 1000 * 2**40
    set_limits(ledger, 'min_memory = "1KiB"\n')
    assert pressure().to_dict()["blocked_by"] == []


def test_a_state_directory_that_cannot_be_read_is_no_empty_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(tmp_path / "file"))
    found = samples(generate_latest(registry(Tally())).decode())
    assert value(found, "gate_up") == 0
    assert not [name for name, _ in found if name.startswith("browserkeeper_slots")]
    assert "cannot be read" in Readiness().why_not_ready()


# ------------------------------------------------------------------------- of a real watch


def test_a_watch_says_that_the_host_is_full_and_drained_and_that_it_is_over(
    ledger: Ledger, watching: Callable[..., Watching]
) -> None:
    """The control is a second watch, which is patient: to it the full host is ready all the time."""
    set_limits(ledger, "max_browsers = 1\n")
    watch = watching("--listen", "127.0.0.1:0", "--unready-after", 0.5)
    patient = watching("--listen", "127.0.0.1:0")

    def is_ready(which: Watching) -> bool:
        return which.get("/readyz") == (200, "ok\n")

    assert wait_until(lambda: is_ready(watch) and is_ready(patient))
    slot = Gate(ledger).acquire(SlotRequest(), 0)
    try:
        assert wait_until(lambda: not is_ready(watch))
        status, body = watch.get("/readyz")
        assert status == 503
        assert body.startswith("No browser could start for ")
        assert "max_browsers = 1" in body
        assert is_ready(patient)
        assert json.loads(patient.get("/pressure")[1])["blocked_by"] == ["full"]
    finally:
        slot.release()
    assert is_ready(watch), "at the first look at which a slot is free"
    drain.start(ledger, Operator("somebody", reason="deploy of 12:00"))
    status, body = patient.get("/readyz")
    assert (status, "deploy of 12:00" in body) == (503, True)
    drain.end(ledger)
    assert is_ready(patient)
    (ledger.directory / "limits.toml").chmod(0o666)
    status, body = patient.get("/readyz")
    assert (status, "limits.toml" in body) == (503, True)
    assert [watch.close(), patient.close()] == [0, 0]


@pytest.mark.parametrize("given", ["-1", "nan", "inf", "soon"])
def test_an_unready_after_that_makes_no_sense_is_refused_by_name(given: str) -> None:
    done = cli("watch", "--once", "--unready-after", given)
    assert done.returncode == 2
    assert "--unready-after" in done.stderr
