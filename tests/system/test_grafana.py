"""The dashboard and the alert rules of ``examples/grafana``: a real Prometheus, scraping a real
watch, is asked each query."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.state.ledger import Ledger
from browserkeeper.state.pool_state import publish
from browserkeeper.state.totals import Totals, buckets_of
from tests.pool.test_pool_state import a_state
from tests.support import witness
from tests.support.cli import ROOT
from tests.support.guards import start
from tests.support.ledger import add_ended, new_session
from tests.support.waiting import deadline_in, wait_until
from tests.support.watching import Watching

GRAFANA = ROOT / "examples" / "grafana"
ALERTS = (GRAFANA / "alerts.yml").read_text()
RULES = re.findall(r"^        expr: (.+) (<|>) ([\d.]+)$", ALERTS, re.MULTILINE)
"""(the quantity, how it is compared, with what) of each alert."""
# A scrape takes 0.05 s.  One that takes longer than its timeout makes all series stale for a moment.
CONFIG = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: browserkeeper
    static_configs: [{{ targets: ["{target}"] }}]
"""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool (Debian: prometheus)",
)


def panel_queries() -> list[str]:
    """As Grafana sends them, with "All" chosen."""
    dashboard = json.loads((GRAFANA / "browserkeeper.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [query.replace("$instance", ".*") for query in queries]


@pytest.fixture
def prometheus(state_dir: Path, tmp_path: Path) -> Iterator[str]:
    """Its address, once it has scraped a watch that has seen sessions end."""
    (state_dir / "limits.toml").write_text('max_browsers = 4\nmin_memory = "1MiB"\n')
    watch = Watching(tmp_path / "watch.log", "--listen", "127.0.0.1:0")
    server = None
    try:
        target = watch.wait_for("watch-listening")["browserkeeper.address"]
        assert wait_until(lambda: watch.get("/readyz")[0] == 200), "the first round is the base line"
        publish(Ledger.open(state_dir), a_state(stats={"pool_max": 4, "requests_waiting": 0}))
        add_ended(
            Ledger.open(state_dir),
            new_session(),
            seconds={"start": 0.6, "slot_wait": 0.2, "killing": 0.05, "files": 0.01},
        )
        Totals(state_dir).add(buckets_of("chromium", [0.0, 0.7]))
        config = tmp_path / "prometheus.yml"
        rules = tmp_path / "alerts.yml"
        rules.write_text(re.sub(r"for: \d+m", "for: 1s", ALERTS))  # patience is promtool's to test
        config.write_text(CONFIG.format(rules=rules, target=target))
        words = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        place = free_address()
        words += [f"--web.listen-address={place}", "--log.level=error"]
        server = subprocess.Popen(["prometheus", *words])
        address = f"http://{place}"
        assert comes_true(lambda: ask(address, 'up{job="browserkeeper"} == 1'))
        assert comes_true(lambda: ask(address, RATE)), "a rate needs two scrapes"
        yield address
    finally:
        if server:
            server.terminate()
            server.wait(60)
        watch.close()


RATE = 'rate(browserkeeper_start_duration_seconds_count{job="browserkeeper"}[15m])'


def free_address() -> str:
    """Prometheus does not say which port it got, so one has to be guessed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def comes_true(condition: Callable[[], object]) -> bool:
    """Waits for it.  Prometheus gives no answer before it listens, and a late one on a busy machine."""

    def holds() -> bool:
        try:
            return bool(condition())
        except OSError:
            return False

    return wait_until(holds)


def ask(address: str, query: str) -> list[Any]:
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return found


def finds(address: str, query: str) -> bool:
    return comes_true(lambda: ask(address, query))


def finds_nothing(address: str, rule: tuple[str, str, str]) -> bool:
    return comes_true(lambda: not ask(address, " ".join(rule)))


def firing(address: str) -> set[str]:
    """The alerts that fire now."""
    with urllib.request.urlopen(f"{address}/api/v1/alerts", timeout=10) as answer:
        alerts = json.load(answer)["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.mark.slow
def test_every_query_finds_something(prometheus: str, state_dir: Path) -> None:
    queries = panel_queries()
    assert len(queries) > 15
    # After a scrape that took too long nothing is found, and the watch seems down, until the next one.
    assert [query for query in queries if not finds(prometheus, query)] == []
    assert len(RULES) == ALERTS.count("- alert:")
    assert [rule for rule, _, _ in RULES if not finds(prometheus, rule)] == []
    assert [rule for rule in RULES if not finds_nothing(prometheus, rule)] == [], "all is well here"
    assert comes_true(lambda: ask(prometheus, "browserkeeper_no_such_metric") == []), "the control"
    assert comes_true(lambda: firing(prometheus) == set()), "the control of what follows"
    with overdue_session(Ledger.open(state_dir)):
        assert comes_true(lambda: "BrowserkeeperOverdue" in firing(prometheus))


@contextlib.contextmanager
def overdue_session(ledger: Ledger) -> Iterator[None]:
    """Its guards are stopped, so that they cannot keep its deadline."""
    session = dataclasses.replace(new_session(), deadline=time.time() + 1)
    files = {"record": ledger.record_path(session.id), "history": ledger.history_path(session.id)}
    running = start(
        ("/bin/sleep", "600"),
        session=session.id,
        document=session.to_json(),
        timeout=600,
        **{name: str(path) for name, path in files.items()},
    )
    spawned = running.wait_for("spawned", deadline=deadline_in())
    assert spawned
    guards = (running.pid, spawned["primary"])  # the standby first: it would wake the other
    for pid in guards:
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(functools.partial(witness.is_stopped, pid))
    try:
        yield
    finally:
        for pid in guards:
            os.kill(pid, signal.SIGCONT)
        assert running.end("closed", deadline_in())


def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", GRAFANA / "alerts.yml"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(RULES)} rules found".encode() in done.stdout


def test_each_alert_fires_where_it_has_to_and_nowhere_else(tmp_path: Path) -> None:
    """By the cases of alerts.test.yml.  The control has rules that never fire: each case notices."""
    names = re.findall(r"- alert: (\w+)", ALERTS)
    done = promtool_test(GRAFANA)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("alerts.yml", "alerts.test.yml"):
        shutil.copy(GRAFANA / name, tmp_path)
    never = re.sub(r"^(        expr: .+ )[<>] [\d.]+$", r"\1== 1e99", ALERTS, flags=re.MULTILINE)
    (tmp_path / "alerts.yml").write_text(never)
    control = promtool_test(tmp_path)
    failed = re.findall(r"alertname: ?(\w+)", control.stdout + control.stderr)
    assert set(failed) == set(names)


def promtool_test(directory: Path) -> subprocess.CompletedProcess[str]:
    command = ["promtool", "test", "rules", "alerts.test.yml"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)
