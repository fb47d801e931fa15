"""The examples as a user runs them: what they print, their exit status, and nothing left of either."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from browserkeeper import ExitReport, ProcessExit
from examples import scrape
from fixtures.server import Site
from tests.support import witness
from tests.support.guards import BOTH

ROOT = Path(__file__).resolve().parent.parent.parent
NothingComesOfIt = Callable[[], AbstractContextManager[None]]
PATIENCE = 400.0
"""Seconds for one example on a busy machine; alone it takes a tenth of that."""


@pytest.fixture(autouse=True)
def own_place(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One directory for all files of an example; short enough for Chrome's socket."""
    place = state_dir / "t"
    place.mkdir()
    for name in ("TMPDIR", "BROWSERKEEPER_TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(place))
    return place


@pytest.fixture
def nothing_comes_of_it(own_place: Path) -> NothingComesOfIt:
    """A block at whose end there is no process more than before, no zombie and no file.

    At once: an example may not return before it has cleaned up.  Its orphans would come to us.
    """
    return functools.partial(check_that_nothing_comes_of_it, own_place)


@contextmanager
def check_that_nothing_comes_of_it(place: Path) -> Iterator[None]:
    known = {process.pid for process in witness.below(os.getpid())}
    demos = set(Path("/tmp").glob("bkdemo-*"))
    yield
    assert witness.new_below(os.getpid(), known) == []
    assert list(place.iterdir()) == []
    assert set(Path("/tmp").glob("bkdemo-*")) == demos


def start(*words: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*words: str, cwd: Path = ROOT) -> tuple[int, str]:
    """The exit status and all that was printed."""
    with start(*words, cwd=cwd) as process:
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output


def interrupt_when(process: subprocess.Popen[str], name: str) -> tuple[int, str]:
    """SIGINT once a process of that name is at work below the example."""
    until = time.monotonic() + PATIENCE
    while name not in {seen.name for seen in witness.below(process.pid)}:
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def row(output: str, label: str) -> list[str]:
    """The cells of a table's first line with that label."""
    line = next(line for line in output.splitlines() if line.strip().startswith(label))
    return re.split(r"\s{2,}", line.strip())[1:]


# -- scrape.py


@pytest.mark.chrome
def test_scrape_finds_the_whole_shop_and_proves_its_end(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it():
        status, output = run("-m", "examples.scrape")
    assert status == 0, output
    assert len(re.findall(r"/book/\S+ +£\d+\.\d\d +\d+ +200", output)) == 12
    assert row(output, "Not found") == ["/hidden", "404"]
    assert "clean, ECHILD" in output
    assert re.search(r"none of the \d\d processes is there", output)
    assert re.search(r"ls /tmp/\S+/bk-\w+: no such directory", output)
    assert "Traceback" not in output


@pytest.mark.chrome
def test_scrape_lists_every_process_with_its_end() -> None:
    _, output = run("-m", "examples.scrape", "--pages", "1")
    processes = re.findall(r"^ *(\d+) +(\S+) +(exited|signalled|killed|gone)", output, re.MULTILINE)
    assert {"chromedriver", "chromium"} <= {name for _, name, _ in processes}
    assert not {pid for pid, _, _ in processes if witness.look(int(pid))}


@pytest.mark.chrome
def test_scrape_runs_by_its_path_from_anywhere(
    tmp_path: Path, nothing_comes_of_it: NothingComesOfIt
) -> None:
    with nothing_comes_of_it():
        status, output = run(str(ROOT / "examples" / "scrape.py"), "--pages", "2", cwd=tmp_path)
    assert status == 0, output
    assert "2/2" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.firefox
def test_scrape_with_firefox(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it():
        status, output = run("-m", "examples.scrape", "--browser", "firefox", "--pages", "3")
    assert status == 0, output
    assert "geckodriver" in output


@pytest.mark.chrome
def test_scrape_interrupted_leaves_nothing(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it(), start("-m", "examples.scrape") as process:
        status, output = interrupt_when(process, "chromium")
    assert status == 130, output
    assert "interrupted" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--browser", "firefax"], "Did you mean 'firefox'?"),
        (["--pages", "0"], "not a whole number of 1 or more"),
        (["--pages", "many"], "not a whole number of 1 or more"),
    ],
)
def test_scrape_says_what_is_wrong(arguments: list[str], said: str) -> None:
    status, output = run("-m", "examples.scrape", *arguments)
    assert status == 2
    assert said in output
    assert "Traceback" not in output


def test_the_proof_fails_where_something_is_left(tmp_path: Path) -> None:
    """The negative control: a process that lives (this one) and a directory that is there."""
    process = ProcessExit(os.getpid(), 0.0, "pytest", "killed")
    report = ExitReport("0", "chrome", "closed", "subreaper", "ECHILD", (process,))
    console = Console(file=io.StringIO(), width=200)
    gone = tmp_path / "gone"
    assert not scrape.prove(scrape.Traces(frozenset(), gone), report, console)
    dead = dead_process()
    nobody = ExitReport("0", "chrome", "closed", "subreaper", "ECHILD")
    assert not scrape.prove(scrape.Traces(frozenset({dead}), tmp_path), nobody, console)
    assert scrape.prove(scrape.Traces(frozenset({dead}), gone), nobody, console)


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


# -- crawl_pool.py


@pytest.mark.chrome
def test_crawl_pool_finds_the_shop_and_lists_the_pages_that_failed(
    nothing_comes_of_it: NothingComesOfIt,
) -> None:
    with nothing_comes_of_it():
        status, output = run("-m", "examples.crawl_pool", "--size", "2")
    assert status == 0, output
    assert re.search(r"/never +(TimeoutException|LeaseTimeout): ", output)
    assert re.search(r"/hidden +BadPageError: HTTP 404", output)
    loaded, failed = map(int, re.search(r"(\d+) pages loaded, (\d+) not", output).groups())  # type: ignore[union-attr]
    assert loaded >= 20  # 12 books, 4 categories, the home page, about, and most of the special ones
    assert failed >= 2
    assert f"{loaded + failed}/{loaded + failed}" in output
    assert int(row(output, "requests_num")[0]) > loaded + failed  # /never was tried twice
    ended, started = re.search(r"(\d+) of (\d+) browsers ended clean", output).groups()  # type: ignore[union-attr]
    assert ended == started
    assert "Traceback" not in output


@pytest.mark.chrome
def test_crawl_pool_runs_by_its_path_from_anywhere(
    tmp_path: Path, site: Site, nothing_comes_of_it: NothingComesOfIt
) -> None:
    script = str(ROOT / "examples" / "crawl_pool.py")
    with nothing_comes_of_it():
        status, output = run(script, "--url", site.url, "--limit", "3", "--size", "1", cwd=tmp_path)
    assert status == 0, output
    assert "3 pages loaded, 0 not" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.firefox
def test_crawl_pool_with_firefox(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it():
        status, output = run(
            *("-m", "examples.crawl_pool", "--browser", "firefox", "--limit", "2", "--size", "1")
        )
    assert status == 0, output
    assert "2 pages loaded, 0 not" in output


@pytest.mark.chrome
def test_crawl_pool_interrupted_leaves_nothing(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it(), start("-m", "examples.crawl_pool", "--size", "2") as process:
        status, output = interrupt_when(process, "chromium")
    assert status == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output


@pytest.mark.chrome
def test_crawl_pool_interrupted_in_the_middle_of_pages_leaves_nothing(
    nothing_comes_of_it: NothingComesOfIt,
) -> None:
    with Site() as site, nothing_comes_of_it():
        command = ("-m", "examples.crawl_pool", "--url", site.url_for("special"), "--size", "2")
        with start(*command) as process:
            site.wait_for("/never", PATIENCE)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--browser", "firefax"], "Did you mean 'firefox'?"),
        (["--limit", "0"], "not a whole number of 1 or more"),
        (["--isolation", "some"], "Choose from auto, context, fresh, none"),
    ],
)
def test_crawl_pool_says_what_is_wrong(arguments: list[str], said: str) -> None:
    status, output = run("-m", "examples.crawl_pool", *arguments)
    assert status == 2
    assert said in output
    assert "Traceback" not in output


# -- leak_demo.py


@pytest.mark.chrome
def test_leak_demo_shows_the_difference_and_cleans_up(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it():
        # More than its own two seconds: on a busy machine a guard may stand still for so long.
        status, output = run("-m", "examples.leak_demo", "--seconds", "15")
    assert status == 0, output
    left_by_selenium, left_by_us = row(output, "processes left")
    assert int(left_by_selenium) >= 5
    assert left_by_us == "none"
    assert row(output, "all gone after")[0] == "not gone"
    assert row(output, "all gone after")[1].endswith(" s")
    assert row(output, "memory in use")[1] == "0 MB"
    assert int(row(output, "memory in use")[0].removesuffix(" MB")) > 50
    assert row(output, "files left")[1] == "none"
    assert int(row(output, "files left")[0].partition(",")[0]) > 10


@pytest.mark.chrome
@pytest.mark.parametrize("at_work", ["chromium", "bk-guard"])
def test_leak_demo_interrupted_leaves_nothing(
    at_work: str, nothing_comes_of_it: NothingComesOfIt
) -> None:
    """In its first half Chromium is at work for plain Selenium; the guard only in the second."""
    with nothing_comes_of_it(), start("examples/leak_demo.py") as process:
        status, output = interrupt_when(process, at_work)
    assert status == 130, output
    assert "cleaned up" in output
    assert "Traceback" not in output


# -- proxies.py


@pytest.mark.chrome
def test_proxies_takes_turns_and_names_a_wrong_password(nothing_comes_of_it: NothingComesOfIt) -> None:
    with nothing_comes_of_it():
        status, output = run("-m", "examples.proxies")
    assert status == 0, output
    assert len(re.findall(r"^browser \w+, lease \d: The Leaky Shelf", output, re.MULTILINE)) == 4
    assert "refuses user 'anna'" in output
    assert "requests through the proxies: True" in output
    assert "secret" not in output


# -- login_once.py


@pytest.mark.parametrize("name", BOTH)
def test_login_once_logs_in_once_for_all_leases(
    name: str, nothing_comes_of_it: NothingComesOfIt
) -> None:
    with nothing_comes_of_it():
        status, output = run("-m", "examples.login_once", "--browser", name, "--leases", "2")
    assert status == 0, output
    assert "(mode 600)" in output
    leases = re.findall(r"^lease \d: (.*)$", output, re.MULTILINE)
    assert len(leases) == 2
    assert len(set(leases)) == 1  # with the same token of localStorage
    assert "Welcome, Ada." in leases[0]
    assert "first visit" in leases[0]
    assert re.search(r"a lease without it: Log in", output)
    assert "the site has seen 1 log-in\n" in output
