"""The shape of the house: floors import downwards only, the core is light, the names resolve."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import browserkeeper

PACKAGE = Path(browserkeeper.__file__).parent
FLOORS = [
    {"guard", "_version"},
    {"report"},
    {"errors"},
    {"process"},
    {"grid"},
    {"config"},
    {"state"},
    {"drivers"},
    {"cleanup"},
    {"session"},
    {"pool"},
    {"status"},
    {"telemetry"},
    {"watch"},
    {"cli", "celery", "pytest_plugin", "__init__"},
    {"__main__"},
]
"""From the ground up; a module may import from its own package and from lower floors."""
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(path: Path) -> set[str]:
    """Parts of the package that a file imports: when it runs, lazily, or for its types only."""
    tree = ast.parse(path.read_text())
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if node.level < depth:
            continue  # within its own package
        names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
        found |= set(names)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_floors_import_downwards_only(path: Path) -> None:
    part = part_of(path)
    assert part in LEVEL, f"{part} is on no floor yet"
    for imported in imports_of(path) - {part}:
        if imported in LEVEL:
            below = LEVEL[imported] < LEVEL[part]
            assert below, f"{path.name} ({part}) imports {imported}"


def test_the_guard_imports_the_standard_librarys_c_half_only() -> None:
    imported = {
        alias.name
        for path in (PACKAGE / "guard").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"ctypes", "fcntl", "os", "select", "sys", "time"}


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = modules_after("import browserkeeper")
    heavy = {"selenium", "psutil", "tenacity", "click", "rich", "json", "celery", "prometheus_client"}
    heavy |= {"docker", "opentelemetry"}
    assert not heavy & loaded


def test_the_command_line_imports_no_selenium() -> None:
    assert "selenium" not in modules_after("import browserkeeper.cli")


@pytest.mark.parametrize("name", browserkeeper.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(browserkeeper, name) is not None
    assert getattr(browserkeeper, name).__doc__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'brwoser'"):
        _ = browserkeeper.brwoser


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_every_module_says_what_may_live_there(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_nothing_kills_by_name() -> None:
    words = ("pk" + "ill", "kill" + "all")
    root = PACKAGE.parent
    for folder in ("browserkeeper", "tests", "fixtures", "examples", "benchmarks", "scripts"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".sh") and path.is_file():
                assert not any(word in path.read_text() for word in words), path


def test_type_checkers_know_what_comes_out(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        """
from typing_extensions import assert_type
from selenium import webdriver
from browserkeeper import BrowserSession, ExitReport, browser

assert_type(browser(), BrowserSession[webdriver.Chrome])
assert_type(browser("chromium"), BrowserSession[webdriver.Chrome])
assert_type(browser("firefox", timeout=60), BrowserSession[webdriver.Firefox])
assert_type(browser("edge"), BrowserSession[webdriver.Edge])
with browser("firefox") as driver:
    assert_type(driver, webdriver.Firefox)
assert_type(browser().close(), ExitReport)
browser(timeout="60")  # type: ignore[call-overload]
browser(tiemout=60)  # type: ignore[call-overload]

@browser("firefox")
def title(driver: webdriver.Firefox, url: str) -> str:
    return driver.title

assert_type(title("x"), str)
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, str(snippet)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
