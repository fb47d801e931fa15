"""The fixture ``driver``, in a module of its own: it is registered only if no other plugin has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium import webdriver

OTHER_PLUGINS = {
    "pytest_selenium.pytest_selenium": "pytest-selenium",
    "seleniumbase.plugins.pytest_plugin": "SeleniumBase",
}
"""Plugins with a fixture ``driver`` of their own: their modules and their names."""


@pytest.fixture
def driver(keeper_driver: webdriver.Remote) -> webdriver.Remote:
    """The same as ``keeper_driver``."""
    return keeper_driver


def other_owner(config: pytest.Config) -> str:
    """The installed plugin that has a fixture ``driver`` of its own, "" if there is none."""
    for name, plugin in config.pluginmanager.list_name_plugin():
        module = getattr(plugin, "__name__", "") if plugin is not None else ""
        known = OTHER_PLUGINS.get(module)
        if known:
            return known
        if module and not _is_conftest(plugin) and _is_fixture(getattr(plugin, "driver", None)):
            return f"the plugin {name}"
    return ""


def _is_conftest(plugin: object) -> bool:
    """A conftest's fixture overrides a plugin's in any case."""
    return str(getattr(plugin, "__file__", "")).endswith("conftest.py")


def _is_fixture(thing: object) -> bool:
    """pytest marks fixtures by a class of its own since 8.4, by an attribute before."""
    return type(thing).__name__ == "FixtureFunctionDefinition" or hasattr(
        thing, "_pytestfixturefunction"
    )
