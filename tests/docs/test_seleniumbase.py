"""docs/how-to/seleniumbase.md: its tests and its script run in an environment of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support import witness
from tests.support.howto import Program, command_of, environment
from tests.support.pages import ROOT, write_files
from tests.support.waiting import SECONDS

PAGE = "docs/how-to/seleniumbase.md"
BIN = ROOT / ".tools" / "seleniumbase" / "bin"
"""Of the environment of scripts/seleniumbase.sh: SeleniumBase pins the versions of 40 packages."""
ORPHANS = pytest.mark.leaves_zombies(40, "the processes of a driver that no guard has started")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chrome,
    pytest.mark.skipif(
        not (BIN / "sbase").exists(),
        reason="no SeleniumBase: scripts/seleniumbase.sh .tools/seleniumbase",
    ),
]


def start(words: list[str], directory: Path, url: str) -> Program:
    write_files(PAGE, directory)
    words = [url if word.startswith("https:") else word for word in words]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return Program(words, directory, environment(PATH=path, TMPDIR=str(directory), SITE=url))


def test_both_plugins_work_in_one_run(site: Site, tmp_path: Path) -> None:
    with start(command_of(PAGE, "browserkeeper run -- python -m pytest"), tmp_path, site.url) as run:
        assert run.wait() == 0, run.output
    assert "3 passed" in run.output
    assert "the fixture `driver` is left to SeleniumBase; ours is `keeper_driver`" in run.output


@ORPHANS
@pytest.mark.parametrize("beginning", ["browserkeeper run -- python -m pytest", "python scrape.py"])
def test_what_is_killed_while_a_page_hangs_leaves_nothing(
    beginning: str, site: Site, tmp_path: Path
) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    with start(command_of(PAGE, beginning), tmp_path, site.url_for("never")) as run:
        site.wait_for("/never")
        run.signal(signal.SIGKILL)
        run.wait()
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)


@ORPHANS
def test_control_a_killed_pytest_of_seleniumbase_leaves_its_browser(site: Site, tmp_path: Path) -> None:
    known = {seen.pid for seen in witness.below(os.getpid())}
    words = command_of(PAGE, "browserkeeper run -- python -m pytest")
    words = words[words.index("--") + 1 :]
    with start([*words, "-k", "test_seleniumbase"], tmp_path, site.url_for("never")) as run:
        site.wait_for("/never")
        run.signal(signal.SIGKILL)
        run.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
