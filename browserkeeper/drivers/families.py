"""The supported browsers: their names, and where they and their drivers are usually installed."""

from __future__ import annotations

import dataclasses
import sys
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Family:
    """One browser, by the ``name`` that ``browser(name)`` takes.

    ``programs`` are names to look for on PATH, ``places`` are full paths to look at after that.
    ``environment`` names the variables that may hold the browser's path, ``driver_environment`` those
    that may hold the driver's, or its directory (GitHub's runners set ``CHROMEWEBDRIVER`` to one).
    ``driver`` is the driver's program, ``manager_name`` the browser's name for Selenium Manager.
    ``where_browser`` and ``where_driver`` say where the two can be had, for error messages.
    """

    name: str
    engine: Literal["chromium", "firefox"]
    programs: tuple[str, ...]
    places: tuple[str, ...]
    environment: tuple[str, ...]
    driver: str
    driver_environment: tuple[str, ...]
    manager_name: str
    where_browser: str
    where_driver: str


_CHROME = ("google-chrome", "google-chrome-stable", "chrome")
_CHROMIUM = ("chromium", "chromium-browser")
_CHROMEDRIVER = ("BROWSERKEEPER_CHROMEDRIVER", "SE_CHROMEDRIVER", "CHROMEWEBDRIVER")
_SE_PATH = "SE_BROWSER_PATH"
"""Selenium's variable for any browser."""
_WHERE_CHROMEDRIVER = (
    "Debian: apt install chromium chromium-driver, which fit each other; for Google Chrome: "
    "https://googlechromelabs.github.io/chrome-for-testing"
)
_MAC = "/Applications"

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "chrome",
            "chromium",
            (*_CHROME, *_CHROMIUM),
            (
                f"{_MAC}/Google Chrome.app/Contents/MacOS/Google Chrome",
                f"{_MAC}/Chromium.app/Contents/MacOS/Chromium",
                "/opt/google/chrome/chrome",
                "/usr/lib/chromium/chromium",
                "/snap/bin/chromium",
            ),
            ("BROWSERKEEPER_CHROME", "SE_CHROME", _SE_PATH, "CHROME_BIN", "CHROME_PATH"),
            "chromedriver",
            _CHROMEDRIVER,
            "chrome",
            "Debian: apt install chromium chromium-driver",
            _WHERE_CHROMEDRIVER,
        ),
        Family(
            "chromium",
            "chromium",
            (*_CHROMIUM, *_CHROME),
            (
                f"{_MAC}/Chromium.app/Contents/MacOS/Chromium",
                "/usr/lib/chromium/chromium",
                "/snap/bin/chromium",
            ),
            ("BROWSERKEEPER_CHROMIUM", _SE_PATH, "CHROMIUM_BIN", "CHROME_BIN"),
            "chromedriver",
            _CHROMEDRIVER,
            "chrome",
            "Debian: apt install chromium chromium-driver",
            _WHERE_CHROMEDRIVER,
        ),
        Family(
            "chromium-headless-shell",
            "chromium",
            ("chromium-headless-shell", "chrome-headless-shell", "headless_shell"),
            ("/usr/lib/chromium/chromium-headless-shell",),
            ("BROWSERKEEPER_CHROMIUM_HEADLESS_SHELL", _SE_PATH),
            "chromedriver",
            _CHROMEDRIVER,
            "chrome",
            "Debian: apt install chromium-headless-shell chromium-driver",
            _WHERE_CHROMEDRIVER,
        ),
        Family(
            "edge",
            "chromium",
            ("microsoft-edge", "microsoft-edge-stable", "msedge"),
            (f"{_MAC}/Microsoft Edge.app/Contents/MacOS/Microsoft Edge", "/opt/microsoft/msedge/msedge"),
            ("BROWSERKEEPER_EDGE", _SE_PATH, "EDGE_BIN"),
            "msedgedriver",
            ("BROWSERKEEPER_EDGEDRIVER", "SE_EDGEDRIVER", "EDGEWEBDRIVER"),
            "edge",
            "the package microsoft-edge-stable of Microsoft's repository",
            "https://developer.microsoft.com/microsoft-edge/tools/webdriver",
        ),
        Family(
            "firefox",
            "firefox",
            ("firefox", "firefox-esr"),
            (
                f"{_MAC}/Firefox.app/Contents/MacOS/firefox",
                "/usr/lib/firefox-esr/firefox-esr",
                "/usr/lib/firefox/firefox",
                "/opt/firefox/firefox",
            ),
            ("BROWSERKEEPER_FIREFOX", "SE_FIREFOX", _SE_PATH, "FIREFOX_BIN"),
            "geckodriver",
            ("BROWSERKEEPER_GECKODRIVER", "SE_GECKODRIVER", "GECKOWEBDRIVER"),
            "firefox",
            "Debian: apt install firefox-esr",
            "Debian has no package of it: `cargo install geckodriver`, or a release from "
            "https://github.com/mozilla/geckodriver/releases",
        ),
    )
}

DRIVER_PLACES = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/lib/chromium",
    "/usr/lib/chromium-browser",
    "/snap/bin",
    "~/.cargo/bin",
    "~/.local/bin",
    "/opt/homebrew/bin",
)

EXECUTABLE_SUFFIX = ".exe" if sys.platform == "win32" else ""
