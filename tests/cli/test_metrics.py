"""The exporter: counters, labels, conventions, secrets, and its answers over HTTP."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from browserkeeper import ConfigError, browser
from browserkeeper.cleanup.sweeper import Finding
from browserkeeper.process import system
from browserkeeper.process.identity import ProcessIdentity
from browserkeeper.state.ledger import HISTORY_LIMIT, Ledger
from browserkeeper.state.pool_state import PoolState, publish
from browserkeeper.state.totals import Totals, buckets_of
from browserkeeper.telemetry.collector import registry
from browserkeeper.telemetry.server import Server, split_address
from browserkeeper.telemetry.tally import Outcome, Tally
from fixtures.server import Site
from tests.pool.test_pool_state import a_state
from tests.support import witness
from tests.support.cli import DOCUMENTED, ROOT, cli
from tests.support.exposition import breaches
from tests.support.ledger import add_ended, add_live, new_session
from tests.support.waiting import wait_until
from tests.support.watching import get

SECRET = "only-the-page-knows"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def ledger(state_dir: Path) -> Ledger:
    return Ledger.open(state_dir)


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(tally: Tally) -> Samples:
    return samples(generate_latest(registry(tally)).decode())


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"browserkeeper_{name}", frozenset(labels.items())]


# ---------------------------------------------------------------------------------------- counters


def test_sessions_that_ended_before_the_first_update_are_not_counted(ledger: Ledger) -> None:
    add_ended(ledger, new_session())
    tally = Tally()
    tally.update(ledger)
    assert tally.started.total() == tally.outcomes.total() == 0
    add_ended(ledger, new_session())
    tally.update(ledger)
    tally.update(ledger)
    assert tally.started == {"chromium": 1}
    assert tally.outcomes == {Outcome("chromium", "closed", "true"): 1}


def test_counters_survive_the_pruning_of_the_history(ledger: Ledger) -> None:
    tally = Tally()
    tally.update(ledger)
    for number in range(HISTORY_LIMIT + 100):
        add_ended(ledger, new_session(), bytes_freed=10)
        if number % 200 == 0:
            ledger.prune()
            tally.update(ledger)
    ledger.prune()
    tally.update(ledger)
    assert len(ledger.ended_ids()) == HISTORY_LIMIT
    assert tally.outcomes.total() == tally.started.total() == HISTORY_LIMIT + 100
    assert tally.bytes_freed["chromium"] == 10 * (HISTORY_LIMIT + 100)


def test_a_session_is_started_once_and_ends_once(ledger: Ledger) -> None:
    tally = Tally()
    tally.update(ledger)
    session = new_session("firefox")
    add_live(ledger, session)
    tally.update(ledger)
    tally.update(ledger)
    assert (tally.started.total(), tally.outcomes.total()) == (1, 0)
    add_ended(ledger, session, "owner-died")
    tally.update(ledger)
    assert (tally.started.total(), tally.outcomes.total()) == (1, 1)


def test_a_session_live_at_the_first_update_counts_only_as_ended(ledger: Ledger) -> None:
    session = new_session()
    add_live(ledger, session)
    tally = Tally()
    tally.update(ledger)
    add_ended(ledger, session)
    tally.update(ledger)
    assert (tally.started.total(), tally.outcomes.total()) == (0, 1)


def test_a_session_without_history_ends_for_an_unknown_reason(ledger: Ledger) -> None:
    tally = Tally()
    tally.update(ledger)
    session = new_session()
    add_live(ledger, session)
    tally.update(ledger)
    ledger.record_path(session.id).unlink()
    tally.update(ledger)
    assert tally.outcomes == {Outcome("chromium", "unknown", "unknown"): 1}


def test_a_drivers_crash_is_not_counted_as_an_ordinary_end(ledger: Ledger) -> None:
    """Of a program of `browserkeeper run`, the control, ``exited`` is the ordinary end."""
    tally = Tally()
    tally.update(ledger)
    add_ended(ledger, new_session("chromium"), "exited")
    add_ended(ledger, new_session("firefox"), "browser-died")
    add_ended(ledger, new_session("python3.11", "run"), "exited")
    tally.update(ledger)
    assert tally.outcomes == {
        Outcome("chromium", "driver-died", "true"): 1,
        Outcome("firefox", "browser-died", "true"): 1,
        Outcome("run", "exited", "true"): 1,
    }


def test_names_chosen_by_users_are_no_labels(ledger: Ledger) -> None:
    tally = Tally()
    tally.update(ledger)
    add_ended(ledger, new_session("python3.11", "run"), "lunch")
    tally.update(ledger)
    assert tally.outcomes == {Outcome("run", "other", "true"): 1}


def test_labels_of_sessions_pools_and_leases_are_in_no_metric(ledger: Ledger) -> None:
    """Each label would be a series of its own: a task's label has the task's id in it."""
    tally = Tally()
    tally.update(ledger)
    live = dataclasses.replace(new_session(), label="the session's label")
    add_live(ledger, live)
    add_ended(ledger, dataclasses.replace(new_session(), label="the ended one's label"))
    publish(ledger, pool_with_labels(live.id))
    text = generate_latest(registry(tally)).decode()
    assert 'browserkeeper_pools{browser="chrome"} 1.0' in text, "the control: the pool is seen"
    assert value(samples(text), "sessions", browser="chromium", state="unguarded") == 1
    assert "'s label" not in text
    ledger.record_path(live.id).unlink()


def pool_with_labels(session: str) -> PoolState:
    place = system.facts(os.getpid())
    assert place is not None
    whose = place.identity, "w.py", system.host_id(), time.time()
    state = PoolState(1, "chrome", *whose, {session: "leased"}, {"pool_leased": 1.0})
    return dataclasses.replace(state, label="the pool's label", labels={session: "the lease's label"})


def test_durations_are_counted_in_buckets(ledger: Ledger) -> None:
    tally = Tally()
    tally.update(ledger)
    for start in (0.5, 0.6, 1000.0):
        add_ended(ledger, new_session(), seconds={"start": start, "killing": 0.03, "files": 0.03})
    add_ended(ledger, new_session(), "failed")
    found = scrape(tally)
    assert value(found, "start_duration_seconds_bucket", browser="chromium", le="0.5") == 1
    assert value(found, "start_duration_seconds_bucket", browser="chromium", le="1.0") == 2
    assert value(found, "start_duration_seconds_bucket", browser="chromium", le="60.0") == 2
    assert value(found, "start_duration_seconds_bucket", browser="chromium", le="+Inf") == 3
    assert value(found, "start_duration_seconds_count", browser="chromium") == 3
    assert value(found, "start_duration_seconds_sum", browser="chromium") == pytest.approx(1001.1)
    assert value(found, "teardown_duration_seconds_bucket", browser="chromium", le="0.05") == 0
    assert value(found, "teardown_duration_seconds_bucket", browser="chromium", le="0.1") == 3


def test_each_swept_leftover_is_counted_once(ledger: Ledger) -> None:
    tally = Tally()
    tally.update(ledger)
    session = new_session()
    add_ended(ledger, session, "swept")
    found = [
        Finding("session", session.id, "", removed=True),
        Finding("directory", "", "", removed=True),
    ]
    tally.count_swept([*found, Finding("cgroup", "", "", removed=False)])
    scraped = scrape(tally)
    numbers = {
        kind: value(scraped, "swept_total", kind=kind) for kind in ("session", "directory", "cgroup")
    }
    assert numbers == {"session": 1, "directory": 1, "cgroup": 0}


# -------------------------------------------------------------------------------------- metrics


def test_every_metric_is_documented_and_follows_prometheus_conventions(ledger: Ledger) -> None:
    text = full_scrape(ledger)
    assert breaches(text) == []
    families = list(text_string_to_metric_families(text))
    assert len(families) > 30
    for family in families:
        assert family.samples, family.name
        for sample in family.samples:
            assert f"`{re.sub('_(bucket|sum|count)$', '', sample.name)}`" in DOCUMENTED


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("# HELP browserkeeper_x\n# TYPE browserkeeper_x gauge\nbrowserkeeper_x 1", "no help text"),
        ("browserkeeper_wait_ms 1", "no base unit"),
        ("browserkeeper_seconds_waited 1", "its unit is not the last word"),
        ("browserkeeper_freed_gauge 1", "the type is in its name"),
        ("browserkeeper_ended_total 1", "a gauge with the name of a counter"),
        ("slots 1", "our prefix"),
        ('browserkeeper_x{pid="4711"} 1', "unknown labels"),
        ('browserkeeper_x{browser="0123456789ab"} 1', "a value without bound"),
    ],
)
def test_control_the_checker_finds_what_breaks_the_rules(line: str, problem: str) -> None:
    name = re.split(r"[ {]", line)[0]
    head = f"# HELP {name} Some.\n# TYPE {name} gauge\n" if name != "#" else ""
    assert problem in "; ".join(breaches(f"{head}{line}\n"))


@pytest.mark.parametrize("name", ["browserkeeper.json", "alerts.yml", "alerts.test.yml"])
def test_every_metric_of_the_dashboard_and_the_alerts_is_in_a_scrape(name: str, ledger: Ledger) -> None:
    text = (ROOT / "examples" / "grafana" / name).read_text()
    named = set(re.findall(r"\bbrowserkeeper_[a-z_]+\b", text))
    there = {sample for sample, _ in samples(full_scrape(ledger))}
    assert len(named) > 10
    assert named <= there
    assert "browserkeeper_start_seconds_bucket" not in there, "the control: an old name"


def full_scrape(ledger: Ledger) -> str:
    """The text of a scrape that has every metric but those of containers."""
    limits = ledger.directory / "limits.toml"
    limits.write_text('max_browsers = 4\nmin_memory = "1MiB"\nmax_grid_sessions = 2\n')
    os.utime(limits, (1e9, 1e9))
    tally = Tally()
    tally.update(ledger)
    add_ended(ledger, new_session(), seconds={"start": 1.0, "killing": 0.1, "slot_wait": 0.2})
    Totals(ledger.directory).add(buckets_of("chromium", [0.0, 2.0]))
    lock = publish(ledger, a_state(stats={"pool_max": 4}))
    try:
        return generate_latest(registry(tally)).decode()
    finally:
        lock.close()


def test_a_series_is_exported_as_0_before_its_first_step(ledger: Ledger) -> None:
    add_ended(ledger, new_session())
    tally = Tally()
    tally.update(ledger)
    found = scrape(tally)
    for clean in ("true", "false"):
        labels = {"browser": "chromium", "reason": "hung", "clean": clean}
        assert value(found, "sessions_ended_total", **labels) == 0
    assert value(found, "sessions", browser="chromium", state="orphaned") == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_accepts_the_metrics(ledger: Ledger) -> None:
    text = full_scrape(ledger)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    bad = text.replace("browserkeeper_slots_held", "browserkeeper_slots_held_total")
    control = subprocess.run(["promtool", "check", "metrics"], input=bad, capture_output=True, text=True)
    assert control.returncode != 0


def test_an_unreadable_ledger_does_not_reset_the_counters(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally()
    tally.update(ledger)
    add_ended(ledger, new_session())
    assert value(scrape(tally), "ledger_up") == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BROWSERKEEPER_STATE_DIR", str(tmp_path / "file"))
    found = scrape(tally)
    assert value(found, "ledger_up") == 0
    assert value(found, "sessions_started_total", browser="chromium") == 1


@pytest.mark.chrome
def test_metrics_of_a_real_session(site: Site) -> None:
    tally = Tally()
    scrape(tally)
    session = browser("chromium", timeout=600)
    with session as driver:
        driver.get(f"{site.url}?{SECRET}")
        text = ""

        def witness_agrees() -> bool:
            """A browser starts and ends helpers meanwhile: the two look at different moments."""
            nonlocal text
            text = generate_latest(registry(tally)).decode()
            members = [s for s in witness.below(os.getpid()) if s.name != "bk-guard"]
            found, pss = samples(text), witness.pss(members)
            return abs(value(found, "processes", browser="chromium") - len(members)) <= 1 and bool(
                value(found, "pss_bytes", browser="chromium") == pytest.approx(pss, rel=0.3)
            )

        assert wait_until(witness_agrees), text
    found = samples(text)
    assert value(found, "sessions", browser="chromium", state="live") == 1
    assert value(found, "slots_held", kind="browser") == 1
    assert value(found, "sessions_started_total", browser="chromium") == 1
    for word in (SECRET, session.id, site.url, "http://"):
        assert word not in text
    assert str(session.pid) not in {label for _, labels in found for _, label in labels}
    found = scrape(tally)
    assert value(found, "sessions", browser="chromium", state="live") == 0
    assert value(found, "processes", browser="chromium") == 0
    outcome = {"browser": "chromium", "reason": "closed", "clean": "true"}
    assert value(found, "sessions_ended_total", **outcome) == 1
    assert value(found, "start_duration_seconds_count", browser="chromium") == 1
    assert value(found, "teardown_duration_seconds_count", browser="chromium") == 1
    assert value(found, "slot_wait_seconds_count", browser="chromium") == 1
    assert value(found, "slots_held", kind="browser") == 0
    assert session.report is not None
    assert value(found, "freed_bytes_total", browser="chromium") == session.report.bytes_freed > 0


def test_metrics_of_a_run() -> None:
    tally = Tally()
    scrape(tally)
    assert cli("run", "--", "false").returncode == 1
    outcome = {"browser": "run", "reason": "exited", "clean": "true"}
    assert value(scrape(tally), "sessions_ended_total", **outcome) == 1


def test_a_record_of_a_dead_owner_counts_as_orphaned_and_overdue(ledger: Ledger) -> None:
    no_process = ProcessIdentity(2**22 - 1, 1.0)
    session = dataclasses.replace(new_session(), owner=no_process, deadline=time.time() - 5)
    add_live(ledger, session)
    found = scrape(Tally())
    ledger.record_path(session.id).unlink()
    assert value(found, "sessions", browser="chromium", state="orphaned") == 1
    assert value(found, "sessions_overdue", browser="chromium") == 1


# ------------------------------------------------------------------------------------- over HTTP


@pytest.fixture
def problems() -> dict[str, str]:
    return {"healthy": "", "ready": ""}


@pytest.fixture
def server(problems: dict[str, str]) -> Iterator[Server]:
    probes = (lambda: problems["healthy"], lambda: problems["ready"])
    running = Server("127.0.0.1:0", Tally(), *probes)
    yield running
    running.close()


def fetch(server: Server, path: str) -> tuple[int, str]:
    return get(f"http://{server.address}{path}")


def test_metrics_are_served_over_http(server: Server) -> None:
    status, text = fetch(server, "/metrics")
    assert status == 200
    assert value(samples(text), "ledger_up") == 1


def test_health_and_readiness_answer_what_is_wrong(server: Server, problems: dict[str, str]) -> None:
    assert fetch(server, "/healthz") == fetch(server, "/readyz") == (200, "ok\n")
    problems["ready"] = "not yet"
    assert fetch(server, "/healthz") == (200, "ok\n")
    assert fetch(server, "/readyz") == (503, "not yet\n")
    problems["healthy"] = "stuck"
    assert fetch(server, "/healthz") == (503, "stuck\n")


def test_other_paths_are_not_found(server: Server) -> None:
    assert fetch(server, "/")[0] == fetch(server, "/metrics/../etc/passwd")[0] == 404


def test_an_address_in_use_is_refused_with_a_remedy(server: Server) -> None:
    with pytest.raises(ConfigError, match=r"Cannot listen on .* Choose another address"):
        Server(server.address, Tally(), str, str)


@pytest.mark.parametrize(
    "text", ["10187", ":10187", "host:", "host:port", "host:70000", "::1:10187", "h:²"]
)
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        split_address(text)


def test_valid_addresses_are_split() -> None:
    assert split_address("0.0.0.0:10187") == ("0.0.0.0", 10187)
    assert split_address("[::1]:0") == ("::1", 0)


def test_without_prometheus_client_the_error_names_the_remedy() -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from browserkeeper.telemetry.server import Server\n"
        "from browserkeeper.telemetry.tally import Tally\n"
        "Server('127.0.0.1:0', Tally(), str, str)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ConfigError: Metrics need prometheus_client" in done.stderr
    assert "pip install 'browserkeeper[metrics]'" in done.stderr
