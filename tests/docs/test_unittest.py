"""docs/how-to/unittest.md: its test case classes under unittest, which ends in each way."""

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
PAGE = "docs/how-to/unittest.md"
PLAIN = """
import os
import unittest
from selenium import webdriver

class EachTestABrowser(unittest.TestCase):
    def setUp(self):
        options = webdriver.ChromeOptions()
        for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options)

    def tearDown(self):
        self.driver.quit()

    def test_title(self):
        self.driver.get(os.environ["SITE"])
"""


class Run(Program):
    """The command of the page, on a page of the local site."""

    def __init__(self, directory: Path, url: str, *more: str):
        words = command_of(PAGE, "python -m unittest")
        super().__init__([*words, *more], directory, environment(TMPDIR=str(directory), SITE=url))


def test_the_classes_of_the_page_pass(site: Site, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    with Run(tmp_path, site.url) as run:
        assert run.wait() == 0, run.output
    assert "Ran 6 tests" in run.output


@pytest.mark.leaves_zombies(4, "a killed test run cannot wait for its guards")
@pytest.mark.parametrize(
    ("of_class", "number"),
    [("EachTestABrowser", signal.SIGKILL), ("OneBrowserThatIsCleanInEachTest", signal.SIGINT)],
)
def test_a_run_that_ends_while_a_page_hangs_leaves_nothing(
    of_class: str, number: signal.Signals, site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    known = {seen.pid for seen in witness.below(os.getpid())}
    with Run(tmp_path, site.url_for("never"), "-k", of_class) as run:
        site.wait_for("/never")
        run.signal(number)
        assert run.wait() != 0
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@pytest.mark.leaves_zombies(40, "the processes of a browser whose owner was killed")
def test_control_a_killed_run_with_plain_selenium_leaves_its_browser(site: Site, tmp_path: Path) -> None:
    (tmp_path / "test_shelf.py").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    with Run(tmp_path, site.url_for("never")) as run:
        site.wait_for("/never")
        run.signal(signal.SIGKILL)
        run.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
