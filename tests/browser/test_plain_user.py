"""A session of an ordinary user without a home, as in a container with a random uid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.server import Site

NOBODY = 65534
ROOT = Path(__file__).resolve().parent.parent.parent
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


def python_for_nobody(home: Path) -> tuple[str, dict[str, str]]:
    """(interpreter, environment) for the user ``nobody``, who may not read root's home.

    The interpreter has the packages that browserkeeper needs.
    """
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    env = {
        "HOME": "/nonexistent",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}:{packages}",
        "BROWSERKEEPER_OFFLINE": "1",
    }
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", "/usr/bin/python3"):
        check = [python, "-c", f"import sys, psutil, selenium; assert '{version}' in sys.version"]
        try:
            if subprocess.run(check, user=NOBODY, env=env, cwd="/", capture_output=True).returncode == 0:
                return python, env
        except OSError:
            continue
    pytest.skip(f"no Python {version} that a plain user may run here")


@pytest.mark.root
@pytest.mark.chrome
def test_a_user_without_a_home_can_start_a_browser(home: Path, site: Site) -> None:
    python, env = python_for_nobody(home)
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
