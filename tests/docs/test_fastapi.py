"""docs/how-to/fastapi.md: its service under a real uvicorn, whose clients, workers and parent end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment, fetch
from tests.support.pages import write_files
from tests.support.proxies import dead_port
from tests.support.waiting import SECONDS, wait_until

pytestmark = [pytest.mark.chrome, pytest.mark.slow]
PAGE = "docs/how-to/fastapi.md"
PLAIN = """
from fastapi import FastAPI
from selenium import webdriver

app = FastAPI()

@app.get("/title")
def title(url: str):
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options)
    try:
        driver.get(url)
    finally:
        driver.quit()

@app.get("/pool")
def pool():
    return {}
"""


@pytest.fixture
def port() -> Iterator[int]:
    """It stays bound here, so that nobody else gets it; uvicorn can listen at it all the same, since
    both set SO_REUSEADDR."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def write_app(directory: Path) -> None:
    """The page's, whose requests wait for a browser for as long as it takes on a busy machine."""
    write_files(PAGE, directory)
    app = directory / "app.py"
    text = app.read_text()
    assert '"checkout_timeout": 30' in text
    app.write_text(text.replace('"checkout_timeout": 30', '"checkout_timeout": 300'))


def asks(port: int, path: str) -> socket.socket:
    """A client that has sent its request and reads no answer."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def serves(program: Program, port: int) -> None:
    ready = wait_until(lambda: fetch(f"http://127.0.0.1:{port}/pool")[0] == 200, 5 * SECONDS, 0.1)
    assert ready, program.output


def workers(program: Program) -> list[int]:
    """The pids of all workers so far, as uvicorn has printed them."""
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", program.output)]


def test_a_client_that_goes_away_frees_its_browser_and_sigterm_ends_a_request_that_hangs(
    site: Site, tmp_path: Path, port: int
) -> None:
    write_app(tmp_path)
    words = command_of(PAGE, "uvicorn", port=port, workers=1)
    base, never = f"http://127.0.0.1:{port}", f"/title?url={site.url_for('never')}"
    with Program(words, tmp_path) as program:
        serves(program, port)
        assert fetch(f"{base}/title?url={site.url}") == (200, '{"title":"The Leaky Shelf"}')
        with dead_port() as dead:
            status, answer = fetch(f"{base}/title?url=http://127.0.0.1:{dead}/")
        assert (status, json.loads(answer)["error"]) == (502, "WebDriverException")

        client = asks(port, never)
        site.wait_for("/never")
        assert json.loads(fetch(f"{base}/pool")[1])["pool_leased"] == 1
        client.close()
        assert wait_until(lambda: json.loads(fetch(f"{base}/pool")[1])["pool_leased"] == 0)
        assert fetch(f"{base}/title?url={site.url}")[0] == 200

        site.forget_requests()
        with asks(port, never):
            site.wait_for("/never")
            program.signal(signal.SIGTERM)
            program.wait()
        assert "Cancel 1 running task" in program.output
        assert "Application shutdown complete" in program.output


def test_killed_workers_and_a_killed_parent_leave_nothing(site: Site, tmp_path: Path, port: int) -> None:
    write_app(tmp_path)
    # Uvicorn replaces a worker that does not answer for five seconds, as on a busy machine.
    words = [*command_of(PAGE, "browserkeeper run", port=port), "--timeout-worker-healthcheck", "30"]
    with Program(words, tmp_path) as program:
        serves(program, port)
        program.wait_for_output("Application startup complete", times=2)
        with asks(port, f"/title?url={site.url_for('never')}"):
            site.wait_for("/never")
            for worker in (first := workers(program)):
                os.kill(worker, signal.SIGKILL)
            for worker in first:
                program.wait_for_output(f"Child process [{worker}] died")
        program.wait_for_output("Application startup complete", times=4)
        page = f"http://127.0.0.1:{port}/title?url={site.url}"
        assert wait_until(lambda: fetch(page)[0] == 200, 5 * SECONDS, 0.1), program.output
        parent = next(s for s in witness.below(program.pid) if s.name == "uvicorn")
        os.kill(parent.pid, signal.SIGKILL)
        assert program.wait() == 128 + signal.SIGKILL


def test_control_plain_selenium_leaves_its_browser_in_a_killed_worker(
    site: Site, tmp_path: Path, port: int
) -> None:
    (tmp_path / "app.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = command_of(PAGE, "uvicorn", port=port, workers=1)
    with Program(words, tmp_path, environment(TMPDIR=str(tmp_path))) as program:
        serves(program, port)
        with asks(port, f"/title?url={site.url_for('never')}"):
            site.wait_for("/never")
            program.signal(signal.SIGKILL)
            program.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
