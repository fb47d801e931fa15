"""The dashboard and the alert rules of ``examples/grafana``: a real Prometheus, scraping a real
watch, is asked each query."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browserkeeper.ledger import Ledger

from .guards import wait_for
from .test_cli import ROOT
from .test_metrics import end, session_of
from .test_watch import Watching

GRAFANA = ROOT / "examples" / "grafana"
ALERTS = (GRAFANA / "alerts.yml").read_text()
RULES = re.findall(r"^        expr: (.+) (<|>) ([\d.]+)$", ALERTS, re.MULTILINE)
"""(the quantity, how it is compared, with what) of each alert."""
CONFIG = """
global: {{ scrape_interval: 300ms, scrape_timeout: 300ms }}
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
    watch = Watching(tmp_path / "watch.log", "--listen", "127.0.0.1:0")
    server = None
    try:
        target = watch.says("watch-listening")["browserkeeper.address"]
        time.sleep(0.5)  # the first look is the base line
        end(Ledger.open(state_dir), session_of(), seconds={"start": 0.6, "killing": 0.05, "files": 0.01})
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(rules=GRAFANA / "alerts.yml", target=target))
        words = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        place = free_address()
        words += [f"--web.listen-address={place}", "--log.level=error"]
        server = subprocess.Popen(["prometheus", *words])
        address = f"http://{place}"
        assert wait_for(lambda: has_scraped(address), 30)
        time.sleep(1.5)  # a rate needs two scrapes
        yield address
    finally:
        if server:
            server.terminate()
            server.wait(10)
        watch.close()


def free_address() -> str:
    """Prometheus does not say which port it got, so one has to be guessed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def has_scraped(address: str) -> bool:
    try:
        return bool(ask(address, 'up{job="browserkeeper"} == 1'))
    except OSError:
        return False


def ask(address: str, query: str) -> list[Any]:
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return found


def test_every_query_finds_something(prometheus: str) -> None:
    queries = panel_queries()
    assert len(queries) > 15
    assert [query for query in queries if not ask(prometheus, query)] == []
    assert len(RULES) == ALERTS.count("- alert:")
    assert [rule for rule, _, _ in RULES if not ask(prometheus, rule)] == []
    assert [rule for rule in RULES if ask(prometheus, " ".join(rule))] == [], "all is well here"
    assert ask(prometheus, "browserkeeper_no_such_metric") == [], "the control"


def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", GRAFANA / "alerts.yml"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(RULES)} rules found".encode() in done.stdout
