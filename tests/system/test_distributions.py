"""The built wheel and sdist: what is in them, and that each works where nothing else is installed.

Both are built once, by pip's own route (PEP 517, in an isolated environment).  Each is installed into a
virtual environment without the packages of the machine, and used from a directory outside of the
repository.  Where no package registry can be reached the tests are skipped with the reason.
"""

from __future__ import annotations

import email
import email.message
import email.policy
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fixtures.server import Site

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix() for path in (ROOT / "browserkeeper").rglob("*") if path.is_file()
}
TRIES = ("--retries=1", "--timeout=60")
PATIENCE = 400.0
"""Seconds for a build or an installation on a busy machine; alone each takes 5 to 15."""
REGISTRY_GONE = re.compile(
    r"No matching distribution found for (?:hatchling|pip|setuptools)|NewConnectionError|NameResolution"
)
SESSION = """
import json, os, sys
import browserkeeper
from browserkeeper import browser
session = browser("chrome", timeout=300)
with session as driver:
    driver.get(sys.argv[1])
    title = driver.title
print(json.dumps({"title": title, "clean": session.report.clean, "where": browserkeeper.__file__}))
"""
IMPORTS = """
import importlib, json, pkgutil, sys
import browserkeeper
failed, number = {}, 0
for module in pkgutil.walk_packages(browserkeeper.__path__, "browserkeeper."):
    if module.name.endswith(".__main__") or "hook-" in module.name or ".rthooks" in module.name:
        continue  # the first runs the command; the others are scripts of PyInstaller
    number += 1
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        failed[module.name] = error.name
print(json.dumps([number, failed]))
"""


def run(*words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Without what leads back to the repository or to the environment of this run."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The standard output of what must have succeeded."""
    output = done.stdout + done.stderr
    if done.returncode and REGISTRY_GONE.search(output):
        pytest.skip(f"no package registry can be reached: {output.strip().splitlines()[-1]}")
    assert done.returncode == 0, output
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("dist")
    said(run(sys.executable, "-m", "build", "--outdir", directory, ROOT, cwd=directory))
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    return next(built.glob("*.tar.gz"))


def installed(distribution: Path, directory: Path) -> Path:
    """The Python of a new virtual environment that has the distribution and its requirements only."""
    said(run(sys.executable, "-m", "venv", directory, cwd=directory.parent))
    python = directory / "bin" / "python"
    said(run(python, "-m", "pip", "install", "-q", *TRIES, distribution, cwd=directory.parent))
    return python


@pytest.fixture(scope="module")
def by_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(wheel, tmp_path_factory.mktemp("wheel") / "venv")


@pytest.fixture(scope="module")
def by_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(sdist, tmp_path_factory.mktemp("sdist") / "venv")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.EmailMessage:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name), policy=email.policy.default)


def test_the_wheel_has_each_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {name for name in SOURCES if "__pycache__" not in name}
    assert names == expected
    assert {
        "browserkeeper/py.typed",
        "browserkeeper/guard/guard.py",
        "browserkeeper/guard/boot.py",
    } <= names


def test_the_checkers_of_wheels_and_of_metadata_find_nothing(wheel: Path, sdist: Path) -> None:
    """``twine check`` renders the README as an index does."""
    said(run(sys.executable, "-m", "check_wheel_contents", wheel, cwd=ROOT))  # its settings are there
    said(run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=wheel.parent))


def test_the_metadata_have_the_readme_without_links_that_lead_nowhere(
    metadata: email.message.EmailMessage,
) -> None:
    link = re.compile(r"\[([^\]]+)\]\(((?!https://)[^)\s]+)\)")
    text = metadata.get_payload()
    assert isinstance(text, str)
    relative = link.findall((ROOT / "README.md").read_text())
    assert relative
    assert not link.findall(text)
    assert all(words in text for words, _ in relative)
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_extra_all_is_every_extra_that_users_install(metadata: email.message.EmailMessage) -> None:
    required: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist") or ():
        if found := re.search(r"^(.*); extra == ['\"]([\w-]+)['\"]$", line):
            required.setdefault(found[2], set()).add(found[1])
    others = {extra: lines for extra, lines in required.items() if extra not in ("all", "dev")}
    assert set(others) == set(metadata.get_all("Provides-Extra") or ()) - {"all", "dev"}
    assert required["all"] == set().union(*others.values())
    assert required["all"] < required["dev"]


@pytest.mark.chrome
@pytest.mark.parametrize("environment", ["by_wheel", "by_sdist"])
def test_a_bare_environment_runs_a_session(
    environment: str, request: pytest.FixtureRequest, site: Site, tmp_path: Path
) -> None:
    """Installed without extras: a session that ends clean, every module, and the command."""
    python: Path = request.getfixturevalue(environment)
    result = json.loads(said(run(python, "-c", SESSION, site.url, cwd=tmp_path)))
    assert result["clean"] is True
    assert result["title"]
    assert Path(result["where"]).is_relative_to(python.parent.parent)
    help_text = said(run(python.with_name("browserkeeper"), "--help", cwd=tmp_path))
    assert "doctor" in help_text
    number, failed = json.loads(said(run(python, "-c", IMPORTS, cwd=tmp_path)))
    assert number > 200
    extras = {
        "celery",
        "kombu",
        "billiard",
        "redis",
        "docker",
        "prometheus_client",
        "opentelemetry",
        "aiohttp",
    }
    assert set(failed.values()) <= {*extras, "jinja2", "pytest", "PyInstaller"}, failed


def test_the_entry_points_are_those_of_the_project(by_wheel: Path, tmp_path: Path) -> None:
    program = """
import importlib.metadata, json
found = importlib.metadata.distribution("browserkeeper").entry_points
print(json.dumps([[point.group, point.name, point.value] for point in found]))
"""
    found = {tuple(point) for point in json.loads(said(run(by_wheel, "-c", program, cwd=tmp_path)))}
    assert found == {
        ("console_scripts", "browserkeeper", "browserkeeper.cli:main"),
        ("celery.commands", "browserkeeper", "browserkeeper.celery.commands:group"),
        ("pytest11", "browserkeeper", "browserkeeper.pytest_plugin"),
        ("pyinstaller40", "hook-dirs", "browserkeeper.frozen.pyinstaller:get_hook_dirs"),
    }


@pytest.mark.chrome
def test_the_sdist_has_what_its_own_targets_run(sdist: Path, by_sdist: Path, tmp_path: Path) -> None:
    """The example of ``make demo``, run from the unpacked source; and no file of a run or of git."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    for name in ("Makefile", "noxfile.py", "scripts/venv.sh", "scripts/world.py", "tests/conftest.py"):
        assert (source / name).is_file(), name
    for name in (".git", ".tools", ".venv", ".nox", "dist", "test-results"):
        assert not (source / name).exists(), name
    done = said(run(by_sdist, "-m", "examples.scrape", "--pages", "2", cwd=source))
    assert "ECHILD" in done
