"""The inner pytest run: a test runs pytest on a suite of its own, in its own directory and process.

The inner run loads installed plugins by their entry points, as a user's does: ours, and of OTHER_PLUGINS
those that the test asks for.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
import textwrap
from pathlib import Path

import pytest

from fixtures.server import Site

OTHER_PLUGINS = {
    "django": "pytest-django",
    "html": "pytest-html",
    "hypothesis": "hypothesis",
    "randomly": "pytest-randomly",
    "rerunfailures": "pytest-rerunfailures",
    "selenium": "pytest-selenium",
    "base-url": "pytest-base-url",
    "timeout": "pytest-timeout",
    "variables": "pytest-variables",
    "xdist": "pytest-xdist",
}
"""Plugins that are installed with the test tools: how tests name them, and their distributions."""


@functools.cache
def plugin_names(distribution: str) -> tuple[str, ...]:
    """The names under which pytest loads a distribution's plugins; none of one that is not installed."""
    try:
        found = importlib.metadata.distribution(distribution).entry_points
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(point.name for point in found.select(group="pytest11"))


TIMEOUT = 540.0
"""Seconds for one inner run.  Only one that hangs takes so long; a test may take 600."""

PLAIN = """
import os, shutil, signal, subprocess, sys, time
import pytest
from selenium import webdriver

def no_quit(self):
    "In the place of Selenium's method, which quits a driver when its last reference is dropped."

webdriver.ChromeService.__del__ = webdriver.FirefoxService.__del__ = no_quit

def plain(name="chrome"):
    "A browser of Selenium alone, without browserkeeper."
    if name == "firefox":
        options = webdriver.FirefoxOptions()
        options.add_argument("-headless")
        service = webdriver.FirefoxService(shutil.which("geckodriver"))
        made = webdriver.Firefox(options=options, service=service)
    else:
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        made = webdriver.Chrome(options=options, service=service)
    return made

SITE = os.environ.get("SITE", "")
"""
"""The first lines of a suite whose tests leak."""

PATIENT = """
def pytest_configure(config):
    if config.pluginmanager.has_plugin("browserkeeper"):
        from browserkeeper.pytest_plugin import capture

        capture.PATIENCE = 120.0
"""
"""A plugin of the inner runs: what is captured is no matter of a machine's speed."""


class InnerPytest:
    """A directory with a suite; ``run()`` may be called several times."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
        self._pytester, self._monkeypatch = pytester, monkeypatch
        self.path = pytester.path
        # The TMPDIR of what does not choose its own; short, since Chrome puts a socket there.
        self.tmp = Path(os.environ["BROWSERKEEPER_STATE_DIR"], "t")
        self.tmp.mkdir()
        monkeypatch.setenv("TMPDIR", str(self.tmp))
        monkeypatch.delenv("BROWSERKEEPER_PYTEST", raising=False)
        monkeypatch.setenv("COLUMNS", "250")  # pytest cuts the lines of its summary
        (self.path / "patient.py").write_text(PATIENT)

    def write(self, **files: str) -> InnerPytest:
        """Write modules: ``write(test_a="…", conftest="…", **{"package/module": "…"})``.  Text is
        dedented."""
        for name, text in files.items():
            path = self.path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return self

    def suite(self, text: str) -> InnerPytest:
        """Write a test module that can call ``plain()`` and knows ``SITE``."""
        return self.write(test_suite=PLAIN + textwrap.dedent(text))

    def ini(self, **keys: str) -> InnerPytest:
        lines = [f"{name} = {value}" for name, value in keys.items()]
        """Write pytest.ini."""
        (self.path / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))
        return self

    def visit(self, site: Site) -> InnerPytest:
        """Pass the site's URL to the suite in the environment variable SITE."""
        self._monkeypatch.setenv("SITE", site.url)
        return self

    def run(
        self, *words: str, plugins: tuple[str, ...] = (), below: tuple[str, ...] = ()
    ) -> pytest.RunResult:
        """Run pytest with these arguments, and with those of OTHER_PLUGINS that ``plugins`` names.
        Warnings are errors.  ``below``: a command that runs pytest as its own."""
        unwanted = [distribution for name, distribution in OTHER_PLUGINS.items() if name not in plugins]
        without = [f"-pno:{name}" for each in unwanted for name in plugin_names(each)]
        given = ("-W", "error", "-p", "no:cacheprovider", "-p", "patient", *without, *words)
        if not below:
            return self._pytester.runpytest_subprocess(*given, timeout=TIMEOUT)
        return self._pytester.run(*below, sys.executable, "-mpytest", *given, timeout=TIMEOUT)

    @property
    def folders(self) -> list[Path]:
        """The output folders of its tests."""
        return sorted(p for p in (self.path / "keeper-results").glob("*") if p.is_dir())

    def folder(self, word: str) -> Path:
        """The output folder with this word in its name; there must be exactly one."""
        (found,) = [path for path in self.folders if word in path.name]
        return found


def files_in(folder: Path) -> set[str]:
    """The names of the files in an output folder, without the manifest."""
    return {path.name for path in folder.iterdir()} - {"keeper.json"}


def leaked_tests(done: pytest.RunResult) -> list[str]:
    """The names of the tests that an inner run with ``-v`` shows as LEAKED."""
    lines = done.stdout.str().splitlines()
    return [line.split()[0].partition("::")[2] for line in lines if " LEAKED" in line]


@pytest.fixture
def inner_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> InnerPytest:
    return InnerPytest(pytester, monkeypatch)
