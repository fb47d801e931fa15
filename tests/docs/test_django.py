"""docs/how-to/django.md: its project under Django's test runner, in one process and in parallel."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment
from tests.support.pages import write_files
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.chrome]
PAGE = "docs/how-to/django.md"
RUN = "python -m django test"
HANGS = """
import os
from browser_case import BrowserTestCase

class Hangs(BrowserTestCase):
    def test_hangs(self):
        self.driver.get(os.environ["SITE"])

class HangsToo(Hangs):
    pass
"""
PLAIN = """
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from selenium import webdriver

class BrowserTestCase(StaticLiveServerTestCase):
    def setUp(self):
        options = webdriver.ChromeOptions()
        for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options)
        self.addCleanup(self.driver.quit)
"""


def start(beginning: str, directory: Path, url: str) -> Program:
    write_files(PAGE, directory)
    words = command_of(PAGE, beginning)
    return Program(words, directory, environment(TMPDIR=str(directory), SITE=url))


def test_each_test_has_a_clean_browser_in_parallel_processes(tmp_path: Path) -> None:
    with start(f"{RUN} --settings settings --pythonpath . --parallel", tmp_path, "") as run:
        assert run.wait() == 0, run.output
    assert "Ran 4 tests" in run.output


@pytest.mark.leaves_zombies(8, "the processes of a parallel run that is killed cannot be waited for")
def test_a_parallel_run_that_is_killed_while_pages_hang_leaves_nothing(
    site: Site, tmp_path: Path
) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    (tmp_path / "test_hangs.py").write_text(HANGS)
    with start("browserkeeper run", tmp_path, site.url_for("never")) as run:
        site.wait_for("/never")
        run.signal(signal.SIGKILL)
        run.wait()
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@pytest.mark.leaves_zombies(40, "the processes of a browser whose owner was killed")
def test_control_a_killed_run_with_plain_selenium_leaves_its_browser(site: Site, tmp_path: Path) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    write_files(PAGE, tmp_path)
    (tmp_path / "browser_case.py").write_text(PLAIN)
    (tmp_path / "test_visits.py").write_text(HANGS)
    words = [word for word in command_of(PAGE, "browserkeeper run") if word not in ("--parallel", "2")]
    env = environment(TMPDIR=str(tmp_path), SITE=site.url_for("never"))
    with Program(words[words.index("--") + 1 :], tmp_path, env) as run:
        site.wait_for("/never")
        run.signal(signal.SIGKILL)
        run.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
