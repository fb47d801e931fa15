"""pyproject.toml says what the documentation's table of versions says was run."""

from __future__ import annotations

import re
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PAGE = ROOT / "docs" / "reference" / "versions.md"
ROW = re.compile(r"^\| (3\.\d+)\.\d+ \|(?: [^|]+ \|){3} (\d+) \| 0 \| \d+ \|$", re.MULTILINE)
"""A row of the table of Pythons: a run without failures."""


def test_the_classifiers_are_the_pythons_of_the_table_that_were_run() -> None:
    ran = {python for python, passed in ROW.findall(PAGE.read_text()) if int(passed)}
    assert set(nox.project.python_versions(PROJECT)) == ran


def test_the_oldest_python_of_the_table_is_the_one_that_is_required() -> None:
    oldest = nox.project.python_versions(PROJECT)[0]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"


def test_the_readme_names_the_pythons_that_were_run() -> None:
    first, *_, last = nox.project.python_versions(PROJECT)
    assert f"Python {first} to {last}" in (ROOT / "README.md").read_text()
