"""The label of a lease in the history: of a browser that ends while the lease lasts, or as it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from browserkeeper import SessionTimeout
from browserkeeper.state.ledger import Ledger
from browserkeeper.state.records import EndedSession
from tests.pool.pools import patient_pool
from tests.support.cli import ROOT, invoke
from tests.support.fake_browser import FakePool
from tests.support.waiting import until_it_fails, wait_until

OWNER = """
import signal
from browserkeeper import BrowserPool
limits = {"checkout_timeout": 300, "start_timeout": 300}
pool = BrowserPool("chromium", max_size=1, label="shop", **limits).open()
lease = pool.lease(label="check[17]")
print(lease.browser_id, flush=True)
signal.pause()
"""


def ended(ledger: Ledger, session: str) -> EndedSession:
    found: list[EndedSession] = []

    def is_there() -> bool:
        found[:] = [one for one in ledger.ended() if one.session.id == session]
        return bool(found)

    assert wait_until(is_there)
    return found[0]


@pytest.mark.chrome
@pytest.mark.leaves_zombies(2, "the guards of an owner that was killed")
def test_the_history_of_a_killed_owner_names_the_lease(state_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        session = owner.stdout.readline().strip()
        owner.send_signal(signal.SIGKILL)
    one = ended(Ledger.open(state_dir), session)
    assert (one.report.reason, one.report.label, one.session.label) == (
        "owner-died",
        "check[17]",
        "shop",
    )
    for pattern in ("check[*]", "shop"):
        assert session in invoke("history", "--label", pattern).output
    assert invoke("history").output.rstrip().endswith("  check[17]")
    assert invoke("report").output.count("check[17]") == 1


@pytest.mark.chrome
def test_a_lease_that_is_over_names_no_end(state_dir: Path) -> None:
    with patient_pool("chromium", max_size=1, max_lease=600) as pool:
        with pool.lease(label="first") as lease:
            session, id = lease.session, lease.browser_id
        pool.wait()
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)
        with pool.lease(label="second") as lease:
            assert lease.browser_id == id, "the same browser"
        pool.wait()
        assert wait_until(lambda: pool.stats()["pool_available"] == 1)
    assert session.report is not None
    assert (session.report.label, ended(Ledger.open(state_dir), id).label) == ("", "")


@pytest.mark.chrome
def test_a_browser_that_ends_with_its_lease_has_the_name_of_the_lease(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With isolation="fresh" each browser has one lease; and a deadline ends one in its lease."""
    caplog.set_level("INFO", "browserkeeper")
    ledger = Ledger.open(state_dir)
    with patient_pool("chromium", max_size=1, min_idle=0, isolation="fresh", label="shop") as pool:
        with pool.lease(label="order 1") as lease:
            first = lease.browser_id
        assert ended(ledger, first).label == "order 1"
        with pytest.raises(SessionTimeout) as raised, pool.lease(label="order 2") as lease:
            driver = lease.driver
            lease.session.set_deadline(0.1, "impatience")
            until_it_fails(driver)
        assert raised.value.report is not None
        assert raised.value.report.label == "order 2"
        assert ended(ledger, lease.browser_id).label == "order 2"
    logged = [
        vars(r).get("browserkeeper.label") for r in caplog.records if "session-ended" in str(vars(r))
    ]
    assert logged == ["order 1", "order 2"]


def test_a_declined_grant_takes_the_name_back(state_dir: Path) -> None:
    with FakePool(max_size=1) as pool:
        pool.wait()
        with pool.lease(label="one"):
            assert pool.browsers[0].lease_label == "one"
        with pool.lease():
            assert pool.browsers[0].lease_label == ""
