"""docs/how-to/undetected-chromedriver.md: its script, with both of its commands, ends and is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment
from tests.support.pages import write_files
from tests.support.waiting import SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chrome,
    pytest.mark.skipif(
        importlib.util.find_spec("undetected_chromedriver") is None,
        reason="undetected-chromedriver needs Python 3.11 or older",
    ),
]
PAGE = "docs/how-to/undetected-chromedriver.md"
ORPHANS = pytest.mark.leaves_zombies(40, "the processes of a driver that no guard has started")


def start(beginning: str, directory: Path, url: str, *, adopt: bool = True) -> Program:
    write_files(PAGE, directory)
    if not adopt:
        script = directory / "scrape.py"
        without = script.read_text().replace("with adopt(driver, timeout=300) as session:", "if True:")
        script.write_text(without.replace("print(session.report)", "driver.quit()"))
    words = [url if word.startswith("https:") else word for word in command_of(PAGE, beginning)]
    return Program(words, directory, environment(TMPDIR=str(directory)))


@ORPHANS
def test_the_script_of_the_page_ends_its_browser_and_says_so(site: Site, tmp_path: Path) -> None:
    with start("python scrape.py", tmp_path, site.url) as script:
        assert script.wait() == 0, script.output
    assert "The Leaky Shelf" in script.output
    assert ": closed, clean, two-scans (adopted)" in script.output


@ORPHANS
@pytest.mark.parametrize("way", ["adopt", "run"])
def test_a_script_that_is_killed_while_a_page_hangs_leaves_nothing(
    way: str, site: Site, tmp_path: Path
) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    beginning = "python scrape.py" if way == "adopt" else "browserkeeper run"
    with start(beginning, tmp_path, site.url_for("never"), adopt=way == "adopt") as script:
        site.wait_for("/never")
        script.signal(signal.SIGKILL)
        script.wait()
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@ORPHANS
def test_control_without_both_the_browser_outlives_its_script(site: Site, tmp_path: Path) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    with start("python scrape.py", tmp_path, site.url_for("never"), adopt=False) as script:
        site.wait_for("/never")
        script.signal(signal.SIGKILL)
        script.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
