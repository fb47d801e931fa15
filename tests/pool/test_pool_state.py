"""The file in which a pool publishes its state: its content, when it is written, trusted and removed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from browserkeeper import ConfigError, PoolTimeout, sweep
from browserkeeper.cleanup.pool_evidence import owner_of
from browserkeeper.cli import group
from browserkeeper.process import system
from browserkeeper.process.identity import UNKNOWN, Host, ProcessIdentity
from browserkeeper.state.documents import BadRecord
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.pool_state import PoolState, path_of, publish, published, withdraw
from browserkeeper.status.snapshot import snapshot
from browserkeeper.telemetry.collector import registry
from browserkeeper.telemetry.tally import Tally
from tests.support.fake_browser import FakePool
from tests.support.waiting import wait_until


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open(state_dir)


def published_stats(ledger: Ledger) -> dict[str, float]:
    """The statistics of the only pool."""
    (pool,) = published(ledger)
    assert isinstance(pool, PoolState)
    return dict(pool.stats)


ROOT = Path(__file__).resolve().parent.parent.parent


def a_state(**changed: object) -> PoolState:
    own = system.facts(os.getpid())
    assert own is not None
    state = PoolState(
        *(1, "chrome", own.identity, "test", system.host_id(), time.time(), {"fake-1": "idle"}),
        {"pool_max": 4, "pool_available": 1, "requests_waiting": 2},
    )
    return dataclasses.replace(state, **changed)  # type: ignore[arg-type]


def test_snapshot_metrics_and_ps_show_a_pool(ledger: Ledger) -> None:
    with FakePool(max_size=1) as pool:
        with pool.lease():
            waiting = threading.Thread(target=lambda: pool.lease().release())
            waiting.start()
            assert wait_until(lambda: [p.stats["pool_leased"] for p in snapshot().pools] == [1])
            assert wait_until(lambda: published_stats(ledger)["requests_waiting"] == 1)
            (found,) = snapshot().pools
            assert found.sessions == {pool.browsers[0].id: "leased"}
            assert found.owner.pid == os.getpid()
            text = generate_latest(registry(Tally())).decode()
            assert 'browserkeeper_pool_browsers{browser="chrome",state="leased"} 1.0' in text
            assert 'browserkeeper_pool_requests_waiting{browser="chrome"} 1.0' in text
            assert 'browserkeeper_pools{browser="chrome"} 1.0' in text
            printed = CliRunner().invoke(group, ["ps"]).output
            assert "0 available, 1 leased, 0 queued, 0 starting, 0 renewing, of 1; 1 waiting." in printed
        waiting.join()
        assert wait_until(lambda: published_stats(ledger)["pool_available"])
        assert published_stats(ledger)["requests_num"] == 2
    assert not list(ledger.pools.iterdir()), "the file is removed when the pool is closed"
    assert not snapshot().pools


def test_waits_are_counted_also_after_the_pools_have_closed(ledger: Ledger) -> None:
    """And requests that wait in vain, apart from those."""
    for _ in range(2):
        with FakePool(max_size=1) as pool:
            for _ in range(5):
                pool.lease().release()
            with pool.lease(), pytest.raises(PoolTimeout):
                pool.lease(0.05)
            with pytest.raises(ConfigError):
                pool.lease(-1)
    text = generate_latest(registry(Tally())).decode()
    assert 'browserkeeper_pool_wait_seconds_count{browser="chrome"} 12.0' in text
    assert 'browserkeeper_pool_wait_seconds_bucket{browser="chrome",le="+Inf"} 12.0' in text
    assert 'browserkeeper_pool_wait_timeouts_total{browser="chrome"} 2.0' in text
    assert not snapshot().pools


def test_a_lease_has_a_label_while_it_lasts(ledger: Ledger) -> None:
    with FakePool(max_size=1, label="shop") as pool:
        with pool.lease(label="checkout 1"):
            assert wait_until(
                lambda: (
                    [dict(p.labels) for p in snapshot().pools] == [{pool.browsers[0].id: "checkout 1"}]
                )
            )
            assert [info.label for info in pool.leases()] == ["checkout 1"]
            with pytest.raises(PoolTimeout, match=r'held: \S+ "checkout 1" by '):
                pool.lease(0.05)
            with pytest.raises(ConfigError, match="label="):
                pool.lease(label="two\nlines")
        assert wait_until(lambda: [dict(p.labels) for p in snapshot().pools] == [{}])
        with pool.driver(label="checkout 2"):
            assert [info.label for info in pool.leases()] == ["checkout 2"]
        with pool.lease():
            assert [info.label for info in pool.leases()] == [""]
        assert [p.label for p in snapshot().pools] == ["shop"]
        assert repr(pool).startswith('<BrowserPool chrome "shop" ')
        assert 'Pool "shop" of ' in CliRunner().invoke(group, ["ps"]).output


def test_a_busy_pool_writes_its_state_once_a_second(ledger: Ledger) -> None:
    with FakePool(max_size=1) as pool:
        pool.wait()
        began, versions = time.monotonic(), set()
        for _ in range(300):
            with pool.lease():
                pass
            with contextlib.suppress(FileNotFoundError, ValueError):
                versions.add(next(ledger.pools.glob("*.json")).stat().st_mtime_ns)
        assert len(versions) <= 2 + time.monotonic() - began
        assert wait_until(lambda: published_stats(ledger)["requests_num"] == 300), (
            "the last state is published all the same"
        )


def test_two_pools_of_a_process_are_both_published(ledger: Ledger) -> None:
    with FakePool() as first, FakePool() as second:
        first.wait()
        second.wait()
        assert wait_until(lambda: len(snapshot().pools) == 2)


def test_an_abandoned_pool_removes_its_file(ledger: Ledger) -> None:
    pool = FakePool().open()
    assert wait_until(lambda: list(ledger.pools.glob("*.json")))
    controller = pool._controller
    assert controller is not None
    controller.abandon()
    assert wait_until(lambda: not list(ledger.pools.iterdir()))
    pool.close()


OWNER = """
import signal
from tests.support.fake_browser import FakePool
pool = FakePool().open()
pool.wait()
print("open", flush=True)
signal.pause()
"""


def test_the_file_of_a_killed_owner_is_ignored_and_swept(ledger: Ledger) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        assert wait_until(lambda: snapshot().pools)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    (file,) = ledger.pools.iterdir()
    assert not snapshot().pools
    (finding,) = sweep()
    assert (finding.kind, finding.files, finding.removed) == ("record", (str(file),), False)
    assert f"pid {owner.pid}, dead" in finding.what
    (finding,) = sweep(dry_run=False)
    assert finding.removed
    assert not file.exists()
    assert sweep() == []


def test_the_file_of_a_living_pool_is_never_swept(ledger: Ledger) -> None:
    publish(ledger, a_state())
    publish(ledger, a_state(number=2, host="other/boot/namespace"))
    assert sweep(dry_run=False) == []
    assert len(list(ledger.pools.iterdir())) == 2
    assert [pool.number for pool in snapshot().pools] == [1], (
        "a pool of another machine is not shown here"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: facts["pool"].pop("owner"),
        lambda facts: facts["pool"].update(stats={"pool_max": "many"}),
        lambda facts: facts["pool"].update(sessions=["x"]),
        lambda facts: facts["pool"].update(owner="root"),
        lambda facts: facts.update(pool=None),
        lambda facts: facts["pool"].update(number=7),
        lambda facts: facts["pool"].update(label=7),
        lambda facts: facts["pool"].update(labels=["x"]),
        lambda facts: facts["pool"].update(labels={"fake-1": None}),
    ],
)
def test_an_invalid_file_is_reported_and_swept(ledger: Ledger, spoil: object) -> None:
    path = path_of(ledger, a_state())
    publish(ledger, a_state())
    facts = json.loads(path.read_text())
    spoil(facts)  # type: ignore[operator]
    path.write_text(json.dumps(facts))
    (bad,) = published(ledger)
    assert isinstance(bad, BadRecord)
    assert bad.corrupt
    assert not snapshot().pools
    (finding,) = sweep(dry_run=False)
    assert finding.removed
    assert not path.exists()


def test_the_file_of_an_older_version_has_no_labels(ledger: Ledger) -> None:
    state = a_state(label="shop", labels={"fake-1": "checkout"})
    publish(ledger, state)
    path = path_of(ledger, state)
    facts = json.loads(path.read_text())
    del facts["pool"]["label"], facts["pool"]["labels"]
    path.write_text(json.dumps(facts))
    (found,) = published(ledger)
    assert isinstance(found, PoolState)
    assert (found.label, found.labels) == ("", {})


def test_a_file_that_other_users_can_write_is_not_trusted(ledger: Ledger) -> None:
    publish(ledger, a_state())
    path_of(ledger, a_state()).chmod(0o666)
    (bad,) = published(ledger)
    assert isinstance(bad, BadRecord)
    assert not bad.corrupt
    (finding,) = sweep(dry_run=False)
    assert (finding.removed, finding.problem) == (False, "left alone")


def test_a_pool_works_without_its_file_and_logs_that_once(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.pools.rmdir()
    ledger.pools.write_text("not a directory")
    with FakePool(max_size=1) as pool:
        for _ in range(3):
            with pool.lease():
                pass
        assert wait_until(lambda: "will not see it" in caplog.text)
    assert caplog.text.count("will not see it") == 1


# ------------------------------------------------------------------ containers that share the directory


@pytest.mark.parametrize(
    "other",
    [
        {"host": "other/boot/namespace"},
        {"host": "//"},
        {"init_start": 17.5},
        {"uid": 4711},
        {"owner": ProcessIdentity(os.getpid(), 12.5)},
        {"number": 2},
        {"nonce": "abc"},
    ],
)
def test_pools_that_differ_in_any_part_of_their_identity_have_files_of_their_own(
    ledger: Ledger, other: dict[str, Any]
) -> None:
    one, two = a_state(), a_state(**other)
    publish(ledger, one)
    publish(ledger, two)
    assert len(list(ledger.pools.iterdir())) == 2
    withdraw(ledger, one)
    (left,) = published(ledger)
    assert isinstance(left, PoolState)
    assert left.name == two.name


CONTAINER = """
import os, sys
from tests.support.fake_browser import FakePool
with FakePool(max_size=1) as pool:
    pool.wait(300)
    while not os.listdir(os.environ["BROWSERKEEPER_STATE_DIR"] + "/pools"):
        pass
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def container_with_a_pool() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A pool in a pid namespace of its own, and the pool's pid there.  A line on stdin closes it."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with subprocess.Popen(
        [*unshare, sys.executable, "-c", CONTAINER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.leaves_zombies(1, "the killed unshare's child")
@pytest.mark.namespaces
def test_pools_with_one_pid_in_two_containers_keep_their_files(ledger: Ledger) -> None:
    with container_with_a_pool() as (one, pid), container_with_a_pool() as (two, other_pid):
        assert pid == other_pid
        assert wait_until(lambda: len(list(ledger.pools.glob("*.json"))) == 2)
        states = {state.name: state for state in published(ledger) if isinstance(state, PoolState)}
        assert len({state.old_name for state in states.values()}) == 1, "control: the old name was one"
        assert sweep(dry_run=False) == [], "both live"
        one.kill()
        one.wait()
        assert wait_until(sweep)
        (finding,) = sweep(dry_run=False)
        assert finding.removed
        (left,) = published(ledger)
        assert isinstance(left, PoolState)
        known = states[left.name]  # it may have published another state since
        assert (known.owner, known.nonce) == (left.owner, left.nonce)
        assert owner_of(ledger, left) == "foreign", "it lives, in another pid namespace"
        assert two.stdin is not None
        two.stdin.write("\n")
        two.stdin.close()
        assert two.wait(60) == 0
    assert not list(ledger.pools.iterdir())


@pytest.mark.leaves_zombies(1, "the fork, whose parent is dead")
def test_a_fork_does_not_keep_the_lock_of_its_dead_parent(ledger: Ledger) -> None:
    script = OWNER.replace(
        "signal.pause()", "import os, time\nif not os.fork(): time.sleep(600)\nos._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    ) as owner:
        try:
            owner.wait()
            (state,) = published(ledger)
            assert isinstance(state, PoolState)
            assert state.locked
            # The fork closes the lock as it begins, which may be after its parent's death.
            assert wait_until(lambda: owner_of(ledger, state) == "dead")
        finally:
            os.killpg(owner.pid, signal.SIGKILL)


def here() -> Host:
    return system.host()


def elsewhere(**changed: object) -> dict[str, object]:
    """The fields of a pool in another pid namespace of this boot."""
    there = dataclasses.replace(here(), namespace="pid:[1]", init_start=17.0, uid=os.geteuid())
    there = dataclasses.replace(there, **changed)  # type: ignore[arg-type]
    return {"host": there.id, "init_start": there.init_start, "uid": there.uid}


LONG_AGO = 86400.0


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        (elsewhere, "dead"),
        (lambda: elsewhere(machine="f" * 32), "dead"),  # an image's own machine id, the kernel's boot id
        (lambda: elsewhere(boot=""), "foreign"),
        (lambda: elsewhere(machine="", boot=""), "foreign"),
        (lambda: elsewhere(namespace="", init_start=UNKNOWN), "dead"),
        (lambda: elsewhere(boot="another boot"), "foreign"),
        (lambda: {**elsewhere(boot="another boot"), "written": LONG_AGO}, "dead"),
        (lambda: {**elsewhere(boot="another boot", machine="f" * 32), "written": LONG_AGO}, "foreign"),
        (lambda: {**elsewhere(boot="", machine=""), "written": LONG_AGO}, "foreign"),
    ],
)
def test_a_pool_of_another_host_is_dead_only_where_that_can_be_known(
    ledger: Ledger, changed: Callable[[], dict[str, object]], verdict: str
) -> None:
    """Its file is locked by no process."""
    state = dataclasses.replace(a_state(**changed()), nonce="abc")
    publish(ledger, state)
    (found,) = published(ledger)
    assert isinstance(found, PoolState)
    assert owner_of(ledger, found) == verdict
    assert bool(sweep(dry_run=False)) == (verdict == "dead")


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize("boot", ["another boot", None])
def test_a_pool_whose_file_is_locked_is_never_dead(
    ledger: Ledger, boot: str | None, is_old: bool
) -> None:
    written = LONG_AGO if is_old else time.time()
    there = elsewhere() if boot is None else elsewhere(boot=boot)
    lock = publish(ledger, a_state(**there, nonce="abc", written=written))
    (found,) = published(ledger)
    assert isinstance(found, PoolState)
    assert owner_of(ledger, found) == "foreign"
    assert sweep(dry_run=False) == []
    lock.close()
    dead = boot is None or is_old
    assert (owner_of(ledger, found) == "dead") == dead, "control: the lock alone has kept it"


def test_a_free_file_on_a_file_system_without_locks_says_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("browserkeeper.state.pool_state.FileLock.take", lambda self: False)
    publish(ledger, a_state(**elsewhere(), nonce="abc"))
    (found,) = published(ledger)
    assert isinstance(found, PoolState)
    assert owner_of(ledger, found) == "foreign"
    assert sweep(dry_run=False) == []


def test_the_file_of_an_earlier_version_is_read_and_judged_by_its_owner(ledger: Ledger) -> None:
    for pid, start in ((os.getpid(), a_state().owner.start), (os.getpid(), 1.0)):
        state = a_state(owner=ProcessIdentity(pid, start))
        document = {
            k: v for k, v in state.to_dict().items() if k not in ("init_start", "uid", "nonce", "locked")
        }
        path = ledger.pools / f"{state.old_name}.json"
        path.write_text(json.dumps({"schema": 1, "pool": document}))
        path.chmod(0o600)
        lives = start != 1.0
        assert len(snapshot().pools) == lives
        assert len(sweep(dry_run=False)) == (not lives)
        assert path.exists() == lives


def test_an_invalid_file_that_a_process_holds_locked_is_left_alone(ledger: Ledger) -> None:
    """It may be that of a living pool of another version."""
    lock = publish(ledger, a_state())
    path = path_of(ledger, a_state())
    path.write_text("{}")
    assert sweep(dry_run=False) == []
    lock.close()
    path.write_text("no JSON")
    assert sweep(dry_run=False)
    assert not path.exists()


def test_an_idle_pool_gives_a_sign_of_life(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> float:
        (state,) = published(ledger)
        assert isinstance(state, PoolState)
        return state.written

    monkeypatch.setattr("browserkeeper.pool.published_state.SIGN_OF_LIFE", 0.1)
    monkeypatch.setattr("browserkeeper.pool.published_state.INTERVAL", 0.05)
    with FakePool(max_size=1) as pool:
        pool.wait()
        assert wait_until(lambda: list(ledger.pools.glob("*.json")))
        assert wait_until(lambda: published_stats(ledger)["pool_available"] == 1)
        first = written()
        assert wait_until(lambda: written() > first)
