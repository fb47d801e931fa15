"""The structure of the package: layers, no circles of imports, light imports, public names."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import browserkeeper

PACKAGE = Path(browserkeeper.__file__).parent
LAYERS = [
    {"guard", "_version"},
    {"report"},
    {"errors"},
    {"wire"},
    {"frozen"},
    {"selenium_internals"},
    {"process"},
    {"grid"},
    {"options"},
    {"config"},
    {"proxy"},
    {"state"},
    {"admission"},
    {"drivers"},
    {"cleanup"},
    {"session"},
    {"pool"},
    {"status"},
    {"html"},
    {"telemetry"},
    {"watch"},
    {"server"},
    {"cli", "celery", "pytest_plugin", "__init__"},
    {"__main__"},
]
"""From the bottom up.  A module may import from its own package and from lower layers, so the
entry points (``cli``, ``celery``, ``pytest_plugin``), which share a layer, do not import each other.
``watch`` is below them: it has no command line of its own, and only ``cli/watch.py`` starts it."""
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
ROOT_MODULES = {"__init__", "__main__", "_version", "config", "errors"}


def name_of(path: Path) -> str:
    """``cli.ps`` for ``cli/ps.py``, ``cli`` for ``cli/__init__.py``, "" for the root's ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {name_of(path): path for path in FILES}


def imports_of(name: str) -> set[str]:
    """The modules of this package that a module imports: at import time, in a function, or only for
    type checkers."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module.split(".") if node.module else [])])
        for alias in node.names:
            submodule = f"{target}.{alias.name}".lstrip(".")
            found.add(submodule if submodule in MODULES else target)
    return found - {name}


IMPORTS = {name: imports_of(name) for name in MODULES}


def part_of(name: str) -> str:
    """The package, or the module of the root, that a module belongs to."""
    return name.split(".")[0] or "__init__"


def reachable(start: str) -> set[str]:
    """Every module that ``start`` imports, directly or through others."""
    found: set[str] = set()
    waiting = list(IMPORTS[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(IMPORTS[name])
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_package_and_from_lower_layers(name: str) -> None:
    part = part_of(name)
    assert part in LEVEL, f"{part} has no place in LAYERS"
    for imported in IMPORTS[name]:
        other = part_of(imported)
        allowed = other == part or LEVEL[other] < LEVEL[part]
        assert allowed, f"{name} ({part}) imports {imported} ({other})"


def test_no_modules_import_each_other_in_a_circle() -> None:
    reached = {name: reachable(name) for name in MODULES}
    circles = {(a, b) for a in MODULES for b in MODULES if a < b and b in reached[a] and a in reached[b]}
    assert not circles


def test_the_root_holds_only_what_belongs_to_no_layer() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_MODULES


def test_modules_of_the_package_import_each_other_by_relative_names() -> None:
    """The other tests see relative imports only.  PyInstaller executes its hooks as scripts."""
    for path in FILES:
        if path.parent.name == "rthooks":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "browserkeeper", path
            elif isinstance(node, ast.Import):
                assert "browserkeeper" not in {alias.name.split(".")[0] for alias in node.names}, path


def test_the_guard_loads_the_c_half_of_the_standard_library_only() -> None:
    """Nothing but C modules, beyond what an interpreter loads that does nothing but import ``os``."""
    script = f"""
import os, sys
before = set(sys.modules)
sys.path.append({str(PACKAGE)!r})
from guard import boot
from guard.containment import _prctl
_prctl(0, 0)
print(*set(sys.modules) - before)"""
    loaded = subprocess.check_output([sys.executable, "-I", "-S", "-c", script], text=True).split()
    foreign = {name for name in loaded if name.partition(".")[0] != "guard"}
    assert foreign == {"__future__", "_ctypes", "errno", "fcntl", "select"}


MAY_IMPORT_THE_GUARD = {
    "process.portable_guard",
    "process.two_scans",
    "cleanup.adopting_guard",
    "cli.run",
    "frozen",
    "",
}
"""Modules that put a guard together, and those that become one."""
FOR_ALL = (
    *("bells", "descriptors", "displays", "downloads", "end_request", "files", "procfs", "trees"),
    *("isolation", "options"),
)


@pytest.mark.parametrize("name", MODULES)
def test_other_packages_import_only_the_readers_and_file_functions_of_the_guard(name: str) -> None:
    if name not in MAY_IMPORT_THE_GUARD and part_of(name) != "guard":
        borrowed = {imported for imported in IMPORTS[name] if part_of(imported) == "guard"}
        assert borrowed <= {f"guard.{name}" for name in FOR_ALL}


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = modules_after("import browserkeeper") - modules_after("pass")
    heavy = {"selenium", "psutil", "tenacity", "click", "rich", "json", "celery", "prometheus_client"}
    heavy |= {"docker", "jinja2", "opentelemetry", "typing"}
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


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_docstring(name: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py" and p.parent != PACKAGE])
def test_a_package_says_what_may_live_in_it(path: Path) -> None:
    """A title alone does not."""
    assert len((ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()) > 2


def test_nothing_kills_by_name() -> None:
    words = ("pk" + "ill", "kill" + "all")
    root = PACKAGE.parent
    for folder in ("browserkeeper", "tests", "fixtures", "examples", "benchmarks", "scripts"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".sh") and path.is_file():
                assert not any(word in path.read_text() for word in words), path


@pytest.mark.slow
def test_type_checkers_infer_the_public_types(tmp_path: Path) -> None:
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
