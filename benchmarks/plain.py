"""The rival: plain Selenium as its documentation shows it.  Driver and browser are named, so that
Selenium Manager is not run."""

from __future__ import annotations

import os
import shutil

from selenium import webdriver


def which(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    assert found, f"none of {names} is installed"
    return found


def chrome() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = which("chromium", "google-chrome")
    options.add_argument("--headless=new")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    return webdriver.Chrome(options, webdriver.ChromeService(which("chromedriver")))


def firefox() -> webdriver.Firefox:
    options = webdriver.FirefoxOptions()
    options.binary_location = which("firefox", "firefox-esr")
    options.add_argument("-headless")
    return webdriver.Firefox(options, webdriver.FirefoxService(which("geckodriver")))


START = {"chrome": chrome, "firefox": firefox}
