"""docs/how-to/robot-framework.md: its plugin and its suite under robots and pabot, which are killed."""

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
PAGE = "docs/how-to/robot-framework.md"
PLAIN = """
*** Settings ***
Library    SeleniumLibrary

*** Test Cases ***
A Page That Never Comes
    ${options}    Evaluate    selenium.webdriver.ChromeOptions()    modules=selenium.webdriver
    FOR    ${word}    IN    --headless    --no-sandbox    --disable-dev-shm-usage
        Call Method    ${options}    add_argument    ${word}
    END
    Open Browser    ${SITE}    chrome    options=${options}
"""


class Robot(Program):
    """A command of the page, on a page of the local site."""

    def __init__(self, beginning: str, directory: Path, url: str):
        words = command_of(PAGE, beginning)
        words[-1:-1] = ["--variable", f"SITE:{url}"]
        super().__init__(words, directory, environment(TMPDIR=str(directory)))


def test_robot_and_pabot_run_the_suite_of_the_page(site: Site, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    for beginning in ("robot", "pabot"):
        with Robot(beginning, tmp_path, site.url) as program:
            assert program.wait() == 0, program.output
    assert "2 tests, 2 passed, 0 failed" in program.output


@pytest.mark.leaves_zombies(4, "a killed robot cannot wait for its guards, nor pabot for its robots")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_robot_that_ends_while_a_page_hangs_leaves_nothing(
    number: signal.Signals, site: Site, tmp_path: Path
) -> None:
    write_files(PAGE, tmp_path)
    if number == signal.SIGTERM:  # then its limit is what ends the keyword
        suite = tmp_path / "shelf.robot"
        suite.write_text(suite.read_text().replace("timeout=120", "timeout=45"))
    known = {seen.pid for seen in witness.below(os.getpid())}
    beginning = "robot" if number == signal.SIGTERM else "browserkeeper run -- pabot"
    with Robot(beginning, tmp_path, site.url_for("never")) as program:
        site.wait_for("/never")
        program.signal(number)
        program.wait()
        assert not witness.wait_until_gone(os.getpid(), known, SECONDS)
    if number == signal.SIGTERM:
        assert "Execution terminated by signal" in program.output


def test_a_word_that_browser_does_not_have_is_refused_by_name(site: Site, tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    suite = tmp_path / "shelf.robot"
    suite.write_text(suite.read_text().replace("timeout=120", "remote_url=http://127.0.0.1:4444"))
    with Robot("robot", tmp_path, site.url) as program:
        assert program.wait() == 1
    assert "remote_url" in program.output


@pytest.mark.leaves_zombies(40, "the processes of a browser whose owner was killed")
def test_control_a_killed_robot_of_seleniumlibrary_alone_leaves_its_browser(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "shelf.robot").write_text(PLAIN)
    known = {seen.pid for seen in witness.below(os.getpid())}
    with Robot("robot", tmp_path, site.url_for("never")) as program:
        site.wait_for("/never")
        program.signal(signal.SIGKILL)
        program.wait()
        left = witness.wait_until_gone(os.getpid(), known, 1)
        witness.clean_up(known)
        assert any(seen.name.startswith("chrom") for seen in left)
