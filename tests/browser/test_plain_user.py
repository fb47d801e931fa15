"""A session of an ordinary user without a home, as in a container with a random uid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.server import Site
from tests.support.other_user import NOBODY, python_for_nobody

SCRIPT = """
import os, sys
from browserkeeper import ProfileError, browser
session = browser(sys.argv[1], env={"HOME": os.environ["HOME"]})
with session as driver:
    driver.get(sys.argv[2])
    print(driver.title)
print(session.report)
assert session.report.clean
try:
    browser(sys.argv[1], profile="/etc").start()
except ProfileError as error:
    print(error)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tmp-nobody-"))
    os.chown(directory, NOBODY, NOBODY)
    yield directory
    shutil.rmtree(directory)
    shutil.rmtree(f"{tempfile.gettempdir()}/browserkeeper-{NOBODY}", ignore_errors=True)


@pytest.mark.root
@pytest.mark.chrome
def test_a_user_without_a_home_can_start_a_browser(home: Path, site: Site) -> None:
    python, env = python_for_nobody()
    done = subprocess.run(
        [python, "-c", SCRIPT, "chrome", site.url],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "clean, ECHILD (subreaper)" in done.stdout
    assert "/etc is not writable" in done.stdout
