"""Runs of pytest inside of tests: a suite in a directory of its own, in a process of its own.

Every installed plugin is loaded by itself, ours among them, but for those neighbours that a test
does not ask for.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import textwrap
from pathlib import Path

import pytest

from fixtures.server import Site

NEIGHBOURS = {
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
"""Plugins that are installed with the test tools: what tests call them, and their distributions."""


@functools.cache
def plugin_names(distribution: str) -> tuple[str, ...]:
    """The names under which pytest loads a distribution's plugins."""
    found = importlib.metadata.distribution(distribution).entry_points
    return tuple(point.name for point in found.select(group="pytest11"))


LONGEST = 120.0
"""Seconds for one run on a busy machine."""

PLAIN = """
import os, shutil, signal, subprocess, sys, time
import pytest
from selenium import webdriver

KEPT = []  # Selenium ends a driver whose last reference goes, if it comes to that

def plain(name="chrome"):
    "A browser as everybody starts it, behind browserkeeper's back."
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
    KEPT.append(made)
    return made

SITE = os.environ.get("SITE", "")
"""
"""The head of a suite whose tests leak."""


class Inner:
    """One directory with a suite; ``run`` may be called again."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
        self._pytester, self._monkeypatch = pytester, monkeypatch
        self.path = pytester.path
        # The temporary directory of what is not ours; short, since Chrome puts a socket there.
        self.tmp = Path(os.environ["BROWSERKEEPER_STATE_DIR"], "t")
        self.tmp.mkdir()
        monkeypatch.setenv("TMPDIR", str(self.tmp))
        monkeypatch.delenv("BROWSERKEEPER_PYTEST", raising=False)
        monkeypatch.setenv("COLUMNS", "250")  # pytest cuts its summary's lines

    def write(self, **files: str) -> Inner:
        """``write(test_a="…", conftest="…", **{"package/module": "…"})``; dedented."""
        for name, text in files.items():
            path = self.path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return self

    def suite(self, text: str) -> Inner:
        """A test module that can start plain browsers and knows the site."""
        return self.write(test_suite=PLAIN + textwrap.dedent(text))

    def ini(self, **keys: str) -> Inner:
        lines = [f"{name} = {value}" for name, value in keys.items()]
        (self.path / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))
        return self

    def visit(self, site: Site) -> Inner:
        self._monkeypatch.setenv("SITE", site.url)
        return self

    def run(self, *words: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """With the neighbours ``plugins`` and no others; warnings are errors."""
        unwanted = [distribution for name, distribution in NEIGHBOURS.items() if name not in plugins]
        without = [f"-pno:{name}" for each in unwanted for name in plugin_names(each)]
        given = ("-W", "error", "-p", "no:cacheprovider", *without, *words)
        return self._pytester.runpytest_subprocess(*given, timeout=LONGEST)

    @property
    def folders(self) -> list[Path]:
        return sorted(p for p in (self.path / "test-results").glob("*") if p.is_dir())

    def folder(self, word: str) -> Path:
        """The one folder with this word in its name."""
        (found,) = [path for path in self.folders if word in path.name]
        return found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"keeper.json"}


def leaked(done: pytest.RunResult) -> list[str]:
    """The tests that a run with ``-v`` calls leaked."""
    lines = done.stdout.str().splitlines()
    return [line.split()[0].partition("::")[2] for line in lines if " LEAKED" in line]


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> Inner:
    return Inner(pytester, monkeypatch)
