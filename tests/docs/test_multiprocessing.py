"""docs/how-to/multiprocessing.md: its program by each start method; killed workers, a killed parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import PLAIN_TITLE, Program, command_of, environment
from tests.support.pages import write_files
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.chrome, pytest.mark.slow]
PAGE = "docs/how-to/multiprocessing.md"
FORKED = """
import multiprocessing, sys
from browserkeeper import BrowserPool, browser

def use(lease):
    try:
        lease()
    except Exception as error:
        print(type(error).__name__, error, flush=True)

pool = BrowserPool("chrome", min_idle=0).open()
child = multiprocessing.get_context("fork").Process(target=use, args=(pool.lease,))
child.start()
child.join()
pool.close()
try:
    multiprocessing.get_context("spawn").Process(target=use, args=(browser(),)).start()
except TypeError as error:
    print(type(error).__name__, error, flush=True)
"""
PLAIN = f"""
import sys
from concurrent.futures import ProcessPoolExecutor
from selenium import webdriver

{PLAIN_TITLE}
if __name__ == "__main__":
    with ProcessPoolExecutor(1) as executor:
        print(type(executor.submit(title, sys.argv[1]).exception()).__name__)
"""


def start(directory: Path, method: str, *addresses: str) -> Program:
    write_files(PAGE, directory)
    words = command_of(PAGE, "python titles.py")[:2]
    return Program([*words, *addresses], directory, environment(METHOD=method))


def owners_of_browsers(root: int) -> list[int]:
    """The pids of the processes whose guards have a driver: the parents of the standby guards."""
    table = {seen.pid: seen for seen in witness.below(root)}
    drivers = [seen for seen in table.values() if seen.name.startswith("chromedriver")]
    return [table[table[driver.parent].parent].parent for driver in drivers]


TRACKER = pytest.mark.leaves_zombies(
    2, "Python's resource tracker and fork server end after their parent"
)


@TRACKER
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_each_start_method_gives_the_titles(site: Site, tmp_path: Path, method: str) -> None:
    about = site.url_for("about.html")
    with start(tmp_path, method, site.url, about) as program:
        assert program.wait() == 0, program.output
    assert f"{site.url} The Leaky Shelf" in program.output
    assert f"{about} " in program.output
    assert "a worker was killed" not in program.output


@pytest.mark.leaves_zombies(
    4, "workers that are killed cannot wait for their guards; the resource tracker"
)
def test_a_killed_worker_breaks_the_executor_and_the_rest_is_tried_again(
    site: Site, tmp_path: Path
) -> None:
    late = site.url_for("slow", seconds=20)
    with start(tmp_path, "spawn", late) as program:
        site.wait_for("/slow")
        for owner in set(owners_of_browsers(program.pid)):
            os.kill(owner, signal.SIGKILL)
        assert program.wait() == 0, program.output
    assert "a worker was killed" in program.output
    assert len([line for line in program.output.splitlines() if line.startswith(late)]) == 1


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.leaves_zombies(9, "the orphans of a killed parent: workers, their guards, Python's tracker")
def test_a_killed_parent_leaves_nothing(site: Site, tmp_path: Path, method: str) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    with start(tmp_path, method, site.url_for("never"), site.url) as program:
        site.wait_for("/never")
        program.signal(signal.SIGKILL)
        program.wait()
    assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@TRACKER
def test_a_pool_of_the_parent_is_refused_in_a_fork_and_not_sent(tmp_path: Path) -> None:
    (tmp_path / "forked.py").write_text(FORKED)
    done = subprocess.run(
        [sys.executable, "forked.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert "ForkedSessionError This pool belongs to process" in done.stdout, done.stderr
    assert "TypeError" in done.stdout
    assert "cannot be pickled or copied" in done.stdout


def test_control_plain_selenium_leaves_its_browser_in_a_killed_worker(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = [sys.executable, "plain.py", site.url_for("never")]
    with Program(words, tmp_path, environment(TMPDIR=str(tmp_path))) as program:
        site.wait_for("/never")
        table = {seen.pid: seen for seen in witness.below(program.pid)}
        (driver,) = (seen for seen in table.values() if seen.name.startswith("chromedriver"))
        os.kill(driver.parent, signal.SIGKILL)
        program.wait()
        assert "BrokenProcessPool" in program.output
    left = witness.wait_until_gone(os.getpid(), known, 1)
    witness.clean_up(known)
    assert any(seen.name.startswith("chrom") for seen in left)
