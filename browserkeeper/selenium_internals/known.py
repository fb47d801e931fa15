"""The versions of Selenium that were run, and the private names that each version must have."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from typing import Any, NamedTuple

from ..errors import SeleniumVersionError

FIRST, LAST = "4.40.0", "4.52.0"
"""The oldest and the newest version on which the tests marked ``compat`` were run
(docs/reference/versions.md).  A newer one is used as well, if it has all names."""

logger = logging.getLogger("browserkeeper")


class Name(NamedTuple):
    """One name that must exist.

    ``module`` and ``owner``: the class that has it.  ``kind``: "class" for an attribute of the class,
    "set" for one that its ``__init__`` sets.
    """

    module: str
    owner: str
    name: str
    kind: str = "class"

    def __str__(self) -> str:
        return f"{self.owner}.{self.name} of {self.module}"


REMOTE = "selenium.webdriver.remote"
NAMES = (
    Name("selenium.webdriver.common.webdriver", "LocalWebDriver", "__init__"),
    Name(f"{REMOTE}.webdriver", "WebDriver", "_start_bidi"),
    Name(f"{REMOTE}.webdriver", "WebDriver", "_get_cdp_details"),
    Name(f"{REMOTE}.webdriver", "WebDriver", "_websocket_connection", "set"),
    Name(f"{REMOTE}.webdriver", "WebDriver", "_is_remote", "set"),
    Name(f"{REMOTE}.remote_connection", "RemoteConnection", "_request"),
    Name(f"{REMOTE}.remote_connection", "RemoteConnection", "_get_connection_manager"),
    Name("selenium.webdriver.common.service", "Service", "_terminate_process"),
    Name("selenium.webdriver.common.options", "ArgOptions", "_arguments", "set"),
    Name("selenium.webdriver.chromium.options", "ChromiumOptions", "_extension_files", "set"),
    Name("selenium.webdriver.chromium.options", "ChromiumOptions", "_extensions", "set"),
    Name("selenium.webdriver.firefox.firefox_profile", "FirefoxProfile", "_desired_preferences", "set"),
    Name("selenium.webdriver.common.selenium_manager", "SeleniumManager", "_get_binary"),
)
"""What :mod:`.private` uses in every version."""

OPTIONAL = (
    Name(f"{REMOTE}.webdriver", "WebDriver", "_request", "set"),
    Name("selenium.webdriver.common.api_request_context", "_BaseRequestContext", "_pool", "set"),
    Name(f"{REMOTE}.websocket_connection", "_BiDiEncoder", "default"),
)
"""What :mod:`.private` uses where it exists: older versions have no ``driver.request``, and BiDi
parameters that are plain JSON."""


def installed() -> str:
    """The version of Selenium that is imported here.  Raises ImportError without one."""
    return str(importlib.import_module("selenium").__version__)


def numbers(version: str) -> tuple[int, ...]:
    """``(4, 40, 0)`` for "4.40.0"; what follows the numbers ("4.41.0rc1") is left out."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def missing(names: tuple[Name, ...] = NAMES) -> tuple[str, ...]:
    """Those of ``names`` that the installed Selenium does not have, as text."""
    return tuple(str(name) for name in names if not _exists(name))


def _exists(name: Name) -> bool:
    try:
        owner: Any = getattr(importlib.import_module(name.module), name.owner)
    except (ImportError, AttributeError):
        return False
    if name.kind == "class":
        return hasattr(owner, name.name)
    # An attribute that the constructor sets is among the names that its code uses.
    code = getattr(inspect.unwrap(owner.__init__), "__code__", None)
    # A compiled constructor has no names to look at.
    return code is None or name.name in code.co_names


def require() -> None:
    """Raises SeleniumVersionError for a Selenium that is too old, or that has not all of NAMES."""
    version = installed()
    if numbers(version) < numbers(FIRST):
        raise SeleniumVersionError(
            f"selenium {version} is too old: browserkeeper needs {FIRST} or newer. Install one: "
            f"pip install 'selenium>={_short(FIRST)},<5'.",
            version,
            known=(FIRST, LAST),
        )
    if lacking := missing():
        raise SeleniumVersionError(
            f"selenium {version} lacks what browserkeeper uses: {'; '.join(lacking)}. The versions from "
            f"{FIRST} to {LAST} have it. Install one of them: "
            f"pip install 'selenium>={_short(FIRST)},<={LAST}'.",
            version,
            lacking,
            (FIRST, LAST),
        )
    if is_untested(version):
        logger.debug("selenium %s is newer than the newest that was run, %s", version, LAST)


def is_untested(version: str) -> bool:
    """True for a version above LAST."""
    return numbers(version) > numbers(LAST)


def _short(version: str) -> str:
    return version.removesuffix(".0")


__all__ = [
    "FIRST",
    "LAST",
    "NAMES",
    "OPTIONAL",
    "Name",
    "installed",
    "is_untested",
    "missing",
    "require",
]
