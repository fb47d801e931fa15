"""What error messages tell a user to do: it exists, and it helps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from browserkeeper import BrowserPool, browser
from browserkeeper.cli import SUMMARIES, group

ROOT = Path(__file__).resolve().parent.parent.parent
DEBIAN = {"chromium", "chromium-driver", "chromium-headless-shell", "firefox-esr", "util-linux", "xvfb"}
"""Packages of Debian 12, by `apt-cache policy`.  It has neither geckodriver nor Edge."""


def said(pattern: str) -> Iterator[tuple[str, ...]]:
    """What a pattern matches in the package's source, where strings may go on in the next line."""
    for path in (ROOT / "browserkeeper").rglob("*.py"):
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text())
        yield from ((match.group(0), *match.groups()) for match in re.finditer(pattern, text))


def test_packages_to_install_exist() -> None:
    named = {
        word for _, words in said(r"apt install ((?:[a-z][a-z0-9-]+ ?)+)") for word in words.split()
    }
    assert named
    assert named <= DEBIAN
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE))
    assert {extra for _, extra in said(r"browserkeeper\[(\w+)\]")} <= extras


def test_commands_and_options_to_use_exist() -> None:
    for text, command, option in set(said(r"`browserkeeper ([a-z]+)(?: (--[a-z-]+))?")):
        shown = CliRunner().invoke(group, [command, "--help"])
        assert shown.exit_code == 0, text
        assert not option or option in shown.output, text


def _command(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


def test_environment_variables_to_set_are_read() -> None:
    """Each is named once more than in the messages: where it is read, or in a family's list."""
    names = {name for name, _ in said(r"\bBROWSERKEEPER_[A-Z_]+()")}
    assert "BROWSERKEEPER_TMPDIR" in names
    of_options = {
        option.envvar
        for command in SUMMARIES
        for option in _command(command).params
        if isinstance(option, click.Option)
    }
    assert "BROWSERKEEPER_WATCH_LISTEN" in of_options
    for name in names - of_options:
        assert list(said(rf'"{name}"()')) or list(said(rf"\b{name}=|\${name}\b()")), name


@pytest.mark.parametrize("make", [browser, BrowserPool])
def test_a_drivers_attribute_of_what_has_the_driver_says_how_it_is_got(make: type) -> None:
    owner = make("chrome")
    for name in ("get", "find_element", "title", "current_url", "quit"):
        with pytest.raises(AttributeError) as caught:
            getattr(owner, name)
        assert f"no attribute {name!r}. If it is the driver's: use `with " in str(caught.value)
        assert f"driver.{name}." in str(caught.value)
        assert caught.value.name == name
        assert not hasattr(owner, name)
    with pytest.raises(AttributeError, match=r"no attribute '_ipython_display_'$"):
        getattr(owner, "_ipython_display_")  # noqa: B009
    assert not hasattr(type(owner), "get")
    unmade = object.__new__(type(owner))  # as copy and pickle make one, without its attributes
    assert not hasattr(unmade, "__deepcopy__")
    assert not hasattr(unmade, "_control")


def test_a_property_that_fails_says_what_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    session = browser()
    monkeypatch.setattr(session._control, "config", None)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'name'"):
        session.name  # noqa: B018


@pytest.mark.chrome
def test_a_started_session_and_a_lease_name_their_driver() -> None:
    session: Any = browser()
    with (
        session,
        pytest.raises(AttributeError, match=r"driver is `session\.driver`: session\.driver\.get"),
    ):
        session.get("data:,")
    lease: Any
    with (
        BrowserPool(max_size=1) as pool,
        pool.lease() as lease,
        pytest.raises(AttributeError, match=r"and then lease\.driver\.get"),
    ):
        lease.get("data:,")
