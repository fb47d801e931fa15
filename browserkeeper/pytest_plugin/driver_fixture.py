"""The fixture ``driver``: a module of its own, registered only where no other plugin has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium import webdriver

NEIGHBOURS = {
    "pytest_selenium.pytest_selenium": "pytest-selenium",
    "seleniumbase.plugins.pytest_plugin": "SeleniumBase",
}
"""Plugins whose users mean theirs when they say ``driver``, and what they are called."""


@pytest.fixture
def driver(keeper_driver: webdriver.Remote) -> webdriver.Remote:
    """``keeper_driver`` under its short name."""
    return keeper_driver


def owner_of_the_name(config: pytest.Config) -> str:
    """Who else has a fixture ``driver`` among the installed plugins, "" where nobody."""
    for name, plugin in config.pluginmanager.list_name_plugin():
        module = getattr(plugin, "__name__", "") if plugin is not None else ""
        known = NEIGHBOURS.get(module)
        if known:
            return known
        if module and not _is_conftest(plugin) and _is_fixture(getattr(plugin, "driver", None)):
            return f"the plugin {name}"
    return ""


def _is_conftest(plugin: object) -> bool:
    """A conftest overrides a plugin's fixture anyway."""
    return str(getattr(plugin, "__file__", "")).endswith("conftest.py")


def _is_fixture(thing: object) -> bool:
    """As pytest marks them: by a class of its own since 8.4, by an attribute before."""
    return type(thing).__name__ == "FixtureFunctionDefinition" or hasattr(
        thing, "_pytestfixturefunction"
    )
