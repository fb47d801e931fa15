"""``browserkeeper watch``: what it sweeps, what it reports, and that no failure ends it."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper import browser
from browserkeeper.cleanup.sweeper import Finding, Sweeper
from browserkeeper.cli.watch import print_notices
from browserkeeper.process import limits
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import Record
from browserkeeper.status.snapshot import LONG_ZOMBIE_PATIENCE
from browserkeeper.telemetry.tally import Tally
from browserkeeper.watch import containers, host, sessions
from browserkeeper.watch.docker_api import Container, Usage
from browserkeeper.watch.notices import ABSENT_ROUNDS, Notice, ReportedNotices
from browserkeeper.watch.rounds import HEALTH_PATIENCE, Watch
from fixtures.server import Site
from tests.conftest import PidFile
from tests.support import witness
from tests.support.cli import CLI, DOCUMENTED, ROOT, cli, cli_json, invoke, start_run
from tests.support.guards import BOTH, program
from tests.support.ledger import write_record
from tests.support.owners import Owner
from tests.support.waiting import SECONDS, wait_until
from tests.support.watching import INTERVAL, Watching, watching
from tests.system import faults

__all__ = ["watching"]  # a fixture


def notices(kind: str) -> list[dict[str, Any]]:
    """The notices of this kind of one round; the machine may cause notices of other kinds."""
    done = cli("watch", "--once", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert done.returncode == (0 if document["ok"] else 1)
    return [notice for notice in document["notices"] if notice["kind"] == kind]


# ----------------------------------------------------------------------------- what the dead left


def kill_with_its_guards(name: str, site: Site, state: Path) -> tuple[list[int], Path]:
    """SIGKILLs an owner that is browsing, and both its guards.  Returns the killed pids and the
    record."""
    words = [sys.executable, "-m", "tests.system.fault_owner", name, site.url, "60"]
    owner = Owner(*words)
    owner.wait_for('"live"')
    ours = os.getpid()
    record = next(
        found.path
        for found in Ledger.open(state).records()
        if isinstance(found, Record) and found.session.owner.pid == owner.pid != ours
    )
    fault = faults.Fault(name, "owner and both guards", signal.SIGKILL, 0)
    hit = faults.find(fault, owner.pid)
    stop_guards(hit[1:])  # which would end the session if they saw the death of the first of them
    for pid in hit:
        os.kill(pid, signal.SIGKILL)
    owner.wait()
    return hit, record


def swept_by(watch: Watching) -> list[str]:
    """The ids of all sessions of which the watch has swept something."""
    return [facts["browserkeeper.session.id"] for facts in watch.lines("watch-swept")]


@pytest.mark.chrome
@pytest.mark.firefox
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.leaves_zombies(40, "owner and both guards are dead: PID 1, here pytest, has to reap")
def test_leftovers_of_an_owner_killed_with_its_guards_are_swept(
    name: str, site: Site, state_dir: Path, watching: Callable[..., Watching]
) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        session = browser("chromium")
        with session as driver:
            watch = watching()
            hit, record = kill_with_its_guards(name, site, state_dir)
            assert len(hit) == 3
            assert wait_until(lambda: record.stem in swept_by(watch))
            assert wait_until(lambda: not record.exists())
            ended = cli_json("history", "--session", record.stem)
            assert ended["report"]["reason"] == "swept"
            assert ended["report"]["clean"]
            assert not os.path.lexists(ended["session"]["tmpdir"])
            driver.get(site.url)  # a session with an owner is not touched
            assert bystander.poll() is None
        assert watch.close() == 0
        assert swept_by(watch).count(record.stem) == 1
        assert session.id not in swept_by(watch)
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "as above")
def test_control_without_a_watch_the_leftovers_stay(site: Site, state_dir: Path) -> None:
    _, record = kill_with_its_guards("chrome", site, state_dir)
    time.sleep(3)
    tmpdir = json.loads(record.read_text())["session"]["tmpdir"]
    assert os.path.isdir(tmpdir)
    assert record.exists()
    assert [f["session"] for f in cli_json("sweep", "--yes")["findings"]] == [record.stem]


def test_foreign_records_are_reported_and_not_removed(state_dir: Path) -> None:
    record = write_record(state_dir, '{"schema": 99}')
    (notice,) = notices("not-swept")
    assert "left alone" in notice["message"]
    assert record.exists()
    record.unlink()


# ---------------------------------------------------------------------------------------- zombies


@pytest.mark.slow
def test_zombies_are_reported_once_with_their_parent(
    started: list[subprocess.Popen[str]], pids_of: PidFile, watching: Callable[..., Watching]
) -> None:
    running = start_run(started, pids_of, 3, *program("zombie_maker", pids_of, 2))
    watch = watching("--listen", "127.0.0.1:0")
    ours = f"(pid {running.members[0].pid}) does not reap them"

    def lines_of_ours() -> list[dict[str, Any]]:
        """The watch reports zombies of tests beside this one, too."""
        return [line for line in watch.lines("watch-zombies") if ours in line["message"]]

    assert wait_until(lines_of_ours)
    facts = lines_of_ours()[0]
    assert "2 zombies" in facts["message"]
    assert "Restart" in facts["browserkeeper.remedy"]
    rounds = rounds_of(watch)
    assert wait_until(lambda: rounds_of(watch) >= rounds + 4)
    assert len(lines_of_ours()) == 1
    running.front.terminate()
    over = "No longer so: 2 zombies"
    assert wait_until(
        lambda: any(
            over in line["message"] and ours in line["message"] for line in watch.lines("watch-over")
        )
    )


def rounds_of(watch: Watching) -> float:
    text = watch.get("/metrics")[1]
    name = "browserkeeper_watch_rounds_total "
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def test_a_zombie_browser_without_a_session_is_reported(tmp_path: Path) -> None:
    """As plain Selenium leaves them.  A zombie with another name is not reported."""
    shutil.copy("/bin/true", tmp_path / "chromium")
    ours, theirs = subprocess.Popen([tmp_path / "chromium"]), subprocess.Popen(["true"])
    for process in (ours, theirs):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    (notice,) = [found for found in notices("zombies") if f"(pid {os.getpid()})" in found["message"]]
    assert f"1 zombie (chromium; pid {ours.pid})" in notice["message"]
    ours.wait()
    theirs.wait()
    assert f"pid {ours.pid}" not in str(notices("zombies"))


# --------------------------------------------------------------------------------------- sessions


@pytest.mark.chrome
@pytest.mark.leaves_zombies(40, "guards are killed: PID 1, here pytest, has to reap")
def test_a_session_whose_guards_were_killed_is_reported_but_not_ended() -> None:
    session = browser("chromium")
    session.start()
    (record,) = [found for found in Ledger.open().records() if isinstance(found, Record)]
    pids = [guard.pid for guard in record.guards]
    stop_guards(pids)  # the standby one would end the session if it saw the primary one die
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: notices("unguarded"))
    (notice,) = notices("unguarded")
    assert notice["session"] == session.id
    assert f"(pid {os.getpid()}) lives" in notice["message"]
    assert record.path.exists()
    session.close()
    assert notices("unguarded") == []


def stop_guards(pids: list[int]) -> None:
    """The standby guard, which is the parent, first: it would continue a stopped primary guard."""
    seen = [witness.look(pid) for pid in pids]
    for guard in sorted(filter(None, seen), key=lambda guard: guard.parent in pids):
        os.kill(guard.pid, signal.SIGSTOP)
        assert wait_until(functools.partial(witness.is_stopped, guard.pid))


def test_a_stopped_guard_and_its_overdue_session_are_reported(
    started: list[subprocess.Popen[str]],
) -> None:
    front = subprocess.Popen(
        [*CLI, "run", "--timeout", "600", "--", "sleep", "600"], cwd=ROOT, text=True
    )
    started.append(front)
    assert wait_until(lambda: [len(found.guards) for found in records()] == [2])
    (record,) = records()
    watch = Watch(INTERVAL, Tally())
    assert kinds(watch.round()) == set()
    stop_guards([guard.pid for guard in record.guards])
    remedy = f"Wake it: kill -CONT {' '.join(str(g.pid) for g in record.guards)}."
    assert wait_until(lambda: remedy in [notice.remedy for notice in watch.round()])
    set_deadline(record, time.time() - 2 * sessions.GRACE)
    found = watch.round()
    assert kinds(found) == {"guard-stopped", "overdue"}
    (overdue,) = (notice for notice in found if notice.kind == "overdue")
    assert (overdue.session, overdue.remedy) == (record.session.id, remedy)
    for guard in record.guards:
        os.kill(guard.pid, signal.SIGCONT)
    front.terminate()
    front.wait(SECONDS)
    assert wait_until(lambda: kinds(watch.round()) == set())


def set_deadline(record: Record, when: float) -> None:
    """Changes the record's file only: its guards keep the deadline that they were given."""
    facts = json.loads(record.path.read_text())
    facts["session"]["deadline"] = when
    record.path.write_text(json.dumps(facts))


def records() -> list[Record]:
    return [found for found in Ledger.open().records() if isinstance(found, Record)]


def kinds(found: list[Notice]) -> set[str]:
    """Without resources that are low on this machine."""
    return {notice.kind for notice in found if not notice.kind.endswith("-low")}


# ------------------------------------------------------------------------------------ the machine


def test_a_cgroup_with_few_processes_left_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pids.max").write_text("100\n")
    (tmp_path / "pids.current").write_text("60\n")
    monkeypatch.setattr(limits, "cgroup_directories", lambda _: [tmp_path])
    (notice,) = host.processes()
    assert notice.kind == "processes-low"
    assert "Only 40 more processes" in notice.message
    assert "--pids-limit" in notice.remedy
    (tmp_path / "pids.max").write_text("max\n")
    assert list(host.processes()) == []


def test_a_cgroup_with_little_memory_left_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("900000000\n")
    monkeypatch.setattr(limits, "cgroup_directories", lambda _: [tmp_path])
    (notice,) = host.memory()
    assert "Only 100 MB" in notice.message
    (tmp_path / "memory.current").write_text("100000000\n")
    assert list(host.memory()) == []


def test_the_kernels_own_limit_is_read() -> None:
    left = limits.tasks_left()
    assert left is not None
    assert 0 < left < int(Path("/proc/sys/kernel/pid_max").read_text())


SMALL = """
mount -t tmpfs -o size=1m tmpfs "$1" && shift || exit 90
mkdir -m 0700 "$BROWSERKEEPER_TMPDIR"
[ "$1" = full ] && head -c 1000000 /dev/zero > "$BROWSERKEEPER_TMPDIR/file"
shift; exec "$@"
"""


@pytest.mark.root
@pytest.mark.namespaces
@pytest.mark.parametrize("state", ["full", "empty"])
def test_a_full_file_system_is_reported(state: str, state_dir: Path) -> None:
    """On a tmpfs in a mount namespace of its own; the empty one is the control.  It is mounted in
    the state directory, whose path is short enough for a session's TMPDIR."""
    where = state_dir / "t"
    where.mkdir()
    env = {**os.environ, "BROWSERKEEPER_TMPDIR": str(where / "s")}
    words = ["unshare", "--mount", "sh", "-c", SMALL, "sh", str(where), state, *CLI, "watch", "--once"]
    done = subprocess.run([*words, "--json"], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode == 90:
        pytest.skip("no tmpfs can be mounted here")
    found = [n for n in json.loads(done.stdout)["notices"] if n["subject"].startswith(str(where))]
    assert [notice["kind"] for notice in found] == (["space-low"] if state == "full" else [])
    assert all("is full: 0 MB of 1 MB are free" in notice["message"] for notice in found)


# ---------------------------------------------------------------------------------- reported once


def notice(kind: Any = "unguarded", subject: str = "a", magnitude: int = 0) -> Notice:
    return Notice(kind, subject, f"{kind} {subject}", magnitude=magnitude)


def test_a_finding_is_reported_once_until_it_is_over() -> None:
    reported = ReportedNotices()
    reports = [
        [n.kind for n in reported.update(found)]
        for found in [[notice()]] * 3 + [[]] * (ABSENT_ROUNDS + 1)
    ]
    assert reports == [["unguarded"], [], [], *([[]] * (ABSENT_ROUNDS - 1)), ["over"], []]
    assert [n.kind for n in reported.update([notice()])] == ["unguarded"]


def test_a_finding_that_comes_and_goes_is_reported_once() -> None:
    reported = ReportedNotices()
    reports = [reported.update(found) for found in [[notice()], []] * 5]
    assert sum(map(len, reports)) == 1


def test_a_finding_that_grows_is_reported_again() -> None:
    reported = ReportedNotices()
    reports = [reported.update([notice("zombies", magnitude=size)]) for size in (1, 2, 2, 1, 2, 3)]
    assert [len(found) for found in reports] == [1, 1, 0, 0, 0, 1]


def test_actions_are_never_reported_as_over() -> None:
    reported = ReportedNotices()
    assert len(reported.update([notice("swept")])) == 1
    assert not any(reported.update([]) for _ in range(ABSENT_ROUNDS + 1))


# ------------------------------------------------------------------------------ it survives


def test_a_failed_check_ends_neither_the_round_nor_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch(INTERVAL, Tally())
    runs = []

    def broken() -> Iterator[Notice]:
        yield notice()
        raise RuntimeError("no such luck")

    def last() -> Iterator[Notice]:
        runs.append(1)
        yield from ()

    watch.checks = {"a broken check": broken, "the last check": last}
    with caplog.at_level(logging.INFO, "browserkeeper"):
        for _ in range(3):
            found = watch.round()
    assert [n.kind for n in found] == ["unguarded", "look-failed"]
    assert "a broken check failed: RuntimeError: no such luck" in found[1].message
    assert len(runs) == 3
    assert (watch.tally.rounds, watch.tally.failures) == (3, 3)
    assert len(caplog.records) == 2
    assert caplog.records[1].exc_info is not None


def test_removals_before_a_failure_of_the_sweep_are_reported(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Sweeper) -> Iterator[Finding]:
        raise PermissionError("no such luck")

    monkeypatch.setattr(Sweeper, "_marked_processes", fail)
    record = write_record(state_dir, "rubbish")
    found = Watch(INTERVAL, Tally()).round()
    assert [n.kind for n in found if n.kind in ("swept", "look-failed")] == ["swept", "look-failed"]
    assert not record.exists()


def test_the_watch_survives_an_unusable_state_directory(
    state_dir: Path, watching: Callable[..., Watching]
) -> None:
    watch = watching("--listen", "127.0.0.1:0")
    assert wait_until(lambda: watch.get("/readyz")[0] == 200)
    state_dir.chmod(0o777)
    failed = watch.wait_for("watch-look-failed")
    assert failed["error.type"] == "browserkeeper.errors.LedgerError"
    assert wait_until(lambda: watch.get("/readyz")[0] == 503)
    assert watch.get("/healthz")[0] == 200
    state_dir.chmod(stat.S_IRWXU)
    watch.wait_for("watch-over")
    assert wait_until(lambda: watch.get("/readyz")[0] == 200)
    subjects = [facts["browserkeeper.subject"] for facts in watch.lines("watch-look-failed")]
    assert len(subjects) == len(set(subjects))
    assert watch.close() == 0


def test_a_round_that_hangs_is_unhealthy() -> None:
    now = [1000.0]
    watch = Watch(10, Tally(), clock=lambda: now[0])
    assert watch.why_unhealthy() == ""
    assert watch.why_not_ready() == "the first round has not ended yet"
    now[0] += 2 * 10 + HEALTH_PATIENCE + 1
    assert "ended 81 s ago" in watch.why_unhealthy(), "the first round hangs"
    watch.round()
    assert watch.why_not_ready() == ""
    assert watch.why_unhealthy() == ""
    now[0] += 2 * 10 + HEALTH_PATIENCE + 1
    assert "ended 81 s ago" in watch.why_unhealthy()


# --------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_watch_at_once(number: signal.Signals, tmp_path: Path) -> None:
    watch = Watching(tmp_path / "log", "--interval", 600)
    try:
        watch.wait_for("watch-started")
        began = time.monotonic()
        watch.process.send_signal(number)
        assert watch.process.wait(SECONDS) == 0
        assert time.monotonic() - began < 60, "the interval is 600 s"
    finally:
        watch.close()
    assert watch.lines()[-1]["event.action"] == "watch-ended"


def test_log_lines_have_documented_fields_only(
    state_dir: Path, watching: Callable[..., Watching]
) -> None:
    record = write_record(state_dir, '{"schema": 99}')
    watch = watching("--listen", "127.0.0.1:0")
    watch.wait_for("watch-not-swept")
    record.unlink()
    watch.wait_for("watch-over")
    for facts in watch.lines():
        assert [name for name in facts if f"`{name}`" not in DOCUMENTED] == []
        assert f"`{facts['event.action']}`" in DOCUMENTED


def test_the_status_of_once_tells_whether_a_person_has_to_act(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_notices([], as_json=True) == print_notices([notice("swept")], as_json=True) == 0
    assert print_notices([notice("swept"), notice("overdue")], as_json=False) == 1
    assert '"ok": true' in capsys.readouterr().out


@pytest.mark.parametrize(("looks", "left"), [(1, 0), (5, 0), (1000, 9)])
def test_zombies_of_a_container_are_counted_again_until_they_are_reaped(
    looks: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own PID 1 may need a moment; after LONG_ZOMBIE_PATIENCE the count holds."""
    now = [0.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])
        sleep = staticmethod(lambda seconds: now.__setitem__(0, now[0] + seconds))

    class FakeDocker:
        counts = 0

        def usage(self, container: Container) -> Usage:
            self.counts += 1
            return Usage(1, 9 if self.counts <= looks else 0)

    monkeypatch.setattr(containers, "time", Clock)
    watched = containers.Containers(["shop"], containers.Bounds(zombies=5), Tally(), lambda: now[0])
    docker: Any = FakeDocker()
    usage, problem = watched._count(docker, "shop", Container("0" * 64, "running"))
    assert (usage, problem) == (Usage(1, left), None)
    assert docker.counts == looks + 1 or left
    assert now[0] < LONG_ZOMBIE_PATIENCE + 1


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_an_invalid_interval_is_refused(seconds: str) -> None:
    done = invoke("watch", "--once", "--interval", seconds)
    assert done.exit_code == 2
    assert "--interval" in done.output


def test_an_invalid_address_is_refused() -> None:
    done = subprocess.run(
        [*CLI, "watch", "--listen", "nowhere"], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 2
    assert "'nowhere' is not HOST:PORT" in done.stderr


def test_an_invalid_log_format_is_refused() -> None:
    env = {**os.environ, "BROWSERKEEPER_LOG": "xml"}
    words = [*CLI, "watch", "--once"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "Use json, text, ecs or python-json-logger" in done.stderr


def test_an_idle_watch_uses_little_memory(watching: Callable[..., Watching]) -> None:
    """Without sessions.  Measured: 23 MB."""
    watch = watching()
    time.sleep(1)  # several rounds
    seen = witness.look(watch.process.pid)
    assert seen is not None
    assert 0 < witness.pss([seen]) < 60e6
