"""docs/how-to/gunicorn.md: its two files under a real gunicorn, whose workers and parent end."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment, fetch, free_port
from tests.support.pages import write_files
from tests.support.waiting import SECONDS, wait_until

pytestmark = pytest.mark.slow
PAGE = "docs/how-to/gunicorn.md"
SYNC = "gunicorn app:application --bind 127.0.0.1:8000 --workers 2"
OPENED_AT_IMPORT = """
from browserkeeper import BrowserPool

pool = BrowserPool("chrome", min_idle=0).open()

def application(environ, start_response):
    pool.lease()
"""
PLAIN = """
from selenium import webdriver

def application(environ, start_response):
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options)
    try:
        driver.get(environ["QUERY_STRING"].removeprefix("url="))
    finally:
        driver.quit()
"""


class Gunicorn(Program):
    """A command of the page, on a port of its own."""

    def __init__(self, words: list[str], directory: Path, *more: str):
        self.port = free_port()
        words = [word.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}") for word in words]
        # Its control socket would be shared by all servers of the user.
        super().__init__(
            [*words, "--no-control-socket", *more], directory, environment(TMPDIR=str(directory))
        )

    @property
    def workers(self) -> list[int]:
        """The pids of all workers so far, as gunicorn has printed them."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.output)]

    def wait_for_another_worker(self, known: list[int]) -> None:
        """``known``: the workers before that for which there is another one."""
        assert wait_until(lambda: len(self.workers) > len(known), 5 * SECONDS), self.output

    def serves(self, site: Site) -> None:
        """A worker that starts on a busy machine may itself time out."""
        answer = (200, "The Leaky Shelf")
        assert wait_until(lambda: self.load(site.url) == answer, 5 * SECONDS, 0.1), self.output

    def load(self, url: str) -> tuple[int, str]:
        return fetch(f"http://127.0.0.1:{self.port}/?url={url}")

    def begin_to_load(self, site: Site) -> socket.socket:
        """A client whose page never comes; returns when the browser has asked for it."""
        self.wait_for_output("Booting worker")
        client = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(f"GET /?url={site.url_for('never')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        site.wait_for("/never")
        site.forget_requests()
        return client


@pytest.mark.chrome
@pytest.mark.leaves_zombies(
    20, "killed workers and their parent cannot wait for their guards and workers"
)
def test_workers_that_time_out_are_killed_or_lose_their_parent_leave_nothing(
    site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    app = tmp_path / "app.py"
    app.write_text(app.read_text().replace("max_lease=20", "max_lease=600"))
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = command_of(PAGE, f"{SYNC} --preload", workers=1)
    with Gunicorn(words, tmp_path, "--timeout", "20") as program:
        program.serves(site)

        known_workers = program.workers
        with program.begin_to_load(site):  # SIGABRT
            program.wait_for_another_worker(known_workers)
        assert "WORKER TIMEOUT" in program.output
        program.serves(site)

        known_workers = program.workers
        os.kill(known_workers[-1], signal.SIGKILL)
        program.wait_for_another_worker(known_workers)
        program.serves(site)

        known_workers = program.workers
        program.signal(signal.SIGHUP)
        program.wait_for_another_worker(known_workers)
        program.serves(site)

        program.signal(signal.SIGKILL)
        program.wait()
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@pytest.mark.chrome
@pytest.mark.leaves_zombies(4, "gunicorn kills what is left after --graceful-timeout, and exits")
def test_a_gevent_worker_answers_while_a_page_hangs_and_ends_it_at_sigterm(
    site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    app = tmp_path / "app.py"
    app.write_text(app.read_text().replace("max_size=1", "max_size=2"))
    words = command_of(PAGE, f"{SYNC} --worker-class gevent", workers=1)
    with Gunicorn(words, tmp_path, "--graceful-timeout", "1") as program:
        program.serves(site)
        with program.begin_to_load(site):
            program.serves(site)
            program.signal(signal.SIGTERM)
            program.wait()


def test_a_pool_that_was_opened_before_the_fork_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(OPENED_AT_IMPORT)
    words = command_of(PAGE, f"{SYNC} --preload", workers=1)
    with Gunicorn(words, tmp_path) as program:
        program.wait_for_output("Booting worker")
        assert program.load("")[0] == 500
        assert re.search(r"ForkedSessionError: This pool belongs to process \d+", program.output)
        program.signal(signal.SIGTERM)
        program.wait()


@pytest.mark.chrome
def test_control_plain_selenium_leaves_its_browser_in_a_killed_worker(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = command_of(PAGE, SYNC + " --preload", workers=1)
    with Gunicorn(words, tmp_path, "--timeout", "600") as program:
        program.wait_for_output("Booting worker")
        with program.begin_to_load(site):
            os.kill(program.workers[0], signal.SIGKILL)
            program.wait_for_output("Booting worker", times=2)
        program.signal(signal.SIGTERM)
        program.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
