"""`make compat`: tests marked ``compat`` on each Python, with the floor and the newest of everything.

    nox                            all of it, then the table (docs/reference/versions.md)
    nox -s "compat(3.14-newest)"   one of the sessions that `nox --list` names
    nox -s table                   the table of the last results

What is run follows from pyproject.toml alone: the Pythons from its classifiers, the floors from its
requirements (``uv --resolution lowest-direct``), the tests by their marker.  A Python that this machine
lacks is skipped with the reason.  pyenv's are found, and that of scripts/newer_python.sh in .tools.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / ".nox" / "results"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
OLDEST, NEWEST = PYTHONS[0], PYTHONS[-1]
RESOLUTION = {"floor": "lowest-direct", "newest": "highest"}
EACH = [(OLDEST, "floor"), *((python, "newest") for python in PYTHONS), (NEWEST, "floor")]
SELENIUM_PYTHON = "3.11"
"""The Python of the runs on further versions of Selenium; CI's."""
SELENIUMS = ("4.45.0",)
"""Between the floor and the newest, which the sessions ``compat`` have."""
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "opentelemetry-sdk")
"""What those tests need of extra ``dev``; the others have no releases for each Python."""
SHOWN = ("selenium", "pytest", "celery", "redis", "aiohttp", "psutil", "rich", "click")
"""The distributions whose versions the table shows."""

VERSIONS = """
import importlib.metadata, json, platform, sys
names = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps([platform.python_version(), names]))
"""
"""Prints the version of Python, and those of the distributions that are its arguments."""

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["compat", "selenium"]

os.environ["UV_PYTHON_DOWNLOADS"] = "never"  # from a site that is no package registry


def unpacked(python: str) -> Path:
    """Where scripts/newer_python.sh puts this Python."""
    return ROOT / ".tools" / f"python{python}" / "usr/bin" / f"python{python}"


def interpreter(python: str) -> str:
    """What nox starts: the version, or the path of one that was unpacked.

    That one finds its standard library from its own path only, so no link may lead to it.
    """
    return str(unpacked(python)) if unpacked(python).exists() else python


def link_interpreters() -> None:
    """Puts pyenv's interpreters, whose shims refuse to run, first on PATH."""
    links = ROOT / ".nox" / "interpreters"
    links.mkdir(parents=True, exist_ok=True)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in PYTHONS:
        name = f"python{python}"
        link = links / name
        link.unlink(missing_ok=True)
        if found := sorted(pyenv.glob(f"versions/{python}.*/bin/{name}")):
            link.symlink_to(found[0])
    os.environ["PATH"] = f"{links}{os.pathsep}{os.environ['PATH']}"


link_interpreters()


def tools() -> list[str]:
    """The requirements of the named tools as pyproject.toml has them."""
    name = re.compile(r"[\w-]+")
    stated = {
        match[0]: line
        for line in PROJECT["project"]["optional-dependencies"]["dev"]
        if (match := name.match(line))
    }
    return [stated[tool] for tool in TOOLS]


def marked() -> list[str]:
    """The files that have tests marked ``compat``; others may import what only extra ``dev`` has."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [str(path.relative_to(ROOT)) for path in files if "mark.compat" in path.read_text()]
    assert found, "no test is marked compat"
    return found


def run_tests(session: nox.Session, label: str, resolution: str, *more: str) -> None:
    """Installs the package with extra ``all`` and runs the tests in a world; keeps what came of it."""
    session.notify("table")
    session.install("--resolution", resolution, *more, "-e", ".[all]", *tools())
    answer = session.run("python", "-c", VERSIONS, *SHOWN, silent=True)
    assert isinstance(answer, str)
    python, versions = json.loads(answer)
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = RESULTS / f"{python}-{label}.json"
    report = result.with_suffix(".xml")
    for old in (result, report):
        old.unlink(missing_ok=True)
    began = time.monotonic()
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "compat",
        f"--junitxml={report}",
        *session.posargs,
        *marked(),
    ]
    try:
        session.run("python", "scripts/world.py", "python", "-m", "pytest", *words)
    finally:
        document = {
            "python": python,
            "dependencies": label,
            "versions": versions,
            "seconds": round(time.monotonic() - began),
        }
        result.write_text(json.dumps(document))


@nox.session
@nox.parametrize(
    "python,dependencies",
    [
        nox.param(interpreter(python), dependencies, id=f"{python}-{dependencies}")
        for python, dependencies in EACH
    ],
)
def compat(session: nox.Session, dependencies: str) -> None:
    """The tests marked compat with the floor or the newest of every dependency."""
    run_tests(session, dependencies, RESOLUTION[dependencies])


@nox.session(python=SELENIUM_PYTHON)
@nox.parametrize("version", SELENIUMS)
def selenium(session: nox.Session, version: str) -> None:
    """The same with the newest of everything but Selenium."""
    run_tests(session, f"selenium {version}", RESOLUTION["newest"], f"selenium=={version}")


@nox.session(python=False)
def table(session: nox.Session) -> None:
    """Prints the results as a table of Markdown, as in docs/reference/versions.md."""
    print("| Python | dependencies |", " | ".join(SHOWN), "| passed | failed | skipped | seconds |")
    print("| --- " * (len(SHOWN) + 6) + "|")
    for path in sorted(
        RESULTS.glob("*.json"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]
    ):
        result = json.loads(path.read_text())
        failed, skipped, all_of_them = "?", "?", "?"
        if path.with_suffix(".xml").exists():
            suite = ElementTree.parse(path.with_suffix(".xml")).getroot()[0]
            number = {
                name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")
            }
            failed, skipped = str(number["failures"] + number["errors"]), str(number["skipped"])
            all_of_them = str(
                number["tests"] - number["failures"] - number["errors"] - number["skipped"]
            )
        cells = [result["python"], result["dependencies"], *result["versions"].values()]
        print("|", " | ".join([*cells, all_of_them, failed, skipped, str(result["seconds"])]), "|")
