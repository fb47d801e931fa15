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
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from browserkeeper import sweep
from browserkeeper.cli import group
from browserkeeper.process import system
from browserkeeper.state.documents import BadRecord
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.pool_state import PoolState, path_of, publish, published
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
            assert "0 available, 1 leased, 0 starting, 0 renewing, of 1; 1 waiting." in printed
        waiting.join()
        assert wait_until(lambda: published_stats(ledger)["pool_available"])
        assert published_stats(ledger)["requests_num"] == 2
    assert not list(ledger.pools.iterdir()), "the file is removed when the pool is closed"
    assert not snapshot().pools


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
