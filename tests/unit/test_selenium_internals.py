"""The private names of Selenium: the check that they exist, and that one module alone uses them."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import selenium
from selenium.webdriver.chromium.options import ChromiumOptions
from selenium.webdriver.firefox.firefox_profile import FirefoxProfile
from selenium.webdriver.remote.remote_connection import RemoteConnection
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.websocket_connection import WebSocketConnection

import browserkeeper
from browserkeeper import SeleniumVersionError
from browserkeeper.drivers.websockets import DirectWebSocketConnection
from browserkeeper.selenium_internals import known, private
from browserkeeper.status import doctor
from tests.support.owners import output_of

pytestmark = pytest.mark.compat

PACKAGE = Path(browserkeeper.__file__).parent
PRIVATE = PACKAGE / "selenium_internals" / "private.py"
TABLE = PACKAGE / "selenium_internals" / "known.py"


# ------------------------------------------------------------------------------ the check


def test_this_selenium_has_all_names() -> None:
    assert known.missing() == ()
    known.require()


@pytest.mark.parametrize(
    ("owner", "name"), [(WebDriver, "_start_bidi"), (RemoteConnection, "_get_connection_manager")]
)
def test_a_missing_method_is_an_error_that_names_it(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(SeleniumVersionError) as caught:
        known.require()
    text, installed = str(caught.value), known.installed()
    assert caught.value.missing == (f"{owner.__name__}.{name} of {owner.__module__}",)
    assert (caught.value.installed, caught.value.known) == (installed, (known.FIRST, known.LAST))
    for words in (caught.value.missing[0], f"selenium {installed} lacks", "pip install", known.LAST):
        assert words in text


def test_a_missing_attribute_of_an_object_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ChromiumOptions, "__init__", lambda self: None)
    with pytest.raises(SeleniumVersionError, match=r"ChromiumOptions\._extension_files of selenium"):
        known.require()


def test_a_module_that_has_gone_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = known.Name("selenium.webdriver.nowhere", "Driver", "_x")
    monkeypatch.setattr(known.missing, "__defaults__", ((moved,),))
    with pytest.raises(SeleniumVersionError, match=r"Driver\._x of selenium\.webdriver\.nowhere"):
        known.require()


def test_a_version_below_the_floor_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selenium, "__version__", "4.39.0")
    with pytest.raises(SeleniumVersionError, match=r"selenium 4\.39\.0 is too old.*4\.40\.0") as caught:
        known.require()
    assert (caught.value.installed, caught.value.missing) == ("4.39.0", ())


def test_the_first_use_of_selenium_raises_the_error_and_the_import_of_the_package_does_not() -> None:
    script = """
        import selenium
        selenium.__version__ = "4.39.0"
        import browserkeeper
        try:
            with browserkeeper.browser("chrome", offline=True):
                print("a browser")
        except browserkeeper.SeleniumVersionError as error:
            print(error)
        """
    assert "selenium 4.39.0 is too old" in output_of(textwrap.dedent(script))


def test_a_newer_version_with_all_names_is_used_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selenium, "__version__", "4.999.0")
    with caplog.at_level(logging.DEBUG, "browserkeeper"):
        known.require()
    assert [(r.levelname, "4.999.0" in r.getMessage()) for r in caplog.records] == [("DEBUG", True)]
    check = doctor.selenium()
    assert (check.status, "4.999.0" in check.what, known.LAST in check.what) == ("ok", True, True)


def test_doctor_shows_the_version_and_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check = doctor.selenium()
    assert (check.status, known.installed() in check.what) == ("ok", True)
    monkeypatch.delattr(WebDriver, "_start_bidi")
    check = doctor.selenium()
    assert (check.status, "_start_bidi" in check.what) == ("fail", True)
    assert "pip install" in check.remedy


@pytest.mark.parametrize(
    ("version", "expected"),
    [("4.40.0", (4, 40, 0)), ("4.52", (4, 52)), ("4.41.0rc1", (4, 41, 0)), ("nightly", ())],
)
def test_numbers_of_a_version(version: str, expected: tuple[int, ...]) -> None:
    assert known.numbers(version) == expected


def test_the_declared_range_is_the_one_that_was_run() -> None:
    project = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'"selenium>={known.FIRST.removesuffix(".0")},<5"' in project
    table = (PACKAGE.parent / "docs" / "reference" / "versions.md").read_text()
    assert f"| {known.FIRST} |" in table
    assert f"| {known.LAST} |" in table


# --------------------------------------------------------------------------------- the uses


def private_names(kind: type) -> set[str]:
    """The private names of Selenium's classes above ``kind``: those of the class, and those that the
    constructors use."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("selenium."):
            constructor: Any = vars(base).get("__init__")
            found |= set(vars(base)) | set(constructor.__code__.co_names if constructor else ())
    found.discard("_abc_impl")  # Python's own, of each abstract class
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def our_subclasses() -> Iterator[type]:
    """Each class of this package that is derived from one of Selenium's, but those of ``private.py``."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if "class " not in text or path == PRIVATE or "hook" in str(path) or path.stem == "__main__":
            continue
        if "selenium" not in text:
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if kind.__module__ == name and any(
                b.__module__.startswith("selenium.") for b in kind.__mro__
            ):
                yield kind


def test_no_other_class_of_ours_uses_or_replaces_a_private_name_of_seleniums() -> None:
    kinds = list(our_subclasses())
    assert len(kinds) > 15
    for kind in kinds:
        theirs = private_names(kind)
        assert not theirs & set(vars(kind)), kind
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not theirs & used, kind


def test_no_other_module_has_a_private_name_of_seleniums_in_quotes() -> None:
    """As ``getattr(options, "_arguments")``, which ruff's rule SLF001 does not see."""
    names = {name.name for name in (*known.NAMES, *known.OPTIONAL) if name.name.startswith("_")}
    names = {name for name in names if not name.startswith("__")}
    for path in PACKAGE.rglob("*.py"):
        if path not in (PRIVATE, TABLE):
            strings = {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant)
            }
            assert not names & {text for text in strings if isinstance(text, str)}, path


def test_the_rule_against_private_members_is_off_in_one_module_of_selenium_alone() -> None:
    lines = (PACKAGE.parent / "pyproject.toml").read_text().splitlines()
    off = [
        line.split('"')[1] for line in lines if line.startswith('"browserkeeper/') and "SLF001" in line
    ]
    assert off == ["browserkeeper/selenium_internals/private.py", "browserkeeper/grid/relay.py"]


def test_every_private_name_that_is_used_is_in_the_table() -> None:
    """Those that ``private.py`` has as attributes, methods or texts."""
    tree = ast.parse(PRIVATE.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    used = {name for name in used if name.startswith("_") and name.isidentifier() and name[1] != "_"}
    table = (*known.NAMES, *known.OPTIONAL)
    listed = {text for name in table for text in (name.owner, name.name) if re.match("_[^_]", text)}
    assert used <= listed
    assert listed - used == {"_BaseRequestContext"}, "a row that nothing uses"


def test_our_bidi_connection_has_all_public_methods_of_seleniums() -> None:
    theirs = {name for name in vars(WebSocketConnection) if not name.startswith("_")}
    assert theirs <= set(dir(DirectWebSocketConnection))


def test_what_a_profile_has_beyond_seleniums_defaults_is_found() -> None:
    profile = FirefoxProfile()  # type: ignore[no-untyped-call]
    assert private.profile_preferences(profile) == dict(private.profile_defaults(profile))
    profile.set_preference("a.b", 1)  # type: ignore[no-untyped-call]
    found = private.profile_preferences(profile).items() - private.profile_defaults(profile).items()
    assert found == {("a.b", 1)}
    Path(profile.path).rmdir()
